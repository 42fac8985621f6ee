//! Batches whose rows run without a store.

use rowmill::model::{Batch, BatchId, JsonText, NewBatch, ProcessorKind, Terms, Timestamp};

/// A batch as the worker has it when it runs its rows.
pub fn batch(kind: ProcessorKind, app: &str, op: &str, context: JsonText) -> Batch {
    let new = NewBatch {
        id: BatchId::generate(),
        app: app.to_owned(),
        op: op.to_owned(),
        kind,
        terms: Terms::default(),
        processor_version: 1,
        processor_digest: String::new(),
        context,
        hold: false,
        after: None,
        group: None,
        request_digest: None,
        as_found: None,
    };
    new.begin(0, Timestamp(0))
}
