//! Tests a processor natively, without WebAssembly, through the same conversions as in the sandbox.
//!
//! ```
//! use rowmill_guest::{AppInfo, BatchProcessor, Empty, Failure, Outcome, Row, testing};
//! use serde_json::json;
//!
//! struct Double;
//!
//! impl BatchProcessor for Double {
//!     type Context = Empty;
//!     type Input = u32;
//!     type Output = u32;
//!
//!     fn init(_: &AppInfo) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn process_row(&mut self, _: &rowmill_guest::Batch<Empty>, row: Row<u32>) -> Result<Outcome<u32>, Failure> {
//!         Ok(Outcome::success(row.input * 2).piece("doubles.txt", row.line.to_string()))
//!     }
//! }
//!
//! let batch = testing::Batch::<Double>::new().app("shop", "double");
//! let rows = batch.run_rows([json!(21), json!("x")]);
//! assert_eq!(rows[0].answer().output, json!(42));
//! assert_eq!(rows[1].codes(), ["bad_input"]);
//! assert_eq!(testing::file(&rows, "doubles.txt"), "1\n");
//! batch.mark_done(&rows).result.unwrap();
//! ```
//!
//! A panic of the processor goes through to the test. Limits of fuel, time, memory and size are the runtime's and are not imitated.

mod batch;
mod check;
pub(crate) mod granted;
pub(crate) mod objects;
pub(crate) mod output_files;
pub(crate) mod recorder;
mod slow_query;

pub use batch::{Batch, file};
pub use check::{CheckedFile, FileCheck};
pub use granted::{answer_http, answer_sql, set_config};
pub use slow_query::{QueryResult, SlowQuery};

use crate::bindings::types;
use crate::failure::from_contract;
use crate::{AppInfo, Failure, Level, Message, Piece, RowStatus};
use recorder::Wishes;
use serde::Serialize;
use serde_json::Value;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub text: String,
}

/// What became of a row or query that did not fail altogether, as the runtime sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether the work was done.
    pub status: RowStatus,
    /// The output; `{}` when there was none.
    pub output: Value,
    /// What to tell the submitter, in order.
    pub messages: Vec<Message>,
    /// Pieces for output files.
    pub pieces: Vec<Piece>,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowResult {
    /// The row's number; the first is 1.
    pub line: u32,
    /// The answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// What was logged meanwhile.
    pub logs: Vec<Log>,
}

impl RowResult {
    /// The answer.
    ///
    /// # Panics
    /// If there is none, with the failure.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        answer(&self.result)
    }

    /// The codes of the answer's messages, in order.
    ///
    /// # Panics
    /// As [`answer`](Self::answer).
    #[must_use]
    pub fn codes(&self) -> Vec<&str> {
        codes(&self.result)
    }
}

/// What became of `mark_done`.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// What it returned.
    pub result: Result<(), Failure>,
    /// What was logged meanwhile.
    pub logs: Vec<Log>,
}

fn answer(result: &Result<Answer, Failure>) -> &Answer {
    result.as_ref().unwrap_or_else(|failure| panic!("there is no answer: {failure}"))
}

fn codes(result: &Result<Answer, Failure>) -> Vec<&str> {
    answer(result).messages.iter().map(|message| message.code.as_str()).collect()
}

/// What a run is given, whatever its kind.
#[derive(Debug, Clone)]
struct Setup {
    app: AppInfo,
    info: types::BatchInfo,
    attempt: u32,
    wishes: Wishes,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            app: AppInfo { app: "app".into(), op: "op".into(), version: 1 },
            info: types::BatchInfo { id: "00000000-0000-7000-8000-000000000000".into(), context: "{}".into() },
            attempt: 1,
            wishes: Wishes::default(),
        }
    }
}

/// The settings that both harnesses have. Each has a field `setup`.
macro_rules! settings {
    () => {
        /// Sets the tenant and the operation that the processor is told; `app` and `op` unless set.
        #[must_use]
        pub fn app(mut self, app: impl Into<String>, op: impl Into<String>) -> Self {
            self.setup.app.app = app.into();
            self.setup.app.op = op.into();
            self
        }

        /// Sets the context; `{}` unless set.
        ///
        /// # Panics
        /// If it cannot be written as JSON.
        #[must_use]
        pub fn context(mut self, context: impl ::serde::Serialize) -> Self {
            self.setup.info.context = crate::testing::json_text(&context);
            self
        }

        /// Sets which try this is; 1 unless set.
        #[must_use]
        pub const fn attempt(mut self, attempt: u32) -> Self {
            self.setup.attempt = attempt;
            self
        }

        /// Lets [`cancelled`](crate::host::cancelled) be true, after the processor has looked in vain `looks` times (in each run of a row or query).
        #[must_use]
        pub const fn cancelled_after(mut self, looks: u32) -> Self {
            self.setup.wishes.looks_before_cancelled = Some(looks);
            self
        }

        /// Sets what [`remaining`](crate::host::remaining) says; one minute unless set.
        #[must_use]
        pub const fn remaining(mut self, remaining: ::std::time::Duration) -> Self {
            self.setup.wishes.remaining = remaining;
            self
        }
    };
}
use settings;

fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what a test gives can be written as JSON")
}

/// # Panics
/// If the output is not JSON: the SDK made it, so that would be its mistake.
fn answer_of(result: Result<types::Outcome, types::Failure>) -> Result<Answer, Failure> {
    let types::Outcome { status, output, messages, pieces } = result.map_err(from_contract)?;
    let output = if output.is_empty() { "{}" } else { &output };
    let output = serde_json::from_str(output).expect("the SDK writes JSON");
    Ok(Answer { status, output, messages, pieces })
}
