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
    /// When it was sealed or the last of its batches was final, whichever came later. Set once, when it is sealed and each of its batches is done, `mark-done` included; a batch
    /// that is retried afterwards does not take it back.
    pub ended_at: Option<Timestamp>,
    pub batches: GroupCounts,
    /// Of all its batches together.
    pub rows: BatchCounts,
}

/// Batches of a group. `all == open + success + failed + aborted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupCounts {
    pub all: u64,
    /// Those that are not done; among them those of a group that has ended which are being retried.
    pub open: u64,
    pub success: u64,
    pub failed: u64,
    pub aborted: u64,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Batches come in.
    Open,
    /// No batch comes in any more, and some are not done.
    Sealed,
    Ended,
}

impl GroupState {
    pub fn as_str(self) -> &'static str {
        match self {
            GroupState::Open => "open",
            GroupState::Sealed => "sealed",
            GroupState::Ended => "ended",
        }
    }
}

impl Group {
    pub fn state(&self) -> GroupState {
        match (self.sealed_at, self.ended_at) {
            (_, Some(_)) => GroupState::Ended,
            (Some(_), None) => GroupState::Sealed,
            (None, None) => GroupState::Open,
        }
    }
}
