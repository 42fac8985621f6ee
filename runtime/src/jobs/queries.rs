//! Operations on slow queries: batches of one input.

use std::sync::PoisonError;

use super::batches::{check_context, check_inputs, new_batch, refused};
use super::key::{self, digest_of_query};
use super::wait::Waiting;
use super::{JobError, JobManager, QueryRequest};
use crate::model::{Batch, BatchId, BatchStatus, FoundOp, Message, NewBatch, NewRow, OpStamp, OutputFile, ProcessorKind, RecordedOutcome};
use crate::status::{QueryAnswer, Snapshot};
use crate::store::{Aborted, StoreError, VersionError};
use crate::worker::Worker;

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
    /// Why it was aborted, when a reason was given.
    pub abort_reason: Option<String>,
}

impl JobManager {
    /// Submits a slow query. It is run with the slow-query processor that is active now.
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
    /// [`JobError::NoProcessor`], [`JobError::InputTooLarge`], [`JobError::ContextTooLarge`], [`JobError::BadKey`],
    /// [`JobError::KeyReused`], [`JobError::DeadlinePassed`], [`JobError::Store`].
    pub async fn slow_query_submit(&self, request: QueryRequest) -> Result<BatchId, JobError> {
        Ok(self.submit_query(&request.with_canonical_names()).await?.0)
    }

    /// Submits it as its operation is known to be served, and once more when that is out of date. Its end is heard of from before.
    async fn submit_query(&self, request: &QueryRequest) -> Result<(BatchId, Waiting), JobError> {
        let mut known = self.known_op(&request.app, &request.op);
        loop {
            let as_found = known.as_ref().map(|found| found.stamp.clone());
            let found = match known.take() {
                Some(found) => found,
                None => self.learn_op(&request.app, &request.op).await?,
            };
            let asks_again = as_found.is_some();
            let (batch, row) = new_query(request, found, as_found)?;
            let id = batch.id;
            self.check_deadline(request.deadline_at, request.key.is_some().then_some(id)).await?;
            let mut waiting = self.wait_for_answer(id);
            match self.submit_or_begin(batch, row).await {
                Err(StoreError::Version(VersionError::Changed)) if asks_again => {}
                Err(error) => return Err(refused(request.key.clone(), error)),
                Ok(begun) => {
                    waiting.runs_here = begun;
                    return Ok((id, waiting));
                }
            }
        }
    }

    /// Where a worker in this process has a slot for it, it need not be claimed. Whether it was begun there.
    async fn submit_or_begin(&self, batch: NewBatch, row: NewRow) -> Result<bool, StoreError> {
        let place = self.shared.running.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Worker::place_for_query);
        match place {
            Some(place) => place.submit(batch, row).await,
            None => self.shared.store.submit_batch(batch, vec![row]).await.map(|()| false),
        }
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
        let (id, mut waiting) = self.submit_query(&request.with_canonical_names()).await?;
        Ok((id, waiting.end(self).await?))
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
            return Ok(QueryState::Done(result_of(known.status, answer, known.files)));
        }
        if !known.status.is_final() {
            return Ok(QueryState::TryLater(known));
        }
        self.read_answer(&self.read_batch(id).await?).await
    }

    /// What the status board knows of an end, where that is all.
    pub(super) async fn find_answer(&self, id: BatchId) -> Option<QueryResult> {
        let Snapshot { status, answer, files, .. } = self.shared.status.read(id).await.filter(|known| known.status.is_final())?;
        answer.map(|answer| result_of(status, answer, files))
    }

    /// What the store knows: the status may be final when the answer is not in the cache, or the files are not joined.
    pub(super) async fn read_answer(&self, batch: &Batch) -> Result<QueryState, JobError> {
        if !batch.has_ended() {
            return Ok(QueryState::TryLater(Snapshot::of(batch)));
        }
        Ok(QueryState::Done(self.answer(batch, self.shared.store.read_results(batch.id, None, 1).await?)))
    }

    /// The answer of a slow query that has ended.
    pub(super) fn answer(&self, batch: &Batch, mut rows: Vec<RecordedOutcome>) -> QueryResult {
        let answer = QueryAnswer::of(batch, rows.pop());
        self.shared.status.publish(Snapshot::of(batch).with_answer(Some(answer.clone())));
        result_of(batch.status, answer, batch.files.clone())
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

fn result_of(status: BatchStatus, answer: QueryAnswer, files: Vec<OutputFile>) -> QueryResult {
    let QueryAnswer { output, messages, abort_reason } = answer;
    QueryResult { status, output, messages, files, abort_reason }
}

fn new_query(request: &QueryRequest, found: FoundOp, as_found: Option<OpStamp>) -> Result<(NewBatch, NewRow), JobError> {
    let named = key::name(&request.app, request.key.as_deref(), || digest_of_query(request))?;
    let row = NewRow::new(0, request.input.clone());
    check_context(&request.context)?;
    check_inputs(std::slice::from_ref(&row))?;
    let terms = request.terms.clone().or(found.terms).complete(request.start_at, request.deadline_at);
    Ok((NewBatch { as_found, ..new_batch(found.version, named, request.context.clone(), terms, false) }, row))
}
