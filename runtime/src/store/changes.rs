//! What operations of a store changed.

use std::time::Duration;

use crate::model::{BatchCounts, BatchId, BatchStatus, FinishLease, ProcessorKind};

/// What a record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The round of the batch that these are the counts of.
    pub round: u32,
    pub counts: BatchCounts,
    /// More rows have failed than may: this record aborted the batch.
    pub aborted: bool,
    /// This record held the last outcome of its batch: it can be finished now. True for exactly one record of a round of a batch.
    pub last: bool,
    /// The lease to finish the batch, where it was asked for and these were the last.
    pub finish: Option<FinishLease>,
}

/// What an abort did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// `Aborted`; or, when nothing was changed, what the batch is: still `Inprog` when its files are to be joined.
    pub status: BatchStatus,
    pub counts: BatchCounts,
    /// False when the batch was aborted or had all its outcomes before; then nothing was changed.
    pub changed: bool,
}

/// What passed deadlines did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// These were aborted now.
    pub aborted: Vec<BatchId>,
    /// When the next deadline passes; zero when one has.
    pub next: Option<Duration>,
}

/// What a step of pruning did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneStep {
    /// Rows that it went through.
    pub rows: u64,
    /// Something is left to be removed.
    pub left: bool,
}

/// A step that a chained batch was taken forward by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainStep {
    /// None when it was removed before.
    pub batch: Option<BatchId>,
    pub kind: ProcessorKind,
    pub end: ChainEnd,
}

/// What a chained batch is after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEnd {
    /// Some of its rows are made, and others are still to be.
    More,
    /// It has its rows, and can be claimed.
    Queued,
    /// What it comes after did not end as it should have, has no row that succeeded, or is gone.
    Aborted,
    /// It was aborted or removed before.
    Gone,
}
