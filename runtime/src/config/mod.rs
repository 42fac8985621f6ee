//! The configuration: defaults, then the file, then the environment, then flags, each before the one before it.
//!
//! Rooms do not read it. The command line does, and gives them the values that they need.

mod error;
mod resolve;
mod secret;
mod settings;
mod sources;
mod units;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

pub use error::ConfigError;
pub use secret::Secret;
pub use settings::{Kind, SETTINGS, Setting, SettingDefault};
pub use sources::{DEFAULT_FILE, Sources};
pub use units::{parse_memory, parse_size, parse_timeout, show_size};
pub use watch::{FileTypeConfig, WatchFile, WatchedDirectory};

use self::resolve::Resolved;
pub use crate::model::Limits as LimitsConfig;
use crate::model::{AppBounds, Keep, Pooler, Quota};

/// All settings, checked, and where each came from.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: StoreConfig,
    pub redis: RedisConfig,
    pub objects: ObjectsConfig,
    pub worker: WorkerConfig,
    pub processors: ProcessorsConfig,
    pub intake: IntakeConfig,
    pub watch: WatchConfig,
    pub grants: GrantsConfig,
    pub limits: LimitsConfig,
    /// How long what is done is kept, where no policy says anything.
    pub keep: Keep,
    /// What apps that say nothing may hold, and the most that any app may be given.
    pub bounds: AppBounds,
    in_force: Vec<InForce>,
}

/// One setting as it is in force, fit to be shown.
#[derive(Clone, Debug)]
pub struct InForce {
    pub setting: &'static Setting,
    /// Secrets are `***`, passwords in URLs too. None when it is not set.
    pub shown: Option<Json>,
    /// `default`, `rowmill.toml, line 3`, `environment, ROWMILL_STORE_URL`, `flag --set`.
    pub place: String,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub url: StoreUrl,
    /// Connections of this process, at most. PostgreSQL only.
    pub connections: u32,
    pub pooler: Pooler,
}

/// Which database, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    /// The whole URL.
    Postgres(Secret),
}

/// `[redis]`
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// None: the status is kept in the process.
    pub url: Option<Secret>,
    /// How long a status is cached; 100 times as long once it is final.
    pub cache: Duration,
}

/// `[objects]`
#[derive(Clone, Debug)]
pub struct ObjectsConfig {
    pub url: ObjectsUrl,
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key_id: Option<Secret>,
    pub secret_access_key: Option<Secret>,
    pub path_style: bool,
}

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectsUrl {
    Directory(PathBuf),
    S3 {
        bucket: String,
        /// Without slashes around it; may be empty.
        prefix: String,
    },
}

/// `[worker]`
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    pub name: String,
    /// Leases of batches that run at the same time.
    pub slots: u32,
    /// Slow queries that run at the same time, beside them.
    pub query_slots: u32,
    pub heartbeat: Duration,
    pub lease_rows_max: u32,
    pub lease_target: Duration,
    /// Memory of all guests that live at the same time.
    pub memory_bytes: u64,
    pub drain_grace: Duration,
}

/// `[processors]`
#[derive(Clone, Debug)]
pub struct ProcessorsConfig {
    pub upload_max_bytes: u64,
    /// Of one app.
    pub versions_max: u32,
    pub bytes_max: u64,
    pub compile_time: Duration,
    pub compile_memory_bytes: u64,
    pub compiles_at_once: u32,
    /// Compiled code that this machine keeps.
    pub cache_max_bytes: u64,
    pub key: Option<Secret>,
}

/// `[intake]`
#[derive(Clone, Debug)]
pub struct IntakeConfig {
    /// Bytes that may come out of a compressed file.
    pub inflated_max: u64,
    pub ratio_max: u64,
}

/// `[watch]`
#[derive(Clone, Debug)]
pub struct WatchConfig {
    pub file: Option<PathBuf>,
    pub files_at_once: usize,
    pub grace: Duration,
}

/// `[grants]`
#[derive(Clone, Debug)]
pub struct GrantsConfig {
    pub secrets_directory: Option<PathBuf>,
    pub databases_directory: Option<PathBuf>,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`], which says what is wrong where, and never repeats a secret.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut resolved = Resolved::read(sources)?;
        let store_url = resolved.secret("store", "url", "url_file")?;
        let redis_url = resolved.secret("redis", "url", "url_file")?;
        let secret_access_key = resolved.secret("objects", "secret_access_key", "secret_access_key_file")?;
        let key = resolved.secret("processors", "key", "key_file")?;
        let endpoint = resolved.text("objects.endpoint");
        resolved.derive("objects.path_style", endpoint.is_some().to_string());
        resolved.check_maxima()?;
        Ok(Config {
            store: StoreConfig {
                url: store_url_of(&store_url.expect("it has a default")),
                connections: resolved.count("store.connections"),
                pooler: if resolved.required("store.pooler") == "transaction" { Pooler::Transaction } else { Pooler::None },
            },
            redis: RedisConfig { url: redis_url, cache: Duration::from_secs(resolved.count::<u64>("redis.cache_seconds")) },
            objects: ObjectsConfig {
                url: objects_url_of(&resolved.required("objects.url")),
                endpoint,
                region: resolved.required("objects.region"),
                access_key_id: resolved.text("objects.access_key_id").map(Secret::new),
                secret_access_key,
                path_style: resolved.required("objects.path_style") == "true",
            },
            worker: WorkerConfig {
                name: resolved.required("worker.name"),
                slots: resolved.count("worker.slots"),
                query_slots: resolved.count("worker.query_slots"),
                heartbeat: resolved.time("worker.heartbeat"),
                lease_rows_max: resolved.count("worker.lease_rows_max"),
                lease_target: resolved.time("worker.lease_target"),
                memory_bytes: resolved.size("worker.memory"),
                drain_grace: resolved.time("worker.drain_grace"),
            },
            processors: ProcessorsConfig {
                upload_max_bytes: resolved.size("processors.upload_max"),
                versions_max: resolved.count("processors.versions_max"),
                bytes_max: resolved.size("processors.bytes_max"),
                compile_time: resolved.time("processors.compile_time"),
                compile_memory_bytes: resolved.size("processors.compile_memory"),
                compiles_at_once: resolved.count("processors.compiles_at_once"),
                cache_max_bytes: resolved.size("processors.cache_max"),
                key,
            },
            intake: IntakeConfig { inflated_max: resolved.size("intake.inflated_max"), ratio_max: resolved.count("intake.ratio_max") },
            watch: WatchConfig {
                file: resolved.text("watch.file").map(PathBuf::from),
                files_at_once: resolved.count("watch.files_at_once"),
                grace: resolved.time("watch.grace"),
            },
            keep: Keep {
                files: resolved.keep("keep.files"),
                inputs: resolved.keep("keep.inputs"),
                outcomes: resolved.keep("keep.outcomes"),
                events: resolved.keep("keep.events"),
                batches: resolved.keep("keep.batches"),
            },
            grants: GrantsConfig {
                secrets_directory: resolved.text("grants.secrets_directory").map(PathBuf::from),
                databases_directory: resolved.text("grants.databases_directory").map(PathBuf::from),
            },
            limits: limits_of(&resolved, "limits"),
            bounds: AppBounds {
                quota: quota_of(&resolved, "limits"),
                quota_max: quota_of(&resolved, "maximum"),
                limits_max: limits_of(&resolved, "maximum"),
                running_max: resolved.count("maximum.running"),
                weight_max: resolved.count("maximum.weight"),
            },
            in_force: resolved.into_in_force(),
        })
    }

    /// Every setting as it is in force, in the order of [`SETTINGS`], fit to be shown.
    pub fn in_force(&self) -> &[InForce] {
        &self.in_force
    }
}

/// What one row may use, by a section.
fn limits_of(resolved: &Resolved, section: &str) -> LimitsConfig {
    let name = |key: &str| format!("{section}.{key}");
    LimitsConfig {
        fuel: resolved.count(&name("fuel")),
        fuel_per_kib: resolved.count(&name("fuel_per_kib")),
        timeout: resolved.time(&name("timeout")),
        query_timeout: resolved.time(&name("query_timeout")),
        memory_bytes: resolved.size(&name("memory")),
        output_bytes: resolved.size(&name("output")),
        messages: resolved.count(&name("messages")),
        pieces: resolved.count(&name("pieces")),
        log_bytes: resolved.size(&name("log")),
    }
}

/// What the batches of an app may hold, by a section.
fn quota_of(resolved: &Resolved, section: &str) -> Quota {
    let name = |key: &str| format!("{section}.{key}");
    Quota {
        input_bytes: resolved.size(&name("input")),
        batch_rows: resolved.count(&name("batch_rows")),
        queued_rows: resolved.count(&name("queued_rows")),
        batch_time: resolved.time(&name("batch_time")),
        batch_log_bytes: resolved.size(&name("batch_log")),
        batch_file_bytes: resolved.size(&name("batch_files")),
    }
}

fn store_url_of(url: &Secret) -> StoreUrl {
    match url.expose().strip_prefix("sqlite:") {
        // sqlx's own notation has slashes that mean nothing: sqlite://PATH.
        Some(path) => StoreUrl::Sqlite(PathBuf::from(path.strip_prefix("//").filter(|rest| !rest.is_empty()).unwrap_or(path))),
        None => StoreUrl::Postgres(url.clone()),
    }
}

fn objects_url_of(url: &str) -> ObjectsUrl {
    if let Some(place) = url.strip_prefix("s3://") {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        return ObjectsUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() };
    }
    let path = url.strip_prefix("file:").unwrap_or(url);
    ObjectsUrl::Directory(PathBuf::from(path.strip_prefix("//").filter(|rest| !rest.is_empty()).unwrap_or(path)))
}

#[cfg(test)]
mod tests;
