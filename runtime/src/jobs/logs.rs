//! The logs of rows and of `mark-done`.

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::{JobError, JobManager};
use crate::model::{BatchId, BatchStep, MarkCall, RecordedOutcome, RowLog, Terms};
use crate::store::ResultCursor;

/// Rows that are read at once.
const PAGE_ROWS: u32 = 2_000;
/// Who follows a batch looks this often whether more rows have ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A page of logs.
#[derive(Clone, Debug)]
pub struct LogPage {
    pub logs: Vec<RowLog>,
    /// Where the next page begins; none at the end of what there is now.
    pub next: Option<ResultCursor>,
}

impl JobManager {
    /// What the rows of a batch wrote, in the order of their lines: that of the next rows behind `after`, some thousand of which most may have written nothing. A batch that runs
    /// shows what has ended.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let mut after = None;
    /// loop {
    ///     let page = jobs.batch_logs(id, after).await?;
    ///     for row in &page.logs {
    ///         println!("line {}: {}", row.line, rowmill::model::visible(&row.log));
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     after = Some(next);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn batch_logs(&self, id: BatchId, after: Option<ResultCursor>) -> Result<LogPage, JobError> {
        self.check_batch(id).await?;
        let page = self.shared.store.read_results(id, after, PAGE_ROWS).await?;
        let next = page.last().map(cursor);
        Ok(LogPage { logs: page.into_iter().filter_map(log_of).collect(), next })
    }

    /// The same as a stream. With `follow` it waits for each row in turn, and ends with the batch; it aborts a batch
    /// whose deadline has passed ([`JobManager::abort_if_overdue`]).
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut logs = jobs.stream_logs(id, true).await?;
    /// while let Some(row) = logs.try_next().await? {
    ///     println!("line {}: {}", row.line, rowmill::model::visible(&row.log));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::Store`], also on the way.
    pub async fn stream_logs(&self, id: BatchId, follow: bool) -> Result<BoxStream<'static, Result<RowLog, JobError>>, JobError> {
        self.check_batch(id).await?;
        let jobs = self.clone();
        let pages = stream::try_unfold(None, move |after| {
            let jobs = jobs.clone();
            async move {
                let store = &jobs.shared.store;
                loop {
                    // The step first: what is read after it is as new or newer.
                    let ended = !follow || {
                        let batch = store.read_batch(id).await.map_err(JobError::from)?;
                        jobs.abort_if_overdue(&batch).await?;
                        batch.step != BatchStep::Rows
                    };
                    let mut page = store.read_results(id, after, PAGE_ROWS).await.map_err(JobError::from)?;
                    if !ended && let Some(waits) = page.iter().position(|row| row.status.is_none()) {
                        page.truncate(waits);
                    }
                    match page.last().map(cursor) {
                        Some(next) => {
                            let logs: Vec<_> = page.into_iter().filter_map(log_of).map(Ok).collect();
                            return Ok::<_, JobError>(Some((stream::iter(logs), Some(next))));
                        }
                        None if ended => return Ok(None),
                        None => tokio::time::sleep(LOOK_EVERY).await,
                    }
                }
            }
        });
        Ok(pages.try_flatten().boxed())
    }

    /// What the row of one line wrote. None when it wrote nothing, has not ended, or is not there.
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn row_log(&self, id: BatchId, line: u32) -> Result<Option<RowLog>, JobError> {
        self.check_batch(id).await?;
        let store = &self.shared.store;
        let found = |page: Vec<RecordedOutcome>| page.into_iter().next().filter(|row| row.line == line);
        // Where lines do not grow with the rows they have an order of their own; else rows are numbered densely, and the line is looked for among them.
        let before = ResultCursor { line: line.saturating_sub(1), row_no: u32::MAX };
        if let Some(row) = found(store.read_results(id, Some(before), 1).await?) {
            return Ok(log_of(row));
        }
        let rows = u32::try_from(store.read_batch(id).await?.counts.rows).unwrap_or(u32::MAX);
        let (mut low, mut high) = (1, rows.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let before = ResultCursor { line: 0, row_no: middle - 1 };
            let Some(row) = store.read_results(id, Some(before), 1).await?.into_iter().next() else { break };
            match row.line.cmp(&line) {
                std::cmp::Ordering::Equal => return Ok(log_of(row)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// The calls of `mark-done` in one round of a batch that wrote to their log or failed, in their order. There are few: see [`Terms::MARK_CALLS_MAX`].
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let round = jobs.store().read_batch(id).await?.round;
    /// for call in jobs.mark_calls(id, round).await? {
    ///     println!("call {}: {}", call.call, rowmill::model::visible(&call.log.unwrap_or_default()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::Store`], also when the outcomes of the batch were pruned, and the logs with them.
    pub async fn mark_calls(&self, id: BatchId, round: u32) -> Result<Vec<MarkCall>, JobError> {
        self.check_batch(id).await?;
        let mut calls: Vec<MarkCall> = Vec::new();
        loop {
            let after = calls.last().map_or(0, |last| last.call);
            let page = self.shared.store.read_mark_calls(id, round, after, Terms::MARK_CALLS_MAX).await.map_err(|error| self.not_here(error))?;
            if page.is_empty() {
                return Ok(calls);
            }
            calls.extend(page);
        }
    }

    /// How many rows of a batch had logs that were dropped, since they did not fit into what a batch of its app may log.
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn dropped_logs(&self, id: BatchId) -> Result<u64, JobError> {
        self.check_batch(id).await?;
        Ok(self.shared.store.count_dropped_logs(id).await?)
    }
}

fn cursor(row: &RecordedOutcome) -> ResultCursor {
    ResultCursor { line: row.line, row_no: row.row_no }
}

fn log_of(row: RecordedOutcome) -> Option<RowLog> {
    let RecordedOutcome { row_no, line, status: Some(status), attempts, log: Some(log), .. } = row else { return None };
    Some(RowLog { row_no, line, status, attempts, log })
}
