use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BatchCounts, BatchId, BatchStatus, Message, Timestamp};

/// What happened to a batch or a slow query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It came in. One that is not held can be claimed from now on.
    Submitted,
    /// It was held, and can be claimed from now on.
    Released,
    /// Its first rows were claimed.
    Started,
    /// More of its rows have ended. Told once a second at most.
    Progress,
    /// A row failed, and others since the last such event. Told once a second at most, the first at once.
    RowFailed,
    /// It was aborted.
    Aborted,
    /// Its status and its output files are final.
    Finished,
    /// Its processor was told of its end: nothing remains to be done.
    Summarised,
}

impl EventKind {
    pub const ALL: [EventKind; 8] = [
        EventKind::Submitted,
        EventKind::Released,
        EventKind::Started,
        EventKind::Progress,
        EventKind::RowFailed,
        EventKind::Aborted,
        EventKind::Finished,
        EventKind::Summarised,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Submitted => "submitted",
            EventKind::Released => "released",
            EventKind::Started => "started",
            EventKind::Progress => "progress",
            EventKind::RowFailed => "row-failed",
            EventKind::Aborted => "aborted",
            EventKind::Finished => "finished",
            EventKind::Summarised => "summarised",
        }
    }
}

/// A place among all events of a store. What comes after it is read from there on, and nothing is ever added before it. One that was read with the events of a single batch
/// holds for that batch: others may still have events before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// Over PostgreSQL the number of a transaction, over SQLite 0.
    pub transaction: u64,
    pub number: u64,
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.transaction, self.number)
    }
}

/// What is no position.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no position of an event: it looks like 812-4711, as events have it")]
pub struct NoEventPosition(String);

impl FromStr for EventPosition {
    type Err = NoEventPosition;

    fn from_str(text: &str) -> Result<EventPosition, NoEventPosition> {
        let read = |text: &str| text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
        let position =
            text.split_once('-').and_then(|(transaction, number)| Some(EventPosition { transaction: read(transaction)?, number: read(number)? }));
        position.ok_or_else(|| NoEventPosition(text.to_owned()))
    }
}

impl Serialize for EventPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<EventPosition, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Something that happened to a batch or a slow query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchEvent {
    pub position: EventPosition,
    pub batch: BatchId,
    pub app: String,
    pub op: String,
    /// The number of the event among those of its batch, from 1 on, without a gap: one that is missing was pruned.
    pub seq: u32,
    /// By the clock of the database.
    pub at: Timestamp,
    pub kind: EventKind,
    /// What the batch was then.
    pub status: BatchStatus,
    #[serde(flatten)]
    pub counts: BatchCounts,
    /// The line of a failed row.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// How many rows failed since the last event of a failed row, this one included.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failures: Option<u64>,
    /// What a failed row said.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub messages: Vec<Message>,
    /// Why the batch was aborted, or what `mark-done` returned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// Whose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventsOf {
    Batch(BatchId),
    App(String),
    All,
}

/// Events that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    pub events: Vec<BatchEvent>,
    /// Where the next page begins; as before, when nothing was there.
    pub next: EventPosition,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_it_is_read() {
        for text in ["0-0", "0-17", "812-4711"] {
            assert_eq!(text.parse::<EventPosition>().unwrap().to_string(), text);
        }
        for text in ["", "1", "-", "1-", "-1", "1--2", "a-1", "1-2-3", "99999999999999999999-1", "0-18446744073709551615"] {
            assert!(text.parse::<EventPosition>().is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&EventKind::RowFailed).unwrap(), "\"row-failed\"");
    }
}
