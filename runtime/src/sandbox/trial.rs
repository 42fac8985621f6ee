//! The trial start of a processor: what cannot start is found when it is uploaded, and not by the first row.

use tokio_util::sync::CancellationToken;

use super::session::{Session, SessionSpec};
use super::{LoadError, Processor, Sandbox};
use crate::model::{Batch, BatchId, Ending, JsonText, Limits, NewBatch, Terms, Timestamp};

/// Trials at the same time in one process, at most. The pool of instances has room for them beside those that it is made for.
pub(super) const AT_ONCE: u32 = 2;

impl Sandbox {
    /// Makes an instance of a processor, and calls `init`, and `begin` with the context `{}` for a processor of rows, under the limits of one start. No row is run, and nothing is granted: each call
    /// of something that an app can be granted is denied. A failure that `begin` returns is no fault: it may need a context.
    ///
    /// # Errors
    /// [`LoadError::CannotStart`].
    pub async fn try_start(&self, processor: &Processor, app: &str, op: &str, limits: &Limits) -> Result<(), LoadError> {
        let _place = self.0.trials.acquire().await;
        let spec = SessionSpec {
            batch: batch_of(processor, app, op),
            limits: limits.clone(),
            cancel: CancellationToken::new(),
            progress: None,
            capabilities: std::sync::Arc::default(),
        };
        let mut session = Session::new(processor.clone(), spec);
        // The instance is dropped without a call of `close`: nothing waits for that anywhere.
        match session.start(true).await.map_err(|run| run.ending) {
            Ok(()) | Err(Ending::Permanent { .. } | Ending::Retry { .. } | Ending::AbortBatch { .. }) => Ok(()),
            Err(Ending::CannotStart { reason }) => Err(LoadError::CannotStart { reason }.shown()),
            Err(other) => Err(LoadError::CannotStart { reason: other.explain() }.shown()),
        }
    }
}

/// A batch without rows. It is in no store.
fn batch_of(processor: &Processor, app: &str, op: &str) -> Batch {
    let new = NewBatch {
        id: BatchId::generate(),
        app: app.to_owned(),
        op: op.to_owned(),
        kind: processor.kind(),
        terms: Terms::default(),
        processor_version: 1,
        processor_digest: processor.digest.clone(),
        context: JsonText::trusted("{}"),
        hold: false,
        after: None,
        group: None,
        request_digest: None,
        as_found: None,
    };
    new.begin(0, Timestamp(0))
}
