use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BatchId, Timestamp, parse_time, show_time};

/// How long something is kept once its batch is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepFor {
    #[default]
    Ever,
    For(Duration),
}

impl KeepFor {
    /// What was done at this moment or before is due; nothing is, when it is kept for ever.
    pub fn due_before(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            KeepFor::Ever => None,
            KeepFor::For(time) => Some(Timestamp(now.0.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))),
        }
    }
}

impl fmt::Display for KeepFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepFor::Ever => f.write_str("forever"),
            KeepFor::For(time) => f.write_str(&show_time(*time)),
        }
    }
}

/// What is no time to keep something for.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no time to keep something for: it looks like 90d, 12h or 30m, or forever")]
pub struct NoKeepFor(String);

impl FromStr for KeepFor {
    type Err = NoKeepFor;

    fn from_str(text: &str) -> Result<KeepFor, NoKeepFor> {
        if text == "forever" {
            return Ok(KeepFor::Ever);
        }
        parse_time(text).map(KeepFor::For).map_err(|_| NoKeepFor(text.to_owned()))
    }
}

impl Serialize for KeepFor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeepFor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<KeepFor, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How long the parts of a batch are kept once it is done, and how long it is kept itself. Its parts go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Keep {
    /// Output files.
    pub files: KeepFor,
    /// Inputs of rows, and the files that they came from where these are kept.
    pub inputs: KeepFor,
    /// What became of rows: outputs, messages and logs.
    pub outcomes: KeepFor,
    /// What happened to batches.
    pub events: KeepFor,
    pub batches: KeepFor,
}

impl Default for Keep {
    /// Everything for ever, but events for a week.
    fn default() -> Keep {
        let events = KeepFor::For(Duration::from_secs(7 * 86_400));
        Keep { files: KeepFor::Ever, inputs: KeepFor::Ever, outcomes: KeepFor::Ever, events, batches: KeepFor::Ever }
    }
}

impl Keep {
    /// What is due at this moment.
    pub fn due(&self, now: Timestamp) -> Due {
        Due {
            files: self.files.due_before(now),
            inputs: self.inputs.due_before(now),
            outcomes: self.outcomes.due_before(now),
            events: self.events.due_before(now),
            batches: self.batches.due_before(now),
        }
    }
}

/// The same as far as something is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PartialKeep {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<KeepFor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<KeepFor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<KeepFor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<KeepFor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<KeepFor>,
}

impl PartialKeep {
    /// These, and where they say nothing the others.
    #[must_use]
    pub fn or(self, others: PartialKeep) -> PartialKeep {
        PartialKeep {
            files: self.files.or(others.files),
            inputs: self.inputs.or(others.inputs),
            outcomes: self.outcomes.or(others.outcomes),
            events: self.events.or(others.events),
            batches: self.batches.or(others.batches),
        }
    }

    /// These, and where they say nothing the defaults.
    pub fn complete(self, defaults: &Keep) -> Keep {
        Keep {
            files: self.files.unwrap_or(defaults.files),
            inputs: self.inputs.unwrap_or(defaults.inputs),
            outcomes: self.outcomes.unwrap_or(defaults.outcomes),
            events: self.events.unwrap_or(defaults.events),
            batches: self.batches.unwrap_or(defaults.batches),
        }
    }
}

/// What was done at these moments or before is to be pruned; none for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub files: Option<Timestamp>,
    pub inputs: Option<Timestamp>,
    pub outcomes: Option<Timestamp>,
    pub events: Option<Timestamp>,
    pub batches: Option<Timestamp>,
}

impl Due {
    /// Whether anything can be due at all.
    pub fn is_never(&self) -> bool {
        *self == Due::default()
    }

    /// No later than this is anything due.
    pub fn last(&self) -> Option<Timestamp> {
        [self.files, self.inputs, self.outcomes, self.events, self.batches].into_iter().flatten().max()
    }
}

/// A part of a batch that can be pruned by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Files,
    Inputs,
    Outcomes,
    Events,
}

impl Part {
    pub const ALL: [Part; 4] = [Part::Files, Part::Inputs, Part::Outcomes, Part::Events];

    pub fn as_str(self) -> &'static str {
        match self {
            Part::Files => "files",
            Part::Inputs => "inputs",
            Part::Outcomes => "outcomes",
            Part::Events => "events",
        }
    }
}

/// When parts of a batch were pruned; none for those that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedParts {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub files: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inputs: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcomes: Option<Timestamp>,
}

impl PrunedParts {
    /// When a part was pruned, if it was.
    pub fn at(&self, part: Part) -> Option<Timestamp> {
        match part {
            // That they are gone shows by their numbers.
            Part::Events => None,
            Part::Files => self.files,
            Part::Inputs => self.inputs,
            Part::Outcomes => self.outcomes,
        }
    }

    pub fn is_whole(&self) -> bool {
        *self == PrunedParts::default()
    }
}

/// An operation that has batches, in the store's own order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct OpKey {
    pub app: String,
    /// In lower case.
    pub op: String,
}

/// A batch of which something is being pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruning {
    pub batch: BatchId,
    /// Parts that are being removed.
    pub parts: Vec<Part>,
    /// The batch itself is.
    pub whole: bool,
}

/// How much of an operation is due to be pruned. What goes with a whole batch is not counted among its parts, but files are counted once, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DueCounts {
    /// Whole batches, and their rows.
    pub batches: u64,
    pub batch_rows: u64,
    /// Batches whose output files are due by themselves.
    pub files_of: u64,
    /// Batches whose inputs are, and their rows.
    pub inputs_of: u64,
    pub input_rows: u64,
    /// Batches whose outcomes are, and their rows.
    pub outcomes_of: u64,
    pub outcome_rows: u64,
    /// Objects of all these in the object store, and their bytes.
    pub objects: u64,
    pub object_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_keep_something_is_written_as_it_is_read() {
        for text in ["forever", "90d", "36h", "30m", "45s", "1500ms", "0s"] {
            assert_eq!(text.parse::<KeepFor>().unwrap().to_string(), text);
        }
        assert_eq!("24h".parse::<KeepFor>().unwrap().to_string(), "1d");
        for text in ["", "d", "90", "-1d", "1.5d", "1 d", "1y", "never", "99999999999999999999d", "999999999999999d"] {
            assert!(text.parse::<KeepFor>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_said_goes_before_the_defaults() {
        let day = KeepFor::For(Duration::from_secs(86_400));
        let of_op = PartialKeep { files: Some(KeepFor::Ever), ..PartialKeep::default() };
        let of_app = PartialKeep { files: Some(day), inputs: Some(day), ..PartialKeep::default() };
        let keep = of_op.or(of_app).complete(&Keep { outcomes: day, ..Keep::default() });
        assert_eq!(keep, Keep { files: KeepFor::Ever, inputs: day, outcomes: day, ..Keep::default() });
        let due = keep.due(Timestamp(100_000_000));
        assert_eq!((due.files, due.inputs, Due { events: None, ..due }.last()), (None, Some(Timestamp(13_600_000)), Some(Timestamp(13_600_000))));
        assert!(Keep { events: KeepFor::Ever, ..Keep::default() }.due(Timestamp(0)).is_never());
    }
}
