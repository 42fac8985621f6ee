use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BatchCounts, BatchFile, BatchId, BatchStatus, ProcessorKind, Timestamp};

/// The batches and slow queries of an app that a list shows. Each filter that is set has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFilter {
    pub app: String,
    /// The operation; case does not matter.
    pub op: Option<String>,
    /// Any of these statuses; all statuses when the list is empty.
    pub statuses: Vec<BatchStatus>,
    /// The version of the processor.
    pub version: Option<u32>,
    pub group: Option<String>,
    /// The batch itself.
    pub id: Option<BatchId>,
    /// The name of a file that rows of the batch came from.
    pub file_name: Option<String>,
    /// The SHA-256 of such a file, in hexadecimal; case does not matter. With a name, of the same file.
    pub file_sha256: Option<String>,
    /// Submitted at this moment or later.
    pub since: Option<Timestamp>,
    /// Submitted before this moment.
    pub until: Option<Timestamp>,
}

impl BatchFilter {
    /// All batches of an app.
    pub fn of(app: impl Into<String>) -> BatchFilter {
        BatchFilter {
            app: app.into(),
            op: None,
            statuses: Vec::new(),
            version: None,
            group: None,
            id: None,
            file_name: None,
            file_sha256: None,
            since: None,
            until: None,
        }
    }
}

/// A place in a list of batches: the next page begins behind it. It stays valid when its batch is
/// removed.
///
/// The number is the store's own: newer batches have higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchPosition(pub u64);

impl fmt::Display for BatchPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text that is not the position of a batch.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the position of a batch: positions look like 812, as the list has them")]
pub struct ParseBatchPositionError(String);

impl FromStr for BatchPosition {
    type Err = ParseBatchPositionError;

    fn from_str(text: &str) -> Result<BatchPosition, ParseBatchPositionError> {
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok());
        let number = number.flatten().filter(|number| i64::try_from(*number).is_ok());
        number.map(BatchPosition).ok_or_else(|| ParseBatchPositionError(text.to_owned()))
    }
}

impl Serialize for BatchPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BatchPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<BatchPosition, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A batch or slow query in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedBatch {
    pub position: BatchPosition,
    pub id: BatchId,
    pub app: String,
    pub op: String,
    pub kind: ProcessorKind,
    pub version: u32,
    pub priority: i32,
    pub group: Option<String>,
    pub round: u32,
    pub status: BatchStatus,
    /// Nothing remains to be done: `mark-done` was called, too.
    pub done: bool,
    #[serde(flatten)]
    pub counts: BatchCounts,
    pub fuel: u64,
    pub abort_reason: Option<String>,
    pub mark_error: Option<String>,
    pub submitted_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The first of its files that the filter names; without such a filter, the first of its files.
    pub file: Option<BatchFile>,
}

/// Batches that follow each other in a list, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPage {
    /// The page may be empty, or shorter than its limit, although there is a `next`: a page looks at
    /// a limited number of batches, and the filter may match few of them.
    pub batches: Vec<ListedBatch>,
    /// The place behind which the next page begins; none at the end of the list.
    pub next: Option<BatchPosition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_it_is_read() {
        for text in ["0", "812", "9223372036854775807"] {
            assert_eq!(text.parse::<BatchPosition>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "+1", " 1", "1-2", "a", "9223372036854775808"] {
            assert!(text.parse::<BatchPosition>().is_err(), "{text}");
        }
    }
}
