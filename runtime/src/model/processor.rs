use serde::Serialize;

use super::{PartialTerms, ProcessorKind, Timestamp};

/// Bytes of a note about a version, at most.
pub const NOTE_BYTES_MAX: usize = 1_000;

/// A version of the processor for an app and an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessorVersion {
    pub app: String,
    /// In lower case.
    pub op: String,
    /// The number of the version, from 1 on. Versions of both kinds are numbered in one sequence, so a number stands for one kind.
    /// For each kind one version may be active: it serves the batches or slow queries that are submitted. Each batch keeps its own version.
    pub version: u32,
    pub kind: ProcessorKind,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    pub created_at: Timestamp,
}

/// No version of a kind serves an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "app {app:?} has no {} that serves the operation {op:?}{}: deploy one and activate it (rowmill deploy --activate)",
    kind.noun(), self.of_other()
)]
pub struct NotServed {
    pub app: String,
    /// The operation, in lower case.
    pub op: String,
    /// The kind that was looked for.
    pub kind: ProcessorKind,
    /// True if a version of the other kind serves the operation.
    pub other_serves: bool,
}

impl NotServed {
    fn of_other(&self) -> &'static str {
        match (self.other_serves, self.kind) {
            (false, _) => "",
            (true, ProcessorKind::Batch) => " (its slow-query processor does not run batches)",
            (true, ProcessorKind::SlowQuery) => " (its batch processor does not run slow queries)",
        }
    }
}

/// The version of one kind that serves an operation at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundOp {
    /// The active one.
    pub version: ProcessorVersion,
    /// What the policies of the operation and of its app say of what is submitted.
    pub terms: PartialTerms,
    pub stamp: OpStamp,
}

/// With the version, what tells whether an operation is still as it was found: the terms of its policy and of its app's, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpStamp {
    pub(crate) of_op: Option<String>,
    pub(crate) of_app: Option<String>,
}

/// Code that is to become a version.
#[derive(Clone, Debug)]
pub struct NewVersion {
    pub app: String,
    pub op: String,
    pub kind: ProcessorKind,
    pub digest: String,
    /// Of the upload.
    pub size_bytes: u64,
    pub note: Option<String>,
    /// It serves from then on.
    pub activate: bool,
    pub quota: CodeQuota,
}

/// What an app may keep in versions that were not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeQuota {
    pub versions_max: u32,
    /// Of their uploads together.
    pub bytes_max: u64,
}

impl Default for CodeQuota {
    fn default() -> CodeQuota {
        CodeQuota { versions_max: 100, bytes_max: 1 << 30 }
    }
}

/// A version as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegisteredVersion {
    #[serde(flatten)]
    pub version: ProcessorVersion,
    /// Of the upload.
    pub size_bytes: u64,
    pub note: Option<String>,
    /// True if the version serves what is submitted for its kind.
    pub active: bool,
    /// Batches and slow queries that use it and have not ended, where they were counted.
    pub batches: Option<u64>,
}
