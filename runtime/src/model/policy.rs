use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::some_millis;
use super::terms::{check_attempts, check_backoff, check_codes};
use super::{FailureLimit, PartialKeep, RetryRule, Terms, Timestamp, canonical_op};

/// What an operator says about the work of an app, or of one of its operations. What is said of an operation holds beside what is said of its app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    pub app: String,
    /// Stored in lower case; none for all of the app.
    pub op: Option<String>,
    /// No row is begun. Rows that run come to their end.
    pub paused: bool,
    /// No more rows are begun than this.
    pub rate: Option<Rate>,
    /// The terms of batches that say nothing else. An operation's go before its app's.
    pub terms: PartialTerms,
    /// How long batches are kept once they are done. What is said of an operation goes before what is said of its app.
    pub keep: PartialKeep,
    /// Which rows of a batch may meet in one instance; [`Isolation::Lease`] when neither the operation nor its app says.
    pub isolation: Option<Isolation>,
}

/// Which rows may meet in one instance of a processor. Those of two batches never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Those of one lease: some of a batch that follow each other.
    #[default]
    Lease,
    /// None: each row gets an instance of its own.
    Row,
    /// Those of one batch that one worker runs: an instance is used again for its further leases. For code that takes long to start.
    Warm,
}

impl Isolation {
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Lease => "lease",
            Isolation::Row => "row",
            Isolation::Warm => "warm",
        }
    }
}

impl Policy {
    /// One that says nothing.
    pub fn of(app: impl Into<String>, op: Option<&str>) -> Policy {
        Policy {
            app: app.into(),
            op: op.map(canonical_op),
            paused: false,
            rate: None,
            terms: PartialTerms::default(),
            keep: PartialKeep::default(),
            isolation: None,
        }
    }
}

/// Terms as far as something is said about them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PartialTerms {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    #[serde(rename = "backoff_ms", with = "some_millis", skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    #[serde(rename = "backoff_max_ms", with = "some_millis", skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_codes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_max: Option<FailureLimit>,
}

impl PartialTerms {
    /// These, and where they say nothing the others. Of a backoff and a maximum that do not go
    /// together, the one that is said here holds, and the other follows.
    #[must_use]
    pub fn or(self, others: PartialTerms) -> PartialTerms {
        let (backoff, backoff_max) = match (self.backoff, self.backoff_max) {
            (Some(first), None) => (Some(first), others.backoff_max.map(|longest| longest.max(first))),
            (None, Some(longest)) => (others.backoff.map(|first| first.min(longest)), Some(longest)),
            (None, None) => (others.backoff, others.backoff_max),
            both => both,
        };
        PartialTerms {
            priority: self.priority.or(others.priority),
            attempts_max: self.attempts_max.or(others.attempts_max),
            backoff,
            backoff_max,
            retry_codes: self.retry_codes.or(others.retry_codes),
            failures_max: self.failures_max.or(others.failures_max),
        }
    }

    /// Checks that what is said can hold together.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.attempts_max.map_or(Ok(()), check_attempts)?;
        check_codes(self.retry_codes.as_deref().unwrap_or_default())?;
        self.backoff.zip(self.backoff_max).map_or(Ok(()), |(first, longest)| check_backoff(first, longest))
    }

    /// These, and where they say nothing the defaults.
    pub fn complete(self, start_at: Option<Timestamp>, deadline_at: Option<Timestamp>) -> Terms {
        let Terms { priority, attempts_max, retries: RetryRule { backoff, backoff_max, codes }, .. } = Terms::default();
        let whole = self.or(PartialTerms { backoff: Some(backoff), backoff_max: Some(backoff_max), ..PartialTerms::default() });
        Terms {
            priority: whole.priority.unwrap_or(priority),
            attempts_max: whole.attempts_max.unwrap_or(attempts_max),
            retries: RetryRule {
                backoff: whole.backoff.unwrap_or(backoff),
                backoff_max: whole.backoff_max.unwrap_or(backoff_max),
                codes: whole.retry_codes.unwrap_or(codes),
            },
            start_at,
            deadline_at,
            failures_max: whole.failures_max,
        }
    }
}

/// How many rows are begun in a time, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Millionths of rows per second, 1 to [`Rate::MICROS_MAX`].
    pub micros: u64,
    /// So many rows may be begun at once after a while without work, 1 to [`Rate::BURST_MAX`].
    pub burst: u32,
}

impl Rate {
    /// A million rows per second.
    pub const MICROS_MAX: u64 = 1_000_000_000_000;
    pub const BURST_MAX: u32 = 1_000_000;

    /// With the burst of a tenth of a second: in any ten seconds one percent more than ten times the rate.
    pub fn of(micros: u64) -> Rate {
        Rate { micros, burst: u32::try_from(micros / 10_000_000).unwrap_or(u32::MAX).clamp(1, Rate::BURST_MAX) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.into_iter().find(|(_, seconds)| is_whole(self.micros * seconds)).or(UNITS.last().copied());
        let (name, seconds) = unit.unwrap_or(("s", 1));
        write!(f, "{}/{name}", (self.micros * seconds + 500_000) / 1_000_000)
    }
}

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

/// Millionths that are a whole number, but for what was cut off when they were made.
fn is_whole(micros: u64) -> bool {
    micros >= 1_000_000 && (micros + 3_600) % 1_000_000 <= 3_600
}

/// What is no rate.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no rate: it looks like 500/s, 30/m or 100/h, up to 1000000/s")]
pub struct NoRate(String);

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Rate, NoRate> {
        let wrong = || NoRate(text.to_owned());
        let (rows, unit) = text.split_once('/').ok_or_else(wrong)?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let micros = rows.parse::<u64>().ok().and_then(|rows| rows.checked_mul(1_000_000)).ok_or_else(wrong)? / seconds;
        if (1..=Rate::MICROS_MAX).contains(&micros) { Ok(Rate::of(micros)) } else { Err(wrong()) }
    }
}

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut rate = serializer.serialize_struct("Rate", 2)?;
        rate.serialize_field("rows", &self.to_string())?;
        rate.serialize_field("burst", &self.burst)?;
        rate.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_rows_in_a_time() {
        for (text, micros, burst) in
            [("500/s", 500_000_000, 50), ("30/m", 500_000, 1), ("100/h", 27_777, 1), ("1000000/s", 1_000_000_000_000, 100_000)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.micros, rate.burst, rate.to_string().as_str()), (micros, burst, text));
        }
        for text in ["", "500", "0/s", "-1/s", "5/d", "1000001/s", "x/s", "1.5/s", "99999999999999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_said_goes_before_what_is_said_of_more() {
        let of_op = PartialTerms { attempts_max: Some(5), failures_max: Some(FailureLimit::Rows(1)), ..PartialTerms::default() };
        let of_app = PartialTerms { attempts_max: Some(7), backoff: Some(Duration::from_secs(9)), ..PartialTerms::default() };
        let terms = PartialTerms { failures_max: Some(FailureLimit::Rows(2)), ..PartialTerms::default() }.or(of_op).or(of_app).complete(None, None);
        assert_eq!((terms.attempts_max, terms.retries.backoff, terms.failures_max), (5, Duration::from_secs(9), Some(FailureLimit::Rows(2))));
        assert_eq!((terms.priority, terms.retries.backoff_max), (0, RetryRule::default().backoff_max));
    }

    #[test]
    fn a_backoff_and_a_maximum_that_are_said_apart_go_together() {
        let said = |backoff: Option<u64>, longest: Option<u64>| PartialTerms {
            backoff: backoff.map(Duration::from_secs),
            backoff_max: longest.map(Duration::from_secs),
            ..PartialTerms::default()
        };
        let whole = |terms: PartialTerms| {
            let rule = terms.complete(None, None).retries;
            (rule.backoff.as_millis(), rule.backoff_max.as_millis())
        };
        assert_eq!(whole(said(Some(600), None)), (600_000, 600_000));
        assert_eq!(whole(PartialTerms { backoff_max: Some(Duration::from_millis(500)), ..PartialTerms::default() }), (500, 500));
        // The terms of the submission hold, whichever of the two they have.
        assert_eq!(whole(said(Some(20), None).or(said(Some(1), Some(10)))), (20_000, 20_000));
        assert_eq!(whole(said(None, Some(5)).or(said(Some(8), Some(10)))), (5_000, 5_000));
        assert_eq!(whole(said(None, None).or(said(Some(8), Some(10)))), (8_000, 10_000));
        let refused = said(Some(10), Some(5)).check().unwrap_err();
        assert_eq!(refused, "the second attempt comes 10s after the first, but at most 5s may lie between two: raise the maximum (backoff_max)");
        assert!(said(Some(5), Some(5)).check().is_ok() && said(Some(10), None).check().is_ok());
    }

    #[test]
    fn codes_of_a_rule_that_no_row_has_are_refused() {
        let of = |codes: &[&str]| {
            PartialTerms { retry_codes: Some(codes.iter().map(|code| (*code).to_owned()).collect()), ..PartialTerms::default() }.check()
        };
        assert!(of(&["trap", "no-such-account"]).is_ok() && of(&[]).is_ok());
        assert_eq!(of(&["trap", ""]).unwrap_err(), "a code of a rule for retries is empty: no row fails with such a code");
        assert!(of(&["  "]).is_err() && of(&["trap "]).unwrap_err().contains("begins or ends with a space: \"trap \""));
        assert!(of(&["x"; 101]).unwrap_err().contains("at most 100 codes"));
    }
}
