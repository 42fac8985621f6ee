//! Operations on batches.

use futures_util::TryStreamExt;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::append::in_turn;
use super::key::{self, Named, digest_of_batch};
use super::{BatchRequest, JobError, JobManager};
use crate::model::{
    Batch, BatchId, FoundOp, INPUT_BYTES_MAX, JsonText, NewBatch, NewRow, ProcessorKind, ProcessorVersion, RecordedOutcome, Terms, Timestamp,
};
use crate::status::Snapshot;
use crate::store::{Aborted, PgConnection, PgStore, ResultCursor, StoreError};

/// Rows of a stream that are read at once.
const PAGE_ROWS: u32 = 2_000;

impl JobManager {
    /// Submits a batch, in one transaction. It is run with the batch processor that is active now. With a key it can be submitted again when the answer was lost: it is
    /// there once.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::jobs::BatchRequest;
    /// use rowmill::model::{JsonText, NewRow};
    ///
    /// let rows = vec![NewRow::new(1, JsonText::check(r#"{"amount":"1.50"}"#)?), NewRow::new(2, JsonText::check(r#"{"amount":"2.50"}"#)?)];
    /// let context = JsonText::check(r#"{"branch":"north"}"#)?;
    /// let id = jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(rows).with_context(context)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoProcessor`], [`JobError::InputTooLarge`], [`JobError::ContextTooLarge`], [`JobError::BadKey`],
    /// [`JobError::KeyReused`], [`JobError::DeadlinePassed`]; [`JobError::Store`] for no rows
    /// without `hold` or `after`, a batch that it cannot come after, a group that is sealed, lines
    /// that are 0 or come twice, or no attempts.
    pub async fn batch_submit(&self, request: BatchRequest) -> Result<BatchId, JobError> {
        let request = request.with_canonical_names();
        let key = request.key.clone();
        let (batch, rows) = self.prepare(request).await?;
        let (id, version) = (batch.id, batch.processor_version);
        tracing::debug!(batch = %id, version, rows = rows.len(), "submits a batch");
        self.shared.store.submit_batch(batch, rows).await.map_err(|error| refused(key, error))?;
        Ok(id)
    }

    /// Submits a batch in a transaction of the caller's own, on the database of this manager's store: it exists if and when that commits.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, store: rowmill::store::PgStore, connection: &mut sqlx::PgConnection) -> anyhow::Result<()> {
    /// # let rows = Vec::new();
    /// use rowmill::jobs::BatchRequest;
    /// use sqlx::Connection;
    ///
    /// let mut transaction = connection.begin().await?;
    /// sqlx::query("UPDATE orders SET state = 'sent to the bank'").execute(&mut *transaction).await?;
    /// let id = jobs.batch_submit_in(&store, &mut transaction, BatchRequest::new("bank", "validate").with_rows(rows)).await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`JobManager::batch_submit`]. After an error of the database the transaction can only be rolled back.
    pub async fn batch_submit_in(&self, store: &PgStore, transaction: &mut PgConnection, request: BatchRequest) -> Result<BatchId, JobError> {
        let request = request.with_canonical_names();
        let key = request.key.clone();
        let (batch, rows) = self.prepare(request).await?;
        let id = batch.id;
        store.submit_batch_in(transaction, batch, rows).await.map_err(|error| refused(key, error))?;
        Ok(id)
    }

    async fn prepare(&self, request: BatchRequest) -> Result<(NewBatch, Vec<NewRow>), JobError> {
        let FoundOp { version, terms: policy, .. } = self.find_op(&request.app, &request.op, ProcessorKind::Batch).await?;
        check_context(&request.context)?;
        check_inputs(&request.rows)?;
        let named = key::name(&request.app, request.key.as_deref(), || digest_of_batch(&request))?;
        self.check_deadline(request.deadline_at, request.key.is_some().then_some(named.id)).await?;
        let terms = request.terms.or(policy).complete(request.start_at, request.deadline_at);
        let batch = new_batch(version, named, request.context, terms, request.hold);
        Ok((NewBatch { after: request.after, group: request.group, ..batch }, request.rows))
    }

    /// Refuses a deadline that has passed. A batch that was submitted before, with its key, is
    /// found again after its deadline, too.
    pub(super) async fn check_deadline(&self, deadline: Option<Timestamp>, known: Option<BatchId>) -> Result<(), JobError> {
        let Some(deadline) = deadline else { return Ok(()) };
        let now = self.shared.store.read_clock().await?;
        if deadline > now {
            return Ok(());
        }
        if let Some(id) = known {
            match self.shared.store.read_batch(id).await {
                Ok(_) => return Ok(()),
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(JobError::DeadlinePassed { deadline, now })
    }

    /// Appends rows to a held batch, and releases it where that is wanted. Returns how many rows it has now. The rows of one call
    /// are contiguous and keep their order. Waits, for some minutes at most, while a file is appended in parts. Those without a line ([`NewRow::next`]) get the next lines of the batch.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, more: Vec<rowmill::model::NewRow>) -> anyhow::Result<()> {
    /// use rowmill::jobs::BatchRequest;
    ///
    /// use rowmill::model::{JsonText, NewRow};
    ///
    /// let id = jobs.batch_submit(BatchRequest::new("bank", "validate").held()).await?;
    /// // Several may append at the same moment: each of these rows gets the next line of the batch.
    /// jobs.batch_append(id, vec![NewRow::next(JsonText::check(r#"{"amount":"1.50"}"#)?)], false).await?;
    /// let rows = jobs.batch_append(id, more, true).await?;
    /// println!("{rows} rows are queued");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::InputTooLarge`]; [`JobError::Store`] when it is not held any more, and for lines that are 0 or come twice.
    pub async fn batch_append(&self, id: BatchId, rows: Vec<NewRow>, release: bool) -> Result<u64, JobError> {
        check_inputs(&rows)?;
        self.check_batch(id).await?;
        let total = in_turn(async || self.shared.store.append_rows(id, rows.clone()).await).await?;
        if release { self.release(id).await } else { Ok(total) }
    }

    /// Releases a held batch (Alya's `WaitOff`). One that is queued already stays as it is. Returns how many rows it has.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let rows = jobs.release(id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::Store`] when it has no rows, or is past `queued`.
    pub async fn release(&self, id: BatchId) -> Result<u64, JobError> {
        self.check_batch(id).await?;
        let rows = self.shared.store.release_batch(id).await?;
        self.shared.status.publish(Snapshot::of(&self.shared.store.read_batch(id).await?));
        Ok(rows)
    }

    /// Changes the priority of a batch or a slow query whose rows have not all ended.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// jobs.set_priority(id, 10).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::Store`] when none of its rows waits any longer.
    pub async fn set_priority(&self, id: BatchId, priority: i32) -> Result<(), JobError> {
        self.check_batch(id).await?;
        Ok(self.shared.store.set_priority(id, priority).await?)
    }

    /// How far a batch is. Asked of the status cache first, so that polling does not reach the database.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let status = jobs.batch_status(id).await?;
    /// println!("{}: {} of {} rows failed", status.status.as_str(), status.counts.failed, status.counts.rows);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn batch_status(&self, id: BatchId) -> Result<Snapshot, JobError> {
        if let Some(known) = self.shared.status.read(id).await {
            self.may_see(id, &known.app)?;
            return Ok(known);
        }
        let snapshot = Snapshot::of(&self.read_batch(id).await?);
        self.shared.status.publish(snapshot.clone());
        Ok(snapshot)
    }

    /// A batch that has ended, with its counts and output files. None until then.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// match jobs.batch_done(id).await? {
    ///     None => println!("try later"),
    ///     Some(batch) => println!("{}, {} files", batch.status.as_str(), batch.files.len()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn batch_done(&self, id: BatchId) -> Result<Option<Batch>, JobError> {
        Ok(Some(self.read_batch(id).await?).filter(Batch::has_ended))
    }

    /// A page of the rows of a batch that has ended, in the order of their lines. The next one begins after the last row of this one; the end is an empty page.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use rowmill::store::ResultCursor;
    ///
    /// let first = jobs.batch_rows(id, None, 100).await?;
    /// let after = first.last().map(|row| ResultCursor { line: row.line, row_no: row.row_no });
    /// let second = jobs.batch_rows(id, after, 100).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::NotFinal`]; [`JobError::Store`].
    pub async fn batch_rows(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RecordedOutcome>, JobError> {
        let batch = self.read_batch(id).await?;
        if !batch.status.is_final() {
            return Err(JobError::NotFinal { id, status: batch.status });
        }
        Ok(self.shared.store.read_results(id, after, limit).await?)
    }

    /// All rows of a batch that has ended, in the order of their lines. A page at a time is in memory.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut rows = jobs.stream_rows(id).await?;
    /// while let Some(row) = rows.try_next().await? {
    ///     println!("{} {:?}", row.line, row.output);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::NotFinal`]; [`JobError::Store`], also on the way.
    pub async fn stream_rows(&self, id: BatchId) -> Result<BoxStream<'static, Result<RecordedOutcome, JobError>>, JobError> {
        let batch = self.read_batch(id).await?;
        if !batch.status.is_final() {
            return Err(JobError::NotFinal { id, status: batch.status });
        }
        let store = self.shared.store.clone();
        let pages = stream::try_unfold(None, move |after| {
            let store = store.clone();
            async move {
                let page = store.read_results(id, after, PAGE_ROWS).await.map_err(JobError::from)?;
                let next = page.last().map(|row| Some(ResultCursor { line: row.line, row_no: row.row_no }));
                Ok::<_, JobError>(next.map(|next| (stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        Ok(pages.try_flatten().boxed())
    }

    /// Aborts a batch: its rows without an outcome are aborted from this moment on, and guests that run some are stopped. One that has ended stays as it is.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let aborted = jobs.batch_abort(id, Some("the file was the wrong one")).await?;
    /// println!("{} rows were not run", aborted.counts.aborted);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn batch_abort(&self, id: BatchId, reason: Option<&str>) -> Result<Aborted, JobError> {
        self.check_batch(id).await?;
        let aborted = self.shared.store.abort_batch(id, reason.map(str::to_owned)).await?;
        if aborted.changed {
            // Counts alone would not say that it is aborted.
            self.shared.status.publish(Snapshot::of(&self.shared.store.read_batch(id).await?));
        }
        Ok(aborted)
    }
}

pub(super) fn new_batch(version: ProcessorVersion, named: Named, context: JsonText, terms: Terms, hold: bool) -> NewBatch {
    NewBatch {
        id: named.id,
        request_digest: named.request_digest,
        as_found: None,
        app: version.app,
        op: version.op,
        kind: version.kind,
        terms,
        processor_version: version.version,
        processor_digest: version.digest,
        context,
        hold,
        after: None,
        group: None,
    }
}

/// Why the store refused what was submitted.
pub(super) fn refused(key: Option<String>, error: StoreError) -> JobError {
    match (key, error) {
        (Some(key), StoreError::Exists(id)) => JobError::KeyReused { key, id },
        (_, error) => error.into(),
    }
}

pub(super) fn check_context(context: &JsonText) -> Result<(), JobError> {
    let bytes = context.as_str().len();
    if bytes > INPUT_BYTES_MAX { Err(JobError::ContextTooLarge { bytes }) } else { Ok(()) }
}

/// A rejected row is not run: its text is kept as it was.
pub(super) fn check_inputs(rows: &[NewRow]) -> Result<(), JobError> {
    match rows.iter().zip(1..).find(|(row, _)| row.rejected.is_none() && row.input.as_str().len() > INPUT_BYTES_MAX) {
        Some((row, at)) => Err(JobError::InputTooLarge { line: row.line, row: at, bytes: row.input.as_str().len() }),
        None => Ok(()),
    }
}
