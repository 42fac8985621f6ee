use std::time::Duration;

use super::{App, Batch, BatchId, BatchStep, ProcessorKind};

/// What names a lease towards the store. The token changes with every owner, so an old owner's key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    pub id: i64,
    pub token: i64,
}

/// The right to run some rows of one batch for a while, and to record their outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub key: LeaseKey,
    pub batch: BatchId,
    /// How many rows it holds.
    pub rows: u32,
    /// How often a worker died or went silent while it held these rows.
    pub crashes: u32,
}

/// A lease with what its worker needs next, as far as the store gave it along: what is missing is to be read.
#[derive(Debug)]
pub struct ClaimedWork {
    pub lease: Lease,
    /// The batch, and its app when that is registered.
    pub batch: Option<(Batch, Option<App>)>,
    pub rows: Option<Vec<LeasedRow>>,
}

/// The right to finish one batch: to join its files, or to call `mark-done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishLease {
    pub batch: BatchId,
    /// `Join` or `Mark`.
    pub step: BatchStep,
    pub token: i64,
    /// 1 for the first try at this step.
    pub attempt: u32,
}

/// A row under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedRow {
    /// Its number inside the batch: dense, from 1, in the order in which rows came in.
    pub row_no: u32,
    pub line: u32,
    /// Valid JSON, checked when it was submitted.
    pub input: String,
    /// 1 for the first try.
    pub attempt: u32,
    /// See [`super::NewRow::rejected`].
    pub rejected: Option<String>,
}

/// What a worker asks for when it claims.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The worker's name, for people who look at leases.
    pub worker: String,
    /// Only batches, or only slow queries; both when there is none.
    pub kind: Option<ProcessorKind>,
    /// None of these apps: the worker has no room for them now.
    pub apps_except: Vec<String>,
    /// At most this many leases: the worker's free slots.
    pub leases_max: u32,
    /// At most this many rows in a lease.
    pub rows_max: u32,
    /// A lease should hold about this much work, by the measured time per row.
    pub target: Duration,
    /// How many slots there are to share the last rows of a batch.
    pub slots: u32,
    /// A lease ends this long from now unless it is renewed.
    pub ttl: Duration,
}
