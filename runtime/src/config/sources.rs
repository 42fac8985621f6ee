//! Where settings come from: the file, the environment, the flags. Each becomes a layer of `section → key → value` that holds known keys only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::error::ConfigError;
use super::settings::{SETTINGS, Setting};

/// The file that is read when no other is named, and it exists.
pub const DEFAULT_FILE: &str = "rowmill.toml";
/// Names the file when no flag does.
const FILE_VARIABLE: &str = "ROWMILL_CONFIG";
const PREFIX: &str = "ROWMILL_";
/// Variables of ours that are no settings.
const OTHER_VARIABLES: &[&str] = &[FILE_VARIABLE, "ROWMILL_LOG", "ROWMILL_CACHE_DIR"];
/// Tests have their own.
const TEST_PREFIX: &str = "ROWMILL_TEST_";

/// What a configuration is made from.
#[derive(Clone, Default)]
pub struct Sources {
    /// Where `rowmill.toml` is looked for, and where relative names in `--config`, `ROWMILL_CONFIG` and `*_file` begin.
    pub directory: PathBuf,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// All variables; those that do not begin with `ROWMILL_` are not looked at, and empty ones count as not set.
    pub environment: Vec<(OsString, OsString)>,
    /// `--set`, each `section.key=value`. The last of a key holds.
    pub set: Vec<String>,
}

impl Sources {
    /// This process: its working directory and environment, and what the command line gave.
    pub fn of_process(file: Option<PathBuf>, set: Vec<String>) -> Sources {
        Sources { directory: PathBuf::new(), file, environment: std::env::vars_os().collect(), set }
    }

    /// The layers, weakest first.
    pub(super) fn layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let variables = self.variables()?;
        let mut layers = Vec::new();
        if let Some(path) = self.find_file(&variables) {
            layers.push(Layer::of_file(&self.directory, &path)?);
        }
        layers.push(Layer::of_variables(&variables)?);
        layers.push(Layer::of_flags(&self.set)?);
        Ok(layers)
    }

    /// Our variables that are set.
    fn variables(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let mut variables = Vec::new();
        for (name, value) in &self.environment {
            let name = name.to_string_lossy();
            if name.starts_with(PREFIX) && !value.is_empty() {
                let value = value.to_str().ok_or_else(|| ConfigError::NotUnicode(name.clone().into_owned()))?;
                variables.push((name.into_owned(), value.to_owned()));
            }
        }
        Ok(variables)
    }

    fn find_file(&self, variables: &[(String, String)]) -> Option<PathBuf> {
        let named = variables.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, path)| PathBuf::from(path));
        let default = || self.directory.join(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        self.file.clone().or(named).or_else(default)
    }
}

/// The settings of one source.
pub(super) struct Layer {
    /// Says where a key of this layer stands.
    place: Box<dyn Fn(&Setting) -> String + Send + Sync>,
    settings: Dict,
}

impl Layer {
    fn of_file(directory: &Path, path: &Path) -> Result<Layer, ConfigError> {
        let text = std::fs::read_to_string(directory.join(path)).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let data = Toml::string(&text)
            .data()
            .map_err(|error| ConfigError::NotToml { path: path.to_owned(), reason: without_excerpt(&error.to_string()) })?;
        let settings: Dict = data.into_values().flatten().collect();
        let shown = path.display().to_string();
        let place = |section: &str, key: Option<&str>| match line_of(&text, section, key) {
            Some(line) => format!("{shown}, line {line}"),
            None => shown.clone(),
        };
        for (section, keys) in &settings {
            let Value::Dict(_, keys) = keys else {
                let (key, place) = (section.clone(), place("", Some(section)));
                let is_section = SETTINGS.iter().any(|setting| setting.section == section);
                return Err(if is_section { ConfigError::NotASection { key, place } } else { unknown(&key, place) });
            };
            if keys.is_empty() && !SETTINGS.iter().any(|setting| setting.section == section) {
                return Err(unknown(section, place(section, None)));
            }
            for key in keys.keys() {
                let name = format!("{section}.{key}");
                if Setting::find(&name).is_none() {
                    return Err(unknown(&name, place(section, Some(key))));
                }
            }
        }
        let lines: Vec<_> = SETTINGS.iter().map(|setting| (setting.name(), place(setting.section, Some(setting.key)))).collect();
        let place = move |setting: &Setting| {
            let name = setting.name();
            lines.iter().find(|(other, _)| *other == name).map_or_else(|| shown.clone(), |(_, place)| place.clone())
        };
        Ok(Layer { place: Box::new(place), settings })
    }

    fn of_variables(variables: &[(String, String)]) -> Result<Layer, ConfigError> {
        let mut settings = Dict::new();
        for (name, value) in variables {
            if OTHER_VARIABLES.contains(&name.as_str()) || name.starts_with(TEST_PREFIX) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *name) else {
                let nearest = nearest(name, SETTINGS.iter().map(Setting::variable));
                return Err(ConfigError::UnknownKey { key: name.clone(), place: "environment".to_owned(), nearest });
            };
            insert(&mut settings, setting, value);
        }
        Ok(Layer { place: Box::new(|setting| format!("environment, {}", setting.variable())), settings })
    }

    fn of_flags(set: &[String]) -> Result<Layer, ConfigError> {
        let mut settings = Dict::new();
        for given in set {
            // What is no name is not repeated: it may be a part of a secret.
            let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
            let Some((name, value)) = given.split_once('=').map(|(name, value)| (name.trim(), value)).filter(|(name, _)| is_name(name)) else {
                let given = Some(given).filter(|given| SETTINGS.iter().any(|setting| setting.name() == **given));
                return Err(ConfigError::BadSet { given: given.map(|given| format!("; {given} has no value")).unwrap_or_default() });
            };
            let setting = Setting::find(name).ok_or_else(|| unknown(name, "flag --set".to_owned()))?;
            insert(&mut settings, setting, value);
        }
        Ok(Layer { place: Box::new(|_| "flag --set".to_owned()), settings })
    }
}

/// As figment merges it. The layer's own account of where a key stands goes along as the interpolater of the metadata.
impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let places: Vec<(String, String)> = SETTINGS.iter().map(|setting| (setting.name(), (self.place)(setting))).collect();
        Metadata::named("layer").interpolater(move |_, keys| {
            let name = keys.join(".");
            places.iter().find(|(other, _)| *other == name).map(|(_, place)| place.clone()).unwrap_or_default()
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.settings.clone())]))
    }
}

fn insert(settings: &mut Dict, setting: &Setting, value: &str) {
    let keys = settings.entry(setting.section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, keys) = keys {
        keys.insert(setting.key.to_owned(), Value::from(value));
    }
}

fn unknown(name: &str, place: String) -> ConfigError {
    // A key whose section was forgotten is compared with keys.
    let keys = || SETTINGS.iter().min_by_key(|setting| distance(name, setting.key)).map(Setting::name);
    let nearest = if name.contains('.') { None } else { keys() }.unwrap_or_else(|| nearest(name, SETTINGS.iter().map(Setting::name)));
    ConfigError::UnknownKey { key: name.to_owned(), place, nearest }
}

fn nearest(name: &str, among: impl Iterator<Item = String>) -> String {
    among.min_by_key(|other| distance(name, other)).unwrap_or_default()
}

/// Levenshtein's: letters to insert, remove or change.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, from) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in other.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[other.len()]
}

/// The parser quotes the line that it does not understand, which may hold a password.
pub(super) fn without_excerpt(error: &str) -> String {
    let mut kept = Vec::new();
    for line in error.lines() {
        let line = line.trim();
        let excerpt = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|');
        if !excerpt && !line.is_empty() {
            kept.push(line.trim_start_matches("TOML parse error "));
        }
    }
    kept.join(", ")
}

/// The line in which a key stands, as far as that can be seen without a parser; that of the section when `key` is none.
fn line_of(text: &str, section: &str, key: Option<&str>) -> Option<usize> {
    let mut here = "";
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            here = name.trim();
            if here == section && key.is_none() {
                return Some(number + 1);
            }
        } else if let Some((name, _)) = line.split_once('=') {
            let name = name.trim().trim_matches('"');
            if key.is_some_and(|key| here == section && name == key || here.is_empty() && name == format!("{section}.{key}")) {
                return Some(number + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!((distance("slots", "slots"), distance("slost", "slots"), distance("", "abc"), distance("kitten", "sitting")), (0, 2, 3, 3));
        assert_eq!(nearest("worker.slot", SETTINGS.iter().map(Setting::name)), "worker.slots");
        assert_eq!(nearest("ROWMILL_STORE_URI", SETTINGS.iter().map(Setting::variable)), "ROWMILL_STORE_URL");
    }

    #[test]
    fn a_syntax_error_does_not_quote_the_file() {
        let error = Toml::string("[store]\nurl = \"postgres://u:hunter2@db\nconnections = 3").data().unwrap_err().to_string();
        assert!(error.contains("hunter2"), "the parser quotes no more; this test and what it is for can go: {error}");
        let kept = without_excerpt(&error);
        assert!(kept.contains("line 2") && !kept.contains("hunter2"), "{kept}");
    }

    #[test]
    fn a_key_is_found_in_its_line() {
        let text = "# a\nworker.slots = 1\n[store]\nurl = \"x\"\n\n[ redis ]\n\"url\" = \"y\"\n";
        assert_eq!(line_of(text, "store", Some("url")), Some(4));
        assert_eq!(line_of(text, "redis", Some("url")), Some(7));
        assert_eq!(line_of(text, "worker", Some("slots")), Some(2));
        assert_eq!(line_of(text, "redis", None), Some(6));
        assert_eq!(line_of(text, "limits", Some("fuel")), None);
    }
}
