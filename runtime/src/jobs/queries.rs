//! Operations on slow queries: batches of one input.

use super::batches::{check_context, check_inputs, new_batch, refused};
use super::key::{self, digest_of_query};
use super::{JobError, JobManager, QueryRequest};
use crate::model::{Batch, BatchId, BatchStatus, Message, NewBatch, NewRow, OutputFile, ProcessorKind, RecordedOutcome};
use crate::status::{QueryAnswer, Snapshot};
use crate::store::Aborted;

/// What became of a slow query.
#[derive(Clone, Debug)]
pub enum QueryState {
    /// It has not ended: how far it is.
    TryLater(Snapshot),
    Done(QueryResult),
}

/// What a slow query returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryResult {
    pub status: BatchStatus,
    /// Valid JSON; none when it failed, was aborted, or returned none.
    pub output: Option<String>,
    pub messages: Vec<Message>,
    pub files: Vec<OutputFile>,
}

impl JobManager {
    /// Submits a slow query. It is run with the processor that is active now.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::jobs::QueryRequest;
    /// use rowmill::model::JsonText;
    ///
    /// let input = JsonText::check(r#"{"account":"DE01","from":"2026-01-01","to":"2026-01-31"}"#)?;
    /// let id = jobs.slow_query_submit(QueryRequest::new("bank", "statement", input)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoProcessor`], [`JobError::OtherKind`], [`JobError::InputTooLarge`], [`JobError::ContextTooLarge`], [`JobError::BadKey`],
    /// [`JobError::KeyReused`], [`JobError::Store`].
    pub async fn slow_query_submit(&self, request: QueryRequest) -> Result<BatchId, JobError> {
        let key = request.key.clone();
        let (batch, rows) = self.new_query(request).await?;
        let id = batch.id;
        self.shared.store.submit_batch(batch, rows).await.map_err(|error| refused(key, error))?;
        Ok(id)
    }

    /// Submits a slow query and waits for what it returns: the shortest way to an answer, since the store is not asked in between.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::jobs::QueryRequest;
    /// use rowmill::model::JsonText;
    ///
    /// let input = JsonText::check(r#"{"account":"DE01","from":"2026-01-01","to":"2026-01-31"}"#)?;
    /// let (id, result) = jobs.slow_query(QueryRequest::new("bank", "statement", input)).await?;
    /// println!("{id}: {:?} {:?}", result.output, result.messages);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`JobManager::slow_query_submit`].
    pub async fn slow_query(&self, request: QueryRequest) -> Result<(BatchId, QueryResult), JobError> {
        if request.key.is_some() {
            // It may have been submitted, and have ended, before.
            let id = self.slow_query_submit(request).await?;
            return Ok((id, self.wait_for_query(id).await?));
        }
        let (batch, rows) = self.new_query(request).await?;
        let id = batch.id;
        let mut waiting = self.wait_for_answer(id);
        self.shared.store.submit_batch(batch, rows).await?;
        Ok((id, waiting.end(self).await?))
    }

    async fn new_query(&self, request: QueryRequest) -> Result<(NewBatch, Vec<NewRow>), JobError> {
        let (version, policy) = self.find_op(&request.app, &request.op, ProcessorKind::SlowQuery).await?;
        let named = key::name(&request.app, request.key.as_deref(), || digest_of_query(&request))?;
        let rows = vec![NewRow::new(0, request.input)];
        check_context(&request.context)?;
        check_inputs(&rows)?;
        let terms = request.terms.or(policy).complete(request.start_at, request.deadline_at);
        Ok((new_batch(version, named, request.context, terms, false), rows))
    }

    /// What a slow query returned, or how far it is. Asked of the status cache first.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use rowmill::jobs::QueryState;
    ///
    /// match jobs.slow_query_done(id).await? {
    ///     QueryState::TryLater(progress) => println!("try later: {:?}", progress.said),
    ///     QueryState::Done(result) => println!("{:?} {:?}", result.output, result.messages),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::BatchOfOtherKind`] for a batch; [`JobError::Store`].
    pub async fn slow_query_done(&self, id: BatchId) -> Result<QueryState, JobError> {
        let known = self.batch_status(id).await?;
        if known.kind != ProcessorKind::SlowQuery {
            return Err(JobError::BatchOfOtherKind { id, found: known.kind, wanted: ProcessorKind::SlowQuery });
        }
        if known.is_settled()
            && let Some(answer) = known.answer
        {
            return Ok(QueryState::Done(QueryResult { status: known.status, output: answer.output, messages: answer.messages, files: known.files }));
        }
        if !known.status.is_final() {
            return Ok(QueryState::TryLater(known));
        }
        self.read_answer(&self.read_batch(id).await?).await
    }

    /// What the status board knows of an end, where that is all.
    pub(super) async fn find_answer(&self, id: BatchId) -> Option<QueryResult> {
        let Snapshot { status, answer, files, .. } = self.shared.status.read(id).await.filter(|known| known.status.is_final())?;
        answer.map(|QueryAnswer { output, messages }| QueryResult { status, output, messages, files })
    }

    /// What the store knows: the status may be final when the answer is not in the cache, or the files are not joined.
    pub(super) async fn read_answer(&self, batch: &Batch) -> Result<QueryState, JobError> {
        if batch.finished_at.is_none() {
            return Ok(QueryState::TryLater(Snapshot::of(batch)));
        }
        Ok(QueryState::Done(self.answer(batch, self.shared.store.read_results(batch.id, None, 1).await?)))
    }

    /// The answer of a slow query that has ended.
    pub(super) fn answer(&self, batch: &Batch, mut rows: Vec<RecordedOutcome>) -> QueryResult {
        let answer =
            rows.pop().map_or(QueryAnswer { output: None, messages: Vec::new() }, |row| QueryAnswer { output: row.output, messages: row.messages });
        self.shared.status.publish(Snapshot::of(batch).with_answer(Some(answer.clone())));
        QueryResult { status: batch.status, output: answer.output, messages: answer.messages, files: batch.files.clone() }
    }

    /// Aborts a slow query: its guest is stopped.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// jobs.slow_query_abort(id, Some("nobody waits for it")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::AlreadyFinal`] when it has ended; [`JobError::NoBatch`]; [`JobError::BatchOfOtherKind`] for a batch; [`JobError::Store`].
    pub async fn slow_query_abort(&self, id: BatchId, reason: Option<&str>) -> Result<Aborted, JobError> {
        let batch = self.read_batch(id).await?;
        if batch.kind != ProcessorKind::SlowQuery {
            return Err(JobError::BatchOfOtherKind { id, found: batch.kind, wanted: ProcessorKind::SlowQuery });
        }
        let aborted = self.batch_abort(id, reason).await?;
        if aborted.changed { Ok(aborted) } else { Err(JobError::AlreadyFinal { id, status: aborted.status }) }
    }
}
