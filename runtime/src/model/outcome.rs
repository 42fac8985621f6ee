use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::show_time;

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowStatus {
    Success,
    Failed,
    /// The batch was aborted before the row had an outcome.
    Aborted,
}

/// One thing to tell the submitter about a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub id: u32,
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<String>,
}

impl Message {
    /// The message as a text: a sentence for the runtime's own codes; the code, the field and the values of a processor's.
    pub fn text(&self) -> String {
        let value = |at: usize| self.values.get(at).map_or("?", String::as_str);
        // The functions that were on the stack, if they are known.
        let within = |at: usize| self.values.get(at).map(|frames| format!(", in {frames}")).unwrap_or_default();
        match (self.code.as_str(), self.values.len()) {
            ("out_of_fuel", 2 | 3) => format!("ran out of fuel: used {}, the limit is {}{}", value(0), value(1), within(2)),
            ("deadline", 1 | 2) => format!("did not end in time: the limit is {}{}", shown_millis(value(0)), within(1)),
            ("memory", 2 | 3) => format!("ran out of memory: needed {} bytes, the limit is {}{}", value(0), value(1), within(2)),
            ("trap", 1 | 2) => format!("was stopped by a trap: {}{}", value(0), within(1)),
            ("bad_output", 1) => format!("returned what cannot be kept: {}", value(0)),
            ("configerror", 1) => format!("the processor cannot be started: {}", value(0)),
            ("attempts_exhausted", 1) => format!("no attempts are left; the last one: {}", value(0)),
            ("quarantined", 1) => format!("is not run again: {} workers died while they ran it", value(0)),
            ("processing_error" | "bad_row", 1) => value(0).to_owned(),
            _ => {
                let field = self.field.as_ref().map(|field| format!(" ({field})")).unwrap_or_default();
                let values = if self.values.is_empty() { String::new() } else { format!(": {}", self.values.join(", ")) };
                format!("{}{field}{values}", self.code)
            }
        }
    }
}

/// A number of milliseconds as a time.
fn shown_millis(millis: &str) -> String {
    millis.parse().map_or_else(|_| format!("{millis} ms"), |millis| show_time(Duration::from_millis(millis)))
}

/// A piece of a named output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub file: String,
    pub text: String,
}

impl Piece {
    /// Returns true if the piece adds no text to its file: files are joined from trimmed pieces.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// What a worker records for one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowResult {
    pub row_no: u32,
    /// The attempt that this is, 1 for the first.
    pub attempt: u32,
    pub fuel: u64,
    /// The length of its input.
    pub input_bytes: u32,
    pub log: Option<String>,
    pub verdict: Verdict,
}

/// Final, or once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Final {
        /// `Success` or `Failed`.
        status: RowStatus,
        /// Valid JSON.
        output: Option<String>,
        messages: Vec<Message>,
        pieces: Vec<Piece>,
    },
    /// Run it again when this much time has passed.
    Retry { after: Duration },
}

/// A row as a reader of results sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedOutcome {
    pub row_no: u32,
    pub line: u32,
    /// None while the row has no outcome and its batch is not final.
    pub status: Option<RowStatus>,
    /// Valid JSON.
    pub output: Option<String>,
    pub messages: Vec<Message>,
    /// How often it was tried; 0 if never.
    pub attempts: u32,
    pub fuel: u64,
    pub log: Option<String>,
    /// What was submitted. Valid JSON; empty, which no JSON is, when the inputs of the batch were pruned.
    pub input: String,
    /// Why the row was not to be run, if it was rejected: see [`super::NewRow::rejected`]. None when the inputs of the batch were pruned.
    pub rejected: Option<String>,
}
