use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{millis, some_millis};
use super::{App, INPUT_BYTES_MAX, Limits, show_time};

/// What the batches and slow queries of one app may hold, beside what one row may use ([`Limits`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Bytes of one input.
    pub input_bytes: u64,
    /// Rows of one batch.
    pub batch_rows: u64,
    /// Rows without an outcome in all batches of the app that have not ended: held, queued and in progress.
    pub queued_rows: u64,
    /// Time of a batch from its first claim to its last outcome.
    #[serde(rename = "batch_time_ms", with = "millis")]
    pub batch_time: Duration,
    /// Logs of all rows of a batch together.
    pub batch_log_bytes: u64,
    /// Pieces for the output files of a batch together.
    pub batch_file_bytes: u64,
}

/// A quota that an app was given: what is none is as the operator says for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppQuota {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_rows: Option<u64>,
    #[serde(rename = "batch_time_ms", with = "some_millis", skip_serializing_if = "Option::is_none")]
    pub batch_time: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_log_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_file_bytes: Option<u64>,
}

impl Quota {
    /// Nothing that the runtime could hold is over it.
    pub fn most() -> Quota {
        Quota {
            input_bytes: 1 << 30,
            batch_rows: u64::from(u32::MAX),
            queued_rows: 1_000_000_000_000,
            batch_time: Duration::from_secs(366 * 24 * 60 * 60),
            batch_log_bytes: 1 << 50,
            batch_file_bytes: 1 << 50,
        }
    }

    /// What an app has that was given this.
    #[must_use]
    pub fn with(&self, given: &AppQuota) -> Quota {
        Quota {
            input_bytes: given.input_bytes.unwrap_or(self.input_bytes),
            batch_rows: given.batch_rows.unwrap_or(self.batch_rows),
            queued_rows: given.queued_rows.unwrap_or(self.queued_rows),
            batch_time: given.batch_time.unwrap_or(self.batch_time),
            batch_log_bytes: given.batch_log_bytes.unwrap_or(self.batch_log_bytes),
            batch_file_bytes: given.batch_file_bytes.unwrap_or(self.batch_file_bytes),
        }
    }

    /// Each of them, but no more than here.
    #[must_use]
    pub fn at_most(&self, most: &Quota) -> Quota {
        Quota {
            input_bytes: self.input_bytes.min(most.input_bytes),
            batch_rows: self.batch_rows.min(most.batch_rows),
            queued_rows: self.queued_rows.min(most.queued_rows),
            batch_time: self.batch_time.min(most.batch_time),
            batch_log_bytes: self.batch_log_bytes.min(most.batch_log_bytes),
            batch_file_bytes: self.batch_file_bytes.min(most.batch_file_bytes),
        }
    }
}

impl Default for Quota {
    fn default() -> Quota {
        Quota {
            input_bytes: INPUT_BYTES_MAX as u64,
            batch_rows: 10_000_000,
            queued_rows: 50_000_000,
            batch_time: Duration::from_secs(7 * 24 * 60 * 60),
            batch_log_bytes: 64 << 20,
            batch_file_bytes: 10 << 30,
        }
    }
}

/// What an operator says about all apps: what those have that were given nothing, and the most that one may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppBounds {
    pub quota: Quota,
    pub quota_max: Quota,
    pub limits_max: Limits,
    pub running_max: u32,
    pub weight_max: u32,
}

impl AppBounds {
    /// Nothing is bounded but by what the runtime can hold.
    pub fn open() -> AppBounds {
        AppBounds { quota: Quota::most(), quota_max: Quota::most(), limits_max: Limits::most(), running_max: u32::MAX, weight_max: App::WEIGHT_MAX }
    }

    /// What the batches of an app may hold.
    pub fn quota_of(&self, given: &AppQuota) -> Quota {
        self.quota.with(given).at_most(&self.quota_max)
    }

    /// What an app was to be given that is more than the operator allows, as a sentence.
    ///
    /// # Errors
    /// That sentence.
    pub fn check(&self, app: &App) -> Result<(), String> {
        let (millis, quota) = (|time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &app.quota);
        let mut wanted = vec![
            ("weight", Some(u64::from(app.weight)), u64::from(self.weight_max)),
            ("running", app.running_max.map(u64::from), u64::from(self.running_max)),
            ("input", quota.input_bytes, self.quota_max.input_bytes),
            ("batch_rows", quota.batch_rows, self.quota_max.batch_rows),
            ("queued_rows", quota.queued_rows, self.quota_max.queued_rows),
            ("batch_time", quota.batch_time.map(millis), millis(self.quota_max.batch_time)),
            ("batch_log", quota.batch_log_bytes, self.quota_max.batch_log_bytes),
            ("batch_files", quota.batch_file_bytes, self.quota_max.batch_file_bytes),
        ];
        if let Some(limits) = &app.limits {
            let most = &self.limits_max;
            wanted.extend([
                ("fuel", Some(limits.fuel), most.fuel),
                ("fuel_per_kib", Some(limits.fuel_per_kib), most.fuel_per_kib),
                ("timeout", Some(millis(limits.timeout)), millis(most.timeout)),
                ("query_timeout", Some(millis(limits.query_timeout)), millis(most.query_timeout)),
                ("memory", Some(limits.memory_bytes), most.memory_bytes),
                ("output", Some(limits.output_bytes), most.output_bytes),
                ("messages", Some(u64::from(limits.messages)), u64::from(most.messages)),
                ("pieces", Some(u64::from(limits.pieces)), u64::from(most.pieces)),
                ("log", Some(u64::from(limits.log_bytes)), u64::from(most.log_bytes)),
            ]);
        }
        match wanted.into_iter().find_map(|(key, value, most)| value.filter(|value| *value > most).map(|value| (key, value, most))) {
            Some((key, value, most)) => {
                let is_time = key.ends_with("time") || key.ends_with("timeout");
                let show = |value: u64| if is_time { show_time(Duration::from_millis(value)) } else { value.to_string() };
                let (value, most) = (show(value), show(most));
                Err(format!("app {:?} was to have {key} {value}, but the most that an app may have is {most} (maximum.{key})", app.name))
            }
            None => Ok(()),
        }
    }
}
