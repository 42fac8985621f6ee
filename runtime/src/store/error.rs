use super::{OverQuota, VersionError};
use crate::model::{BatchId, BatchStatus, Part, Timestamp};

/// Output files of one batch, at most: each is open while the batch is joined.
pub const FILES_PER_BATCH_MAX: usize = 64;

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no batch {0}")]
    NotFound(BatchId),
    /// It was submitted with another request, or without the digest of one.
    #[error("there is a batch {0} already")]
    Exists(BatchId),
    #[error("batch {id} is {}: {wanted}", status.as_str())]
    WrongStatus {
        id: BatchId,
        status: BatchStatus,
        /// What the operation needs, as a half sentence.
        wanted: &'static str,
    },
    /// The rows of the other file are taken back if it does not end.
    #[error("a file is being appended to batch {0}: wait until that append ends (rowmill status {0}), or abort the batch")]
    AppendUnderWay(BatchId),
    /// Nothing of the file is in the batch.
    #[error(
        "the append to batch {0} was lost: it expired, was begun again with its key, or the batch is not held any longer; nothing of the file was appended"
    )]
    AppendLost(BatchId),
    #[error("the key {key:?} was used for another file that was appended to batch {id}: use a key of its own for each file")]
    AppendKeyReused { id: BatchId, key: String },
    /// The lease ended, was taken over, or its batch was aborted. Nothing was changed.
    #[error("the lease was lost: it ended, was taken over, or its batch was aborted; nothing was recorded")]
    LeaseLost,
    /// Nothing was changed.
    #[error("the batch would have more than {FILES_PER_BATCH_MAX} output files")]
    TooManyFiles {
        /// The names that the batch has, and those of this record that still fit.
        allowed: Vec<String>,
    },
    /// This part of the batch was there, and is not kept any more.
    #[error("batch {id} has no {} any more: they were pruned on {at}", part.as_str())]
    Pruned { id: BatchId, part: Part, at: Timestamp },
    /// The output files of a batch would be larger than its app may have. Nothing was changed.
    #[error("the output files of the batch would be larger than the {limit} bytes that they may be: {left} are left")]
    FilesTooLarge { left: u64, limit: u64 },
    /// The app may not hold what was submitted. Nothing was changed.
    #[error(transparent)]
    OverQuota(OverQuota),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("the store at {place} is in use by another process")]
    InUse { place: String },
    #[error("the store failed while it was to {doing}")]
    Failed {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
