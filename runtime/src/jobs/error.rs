use crate::blobs::BlobError;
use crate::model::{BadName, BatchId, BatchStatus, Line, NotServed, ProcessorKind, Timestamp};
use crate::prune::PruneError;
use crate::sandbox::LoadError;
use crate::schedule::ScheduleError;
use crate::store::StoreError;
use crate::worker::WorkerError;

/// Why an operation was not done. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is no such batch, or it is another app's.
    #[error("there is no batch {id}{}", app.as_ref().map(|app| format!(" of app {app:?}")).unwrap_or_default())]
    NoBatch { id: BatchId, app: Option<String> },
    /// No version of the kind that is needed serves the operation.
    #[error(transparent)]
    NoProcessor(#[from] NotServed),
    /// A component of one kind was to be registered as a processor of the other kind.
    #[error("this component is a {}, and a {} was to be registered for the operation {op:?} of app {app:?}", found.noun(), wanted.noun())]
    OtherKind { app: String, op: String, found: ProcessorKind, wanted: ProcessorKind },
    #[error("only what belongs to app {allowed:?} can be used here, and this is of app {app:?}")]
    OtherApp { app: String, allowed: String },
    #[error("files in the object store are not one app's: they cannot be used where only what belongs to app {allowed:?} can be")]
    FilesOfAllApps { allowed: String },
    #[error("grants are given by operators: they cannot be changed where only what belongs to app {allowed:?} can be used")]
    OnlyOperators { allowed: String },
    /// The batch is a slow query, or the other way round.
    #[error("{id} is of the kind {}, and this is for {}", found.as_str(), wanted.as_str())]
    BatchOfOtherKind { id: BatchId, found: ProcessorKind, wanted: ProcessorKind },
    /// `row` is the place of the row in the request, from 1.
    #[error("the input of {} has {bytes} bytes, and may have {} at most", place(*line, *row), crate::model::INPUT_BYTES_MAX)]
    InputTooLarge { line: Line, row: usize, bytes: usize },
    #[error("the context has {bytes} bytes, and may have {} at most", crate::model::INPUT_BYTES_MAX)]
    ContextTooLarge { bytes: usize },
    #[error(transparent)]
    BadKey(BadName),
    #[error("the deadline {deadline} has passed: the clock of the store says {now}")]
    DeadlinePassed { deadline: Timestamp, now: Timestamp },
    /// What was submitted with the key differs from this request, in its rows, context, operation or options.
    #[error("the key {key:?} is that of batch {id}, which was submitted with another request: use a key of its own for each request")]
    KeyReused { key: String, id: BatchId },
    #[error("batch {id} is {}: results can be read once it has ended", status.as_str())]
    NotFinal { id: BatchId, status: BatchStatus },
    #[error("slow query {id} has ended already, as {}", status.as_str())]
    AlreadyFinal { id: BatchId, status: BatchStatus },
    /// Nothing was removed.
    #[error("batch {id} was not exported")]
    NotExported {
        id: BatchId,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such schedule, or it is another app's.
    #[error("app {app:?} has no schedule {name:?}")]
    NoSchedule { app: String, name: String },
    /// No batch was submitted into it, or it went with the last of its batches.
    #[error(
        "app {app:?} has no group {name:?}: its first batch makes it (rowmill submit --group), and it goes with the last one when they are pruned"
    )]
    NoGroup { app: String, name: String },
    #[error("what a schedule submits is neither held nor in a group, does not come after another batch, and has no key, start or deadline")]
    ScheduledOtherwise,
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("this is no processor that can be used")]
    Unusable(#[source] LoadError),
    #[error("the code of version {version} cannot be used: {problem}")]
    NoCode { version: u32, problem: String },
    /// What the store refused; the batch is not one of these cases.
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

fn place(line: Line, row: usize) -> String {
    match line {
        Line::Given(line) => format!("line {line}"),
        Line::Next => format!("row {row} of the request"),
    }
}

impl From<PruneError> for JobError {
    fn from(error: PruneError) -> JobError {
        match error {
            PruneError::Store(error) => error.into(),
            PruneError::Blobs(error) => error.into(),
        }
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> JobError {
        match error {
            StoreError::NotFound(id) => JobError::NoBatch { id, app: None },
            error => JobError::Store(error),
        }
    }
}
