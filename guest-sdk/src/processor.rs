//! What a processor implements, and what it is given.

use crate::{AppInfo, BatchStatus, Failure, Outcome, OutputFile};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A processor of rows. Export it with [`export_batch_processor!`](crate::export_batch_processor).
///
/// The runtime makes an instance, calls [`init`](Self::init) once, [`begin`](Self::begin) once per batch, [`process_row`](Self::process_row) for each
/// row that this instance was given, and [`close`](Self::close). A batch is usually spread over many instances; none sees all of its rows, and nothing
/// that is kept in `self` outlives the instance. A row may be run more than once (the machine may fail before its outcome is recorded), so effects
/// outside the sandbox must be repeatable.
///
/// A context or an input that does not fit its type never reaches the processor: the row fails with one [`Message`](crate::Message) of the code
/// `bad_input`, the path of the offending value as its field (`context`, or a path that begins so, for the context) and the parser's words as its value.
///
/// A panic ends the instance and fails the row. Its text goes to the row's log.
pub trait BatchProcessor: Sized + 'static {
    /// What the submitter gave for the batch as a whole; `{}` when nothing was given. [`Empty`] if it does not matter.
    type Context: DeserializeOwned + 'static;
    /// One row, as the submitter gave it. A row of a CSV file is an object of strings.
    type Input: DeserializeOwned;
    /// The result of one row.
    type Output: Serialize;

    /// Makes the processor.
    ///
    /// # Errors
    /// The rows that this instance was meant for fail with the code `configerror` and this text.
    fn init(app: &AppInfo) -> Result<Self, String>;

    /// Prepares for the rows of a batch.
    ///
    /// # Errors
    /// Ends the rows that this instance was given as if each of them had returned the failure.
    fn begin(&mut self, batch: &Batch<Self::Context>) -> Result<(), Failure> {
        let _ = batch;
        Ok(())
    }

    /// Does the work for one row.
    ///
    /// # Errors
    /// See [`Failure`]. What is wrong with the *input* is better told with [`Outcome::failed`] and messages, which can be shown and translated.
    fn process_row(&mut self, batch: &Batch<Self::Context>, row: Row<Self::Input>) -> Result<Outcome<Self::Output>, Failure>;

    /// Learns that a batch is final, in an instance of its own, after [`init`](Self::init) and without [`begin`](Self::begin). It is called again
    /// when the machine fails before its end was recorded, so it must be repeatable. It can read the batch's output files
    /// ([`output_files`](crate::output_files)), and ask which call it is ([`host::mark_attempt`](crate::host::mark_attempt)).
    ///
    /// # Errors
    /// Recorded with the batch, whose status stays as it is. After [`Failure::Retry`] it is called again, as often as a row is tried (at most 20 times). The batch has
    /// ended, so [`Failure::AbortBatch`] is the same as [`Failure::Permanent`].
    fn mark_done(&mut self, summary: &Summary<Self::Context>) -> Result<(), Failure> {
        let _ = summary;
        Ok(())
    }

    /// Called last, unless the instance was stopped. Nothing waits for what it does.
    fn close(self) {}
}

/// A processor of slow queries: a report, a statement, a search. Export it with
/// [`export_slow_query_processor!`](crate::export_slow_query_processor).
///
/// What is said of [`BatchProcessor`] about instances, repeated runs, input that does not fit and panics holds here too.
pub trait SlowQueryProcessor: Sized + 'static {
    /// What the submitter gave beside the input; `{}` when nothing was given. [`Empty`] if it does not matter.
    type Context: DeserializeOwned + 'static;
    /// The question.
    type Input: DeserializeOwned;
    /// The answer. Long ones belong in an output file, by [`Outcome::piece`].
    type Output: Serialize;

    /// Makes the processor.
    ///
    /// # Errors
    /// The query fails with the code `configerror` and this text.
    fn init(app: &AppInfo) -> Result<Self, String>;

    /// Answers one query. Tell how far it has come with [`host::progress`](crate::host::progress), and look at
    /// [`host::cancelled`](crate::host::cancelled) now and then.
    ///
    /// # Errors
    /// See [`Failure`].
    fn run(&mut self, query: Query<Self::Context, Self::Input>) -> Result<Outcome<Self::Output>, Failure>;

    /// Learns that a query is final, as for a batch of one row. See [`BatchProcessor::mark_done`].
    ///
    /// # Errors
    /// Recorded with the query, whose status stays as it is.
    fn mark_done(&mut self, summary: &Summary<Self::Context>) -> Result<(), Failure> {
        let _ = summary;
        Ok(())
    }

    /// Called last, unless the instance was stopped. Nothing waits for what it does.
    fn close(self) {}
}

/// A batch, or what a finished slow query is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<C> {
    /// A UUID in its usual text form.
    pub id: String,
    /// What the submitter gave for the batch as a whole.
    pub context: C,
}

/// One row of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<I> {
    /// The submitter's line number, 1 or more.
    pub line: u32,
    /// What the submitter gave for this row.
    pub input: I,
    /// 1 for the first try.
    pub attempt: u32,
}

/// A slow query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<C, I> {
    /// A UUID in its usual text form.
    pub id: String,
    /// What the submitter gave beside the input.
    pub context: C,
    /// The question.
    pub input: I,
    /// 1 for the first try.
    pub attempt: u32,
}

/// A finished batch or slow query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary<C> {
    /// Which one.
    pub batch: Batch<C>,
    /// How it ended.
    pub status: BatchStatus,
    /// Rows in total; `success + failed + aborted`.
    pub rows: u64,
    /// Rows that ended as success.
    pub success: u64,
    /// Rows that ended as failed.
    pub failed: u64,
    /// Rows that were not run to an end because the batch was aborted.
    pub aborted: u64,
    /// The output files, by name.
    pub files: Vec<OutputFile>,
}

/// The JSON object `{}`: for a context or an input that does not matter (any object is taken), or an output that has nothing to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
