use std::path::PathBuf;

/// Why there is no configuration. Nothing here repeats a value that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not valid TOML: {reason}", path.display())]
    NotToml { path: PathBuf, reason: String },
    /// `place` says where it stands, such as `rowmill.toml, line 3`.
    #[error("{key} ({place}) is no setting; the nearest one is {nearest} (`rowmill config` shows all)")]
    UnknownKey { key: String, place: String, nearest: String },
    #[error("{key} ({place}) should be a section: write [{key}], and its settings below")]
    NotASection { key: String, place: String },
    #[error("{key} ({place}) cannot be used: {reason}")]
    BadValue { key: String, place: String, reason: String },
    #[error("--set takes SECTION.KEY=VALUE, as in --set worker.slots=8{given}")]
    BadSet { given: String },
    #[error("{key} ({place}) and {other} ({other_place}) say the same thing: give one of them")]
    BothGiven { key: String, place: String, other: String, other_place: String },
    /// `key` says where it stands in the file, such as `watch[0].type[1].pattern`.
    #[error("{}: {key}{reason}", path.display())]
    BadWatchFile { path: PathBuf, key: String, reason: String },
    #[error("the environment variable {0} is not valid UTF-8")]
    NotUnicode(String),
}
