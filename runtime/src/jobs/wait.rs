//! Waiting for the end.

use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::{JobError, JobManager, QueryResult, QueryState};
use crate::model::{Batch, BatchId, BatchStatus, BatchStep};
use crate::status::{Progress, Snapshot};
use crate::store::{StoreError, StoreEvent};

/// Events may be missing: the store is asked at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Before the second look at a batch that is to be done; each further pause is twice as long, up to [`LOOK_EVERY`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Who runs a query in this process has its answer on the status board soon after the store tells of the end. It takes longer only where the board has forgotten it.
const ANSWER_TIME: Duration = Duration::from_millis(20);

impl JobManager {
    /// Waits until a batch or a slow query has ended: its status and its output files are final ([`Batch::has_ended`]). Its
    /// processor may not have been told yet (`mark-done`).
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
            if batch.has_ended() {
                return Ok(batch);
            }
            if !self.abort_if_overdue(&batch).await? {
                end_of(id, &mut events).await;
            }
        }
    }

    /// Waits until nothing remains to be done for a batch or a slow query: it has ended, and its processor was told of that
    /// (`mark-done`). Only then can it be retried or removed, and its version of the processor too. That needs a worker.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let batch = jobs.wait_until_done(id).await?;
    /// println!("{}: {:?}", batch.status.as_str(), batch.mark_error);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn wait_until_done(&self, id: BatchId) -> Result<Batch, JobError> {
        let mut progress = self.shared.status.watch(id);
        let mut pause = FIRST_PAUSE;
        let mut watched = true;
        loop {
            let batch = self.read_batch(id).await?;
            if batch.step == BatchStep::Done {
                return Ok(batch);
            }
            self.abort_if_overdue(&batch).await?;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The status board may know of another round, or know nothing more: it is asked once.
                () = told_of_done(&mut progress), if watched => watched = false,
            }
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    /// Aborts a batch or a slow query whose deadline has passed, as a worker does. A client that waits calls
    /// this, since no worker may be running. Returns true if the batch was aborted here. A second call for
    /// the same batch, and one after a worker was faster, changes nothing.
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn abort_if_overdue(&self, batch: &Batch) -> Result<bool, JobError> {
        let Some(deadline) = batch.terms.deadline_at.filter(|_| !batch.has_ended()) else { return Ok(false) };
        let store = &self.shared.store;
        if store.read_clock().await? < deadline {
            return Ok(false);
        }
        // Others that are overdue are aborted with it, the oldest deadlines first.
        let overdue = store.abort_overdue().await?;
        for id in &overdue.aborted {
            match store.read_batch(*id).await {
                // Counts alone would not say that it is aborted.
                Ok(aborted) => self.shared.status.publish(Snapshot::of(&aborted)),
                // It was removed meanwhile.
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(overdue.aborted.contains(&batch.id))
    }

    /// Waits until a slow query has ended, and returns what it did.
    ///
    /// # Errors
    /// As for [`JobManager::slow_query_done`].
    pub async fn wait_for_query(&self, id: BatchId) -> Result<QueryResult, JobError> {
        let mut waiting = self.wait_for_answer(id);
        // After the subscription: an end between the two is not missed.
        if let QueryState::Done(result) = self.read_answer(&self.read_batch(id).await?).await? {
            return Ok(result);
        }
        waiting.end(self).await
    }

    /// Hears of the end of a slow query from now on.
    pub(super) fn wait_for_answer(&self, id: BatchId) -> Waiting {
        Waiting { id, events: self.shared.store.events(), progress: self.shared.status.watch(id), watched: true, runs_here: false }
    }
}

/// For the answer of a slow query.
pub(super) struct Waiting {
    id: BatchId,
    events: Receiver<StoreEvent>,
    progress: watch::Receiver<Progress>,
    /// Until the status board has told of the end.
    watched: bool,
    /// It was begun in this process.
    pub runs_here: bool,
}

impl Waiting {
    /// Waits for an end that was not there before. The store is asked only where nobody tells of it.
    pub async fn end(&mut self, jobs: &JobManager) -> Result<QueryResult, JobError> {
        loop {
            let (ended, mut told) = tokio::select! {
                ended = end_of(self.id, &mut self.events) => (ended, false),
                () = told_of_end(&mut self.progress), if self.watched => (false, true),
            };
            if ended && self.runs_here && self.watched {
                told = tokio::time::timeout(ANSWER_TIME, told_of_end(&mut self.progress)).await.is_ok();
            }
            if told {
                self.watched = false;
                if let Some(result) = jobs.find_answer(self.id).await {
                    return Ok(result);
                }
            }
            if ended {
                // So the two may be read in any order.
                let (batch, rows) = tokio::join!(jobs.read_batch(self.id), jobs.shared.store.read_results(self.id, None, 1));
                return Ok(jobs.answer(&batch?, rows?));
            }
            let mut batch = jobs.read_batch(self.id).await?;
            if jobs.abort_if_overdue(&batch).await? {
                batch = jobs.read_batch(self.id).await?;
            }
            if let QueryState::Done(result) = jobs.read_answer(&batch).await? {
                return Ok(result);
            }
        }
    }
}

/// Until the status board knows of the end, or can know nothing more.
async fn told_of_end(progress: &mut watch::Receiver<Progress>) {
    // What it holds is a lock, which nobody may keep while he waits.
    drop(progress.wait_for(|progress| progress.status.is_some_and(BatchStatus::is_final)).await);
}

/// Until the status board knows that the processor was told, or can know nothing more.
async fn told_of_done(progress: &mut watch::Receiver<Progress>) {
    drop(progress.wait_for(|progress| progress.done).await);
}

/// Until a batch has ended, or may have; whether it is known to have.
async fn end_of(id: BatchId, events: &mut Receiver<StoreEvent>) -> bool {
    let ended = async {
        loop {
            match events.recv().await {
                Ok(StoreEvent::Final(ended)) if ended == id => return true,
                // It has ended if no row had an outcome: the store knows.
                Ok(StoreEvent::Aborted(aborted)) if aborted == id => return false,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return false,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::time::timeout(LOOK_EVERY, ended).await.unwrap_or(false)
}
