use serde::{Deserialize, Serialize};

use super::BatchId;

/// A batch comes after another one of its app: its rows are the outputs of that one's successful rows, with their lines, and are made when that one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    pub batch: BatchId,
    pub condition: AfterCondition,
}

/// How the first of two chained batches must have ended; else the second is aborted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterCondition {
    /// All of its rows succeeded.
    #[default]
    Success,
    /// Whatever its end. But a row must have succeeded.
    Any,
}

impl AfterCondition {
    pub fn as_str(self) -> &'static str {
        match self {
            AfterCondition::Success => "success",
            AfterCondition::Any => "any",
        }
    }
}
