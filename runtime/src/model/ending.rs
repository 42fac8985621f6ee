use std::time::Duration;

use super::{Message, Piece};

/// What the sandbox reports of one call for a row or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRun {
    pub ending: Ending,
    /// Fuel used, exact and the same in every run of the same code over the same input.
    pub fuel: u64,
    /// Log, stdout and stderr, bounded.
    pub log: Option<String>,
}

/// The processor's own verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Valid JSON. None only for a failed row that has nothing to say.
    pub output: Option<String>,
    pub messages: Vec<Message>,
    pub pieces: Vec<Piece>,
}

/// How a call ended. Limits that fired carry what was needed or used, and the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Succeeded(Answer),
    /// The processor understood the row and says that the work cannot be done.
    Failed(Answer),
    /// The processor could not process the row, and would fail again.
    Permanent {
        reason: String,
    },
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    AbortBatch {
        reason: String,
    },
    OutOfFuel {
        used: u64,
        limit: u64,
        /// As for a trap. None if the guest returned before it looked at its fuel.
        frames: Vec<String>,
    },
    Deadline {
        limit: Duration,
        /// As for a trap. None if the guest waited for what it was granted, such as a database.
        frames: Vec<String>,
    },
    Memory {
        needed_bytes: u64,
        limit_bytes: u64,
        /// As for a trap.
        frames: Vec<String>,
    },
    Trap {
        /// What the guest said last, or else what wasmtime says.
        text: String,
        /// The functions that were on the stack, innermost first, with file and line where they are known: `fees::process (fees/src/lib.rs:12)`.
        frames: Vec<String>,
    },
    /// What it returned breaks the contract or a limit on results.
    BadOutput {
        reason: String,
    },
    /// There was no instance to run the row in.
    CannotStart {
        reason: String,
    },
    /// It could not be made into an input, and was not run.
    Rejected {
        reason: String,
    },
    /// It was not run again, since so many workers died while they held it.
    Quarantined {
        crashes: u32,
    },
    /// It was stopped because its batch was aborted or its worker is stopping. It has no outcome.
    Cancelled,
}

impl Ending {
    /// The code by which messages and documentation name this ending; none for the processor's own verdicts.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Ending::Succeeded(_) | Ending::Failed(_) | Ending::Cancelled => None,
            Ending::Permanent { .. } => Some("processing_error"),
            Ending::Retry { .. } => Some("attempts_exhausted"),
            Ending::AbortBatch { .. } => Some("batch_aborted"),
            Ending::OutOfFuel { .. } => Some("out_of_fuel"),
            Ending::Deadline { .. } => Some("deadline"),
            Ending::Memory { .. } => Some("memory"),
            Ending::Trap { .. } => Some("trap"),
            Ending::BadOutput { .. } => Some("bad_output"),
            Ending::CannotStart { .. } => Some("configerror"),
            Ending::Rejected { .. } => Some("bad_row"),
            Ending::Quarantined { .. } => Some("quarantined"),
        }
    }

    /// The message for the submitter: the code, and values to make a text from. Every code is explained in docs/limits-and-errors.md.
    pub fn message(&self) -> Option<Message> {
        let values = match self {
            Ending::Succeeded(_) | Ending::Failed(_) | Ending::Cancelled => return None,
            Ending::Permanent { reason }
            | Ending::Retry { reason, .. }
            | Ending::AbortBatch { reason }
            | Ending::BadOutput { reason }
            | Ending::CannotStart { reason }
            | Ending::Rejected { reason } => vec![reason.clone()],
            Ending::Quarantined { crashes } => vec![crashes.to_string()],
            Ending::OutOfFuel { used, limit, frames } => with_frames(vec![used.to_string(), limit.to_string()], frames),
            Ending::Deadline { limit, frames } => with_frames(vec![limit.as_millis().to_string()], frames),
            Ending::Memory { needed_bytes, limit_bytes, frames } => with_frames(vec![needed_bytes.to_string(), limit_bytes.to_string()], frames),
            Ending::Trap { text, frames } => with_frames(vec![text.clone()], frames),
        };
        Some(Message { id: 0, code: self.code()?.to_owned(), field: None, values })
    }

    /// The ending as a sentence.
    pub fn explain(&self) -> String {
        match (self, self.message()) {
            (_, Some(message)) => message.text(),
            (Ending::Succeeded(_), None) => "succeeded".to_owned(),
            (Ending::Cancelled, None) => "was stopped".to_owned(),
            (_, None) => "failed".to_owned(),
        }
    }
}

/// Values of a message, and behind them the frames in one text, if there are any.
fn with_frames(mut values: Vec<String>, frames: &[String]) -> Vec<String> {
    if !frames.is_empty() {
        values.push(frames.join(" < "));
    }
    values
}
