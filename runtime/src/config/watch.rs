//! The file that says which directories are watched, and what the files there are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::error::ConfigError;
use super::sources::without_excerpt;
use crate::model::{canonical_name, canonical_op, check_name, parse_time, show_time};

/// A file may have to be unchanged for so long at most.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that is watched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchFile {
    #[serde(default)]
    pub watch: Vec<WatchedDirectory>,
}

/// `[[watch]]`: a directory and its places. Relative paths begin at the directory of the file; after [`WatchFile::load`] all are ready to be used.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchedDirectory {
    /// Where the places are that are not given on their own.
    pub directory: PathBuf,
    #[serde(default = "incoming")]
    pub incoming: PathBuf,
    #[serde(default = "work")]
    pub work: PathBuf,
    #[serde(default = "done")]
    pub done: PathBuf,
    #[serde(default = "failed")]
    pub failed: PathBuf,
    /// A file is taken when it has not changed for so long.
    #[serde(default = "age", deserialize_with = "read_age")]
    pub age: Duration,
    /// Patterns of names that are left alone.
    #[serde(default = "ignore")]
    pub ignore: Vec<String>,
    /// The first whose pattern a name matches counts.
    #[serde(rename = "type", default)]
    pub types: Vec<FileTypeConfig>,
}

/// `[[watch.type]]`: what files are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTypeConfig {
    pub pattern: String,
    pub app: String,
    pub op: String,
    /// `csv`, `csv.gz`, `ndjson` or `ndjson.gz`; by the file's name when it is not given.
    pub format: Option<String>,
    /// The context of the batch, in which texts may name what is known of the file.
    #[serde(default = "empty_object")]
    pub context: Json,
    pub priority: Option<i32>,
    pub attempts: Option<u32>,
    /// The component of a checker.
    pub check: Option<PathBuf>,
}

fn incoming() -> PathBuf {
    "incoming".into()
}

fn work() -> PathBuf {
    ".work".into()
}

fn done() -> PathBuf {
    "done".into()
}

fn failed() -> PathBuf {
    "failed".into()
}

fn age() -> Duration {
    Duration::from_secs(5)
}

fn ignore() -> Vec<String> {
    ["*.part", "*.tmp", "*.filepart", "*.reasons.json"].map(str::to_owned).to_vec()
}

fn empty_object() -> Json {
    Json::Object(serde_json::Map::new())
}

fn read_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use serde::de::Error;
    let age = parse_time(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    if age > AGE_MAX {
        return Err(D::Error::custom(format!("a file is watched for {} at most before it is taken", show_time(AGE_MAX))));
    }
    Ok(age)
}

impl WatchFile {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], [`ConfigError::NotToml`], [`ConfigError::BadWatchFile`].
    pub fn load(path: &Path) -> Result<WatchFile, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        WatchFile::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<WatchFile, ConfigError> {
        use figment::Provider;
        let not_toml = |error: figment::Error| ConfigError::NotToml { path: path.to_owned(), reason: without_excerpt(&error.to_string()) };
        Toml::string(text).data().map_err(not_toml)?;
        let bad = |key: String, reason: String| ConfigError::BadWatchFile { path: path.to_owned(), key, reason };
        let mut file: WatchFile = Figment::from(Toml::string(text)).extract().map_err(|error| {
            let key = place_of(&error.path);
            bad(if key.is_empty() { key } else { format!("{key}: ") }, error.kind.to_string())
        })?;
        if file.watch.is_empty() {
            return Err(bad(String::new(), "it names no directory: write [[watch]], and directory = \"…\" below".to_owned()));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        for (at, watched) in file.watch.iter_mut().enumerate() {
            if watched.types.is_empty() {
                let reason = "it has no type, so that all its files would fail: write [[watch.type]], and pattern, app and op below";
                return Err(bad(format!("watch[{at}]: "), reason.to_owned()));
            }
            if let Some((number, file_type)) = watched.types.iter().enumerate().find(|(_, file_type)| file_type.attempts == Some(0)) {
                let reason = format!("a row of {:?} is tried once at least", file_type.pattern);
                return Err(bad(format!("watch[{at}].type[{number}].attempts: "), reason));
            }
            check_directories(watched).map_err(|(key, reason)| bad(format!("watch[{at}].{key}: "), reason))?;
            for (number, file_type) in watched.types.iter_mut().enumerate() {
                check_names(file_type).map_err(|(key, reason)| bad(format!("watch[{at}].type[{number}].{key}: "), reason))?;
            }
            watched.directory = base.join(&watched.directory);
            for place in [&mut watched.incoming, &mut watched.work, &mut watched.done, &mut watched.failed] {
                *place = watched.directory.join(&place);
            }
            for check in watched.types.iter_mut().filter_map(|file_type| file_type.check.as_mut()) {
                *check = base.join(&check);
            }
        }
        Ok(file)
    }
}

/// A directory is one, and not a pattern: the names of files have patterns.
fn check_directories(watched: &WatchedDirectory) -> Result<(), (&'static str, String)> {
    let WatchedDirectory { directory, incoming, work, done, failed, .. } = watched;
    for (key, path) in [("directory", directory), ("incoming", incoming), ("work", work), ("done", done), ("failed", failed)] {
        if path.as_os_str().is_empty() {
            return Err((key, "it is empty, and a directory has a name".to_owned()));
        }
        if path.to_string_lossy().contains(['*', '?', '[', ']', '{', '}']) {
            let reason = format!("{:?} looks like a pattern, and is one directory: name each directory in a [[watch]] of its own", path.display());
            return Err((key, reason));
        }
    }
    Ok(())
}

/// Brings the names of a type to the form in which they are stored.
fn check_names(file_type: &mut FileTypeConfig) -> Result<(), (&'static str, String)> {
    file_type.app = canonical_name(&file_type.app).into_owned();
    file_type.op = canonical_op(&file_type.op);
    check_name("the name of an app", &file_type.app).map_err(|wrong| ("app", wrong.to_string()))?;
    check_name("the name of an operation", &file_type.op).map_err(|wrong| ("op", wrong.to_string()))
}

/// A key as it would be written: `watch[0].type[1].pattern`.
fn place_of(path: &[String]) -> String {
    let mut place = String::new();
    for step in path {
        if step.parse::<usize>().is_ok() {
            place.push_str(&format!("[{step}]"));
        } else {
            place.push_str(if place.is_empty() { "" } else { "." });
            place.push_str(step);
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WatchFile, String> {
        WatchFile::parse(text, Path::new("etc/watch.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn places_are_below_their_directory_and_paths_begin_at_the_file() {
        let text = "[[watch]]\ndirectory = \"bank\"\nfailed = \"/srv/failed\"\n[[watch.type]]\npattern = \"*.csv\"\napp = \"bank\"\nop = \"post\"\n\
                    context = { branch = 3, file = \"{name}\" }\ncheck = \"check.wasm\"\n";
        let file = parse(text).unwrap();
        let watched = &file.watch[0];
        assert_eq!((watched.incoming.to_str(), watched.work.to_str()), (Some("etc/bank/incoming"), Some("etc/bank/.work")));
        assert_eq!((watched.done.to_str(), watched.failed.to_str()), (Some("etc/bank/done"), Some("/srv/failed")));
        assert_eq!((watched.age, watched.types[0].check.as_deref()), (Duration::from_secs(5), Some(Path::new("etc/check.wasm"))));
        assert_eq!(watched.types[0].context, serde_json::json!({"branch": 3, "file": "{name}"}));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let type_of = |more: &str| format!("[[watch]]\ndirectory = \"d\"\n[[watch.type]]\npattern = \"*\"\napp = \"a\"\nop = \"o\"\n{more}\n");
        let refused = |text: &str| parse(text).unwrap_err();
        assert!(refused("").contains("it names no directory"));
        assert!(refused("[[watch]]\ndirectory = \"d\"\n").contains("watch[0]: it has no type"));
        let unknown = refused(&type_of("patern = \"x\""));
        assert!(unknown.starts_with("etc/watch.toml: watch[0].type[0].patern: unknown field"), "{unknown}");
        let age = refused("[[watch]]\ndirectory = \"d\"\nage = \"soon\"\n");
        assert!(age.contains("a time looks like 500ms, 5s, 2m, 1h30m or 90d"), "{age}");
        assert!(refused(&type_of("attempts = 0")).contains("watch[0].type[0].attempts: a row of \"*\" is tried once at least"));
        assert!(refused(&type_of("priority = \"high\"")).contains("watch[0].type[0].priority: "));
        assert!(refused("[[watch]\n").contains("is not valid TOML"));
        let of = |directory: &str, app: &str, op: &str| {
            format!("[[watch]]\ndirectory = {directory:?}\n[[watch.type]]\npattern = \"*\"\napp = \"{app}\"\nop = \"{op}\"\n")
        };
        for directory in ["/srv/*/in", "in?", "in[12]", "{a,b}"] {
            let said = refused(&of(directory, "a", "o"));
            assert!(said.contains("watch[0].directory: ") && said.contains("looks like a pattern, and is one directory"), "{said}");
        }
        assert!(refused(&of("", "a", "o")).contains("watch[0].directory: it is empty"));
        let places = "[[watch]]\ndirectory = \"d\"\ndone = \"done-*\"\n[[watch.type]]\npattern = \"*\"\napp = \"a\"\nop = \"o\"\n";
        assert!(refused(places).contains("watch[0].done: \"done-*\" looks like a pattern"));
        assert!(refused(&of("d", "", "o")).contains("watch[0].type[0].app: the name of an app is empty"));
        assert!(refused(&of("d", "a", "o ")).contains("watch[0].type[0].op: the name of an operation begins or ends with a space"));
        let composed = parse(&of("d", "gro\u{308}ße", "PR\u{dc}FEN")).unwrap();
        assert_eq!((composed.watch[0].types[0].app.as_str(), composed.watch[0].types[0].op.as_str()), ("größe", "prüfen"));
    }
}
