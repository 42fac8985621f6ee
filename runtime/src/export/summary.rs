//! How a batch ended, in one object.

use serde::{Deserialize, Serialize};

use super::FILES;
use super::failure_counts::FailureCounts;
use crate::model::{Batch, BatchFile, BatchId, BatchStatus};

/// What `summary.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub id: BatchId,
    pub status: BatchStatus,
    pub rows: u64,
    pub success: u64,
    pub failed: u64,
    pub aborted: u64,
    /// From the first claim to the last file, pauses between a stop and a resume included.
    pub seconds: f64,
    /// Rows that were run, by these seconds.
    pub rows_per_second: f64,
    /// Of all rows together.
    pub fuel: u64,
    pub files: Vec<SummaryFile>,
    /// The files that its rows came from: name, size and SHA-256 of each.
    #[serde(default)]
    pub input_files: Vec<BatchFile>,
    /// Why the batch was aborted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub abort_reason: Option<String>,
    /// What `mark-done` returned, when it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mark_error: Option<String>,
    /// How often `mark-done` was called.
    #[serde(default)]
    pub mark_calls: u32,
    /// The failed rows by code.
    #[serde(skip_serializing_if = "FailureCounts::is_empty", default)]
    pub failures: FailureCounts,
}

/// An output file, and where it is below the directory of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SummaryFile {
    pub name: String,
    pub path: String,
    pub size_bytes: u64,
}

impl Summary {
    /// The summary of a finished batch, whose rows came from these files.
    pub fn of(batch: &Batch, input_files: Vec<BatchFile>) -> Summary {
        let seconds = match (batch.started_at, batch.finished_at) {
            (Some(started), Some(finished)) => finished.since(started).as_secs_f64(),
            _ => 0.0,
        };
        let ran = batch.counts.success + batch.counts.failed;
        Summary {
            id: batch.id,
            status: batch.status,
            rows: batch.counts.rows,
            success: batch.counts.success,
            failed: batch.counts.failed,
            aborted: batch.counts.aborted,
            seconds,
            rows_per_second: if seconds > 0.0 { (as_float(ran) / seconds).round() } else { as_float(ran) },
            fuel: batch.fuel,
            files: batch
                .files
                .iter()
                .map(|file| SummaryFile { name: file.name.clone(), path: format!("{FILES}/{}", file.name), size_bytes: file.size_bytes })
                .collect(),
            input_files,
            abort_reason: batch.abort_reason.clone(),
            mark_error: batch.mark_error.clone(),
            mark_calls: batch.mark_calls,
            failures: FailureCounts::default(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 2^53 rows")]
fn as_float(count: u64) -> f64 {
    count as f64
}
