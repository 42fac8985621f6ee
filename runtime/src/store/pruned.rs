//! Parts of batches as they stand in columns: each is a bit, the same in every database.

use super::StoreError;
use crate::model::{BatchId, BatchStatus, DueCounts, Part, Pruning, Timestamp};
use crate::store::columns::count;

/// The bit of the batch itself.
pub(super) const WHOLE: i64 = 16;

pub(super) fn bit(part: Part) -> i64 {
    match part {
        Part::Files => 1,
        Part::Inputs => 2,
        Part::Outcomes => 4,
        Part::Events => 8,
    }
}

/// What is being pruned of a batch.
pub(super) fn pruning_of(batch: BatchId, bits: i64) -> Pruning {
    Pruning { batch, parts: Part::ALL.into_iter().filter(|part| bits & bit(*part) != 0).collect(), whole: bits & WHOLE != 0 }
}

/// A batch whose results are read.
pub(super) struct Opened {
    pub key: i64,
    pub status: BatchStatus,
    /// Its lines are in the order of its rows.
    pub ascend: bool,
    /// They are still kept.
    pub with_inputs: bool,
}

/// Refuses a batch whose outcomes are not kept any more.
pub(super) fn ensure_outcomes(id: BatchId, pruned_at: Option<i64>) -> Result<(), StoreError> {
    match pruned_at {
        Some(at) => Err(StoreError::Pruned { id, part: Part::Outcomes, at: Timestamp(at) }),
        None => Ok(()),
    }
}

/// What a removal needs.
pub(super) const NOT_DONE: &str = "only a batch that is done can be removed";

/// What is due as a query returns it: batches, rows, batches of files, batches of inputs, their rows, batches of outcomes, their rows, objects, their bytes.
pub(super) type DueRow = (i64, i64, i64, i64, i64, i64, i64, i64, i64);

pub(super) fn due_of(row: DueRow) -> DueCounts {
    let (batches, batch_rows, files_of, inputs_of, input_rows, outcomes_of, outcome_rows, objects, object_bytes) = row;
    DueCounts {
        batches: count(batches),
        batch_rows: count(batch_rows),
        files_of: count(files_of),
        inputs_of: count(inputs_of),
        input_rows: count(input_rows),
        outcomes_of: count(outcomes_of),
        outcome_rows: count(outcome_rows),
        objects: count(objects),
        object_bytes: count(object_bytes),
    }
}
