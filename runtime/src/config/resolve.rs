//! The layers put together: each setting's value in its one form, and where it came from.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::{Num, Value};
use figment::{Figment, Profile};
use serde_json::Value as Json;

use super::InForce;
use super::error::ConfigError;
use super::secret::{Secret, read_secret_file};
use super::settings::{Kind, SETTINGS, Setting, SettingDefault};
use super::sources::Sources;
use super::units::parse_size;
use crate::model::{KeepFor, parse_time};

const DEFAULT: &str = "default";

/// Values by `section.key`. What is in here has been checked, so reading it cannot fail.
pub(super) struct Resolved {
    directory: PathBuf,
    values: HashMap<String, Held>,
}

struct Held {
    text: String,
    place: String,
}

impl Resolved {
    pub(super) fn read(sources: &Sources) -> Result<Resolved, ConfigError> {
        let figment = sources.layers()?.into_iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        let mut values = HashMap::new();
        for setting in SETTINGS {
            let name = setting.name();
            let held = match figment.find_value(&name) {
                Ok(value) => {
                    let place = figment
                        .get_metadata(value.tag())
                        .map(|metadata| metadata.interpolate(&Profile::Default, &[setting.section, setting.key]))
                        .unwrap_or_default();
                    let checked = written(&value, setting).and_then(|text| setting.kind.check(&text));
                    match checked {
                        Ok(text) => Held { text, place },
                        Err(reason) => return Err(ConfigError::BadValue { key: name, place, reason }),
                    }
                }
                Err(_) => match setting.default {
                    SettingDefault::Value(text) => Held { text: text.to_owned(), place: DEFAULT.to_owned() },
                    SettingDefault::Machine { says, value } => Held { text: value(), place: format!("{DEFAULT}: {says}") },
                    SettingDefault::Unset | SettingDefault::Derived(_) => continue,
                },
            };
            values.insert(name, held);
        }
        Ok(Resolved { directory: sources.directory.clone(), values })
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        debug_assert!(Setting::find(name).is_some(), "{name} is no setting");
        self.values.get(name).map(|held| held.text.clone())
    }

    pub(super) fn required(&self, name: &str) -> String {
        self.text(name).expect("it has a default")
    }

    pub(super) fn count<T: TryFrom<u64>>(&self, name: &str) -> T {
        let count: u64 = self.required(name).parse().expect("it was checked");
        T::try_from(count).ok().expect("its bounds fit the type")
    }

    pub(super) fn time(&self, name: &str) -> Duration {
        parse_time(&self.required(name)).expect("it was checked")
    }

    pub(super) fn keep(&self, name: &str) -> KeepFor {
        self.required(name).parse().expect("it was checked")
    }

    pub(super) fn size<T: TryFrom<u64>>(&self, name: &str) -> T {
        let bytes = parse_size(&self.required(name)).expect("it was checked");
        T::try_from(bytes).ok().expect("its bounds fit the type")
    }

    /// What apps have that were given nothing is no more than what one may be given: our own default follows the maximum, and what somebody said is refused.
    pub(super) fn check_maxima(&mut self) -> Result<(), ConfigError> {
        for setting in SETTINGS.iter().filter(|setting| setting.section == "limits") {
            let most = format!("maximum.{}", setting.key);
            let Some(kind) = Setting::find(&most).map(|setting| setting.kind) else { continue };
            let (given, allowed) = (self.amount(&setting.name(), kind), self.amount(&most, kind));
            if given > allowed {
                let place = self.values[&setting.name()].place.clone();
                if place == DEFAULT {
                    self.values.insert(setting.name(), Held { text: self.required(&most), place: format!("{DEFAULT}: {most}") });
                    continue;
                }
                let reason = format!("it should be no more than {most}, which is {}", self.required(&most));
                return Err(ConfigError::BadValue { key: setting.name(), place, reason });
            }
        }
        Ok(())
    }

    fn amount(&self, name: &str, kind: Kind) -> u128 {
        match kind {
            Kind::Time(..) => self.time(name).as_millis(),
            Kind::Size(..) => u128::from(self.size::<u64>(name)),
            _ => u128::from(self.count::<u64>(name)),
        }
    }

    /// Sets what depends on other settings, unless it was given.
    pub(super) fn derive(&mut self, name: &str, text: String) {
        let says = match Setting::find(name).map(|setting| setting.default) {
            Some(SettingDefault::Derived(says)) => says,
            _ => "",
        };
        self.values.entry(name.to_owned()).or_insert_with(|| Held { text, place: format!("{DEFAULT}: {says}") });
    }

    /// A secret that is given as it is, or in a file.
    pub(super) fn secret(&mut self, section: &str, key: &str, file_key: &str) -> Result<Option<Secret>, ConfigError> {
        let (name, file_name) = (format!("{section}.{key}"), format!("{section}.{file_key}"));
        let given = self.values.get(&name);
        let Some(file) = self.values.get(&file_name) else {
            return Ok(given.map(|held| Secret::new(held.text.clone())));
        };
        if let Some(given) = given.filter(|given| given.place != DEFAULT) {
            let (place, other_place) = (given.place.clone(), file.place.clone());
            return Err(ConfigError::BothGiven { key: name, place, other: file_name, other_place });
        }
        let refuse = |key: String, reason: String| ConfigError::BadValue { key, place: file.place.clone(), reason };
        let secret = read_secret_file(&self.directory.join(&file.text)).map_err(|reason| refuse(file_name.clone(), reason))?;
        let kind = Setting::find(&name).expect("the callers name settings").kind;
        let text =
            kind.check(secret.expose()).map_err(|reason| refuse(file_name.clone(), format!("what {} holds is no {name}: {reason}", file.text)))?;
        let place = format!("the file named by {file_name}");
        self.values.insert(name, Held { text, place });
        Ok(Some(secret))
    }

    pub(super) fn into_in_force(mut self) -> Vec<InForce> {
        let show = |setting: &'static Setting| match self.values.remove(&setting.name()) {
            Some(Held { text, place }) => InForce { setting, shown: Some(shown(setting.kind, text)), place },
            None => InForce { setting, shown: None, place: "not set".to_owned() },
        };
        SETTINGS.iter().map(show).collect()
    }
}

/// A value of any layer as text. The environment and flags have nothing else.
fn written(value: &Value, setting: &Setting) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Char(_, letter) => Ok(letter.to_string()),
        Value::Bool(_, switch) if matches!(setting.kind, Kind::Switch) => Ok(switch.to_string()),
        Value::Num(_, number) if matches!(setting.kind, Kind::Count(..) | Kind::Size(..) | Kind::Time(..)) => match number {
            Num::F32(_) | Num::F64(_) => Err("it should be a whole number".to_owned()),
            number => Ok(number
                .to_i128()
                .map(|number| number.to_string())
                .or_else(|| number.to_u128().map(|number| number.to_string()))
                .unwrap_or_default()),
        },
        _ => Err(format!("it should be {}", setting.kind.says().replace('`', ""))),
    }
}

fn shown(kind: Kind, text: String) -> Json {
    match kind {
        Kind::Secret | Kind::Key => Json::from("***"),
        Kind::StoreUrl if text.starts_with("sqlite:") => Json::from(text),
        Kind::StoreUrl | Kind::RedisUrl => Json::from(Secret::new(text).as_shown_url()),
        Kind::Count(..) => text.parse::<u64>().map_or_else(|_| Json::from(text), Json::from),
        Kind::Switch => Json::from(text == "true"),
        _ => Json::from(text),
    }
}
