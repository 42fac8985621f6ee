//! Waiting for the end.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{JobError, JobManager, QueryResult, QueryState};
use crate::model::{Batch, BatchId, BatchStatus};
use crate::store::StoreEvent;

/// Events may be missing: the store is asked at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl JobManager {
    /// Waits until a batch or a slow query has ended: its status and its output files are final.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let batch = jobs.wait(id).await?;
    /// println!("{}", batch.status.as_str());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn wait(&self, id: BatchId) -> Result<Batch, JobError> {
        let mut events = self.shared.store.events();
        loop {
            // After the subscription: an end between the two is not missed.
            let batch = self.read_batch(id).await?;
            if batch.finished_at.is_some() {
                return Ok(batch);
            }
            end_of(id, &mut events).await;
        }
    }

    /// Waits until a slow query has ended, and returns what it did.
    ///
    /// # Errors
    /// As for [`JobManager::slow_query_done`].
    pub async fn wait_for_query(&self, id: BatchId) -> Result<QueryResult, JobError> {
        let mut events = self.shared.store.events();
        let mut progress = self.shared.status.watch(id);
        let mut watched = true;
        loop {
            if let QueryState::Done(result) = self.read_answer(&self.read_batch(id).await?).await? {
                return Ok(result);
            }
            let ended = tokio::select! {
                ended = end_of(id, &mut events) => ended,
                _ = progress.wait_for(|progress| progress.status.is_some_and(BatchStatus::is_final)), if watched => {
                    watched = false;
                    if let Some(result) = self.find_answer(id).await {
                        return Ok(result);
                    }
                    false
                }
            };
            if ended {
                // So the two may be read in any order.
                let (batch, rows) = tokio::join!(self.read_batch(id), self.shared.store.read_results(id, None, 1));
                return Ok(self.answer(&batch?, rows?));
            }
        }
    }
}

/// Until a batch has ended, or may have; whether it is known to have.
async fn end_of(id: BatchId, events: &mut Receiver<StoreEvent>) -> bool {
    let ended = async {
        loop {
            match events.recv().await {
                Ok(StoreEvent::Final(ended)) if ended == id => return true,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return false,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::time::timeout(LOOK_EVERY, ended).await.unwrap_or(false)
}
