//! What the batches of an app may hold, where the store has a part in it.

use crate::model::{RowResult, Verdict};
use crate::store::lines::LinedRow;

/// More than an app may hold was submitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverQuota {
    #[error("the input of line {line} has {bytes} bytes, and an input of app {app:?} may have {limit} at most")]
    Input { app: String, line: u32, bytes: u64, limit: u64 },
    #[error("the batch would have {rows} rows, and a batch of app {app:?} may have {limit} at most: make several of it")]
    BatchRows { app: String, rows: u64, limit: u64 },
    #[error("app {app:?} would have {rows} rows without an outcome, and may have {limit} at most: submit again when some have ended")]
    QueuedRows { app: String, rows: u64, limit: u64 },
}

/// The longest input that would be run.
pub(super) fn longest_input(rows: &[LinedRow]) -> Option<&LinedRow> {
    rows.iter().filter(|row| row.rejected.is_none()).max_by_key(|row| row.input.as_str().len())
}

fn final_log(result: &RowResult) -> Option<&str> {
    match result.verdict {
        Verdict::Final { .. } => result.log.as_deref(),
        Verdict::Retry { .. } => None,
    }
}

/// Which logs fit into so many bytes, in the order of the results: one that does not is dropped, whole. None for those that are kept as they are.
pub(super) struct FittedLogs {
    /// Positions of results whose log is dropped.
    pub dropped: Vec<usize>,
    /// Bytes of the logs that are kept.
    pub kept_bytes: u64,
}

pub(super) fn fit_logs(results: &[RowResult], mut left: u64) -> FittedLogs {
    let mut fitted = FittedLogs { dropped: Vec::new(), kept_bytes: 0 };
    for (at, result) in results.iter().enumerate() {
        let Some(bytes) = final_log(result).map(|log| log.len() as u64).filter(|bytes| *bytes > 0) else { continue };
        if bytes <= left {
            left -= bytes;
            fitted.kept_bytes += bytes;
        } else {
            fitted.dropped.push(at);
        }
    }
    fitted
}
