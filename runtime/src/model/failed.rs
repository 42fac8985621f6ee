use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BatchId, RecordedOutcome, Timestamp};

/// Which failed rows of an app are listed. Rows that failed in a round after which they were run again are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRows {
    pub app: String,
    /// Only of this operation; case does not matter.
    pub op: Option<String>,
    /// Only rows with one of these codes among their messages; all failed rows when there is none.
    pub codes: Vec<String>,
    /// Only of batches of which a row failed then or later. By the clock of the database, to about a second.
    pub since: Option<Timestamp>,
}

impl FailedRows {
    /// All of an app.
    pub fn of(app: impl Into<String>) -> FailedRows {
        FailedRows { app: app.into(), op: None, codes: Vec::new(), since: None }
    }
}

/// A place among the failed rows of an app: the next page begins behind it. It stays good whatever becomes of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedPosition {
    /// The store's own number of the batch: newer ones have higher ones.
    pub batch: u64,
    pub row_no: u32,
}

impl fmt::Display for FailedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.batch, self.row_no)
    }
}

/// What is no position.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no position of a failed row: it looks like 812-17, as failed rows have it")]
pub struct NoFailedPosition(String);

impl FromStr for FailedPosition {
    type Err = NoFailedPosition;

    fn from_str(text: &str) -> Result<FailedPosition, NoFailedPosition> {
        let position = text.split_once('-').and_then(|(batch, row_no)| {
            let batch = batch.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok())?;
            Some(FailedPosition { batch, row_no: row_no.parse().ok()? })
        });
        position.ok_or_else(|| NoFailedPosition(text.to_owned()))
    }
}

impl Serialize for FailedPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FailedPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<FailedPosition, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A row that failed, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    pub position: FailedPosition,
    pub batch: BatchId,
    pub op: String,
    /// The round of the batch in which it failed: the one that the batch is in.
    pub round: u32,
    pub row: RecordedOutcome,
}

/// Failed rows that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPage {
    /// None at all where many were looked at and none was one of those that are wanted.
    pub rows: Vec<FailedRow>,
    /// Where the next page begins; none when that was all.
    pub next: Option<FailedPosition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_it_is_read() {
        for text in ["0-0", "0-17", "812-4711"] {
            assert_eq!(text.parse::<FailedPosition>().unwrap().to_string(), text);
        }
        for text in ["", "1", "-", "1-", "-1", "1--2", "a-1", "1-2-3", "18446744073709551615-1", "1-4294967296"] {
            assert!(text.parse::<FailedPosition>().is_err(), "{text}");
        }
    }
}
