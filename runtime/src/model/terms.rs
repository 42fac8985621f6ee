use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::millis;
use super::{Timestamp, show_time};

/// How often a row is tried when nothing else is said.
const ATTEMPTS_DEFAULT: u32 = 3;

/// Codes of a rule for retries, at most, and bytes of each.
const RETRY_CODES_MAX: usize = 100;
const RETRY_CODE_BYTES_MAX: usize = 255;

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

impl Terms {
    /// Checks that these terms can hold together.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        check_attempts(self.attempts_max)?;
        check_codes(&self.retries.codes)?;
        check_backoff(self.retries.backoff, self.retries.backoff_max)
    }
}

pub(super) fn check_attempts(attempts_max: u32) -> Result<(), String> {
    if attempts_max == 0 { Err("a row is tried once at least, but attempts_max is 0".to_owned()) } else { Ok(()) }
}

pub(super) fn check_codes(codes: &[String]) -> Result<(), String> {
    if codes.len() > RETRY_CODES_MAX || codes.iter().any(|code| code.len() > RETRY_CODE_BYTES_MAX) {
        return Err(format!("a rule for retries has at most {RETRY_CODES_MAX} codes of at most {RETRY_CODE_BYTES_MAX} bytes each"));
    }
    match codes.iter().find(|code| code.trim() != **code || code.is_empty()) {
        Some(code) if code.trim().is_empty() => Err("a code of a rule for retries is empty: no row fails with such a code".to_owned()),
        Some(code) => Err(format!("a code of a rule for retries begins or ends with a space: {code:?}")),
        None => Ok(()),
    }
}

/// The longest time between two attempts is not shorter than the first one.
pub(super) fn check_backoff(first: Duration, longest: Duration) -> Result<(), String> {
    if longest < first {
        let (first, longest) = (show_time(first), show_time(longest));
        return Err(format!(
            "the second attempt comes {first} after the first, but at most {longest} may lie between two: raise the maximum (backoff_max)"
        ));
    }
    Ok(())
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
