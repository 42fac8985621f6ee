//! Batches that are run again, in part.

use super::{JobError, JobManager};
use crate::model::{BatchId, PastCursor, PastOutcome, PastRound, Retried, RetryRows};
use crate::status::Snapshot;
use crate::store::StoreError;

impl JobManager {
    /// Runs the failed rows of a batch that has ended again, or some of them, as a new round of the same batch. Its counts go back by these rows, its output files are joined
    /// anew when they have ended, and its processor is told again (`mark-done`). Attempts begin with 1, and the processor's version stays.
    ///
    /// Batches that were aborted because of this one ([`crate::model::Retried::waits`]) wait for it again. A chained batch that was
    /// aborted before it had all of its rows is not run but waits for the batch that it comes after.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use rowmill::model::RetryRows;
    ///
    /// let retried = jobs.batch_retry(id, &RetryRows { codes: vec!["deadline".to_owned()], ..RetryRows::default() }).await?;
    /// println!("round {}: {} rows", retried.round, retried.rows);
    /// let batch = jobs.wait(id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::DeadlinePassed`]; [`JobError::Store`] when it has not
    /// ended, is a slow query, was aborted (unless its aborted rows are wanted), or has no such
    /// row.
    pub async fn batch_retry(&self, id: BatchId, rows: &RetryRows) -> Result<Retried, JobError> {
        self.check_batch(id).await?;
        self.check_deadline(rows.deadline_at, None).await?;
        let retried = self.shared.store.retry_batch(id, rows).await.map_err(|error| self.not_here(error))?;
        tracing::info!(batch = %id, round = retried.round, rows = retried.rows, "a batch is retried");
        for changed in std::iter::once(&id).chain(&retried.waits) {
            match self.shared.store.read_batch(*changed).await {
                Ok(batch) => self.shared.status.publish(Snapshot::of(&batch)),
                // It was removed meanwhile.
                Err(StoreError::NotFound(_)) => {}
                // The retry is committed all the same, and its status is read from the store.
                Err(error) => tracing::warn!(batch = %changed, "the status of a retried batch is not published: {error:#}"),
            }
        }
        Ok(retried)
    }

    /// How the rounds of a batch ended before the one that it is in, at most `limit`, from behind a round (0 for all). The end is an empty page.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// for round in jobs.batch_rounds(id, 0, 100).await? {
    ///     println!("{}: {} rows failed", round.round, round.counts.failed);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn batch_rounds(&self, id: BatchId, after: u32, limit: u32) -> Result<Vec<PastRound>, JobError> {
        self.check_batch(id).await?;
        self.shared.store.list_rounds(id, after, limit).await.map_err(|error| self.not_here(error))
    }

    /// The outcomes that rows of a batch had before they were run again, in the order in which the rows came in. The next page begins after the last one of this page; the end is
    /// an empty page.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let first = jobs.past_outcomes(id, None, 100).await?;
    /// let second = jobs.past_outcomes(id, first.last().map(|outcome| outcome.cursor()), 100).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn past_outcomes(&self, id: BatchId, after: Option<PastCursor>, limit: u32) -> Result<Vec<PastOutcome>, JobError> {
        self.check_batch(id).await?;
        self.shared.store.read_past_outcomes(id, after, limit).await.map_err(|error| self.not_here(error))
    }
}
