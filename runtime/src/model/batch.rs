use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{After, JsonText, OpStamp, OpenAppend, PrunedParts, Terms, Timestamp, canonical_op};

/// A batch's name outside the store: a UUIDv7, so that names sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchId(Uuid);

impl BatchId {
    /// A new name, made from the present time and chance.
    pub fn generate() -> BatchId {
        BatchId(Uuid::now_v7())
    }

    pub(crate) fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for BatchId {
    fn from(uuid: Uuid) -> BatchId {
        BatchId(uuid)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BatchId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<BatchId, uuid::Error> {
        Uuid::parse_str(text).map(BatchId)
    }
}

/// What a processor does, read from its component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessorKind {
    Batch,
    SlowQuery,
}

impl ProcessorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessorKind::Batch => "batch",
            ProcessorKind::SlowQuery => "slow_query",
        }
    }

    /// Returns the name of such a processor in sentences.
    pub fn noun(self) -> &'static str {
        match self {
            ProcessorKind::Batch => "batch processor",
            ProcessorKind::SlowQuery => "slow-query processor",
        }
    }

    #[must_use]
    pub fn other(self) -> ProcessorKind {
        match self {
            ProcessorKind::Batch => ProcessorKind::SlowQuery,
            ProcessorKind::SlowQuery => ProcessorKind::Batch,
        }
    }
}

/// Alya's six statuses of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchStatus {
    /// Held: rows may be appended, none is run.
    Wait,
    /// Released, no row was claimed yet.
    Queued,
    /// At least one row was claimed.
    Inprog,
    Success,
    Failed,
    Aborted,
}

impl BatchStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            BatchStatus::Wait => "wait",
            BatchStatus::Queued => "queued",
            BatchStatus::Inprog => "inprog",
            BatchStatus::Success => "success",
            BatchStatus::Failed => "failed",
            BatchStatus::Aborted => "aborted",
        }
    }

    /// A final status changes only by a retry of the batch, which begins another round.
    pub fn is_final(self) -> bool {
        matches!(self, BatchStatus::Success | BatchStatus::Failed | BatchStatus::Aborted)
    }
}

/// What remains to be done for a batch. Each step is left exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchStep {
    /// Rows are to be run.
    Rows,
    /// Every row has an outcome, or the batch was aborted: the output files are to be joined.
    Join,
    /// The status and the files are final: the processor is to be told by `mark-done`.
    Mark,
    /// Nothing remains.
    Done,
}

impl BatchStep {
    pub fn as_str(self) -> &'static str {
        match self {
            BatchStep::Rows => "rows",
            BatchStep::Join => "join",
            BatchStep::Mark => "mark",
            BatchStep::Done => "done",
        }
    }
}

/// A batch to submit. A slow query is a batch of one row with line 0.
#[derive(Clone, Debug)]
pub struct NewBatch {
    pub id: BatchId,
    pub app: String,
    /// Stored in lower case.
    pub op: String,
    pub kind: ProcessorKind,
    pub terms: Terms,
    /// The version that runs this batch to its end, whatever is activated meanwhile.
    pub processor_version: u32,
    /// SHA-256 of the processor's component, in hexadecimal.
    pub processor_digest: String,
    pub context: JsonText,
    /// Submit in `wait`: rows can be appended, and nothing runs until the batch is released.
    pub hold: bool,
    /// Its rows are made of another batch's, and it waits until then.
    pub after: Option<After>,
    /// It comes into this group of its app's, which is not sealed.
    pub group: Option<String>,
    /// What was asked for, where the same may be asked for again: a batch whose id is there with the same digest is not submitted twice.
    pub request_digest: Option<String>,
    /// It is submitted only if its operation is still as it was found, and served by its version.
    pub as_found: Option<OpStamp>,
}

impl NewBatch {
    /// The batch as it is when its first rows are leased.
    pub fn begin(self, rows: u64, at: Timestamp) -> Batch {
        Batch {
            id: self.id,
            app: self.app,
            op: canonical_op(&self.op),
            kind: self.kind,
            processor_version: self.processor_version,
            processor_digest: self.processor_digest,
            context: self.context,
            terms: self.terms,
            after: self.after,
            group: self.group,
            status: BatchStatus::Inprog,
            step: BatchStep::Rows,
            round: 1,
            counts: BatchCounts { rows, ..BatchCounts::default() },
            fuel: 0,
            abort_reason: None,
            mark_error: None,
            mark_calls: 0,
            mark_due_at: None,
            submitted_at: at,
            started_at: Some(at),
            finished_at: None,
            files: Vec::new(),
            pruned: PrunedParts::default(),
            open_append: None,
        }
    }
}

/// Bytes of one input, or of a context, at most.
pub const INPUT_BYTES_MAX: usize = 1 << 20;

/// The line of a row to submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The submitter's own number: 1 or more, and no other row of the batch has it. 0 for a slow query.
    Given(u32),
    /// One more than the highest line that the batch has when the row comes in. The store decides that in the transaction that
    /// writes the row, so submitters who append at the same moment need not know of each other.
    Next,
}

impl From<u32> for Line {
    fn from(line: u32) -> Line {
        Line::Given(line)
    }
}

/// A row to submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    pub line: Line,
    pub input: JsonText,
    /// Why this row could not be made into an input. It fails with this text and is not run; `input` keeps what was read.
    pub rejected: Option<String>,
}

impl NewRow {
    /// A row with its line and its input.
    pub fn new(line: impl Into<Line>, input: JsonText) -> NewRow {
        NewRow { line: line.into(), input, rejected: None }
    }

    /// A row that gets the next line of its batch.
    pub fn next(input: JsonText) -> NewRow {
        NewRow::new(Line::Next, input)
    }
}

impl Batch {
    /// Returns true if its status and its output files are final. A batch that was aborted before a row had an outcome has no
    /// output files, so no worker is needed for its end.
    pub fn has_ended(&self) -> bool {
        let has_outcomes = self.counts.success + self.counts.failed > 0;
        self.finished_at.is_some() || (self.status == BatchStatus::Aborted && !has_outcomes)
    }
}

/// Rows of a batch by how they ended. `success + failed + aborted == rows` once the batch is final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCounts {
    pub rows: u64,
    pub success: u64,
    pub failed: u64,
    pub aborted: u64,
}

/// A batch as the store knows it.
#[derive(Clone, Debug)]
pub struct Batch {
    pub id: BatchId,
    pub app: String,
    pub op: String,
    pub kind: ProcessorKind,
    pub processor_version: u32,
    pub processor_digest: String,
    pub context: JsonText,
    pub terms: Terms,
    /// Its rows are the outputs of another batch's.
    pub after: Option<After>,
    /// The group of its app's that it is in.
    pub group: Option<String>,
    pub status: BatchStatus,
    pub step: BatchStep,
    /// 1, and one more with each retry of the batch. Its status, counts, times, files and reasons are those of this round.
    pub round: u32,
    pub counts: BatchCounts,
    /// Fuel of all recorded rows, in all rounds.
    pub fuel: u64,
    /// Why the batch was aborted, when a reason was given.
    pub abort_reason: Option<String>,
    /// The reason that the last call of `mark-done` in this round returned, when it failed. It may be called again until the step is `Done`.
    pub mark_error: Option<String>,
    /// Calls of `mark-done` in this round that ended, or whose worker died.
    pub mark_calls: u32,
    /// When `mark-done` is called again, or for the first time after a failure around it; none while it is called, and where nothing waits.
    pub mark_due_at: Option<Timestamp>,
    pub submitted_at: Timestamp,
    /// When the first row of the round was claimed.
    pub started_at: Option<Timestamp>,
    /// When the status and the output files were final.
    pub finished_at: Option<Timestamp>,
    /// The output files, by name; empty until they were joined, and when they were pruned.
    pub files: Vec<OutputFile>,
    /// What is no longer there, and since when.
    pub pruned: PrunedParts,
    /// A file that is being appended while the batch is held, or whose append was cut off. Its rows are not counted.
    pub open_append: Option<OpenAppend>,
}

/// An output file of a finished batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// The name that the processor gave.
    pub name: String,
    /// Where it is kept in the object store.
    pub object: String,
    pub size_bytes: u64,
}

/// A file that a batch's rows came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchFile {
    /// The first of its rows in the batch, by the order in which rows came in: 1 for the file that a batch was submitted from.
    pub first_row: u32,
    /// What it was called by those who sent it.
    pub name: String,
    /// Its form: `csv`, `csv.gz`, `ndjson` or `ndjson.gz`.
    pub form: String,
    /// Its size as it came.
    pub size_bytes: u64,
    /// The SHA-256 of its contents as they came, in hexadecimal.
    pub sha256: String,
    /// Where it is kept in the object store, if it is, and was not pruned. The name is ours, and nothing of the file's own.
    pub object: Option<String>,
    /// The object of the object store that it was read from, if it was. It belongs to the submitter,
    /// and stays when the batch is pruned.
    #[serde(default)]
    pub source_object: Option<String>,
}
