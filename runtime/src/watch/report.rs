//! What became of a file, for those who listen.

use serde::Serialize;

use super::Reason;
use crate::model::BatchId;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is a batch.
    Submitted,
    /// It was refused.
    Failed,
}

/// A file that was taken or refused. After a crash it may be told twice.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// What it was called when it came.
    pub file: String,
    /// Where it came.
    pub directory: String,
    pub outcome: Outcome,
    /// Where it is now.
    pub moved_to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}
