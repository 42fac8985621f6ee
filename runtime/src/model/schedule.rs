use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BatchId, JsonText, PartialTerms, ProcessorKind, Terms, Timestamp};

/// Rows of a schedule, at most.
pub const SCHEDULE_ROWS_MAX: usize = 1_000;
/// Bytes of the inputs of all rows of a schedule together, at most.
pub const SCHEDULE_BYTES_MAX: usize = 1 << 20;

/// What a schedule is called: its name is one of its app's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduleKey {
    pub app: String,
    pub name: String,
}

impl ScheduleKey {
    pub fn new(app: impl Into<String>, name: impl Into<String>) -> ScheduleKey {
        ScheduleKey { app: app.into(), name: name.into() }
    }
}

/// What becomes of ticks that passed while nobody submitted them: all workers were down, or the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Nothing: only the next tick counts.
    #[default]
    Skip,
    /// One submission for all of them.
    Once,
    /// One submission for each, but for those before the last hundred.
    All,
}

impl Missed {
    pub fn as_str(self) -> &'static str {
        match self {
            Missed::Skip => "skip",
            Missed::Once => "once",
            Missed::All => "all",
        }
    }
}

/// What becomes of a tick while the batch of the tick before it has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is submitted all the same.
    #[default]
    Allow,
    /// Nothing is submitted.
    Skip,
}

impl Overlap {
    pub fn as_str(self) -> &'static str {
        match self {
            Overlap::Allow => "allow",
            Overlap::Skip => "skip",
        }
    }
}

/// A schedule to register. The store knows nothing of cron: who registers it says when the next tick is.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    pub key: ScheduleKey,
    /// Stored in lower case.
    pub op: String,
    pub kind: ProcessorKind,
    pub cron: String,
    /// An IANA time zone.
    pub zone: String,
    /// What is not said here the policies say, when a tick comes.
    pub terms: PartialTerms,
    pub missed: Missed,
    pub overlap: Overlap,
    pub context: JsonText,
    pub next_at: Timestamp,
}

/// A schedule as the store knows it, but for its context and rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    pub app: String,
    pub name: String,
    /// Its own name for ever: one that is removed and made again is another schedule.
    pub id: Uuid,
    pub op: String,
    pub kind: ProcessorKind,
    pub cron: String,
    pub zone: String,
    /// What is not said here the policies say, when a tick comes.
    pub terms: PartialTerms,
    pub rows: u32,
    pub missed: Missed,
    pub overlap: Overlap,
    pub paused: bool,
    /// The tick that comes next, unless it is paused. It lies in the past while nobody submits it.
    pub next_at: Timestamp,
    /// The last tick that was taken up: submitted, skipped because of an overlap, or failed.
    pub last_at: Option<Timestamp>,
    /// What was submitted last.
    pub last_batch: Option<BatchId>,
    /// Why the last tick could not be submitted.
    pub error: Option<String>,
    /// Changes whenever the schedule is changed, paused or resumed.
    #[serde(skip)]
    pub token: i64,
}

impl Schedule {
    pub fn key(&self) -> ScheduleKey {
        ScheduleKey::new(&self.app, &self.name)
    }

    /// The tick that comes next, as whoever takes it up has to name it.
    pub fn next_tick(&self) -> TickKey {
        TickKey { schedule: self.key(), token: self.token, next_at: self.next_at }
    }
}

/// The tick of a schedule that somebody takes up. Of all who name it one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickKey {
    pub schedule: ScheduleKey,
    pub token: i64,
    /// The schedule's next tick, as it was read.
    pub next_at: Timestamp,
}

/// Schedules whose ticks come next.
#[derive(Clone, Debug)]
pub struct ComingTicks {
    pub now: Timestamp,
    /// The first by their next tick, at least one. Those whose tick is not later than now are due.
    pub schedules: Vec<Schedule>,
}

/// What is done with a tick.
#[derive(Clone, Debug)]
pub enum TickAction {
    /// The stored request is submitted as a batch.
    Submit {
        /// The tick that it is submitted for.
        at: Timestamp,
        batch: BatchId,
        processor_version: u32,
        processor_digest: String,
        terms: Terms,
        /// The tick that comes next.
        next_at: Timestamp,
    },
    /// It cannot be submitted.
    Fail { at: Timestamp, error: String, next_at: Timestamp },
    /// It was missed, and does not count.
    Drop { next_at: Timestamp },
    /// Nobody can say when the next tick is: the schedule is paused.
    Stop { error: String },
}

/// What became of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickEnd {
    Submitted,
    /// Nothing was submitted, since the batch of an earlier tick has not ended.
    EarlierRuns,
    /// As it was asked for, without a batch.
    Moved,
    /// Another took it up, or the schedule was changed, paused or removed. Nothing was done.
    Gone,
}
