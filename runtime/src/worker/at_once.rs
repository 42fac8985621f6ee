//! Slow queries that are submitted in the worker's own process run in a free slot at once: nobody claims them.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Worker;
use crate::model::{NewBatch, NewRow};
use crate::store::{LeaseOwner, StoreError};

/// A slot that is kept free for a slow query.
pub struct QueryPlace {
    worker: Arc<Worker>,
    slot: OwnedSemaphorePermit,
}

impl Worker {
    /// A free slot, if there is one and the worker goes on.
    pub fn place_for_query(self: &Arc<Worker>) -> Option<QueryPlace> {
        if self.drain.is_cancelled() || self.settings.ends_when_idle || self.budget.is_short() {
            return None;
        }
        let slot = Arc::clone(&self.queries.slots).try_acquire_owned().ok()?;
        Some(QueryPlace { worker: Arc::clone(self), slot })
    }
}

impl QueryPlace {
    /// Submits a slow query and begins it in the slot, or leaves it to the next claim where others come first. Whether it began it. In a task of its own: a caller who stops waiting must not leave a lease that nobody
    /// works on.
    ///
    /// # Errors
    /// As [`crate::store::Store::submit_batch`].
    pub async fn submit(self, batch: NewBatch, row: NewRow) -> Result<bool, StoreError> {
        let submitted = tokio::spawn(async move {
            let QueryPlace { worker, slot } = self;
            let owner = LeaseOwner { worker: &worker.settings.name, ttl: worker.settings.lease_ttl() };
            let Some(work) = worker.store.submit_to_run(batch, row, owner).await? else { return Ok(false) };
            worker.queries.set_idle(false);
            let lane = Arc::clone(&worker.queries);
            tokio::spawn(worker.work(work, lane, slot));
            Ok(true)
        });
        submitted.await.map_err(|source| StoreError::Failed { doing: "submit a slow query", source: source.into() })?
    }
}
