use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HttpGrant;
use super::limits::millis;

/// Bytes of all grants of an app as JSON, at most: they come along with each batch that a worker begins.
pub const GRANTS_BYTES_MAX: usize = 64 << 10;

/// What the processors of an app may reach beyond their rows: nothing, unless an operator granted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// What `wasi:config` tells, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Keys of `wasi:config` whose values are secrets, and the name of each secret. Its value never stands here: each worker has it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Outgoing HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpGrant>,
    /// Directories, by the absolute path under which guests find them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub directories: BTreeMap<String, DirectoryGrant>,
    /// Databases that may be asked, by their name in the configuration of workers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sql: BTreeMap<String, SqlGrant>,
    /// A key-value store that is the app's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_value: Option<KeyValueGrant>,
    /// Objects that are the app's alone, beside the runtime's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectsGrant>,
}

/// Something that a processor may import, if its app was granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    Config,
    Http,
    Sql,
    KeyValue,
    Objects,
}

impl Capability {
    /// How `rowmill apps grant APP` grants it.
    pub fn flags(self) -> &'static str {
        match self {
            Capability::Config => "--value KEY=VALUE or --secret KEY=NAME",
            Capability::Http => "--http https://HOST",
            Capability::Sql => "--sql NAME",
            Capability::KeyValue => "--key-value",
            Capability::Objects => "--objects",
        }
    }
}

impl Grants {
    /// Whether there is anything of this kind.
    pub fn allow(&self, capability: Capability) -> bool {
        match capability {
            Capability::Config => !self.values.is_empty() || !self.secrets.is_empty(),
            Capability::Http => self.http.is_some(),
            Capability::Sql => !self.sql.is_empty(),
            Capability::KeyValue => self.key_value.is_some(),
            Capability::Objects => self.objects.is_some(),
        }
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        *self == Grants::default()
    }

    /// What cannot be, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self) -> Result<(), String> {
        for key in self.values.keys().chain(self.secrets.keys()) {
            check_word("the key of a value or secret", key)?;
        }
        if let Some(key) = self.values.keys().find(|key| self.secrets.contains_key(*key)) {
            return Err(format!("the key {key:?} has a value and a secret: it has one of them"));
        }
        for name in self.secrets.values() {
            check_word("the name of a secret", name)?;
        }
        for (guest, directory) in &self.directories {
            check_path("the path of a directory in the guest", guest)?;
            check_path("the path of a directory on the workers", &directory.path)?;
        }
        for (name, sql) in &self.sql {
            check_word("the name of a database", name)?;
            if sql.rows_max == 0 || sql.timeout.is_zero() || !(1..=SqlGrant::BYTES_MAX).contains(&sql.bytes_max) {
                return Err(format!("a statement brings 1 row or more, 1 to {} bytes, and has some time", SqlGrant::BYTES_MAX));
            }
        }
        if let Some(http) = &self.http {
            if http.allow.is_empty() {
                return Err("HTTP is granted, but to no host".to_owned());
            }
            if http.at_once_max > HttpGrant::AT_ONCE_MAX {
                return Err(format!("an instance may have {} HTTP requests at once, and no more", HttpGrant::AT_ONCE_MAX));
            }
            if http.requests_max == 0 || http.at_once_max == 0 || http.timeout.is_zero() {
                return Err("HTTP is granted, but no request, or no time for one: these limits are 1 or more".to_owned());
            }
        }
        if self.key_value.as_ref().is_some_and(|grant| grant.value_bytes_max > KeyValueGrant::VALUE_BYTES_MAX) {
            return Err(format!("a value by its key may have {} bytes, and no more", KeyValueGrant::VALUE_BYTES_MAX));
        }
        if let Some(objects) = &self.objects {
            let (bytes_max, count_max) = (ObjectsGrant::OBJECT_BYTES_MAX, ObjectsGrant::COUNT_MAX);
            if !(1..=bytes_max).contains(&objects.object_bytes_max) || !(1..=count_max).contains(&objects.count_max) || objects.total_bytes_max == 0 {
                return Err(format!("an object has 1 to {bytes_max} bytes, an app 1 to {count_max} objects, and some bytes in all"));
            }
        }
        let bytes = self.to_json().len();
        if bytes > GRANTS_BYTES_MAX {
            return Err(format!("the grants have {bytes} bytes as JSON, and may have {GRANTS_BYTES_MAX} at most"));
        }
        Ok(())
    }

    /// The one form in which they are stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it holds texts and numbers only")
    }
}

/// A directory of the workers' machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    /// An absolute path.
    pub path: String,
    /// Whether guests may change what is in it.
    #[serde(default)]
    pub writable: bool,
}

fn check_path(what: &str, path: &str) -> Result<(), String> {
    let steps_down = path.split('/').skip(1).all(|step| !step.is_empty() && step != "." && step != "..");
    if !path.starts_with('/') || !steps_down || path.len() > 1_000 || path.contains('\0') {
        let shown: String = path.chars().take(200).collect();
        return Err(format!("{shown:?} cannot be {what}: an absolute path below /, without . and .., of 1000 bytes at most"));
    }
    Ok(())
}

/// Words are names of files, too.
fn check_word(what: &str, word: &str) -> Result<(), String> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if word.is_empty() || word.len() > 128 || word.starts_with('.') || !word.chars().all(allowed) {
        let shown: String = word.chars().take(128).collect();
        return Err(format!("{shown:?} cannot be {what}: 1 to 128 ASCII letters, digits, '.', '-' and '_', not beginning with '.'"));
    }
    Ok(())
}

/// How much one statement to a database may bring, and take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqlGrant {
    pub rows_max: u32,
    /// Bytes of all its rows, as JSON.
    pub bytes_max: u64,
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
}

impl SqlGrant {
    /// What is brought is in memory as a whole.
    pub const BYTES_MAX: u64 = 32 << 20;
}

impl Default for SqlGrant {
    fn default() -> SqlGrant {
        SqlGrant { rows_max: 10_000, bytes_max: 4 << 20, timeout: Duration::from_secs(10) }
    }
}

/// How much an app may keep by keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyValueGrant {
    /// Bytes of one value.
    pub value_bytes_max: u32,
    /// Bytes of all keys and values together.
    pub total_bytes_max: u64,
}

impl KeyValueGrant {
    /// Many values go in one call.
    pub const VALUE_BYTES_MAX: u32 = 1 << 20;
}

impl Default for KeyValueGrant {
    fn default() -> KeyValueGrant {
        KeyValueGrant { value_bytes_max: 64 << 10, total_bytes_max: 16 << 20 }
    }
}

/// How much an app may keep as objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectsGrant {
    /// Bytes of one object.
    pub object_bytes_max: u64,
    /// Bytes of all objects together.
    pub total_bytes_max: u64,
    /// How many there may be.
    pub count_max: u32,
}

impl ObjectsGrant {
    /// An object goes to and from a guest as a whole.
    pub const OBJECT_BYTES_MAX: u64 = 8 << 20;
    /// They are counted before each that is added.
    pub const COUNT_MAX: u32 = 10_000;
}

impl Default for ObjectsGrant {
    fn default() -> ObjectsGrant {
        ObjectsGrant { object_bytes_max: 1 << 20, total_bytes_max: 64 << 20, count_max: 1_000 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn grants_come_back_as_they_were_stored() {
        let mut grants = Grants { key_value: Some(KeyValueGrant::default()), objects: Some(ObjectsGrant::default()), ..Grants::default() };
        grants.sql.insert("bank".to_owned(), SqlGrant::default());
        grants.values.insert("branch".to_owned(), "3".to_owned());
        grants.secrets.insert("token".to_owned(), "bank-token".to_owned());
        let http = HttpGrant { allow: BTreeSet::from(["https://api.example.com".parse().unwrap()]), ..HttpGrant::default() };
        grants.http = Some(HttpGrant { nets: BTreeSet::from(["10.0.0.0/8".parse().unwrap()]), ..http });
        grants.check().unwrap();
        assert_eq!(serde_json::from_str::<Grants>(&grants.to_json()).unwrap(), grants);
        assert!(serde_json::from_str::<Grants>(r#"{"everything":true}"#).is_err());
        assert_eq!(Grants::default().to_json(), "{}");
    }

    #[test]
    fn grants_that_cannot_be_are_told() {
        let values = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let refused = |grants: Grants| grants.check().unwrap_err();
        assert!(refused(Grants { values: values("../x"), ..Grants::default() }).contains("\"../x\" cannot be the key"));
        assert!(
            refused(Grants { secrets: BTreeMap::from([("k".to_owned(), "a/b".to_owned())]), ..Grants::default() }).contains("the name of a secret")
        );
        assert!(refused(Grants { values: values("k"), secrets: values("k"), ..Grants::default() }).contains("a value and a secret"));
        assert!(refused(Grants { http: Some(HttpGrant::default()), ..Grants::default() }).contains("to no host"));
        for (guest, path) in
            [("data", "/srv"), ("/data/../x", "/srv"), ("/", "/srv"), ("/data/", "/srv"), ("/data", "srv"), ("/data", "/"), ("/data", "/a/./b")]
        {
            let directories = BTreeMap::from([(guest.to_owned(), DirectoryGrant { path: path.to_owned(), writable: false })]);
            assert!(refused(Grants { directories, ..Grants::default() }).contains("an absolute path below /"), "{guest} {path}");
        }
        let sql = |grant: SqlGrant| Grants { sql: BTreeMap::from([("bank".to_owned(), grant)]), ..Grants::default() };
        assert!(refused(sql(SqlGrant { rows_max: 0, ..SqlGrant::default() })).contains("1 row or more"));
        assert!(refused(sql(SqlGrant { bytes_max: SqlGrant::BYTES_MAX + 1, ..SqlGrant::default() })).contains("1 to 33554432 bytes"));
        let objects = |grant: ObjectsGrant| Grants { objects: Some(grant), ..Grants::default() };
        for grant in [
            ObjectsGrant { object_bytes_max: ObjectsGrant::OBJECT_BYTES_MAX + 1, ..ObjectsGrant::default() },
            ObjectsGrant { count_max: ObjectsGrant::COUNT_MAX + 1, ..ObjectsGrant::default() },
            ObjectsGrant { total_bytes_max: 0, ..ObjectsGrant::default() },
        ] {
            assert!(refused(objects(grant)).contains("an object has 1 to 8388608 bytes, an app 1 to 10000 objects"));
        }
        let large = BTreeMap::from([("k".to_owned(), "x".repeat(GRANTS_BYTES_MAX))]);
        assert!(refused(Grants { values: large, ..Grants::default() }).contains("may have 65536 at most"));
    }
}
