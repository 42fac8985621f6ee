use serde::Serialize;

use super::{BatchCounts, Timestamp};

/// Batches of an app that were submitted under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub app: String,
    pub name: String,
    /// When its first batch was submitted.
    pub created_at: Timestamp,
    /// No batch comes in from then on.
    pub sealed_at: Option<Timestamp>,
    /// It is sealed, and each of its batches has ended, `mark-done` included. A retry of one of them takes that back until it has ended again.
    pub complete: bool,
    pub batches: GroupCounts,
    /// Of all its batches together.
    pub rows: BatchCounts,
}

/// Batches of a group by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupCounts {
    pub all: u64,
    pub success: u64,
    pub failed: u64,
    pub aborted: u64,
}
