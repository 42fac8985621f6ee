use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::limits::millis;

/// How often a row is tried when nothing else is said.
const ATTEMPTS_DEFAULT: u32 = 3;

/// What its submitter says about how a batch is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Batches of an app are taken up by priority, the highest first, then by age.
    pub priority: i32,
    /// How often a row is tried at most: when its processor asks for a retry, when the rule for retries says so, or when its worker dies. 1 or more.
    /// `mark-done` is called as often: see [`Terms::mark_calls_max`].
    pub attempts_max: u32,
    pub retries: RetryRule,
    /// No row is run before.
    pub start_at: Option<Timestamp>,
    /// The batch is aborted when rows have no outcome by then.
    pub deadline_at: Option<Timestamp>,
    /// The batch is aborted when more rows than this have failed.
    pub failures_max: Option<FailureLimit>,
}

impl Default for Terms {
    /// Priority 0, three attempts, at once, without end.
    fn default() -> Terms {
        Terms { priority: 0, attempts_max: ATTEMPTS_DEFAULT, retries: RetryRule::default(), start_at: None, deadline_at: None, failures_max: None }
    }
}

/// When a row is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRule {
    /// About so long after the first attempt comes the second; after each further one it is twice as long.
    #[serde(rename = "backoff_ms", with = "millis")]
    pub backoff: Duration,
    /// But never longer than this.
    #[serde(rename = "backoff_max_ms", with = "millis")]
    pub backoff_max: Duration,
    /// Rows that failed with one of these codes are tried again, too: the runtime's own, such as `trap` or `deadline`, and those of the processor's messages.
    pub codes: Vec<String>,
}

impl Default for RetryRule {
    fn default() -> RetryRule {
        RetryRule { backoff: Duration::from_secs(1), backoff_max: Duration::from_secs(300), codes: Vec::new() }
    }
}

/// How many rows of a batch may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureLimit {
    /// So many rows.
    Rows(u32),
    /// So many of 100 rows of the whole batch: 0 to 100.
    Percent(u8),
}

impl fmt::Display for FailureLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureLimit::Rows(rows) => write!(f, "{rows}"),
            FailureLimit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What is no limit of failures.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither a number of rows, such as 100, nor a part of the batch, 0% to 100%")]
pub struct NoFailureLimit(String);

impl FromStr for FailureLimit {
    type Err = NoFailureLimit;

    fn from_str(text: &str) -> Result<FailureLimit, NoFailureLimit> {
        let limit = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(FailureLimit::Percent),
            None => text.parse().ok().map(FailureLimit::Rows),
        };
        limit.ok_or_else(|| NoFailureLimit(text.to_owned()))
    }
}

impl Serialize for FailureLimit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FailureLimit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<FailureLimit, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_failures_is_a_number_or_a_part() {
        for text in ["0", "100", "0%", "100%"] {
            assert_eq!(text.parse::<FailureLimit>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "101%", "%", "5 %", "1.5%", "ten"] {
            assert!(text.parse::<FailureLimit>().is_err(), "{text}");
        }
    }
}
