//! Calls of `mark-done`.

use std::time::Duration;

use super::{Terms, Timestamp};

/// How a call of `mark-done` ended, or why there was none, as it is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkEnd {
    /// True if `mark-done` was called; false if there was no usable processor.
    pub called: bool,
    /// How it failed.
    pub error: Option<String>,
    /// The log of the call, with its stdout and stderr.
    pub log: Option<String>,
    /// When `mark-done` is to be called again; none when the batch is done.
    pub again_after: Option<Duration>,
}

/// A call of `mark-done` that wrote to its log or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkCall {
    /// 1 for the first call in its round.
    pub call: u32,
    pub ended_at: Timestamp,
    /// How it failed.
    pub error: Option<String>,
    /// As the guest wrote it, cut to the limit: for a terminal see [`super::visible`].
    pub log: Option<String>,
    /// Its log did not fit into what a batch of the app may log.
    pub log_dropped: bool,
}

impl Terms {
    /// `mark-done` is called at most this many times in a round, however many attempts a row has.
    pub const MARK_CALLS_MAX: u32 = 20;

    /// How often `mark-done` is called at most when it asks to be called again: as often as a row is tried, within [`Terms::MARK_CALLS_MAX`].
    pub fn mark_calls_max(&self) -> u32 {
        self.attempts_max.min(Terms::MARK_CALLS_MAX)
    }
}

/// The sentence of a failed `mark-done`.
pub fn mark_failure(calls: u32, error: &str) -> String {
    match calls {
        0 => format!("mark-done was not called: {error}"),
        1 => format!("mark-done failed after 1 call: {error}"),
        calls => format!("mark-done failed after {calls} calls: {error}"),
    }
}
