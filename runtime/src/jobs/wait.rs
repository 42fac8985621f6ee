//! Waiting for the end.

use std::time::Duration;

use super::{JobError, JobManager, QueryState};
use crate::model::{Batch, BatchId};
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
            let ended = async {
                loop {
                    match events.recv().await {
                        Ok(StoreEvent::Final(ended)) if ended == id => return,
                        Ok(_) => {}
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return,
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            // Ended or not, the store is asked again.
            let _ = tokio::time::timeout(LOOK_EVERY, ended).await;
        }
    }

    /// Waits until a slow query has ended, and returns what it did.
    ///
    /// # Errors
    /// As for [`JobManager::slow_query_done`].
    pub async fn wait_for_query(&self, id: BatchId) -> Result<QueryState, JobError> {
        let batch = self.wait(id).await?;
        self.read_answer(&batch).await
    }
}
