use super::{BatchCounts, BatchStatus, Message, OutputFile, Timestamp};

/// Which rows of a batch that has ended are run again, in a new round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRows {
    /// Failed rows with one of these codes among their messages; all failed rows when there is none.
    pub codes: Vec<String>,
    /// Also the rows that were aborted. Without them a batch that was aborted cannot come to another end.
    pub aborted: bool,
    /// What has no outcome by then is aborted, instead of at the batch's deadline. A deadline that has passed does not hold in the new round.
    pub deadline_at: Option<Timestamp>,
}

/// What a retry of a batch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retried {
    /// The round that runs now: 2 after the first retry.
    pub round: u32,
    /// Rows that are run in it.
    pub rows: u64,
}

/// How a round ended that was followed by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRound {
    pub round: u32,
    pub status: BatchStatus,
    pub counts: BatchCounts,
    pub abort_reason: Option<String>,
    pub mark_error: Option<String>,
    /// Calls of `mark-done` that ended, or whose worker died.
    pub mark_calls: u32,
    /// When its first row was claimed; none when none was.
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// Its output files, by name.
    pub files: Vec<OutputFile>,
}

/// The outcome that a row had in a round after which it was run again. It had failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastOutcome {
    pub round: u32,
    pub row_no: u32,
    pub line: u32,
    /// Valid JSON.
    pub output: Option<String>,
    pub messages: Vec<Message>,
    /// How often it was tried in that round.
    pub attempts: u32,
    pub fuel: u64,
    pub log: Option<String>,
}

/// A place in the past outcomes of a batch: the next page begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastCursor {
    pub row_no: u32,
    pub round: u32,
}

impl PastOutcome {
    /// Where it is.
    pub fn cursor(&self) -> PastCursor {
        PastCursor { row_no: self.row_no, round: self.round }
    }
}
