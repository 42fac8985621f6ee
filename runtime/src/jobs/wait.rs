//! Waiting for the end.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::{JobError, JobManager, QueryRequest, QueryResult, QueryState};
use crate::model::{Batch, BatchId, BatchStatus};
use crate::status::Progress;
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

    /// Submits a slow query, waits until it has ended, and returns what it did. Who waits from the beginning need not look whether it has ended already.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::jobs::QueryRequest;
    /// use rowmill::model::JsonText;
    ///
    /// let input = JsonText::check(r#"{"account":"DE01","from":"2026-01-01","to":"2026-01-31"}"#)?;
    /// let result = jobs.slow_query(QueryRequest::new("bank", "statement", input)).await?;
    /// println!("{:?}", result.output);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`JobManager::slow_query_submit`] and [`JobManager::slow_query_done`].
    pub async fn slow_query(&self, request: QueryRequest) -> Result<QueryResult, JobError> {
        // By its key it may have ended long ago.
        let may_have_ended = request.key.is_some();
        let prepared = self.prepare_query(request).await?;
        let waiting = self.begin_to_wait(prepared.id());
        let id = self.submit_query(prepared).await?;
        self.wait_on(id, waiting, may_have_ended).await
    }

    /// Waits until a slow query has ended, and returns what it did.
    ///
    /// # Errors
    /// As for [`JobManager::slow_query_done`].
    pub async fn wait_for_query(&self, id: BatchId) -> Result<QueryResult, JobError> {
        self.wait_on(id, self.begin_to_wait(id), true).await
    }

    fn begin_to_wait(&self, id: BatchId) -> Waiting {
        Waiting { events: self.shared.store.events(), progress: self.shared.status.watch(id) }
    }

    async fn wait_on(&self, id: BatchId, waiting: Waiting, mut may_have_ended: bool) -> Result<QueryResult, JobError> {
        let Waiting { mut events, mut progress } = waiting;
        let mut watched = true;
        loop {
            if may_have_ended && let QueryState::Done(result) = self.read_answer(&self.read_batch(id).await?).await? {
                return Ok(result);
            }
            may_have_ended = true;
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

/// What tells somebody who waits for a query that it has ended.
struct Waiting {
    events: Receiver<StoreEvent>,
    progress: watch::Receiver<Progress>,
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
