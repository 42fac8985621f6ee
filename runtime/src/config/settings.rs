//! All settings: the one list that reading, showing and the documentation go by.

use std::time::Duration;

use super::units::{MEMORY_MIN_BYTES, TIMEOUT_MAX, TIMEOUT_MIN, parse_size, show_size};
use crate::model::{KeepFor, Limits, canonical_name, check_name, parse_time, show_time};

/// One setting. Its variable is `ROWMILL_SECTION_KEY`.
#[derive(Debug)]
pub struct Setting {
    pub section: &'static str,
    pub key: &'static str,
    /// What it does, as a phrase that stands in the documentation and in `rowmill config`.
    pub doc: &'static str,
    pub kind: Kind,
    pub default: SettingDefault,
}

/// What a setting's value is, and its bounds, which are allowed values themselves.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// A file; a relative one begins at the working directory.
    Path,
    StoreUrl,
    RedisUrl,
    ObjectsUrl,
    /// `http://` or `https://`, without user and password.
    Endpoint,
    Secret,
    /// A secret that is used as a key: not shorter than `KEY_BYTES_MIN`.
    Key,
    Count(u64, u64),
    Time(Duration, Duration),
    /// A time, or for ever.
    Keep,
    Size(u64, u64),
    Switch,
    Choice(&'static [&'static str]),
}

/// Whoever guesses a key can make code that is run as it is.
const KEY_BYTES_MIN: usize = 32;

/// What holds when nothing is said.
#[derive(Clone, Copy, Debug)]
pub enum SettingDefault {
    Unset,
    Value(&'static str),
    /// Depends on the machine.
    Machine {
        says: &'static str,
        value: fn() -> String,
    },
    /// Depends on other settings; says how.
    Derived(&'static str),
}

impl Setting {
    /// `section.key`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("ROWMILL_{}_{}", self.section, self.key).to_ascii_uppercase()
    }

    pub(super) fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name() == name)
    }
}

impl Kind {
    /// The allowed values as a phrase.
    pub fn says(&self) -> String {
        match self {
            Kind::Text => "text".to_owned(),
            Kind::Path => "file".to_owned(),
            Kind::StoreUrl => "`sqlite:PATH` or `postgres://…`".to_owned(),
            Kind::RedisUrl => "`redis://…` or `rediss://…`".to_owned(),
            Kind::ObjectsUrl => "`file:DIR` or `s3://BUCKET/PREFIX`".to_owned(),
            Kind::Endpoint => "`https://HOST` or `http://HOST:PORT`".to_owned(),
            Kind::Secret => "text, never shown".to_owned(),
            Kind::Key => format!("text of {KEY_BYTES_MIN} bytes or more, never shown"),
            Kind::Count(min, max) => format!("{min} to {max}"),
            Kind::Time(min, max) => format!("{} to {}", show_time(*min), show_time(*max)),
            Kind::Keep => "a time such as `90d` or `12h`, or `forever`".to_owned(),
            Kind::Size(min, max) => format!("{} to {}", show_size(*min), show_size(*max)),
            Kind::Switch => "`true` or `false`".to_owned(),
            Kind::Choice(choices) => choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(" or "),
        }
    }

    /// A value as it was written is brought to one form, or refused with a sentence. The sentence never repeats what may hold a secret.
    pub(super) fn check(&self, text: &str) -> Result<String, String> {
        let between =
            |holds: bool| if holds { Ok(()) } else { Err(format!("it should be between {}, not {text}", self.says().replace(" to ", " and "))) };
        let is = |holds: bool| if holds { Ok(text.to_owned()) } else { Err(format!("it should be {}", self.says().replace('`', ""))) };
        match *self {
            Kind::Text => {
                let text = canonical_name(text);
                check_name("a name", &text).map(|()| text.into_owned()).map_err(|wrong| wrong.to_string())
            }
            Kind::Path | Kind::Secret => is(!text.is_empty()),
            Kind::Key => is(text.len() >= KEY_BYTES_MIN),
            Kind::StoreUrl => is(has_rest(text, &["sqlite:", "postgres://", "postgresql://"])),
            Kind::RedisUrl => is(has_rest(text, &["redis://", "rediss://", "redis+unix://", "unix://"])),
            Kind::ObjectsUrl => {
                is(has_rest(text, &["file:", "s3://"]) && !(text.starts_with("s3:") && (text.contains('@') || text.starts_with("s3:///"))))
            }
            Kind::Endpoint => is(has_rest(text, &["https://", "http://"]) && !text.contains('@')),
            Kind::Count(min, max) => {
                let count: u64 = text.replace('_', "").parse().map_err(|_| format!("it should be a whole number, not {text}"))?;
                between((min..=max).contains(&count))?;
                Ok(count.to_string())
            }
            Kind::Time(min, max) => {
                let time = parse_time(text)?;
                between((min..=max).contains(&time))?;
                Ok(show_time(time))
            }
            Kind::Size(min, max) => {
                let bytes = parse_size(text)?;
                between((min..=max).contains(&bytes))?;
                Ok(show_size(bytes))
            }
            Kind::Keep => text.parse::<KeepFor>().map(|keep| keep.to_string()).map_err(|error| error.to_string()),
            Kind::Switch => is(text == "true" || text == "false"),
            Kind::Choice(choices) => is(choices.contains(&text)),
        }
    }
}

/// It begins with one of these, and goes on.
fn has_rest(text: &str, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|beginning| text.strip_prefix(beginning).is_some_and(|rest| !rest.is_empty()))
}

const fn setting(section: &'static str, key: &'static str, kind: Kind, default: SettingDefault, doc: &'static str) -> Setting {
    Setting { section, key, doc, kind, default }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

use Kind::{Choice, Count, Endpoint, Keep, Key, ObjectsUrl, Path, RedisUrl, Secret, Size, StoreUrl, Switch, Text, Time};
use SettingDefault::{Derived, Machine, Unset, Value};

/// Every setting there is, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    setting("store", "url", StoreUrl, Value("sqlite:rowmill.db"), "where batches, rows and outcomes are kept"),
    setting("store", "url_file", Path, Unset, "a file that holds store.url, instead of it"),
    setting("store", "connections", Count(3, 1_000), Value("10"), "connections of one process to PostgreSQL, at most"),
    setting(
        "store",
        "pooler",
        Choice(&["none", "transaction"]),
        Value("none"),
        "transaction: the connection goes through a pooler in transaction mode, such as PgBouncer; prepared statements and LISTEN are not used then",
    ),
    setting("redis", "url", RedisUrl, Unset, "where the status of batches is cached; without it the status is kept in the process"),
    setting("redis", "url_file", Path, Unset, "a file that holds redis.url, instead of it"),
    setting("redis", "cache_seconds", Count(1, 86_400), Value("60"), "how long a status is cached, in seconds; 100 times as long once it is final"),
    setting("objects", "url", ObjectsUrl, Value("file:rowmill-objects"), "where processors and files are kept"),
    setting("objects", "endpoint", Endpoint, Unset, "where S3 is spoken, when it is not Amazon's"),
    setting("objects", "region", Text, Value("us-east-1"), "the bucket's region"),
    setting("objects", "access_key_id", Secret, Unset, "the name of the access key"),
    setting("objects", "secret_access_key", Secret, Unset, "the access key"),
    setting("objects", "secret_access_key_file", Path, Unset, "a file that holds objects.secret_access_key, instead of it"),
    setting(
        "objects",
        "path_style",
        Switch,
        Derived("true with an endpoint, else false"),
        "the bucket stands in the path of a request, not in the name of the host",
    ),
    setting("worker", "name", Text, Machine { says: "host name and pid", value: default_name }, "what the worker is called where leases are shown"),
    setting(
        "worker",
        "slots",
        Count(1, 1_000),
        Machine { says: "twice the cores", value: || (2 * cores()).to_string() },
        "leases of batches that run at the same time",
    ),
    setting(
        "worker",
        "query_slots",
        Count(1, 1_000),
        Machine { says: "the cores", value: || cores().to_string() },
        "slow queries that run at the same time, in slots that batches cannot take",
    ),
    setting(
        "worker",
        "heartbeat",
        Time(Duration::from_millis(100), seconds(300)),
        Value("10s"),
        "between two signs of life; rows of a worker that gives none are taken over",
    ),
    setting("worker", "lease_rows_max", Count(1, 100_000), Value("5000"), "rows of one lease, at most"),
    setting("worker", "lease_target", Time(Duration::from_millis(1), seconds(60)), Value("250ms"), "how much work a lease should hold"),
    setting(
        "worker",
        "memory",
        Size(MEMORY_MIN_BYTES, 1 << 50),
        Machine { says: "half of the machine's memory", value: half_of_memory },
        "memory of all guests that live at the same time, by the limits of their apps; a lease whose guest does not fit waits, and other apps go on",
    ),
    setting(
        "worker",
        "drain_grace",
        Time(Duration::ZERO, seconds(3_600)),
        Value("10s"),
        "how long rows may go on when the worker is to stop; then they are given back",
    ),
    setting("keep", "files", Keep, Value("forever"), "how long output files are kept once their batch is done, unless a policy says otherwise"),
    setting("keep", "inputs", Keep, Value("forever"), "the same for inputs of rows, and for the files that they came from"),
    setting("keep", "outcomes", Keep, Value("forever"), "the same for what became of rows: outputs, messages and logs"),
    setting("keep", "events", Keep, Value("7d"), "the same for what happened to batches"),
    setting("keep", "batches", Keep, Value("forever"), "the same for whole batches"),
    setting("processors", "upload_max", Size(64 << 10, 256 << 20), Value("64MiB"), "size of an uploaded component"),
    setting("processors", "versions_max", Count(1, 100_000), Value("100"), "versions that an app keeps, all its operations together"),
    setting("processors", "bytes_max", Size(1 << 20, 1 << 40), Value("1GiB"), "size of the uploads of these versions together"),
    setting(
        "processors",
        "compile_time",
        Time(seconds(1), seconds(3_600)),
        Value("2m"),
        "how long one upload may be compiled; then the compiler is killed",
    ),
    setting("processors", "compile_memory", Size(256 << 20, 64 << 30), Value("2GiB"), "address space of the process that compiles"),
    setting(
        "processors",
        "compiles_at_once",
        Count(1, 64),
        Machine { says: "half the cores", value: || cores().div_euclid(2).clamp(1, 64).to_string() },
        "uploads that one process compiles at the same time, each with as many threads; of each app one",
    ),
    setting(
        "processors",
        "cache_max",
        Size(64 << 20, 1 << 40),
        Value("2GiB"),
        "compiled code that a machine keeps, in the directory that ROWMILL_CACHE_DIR names; the least recently used is removed first",
    ),
    setting(
        "processors",
        "key",
        Key,
        Unset,
        "the key by which the processes of an installation know compiled code as their own; without it each cache has a key of its own, and compiled code is not shared through the object store",
    ),
    setting("processors", "key_file", Path, Unset, "a file that holds processors.key, instead of it"),
    setting("intake", "inflated_max", Size(1 << 10, 1 << 40), Value("16GiB"), "how much may come out of a compressed file; one with more is refused"),
    setting(
        "intake",
        "ratio_max",
        Count(2, 2_000),
        Value("200"),
        "how many times its size a compressed file may become once it is larger than 64 MiB; one that becomes more is refused",
    ),
    setting("watch", "file", Path, Unset, "the file that says which directories `rowmill watch` looks into, and what the files there are"),
    setting("watch", "files_at_once", Count(1, 64), Value("4"), "files that are taken at the same time"),
    setting(
        "watch",
        "grace",
        Time(Duration::ZERO, seconds(3_600)),
        Value("10s"),
        "how long files that are being taken may go on when the watcher is to stop; the next one goes on with them",
    ),
    setting(
        "grants",
        "secrets_directory",
        Path,
        Unset,
        "a directory with a file for each secret that apps may be granted, named like it; needed where rows run",
    ),
    setting(
        "grants",
        "databases_directory",
        Path,
        Unset,
        "a directory with a file for each database that apps may be granted, named like it, that holds its URL; needed where rows run",
    ),
    setting("limits", "fuel", Count(1, 1_000_000_000_000_000), Value("1000000000"), "fuel for one row, about one unit per instruction"),
    setting("limits", "fuel_per_kib", Count(0, 1_000_000_000_000), Value("0"), "further fuel for each KiB of the row's input"),
    setting("limits", "timeout", Time(TIMEOUT_MIN, TIMEOUT_MAX), Value("5s"), "time for one row, host calls included"),
    setting("limits", "query_timeout", Time(TIMEOUT_MIN, TIMEOUT_MAX), Value("1m"), "time for one slow query, host calls included"),
    setting(
        "limits",
        "memory",
        Size(MEMORY_MIN_BYTES, Limits::MEMORY_MAX_BYTES),
        Value("64MiB"),
        "memory of one instance, all its memories and tables together",
    ),
    setting("limits", "output", Size(1 << 10, 16 << 20), Value("1MiB"), "output, messages and pieces of one row together"),
    setting("limits", "messages", Count(0, 10_000), Value("100"), "messages of one row"),
    setting("limits", "pieces", Count(0, 10_000), Value("100"), "pieces for output files of one row"),
    setting("limits", "log", Size(0, 1 << 20), Value("8KiB"), "log, stdout and stderr of one row together; the rest is cut"),
    setting("limits", "input", INPUT, Value("1MiB"), "one input"),
    setting("limits", "batch_rows", BATCH_ROWS, Value("10000000"), "rows of one batch"),
    setting("limits", "queued_rows", QUEUED_ROWS, Value("50000000"), "rows of one app that have no outcome yet, in all its batches"),
    setting("limits", "batch_time", BATCH_TIME, Value("7d"), "time of a batch from its first claim to its last outcome; then it is aborted"),
    setting("limits", "batch_log", BATCH_BYTES, Value("64MiB"), "logs of all rows of a batch together; those of further rows are dropped"),
    setting("limits", "batch_files", BATCH_BYTES, Value("10GiB"), "output files of a batch together; rows with more fail"),
    setting("maximum", "fuel", Count(1, 1_000_000_000_000_000), Value("1000000000000"), "fuel for one row"),
    setting("maximum", "fuel_per_kib", Count(0, 1_000_000_000_000), Value("1000000000"), "further fuel for each KiB of the row's input"),
    setting("maximum", "timeout", Time(TIMEOUT_MIN, TIMEOUT_MAX), Value("1h"), "time for one row"),
    setting("maximum", "query_timeout", Time(TIMEOUT_MIN, TIMEOUT_MAX), Value("1d"), "time for one slow query"),
    setting("maximum", "memory", Size(MEMORY_MIN_BYTES, Limits::MEMORY_MAX_BYTES), Value("256MiB"), "memory of one instance"),
    setting("maximum", "output", Size(1 << 10, 16 << 20), Value("16MiB"), "output, messages and pieces of one row together"),
    setting("maximum", "messages", Count(0, 10_000), Value("10000"), "messages of one row"),
    setting("maximum", "pieces", Count(0, 10_000), Value("10000"), "pieces for output files of one row"),
    setting("maximum", "log", Size(0, 1 << 20), Value("1MiB"), "log, stdout and stderr of one row together"),
    setting("maximum", "input", INPUT, Value("1MiB"), "one input"),
    setting("maximum", "batch_rows", BATCH_ROWS, Value("100000000"), "rows of one batch"),
    setting("maximum", "queued_rows", QUEUED_ROWS, Value("1000000000"), "rows of one app that have no outcome yet"),
    setting("maximum", "batch_time", BATCH_TIME, Value("30d"), "time of a batch"),
    setting("maximum", "batch_log", BATCH_BYTES, Value("1GiB"), "logs of all rows of a batch together"),
    setting("maximum", "batch_files", BATCH_BYTES, Value("100GiB"), "output files of a batch together"),
    setting("maximum", "running", Count(1, 1_000_000), Value("1000"), "rows and queries that run at the same time, where an app is given a number"),
    setting("maximum", "weight", Count(1, 1_000), Value("1000"), "the share of the work"),
];

const INPUT: Kind = Size(1, 1 << 20);
const BATCH_ROWS: Kind = Count(1, 4_294_967_295);
const QUEUED_ROWS: Kind = Count(1, 1_000_000_000_000);
const BATCH_TIME: Kind = Time(seconds(1), seconds(366 * 24 * 60 * 60));
const BATCH_BYTES: Kind = Size(0, 1 << 50);

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(500)
}

/// Of what the machine has, or this process may use; where neither is known there is no limit.
fn half_of_memory() -> String {
    let number = |file: &str, of: &dyn Fn(&str) -> Option<u64>| std::fs::read_to_string(file).ok().and_then(|text| of(&text));
    let machine =
        number("/proc/meminfo", &|text| text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok()));
    let group = number("/sys/fs/cgroup/memory.max", &|text| text.trim().parse().ok());
    let known = [machine.map(|kib: u64| kib.saturating_mul(1 << 10)), group].into_iter().flatten().min();
    // Whole MiB, so that it is shown in one form.
    show_size(known.map_or(1 << 50, |bytes| ((bytes / 2) >> 20 << 20).clamp(1 << 20, 1 << 50)))
}

fn default_name() -> String {
    format!("{}-{}", gethostname::gethostname().to_string_lossy(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_in_its_one_form() {
        for setting in SETTINGS {
            let text = match setting.default {
                Value(text) => text.to_owned(),
                Machine { value, .. } => value(),
                Unset | Derived(_) => continue,
            };
            assert_eq!(setting.kind.check(&text).as_deref(), Ok(text.as_str()), "{}", setting.name());
        }
    }

    #[test]
    fn the_limits_default_to_those_of_a_run() {
        let limits = Limits::default();
        let default = |name| match Setting::find(name).unwrap().default {
            Value(text) => text.to_owned(),
            _ => panic!(),
        };
        assert_eq!(default("limits.fuel"), limits.fuel.to_string());
        assert_eq!(default("limits.fuel_per_kib"), limits.fuel_per_kib.to_string());
        assert_eq!(default("limits.query_timeout"), show_time(limits.query_timeout));
        assert_eq!(default("limits.timeout"), show_time(limits.timeout));
        assert_eq!(default("limits.memory"), show_size(limits.memory_bytes));
        assert_eq!(default("limits.output"), show_size(limits.output_bytes));
        assert_eq!(default("limits.messages"), limits.messages.to_string());
        assert_eq!(default("limits.pieces"), limits.pieces.to_string());
        assert_eq!(default("limits.log"), show_size(u64::from(limits.log_bytes)));
        let quota = crate::model::Quota::default();
        assert_eq!(default("limits.input"), show_size(quota.input_bytes));
        assert_eq!(default("limits.batch_rows"), quota.batch_rows.to_string());
        assert_eq!(default("limits.queued_rows"), quota.queued_rows.to_string());
        assert_eq!(default("limits.batch_time"), show_time(quota.batch_time));
        assert_eq!(default("limits.batch_log"), show_size(quota.batch_log_bytes));
        assert_eq!(default("limits.batch_files"), show_size(quota.batch_file_bytes));
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_and_the_bounds_are_not() {
        let heartbeat = Setting::find("worker.heartbeat").unwrap().kind;
        assert_eq!(heartbeat.check("100ms").as_deref(), Ok("100ms"));
        assert_eq!(heartbeat.check("300s").as_deref(), Ok("5m"));
        assert_eq!(heartbeat.check("99ms").unwrap_err(), "it should be between 100ms and 5m, not 99ms");
        let slots = Setting::find("worker.slots").unwrap().kind;
        assert!(slots.check("1").is_ok() && slots.check("1_000").is_ok() && slots.check("0").is_err() && slots.check("1001").is_err());
        assert_eq!(slots.check("many").unwrap_err(), "it should be a whole number, not many");
        let memory = Setting::find("limits.memory").unwrap().kind;
        assert!(memory.check("64KiB").is_ok() && memory.check("256MiB").is_ok() && memory.check("1KiB").is_err() && memory.check("257MiB").is_err());
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        for (name, text) in [
            ("store.url", "psotgres://u:hunter2@db/jobs"),
            ("redis.url", "http://u:hunter2@cache"),
            ("objects.url", "s3://key:hunter2@bucket"),
            ("objects.endpoint", "https://key:hunter2@host"),
        ] {
            let refused = Setting::find(name).unwrap().kind.check(text).unwrap_err();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
