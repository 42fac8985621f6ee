//! Calls `mark-done` of a batch that has ended, again where that is asked for, and records what became of the call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::budget::Room;
use super::record::{RETRY_AFTER_MAX, backoff};
use super::{Worker, WorkerError};
use crate::blobs::{BlobError, Blobs};
use crate::model::{Batch, BatchId, Ending, FinishLease, MarkEnd, OutputFile, ProcessorKind, Terms, mark_failure, show_time};
use crate::registry::FindError;
use crate::sandbox::{FileBytes, MarkRun, Marking, OutputFiles, Processor, Session, SessionSpec};
use crate::status::{QueryAnswer, Snapshot};
use crate::store::StoreError;

/// `mark-done` is given up after this many workers died in it, one after the other.
const CRASHES_MAX: u32 = 3;

impl Worker {
    /// Calls `mark-done` under the lease of the batch. Where it is to be called again, the lease ends and the store keeps the time of the next call.
    pub(super) async fn mark_done(&self, lease: &FinishLease, stop: &CancellationToken) -> Result<(), WorkerError> {
        let batch = self.store.read_batch(lease.batch).await?;
        self.warm.end_batch(batch.id);
        // The status, the files and the answer are final: pollers need not wait for the processor.
        let snapshot = Snapshot::of(&batch).with_answer(self.read_answer(&batch).await?);
        self.status.publish(snapshot.clone());
        let call = batch.mark_calls.saturating_add(lease.attempt);
        let end = if lease.attempt > CRASHES_MAX {
            not_called(format!("mark-done was given up: {CRASHES_MAX} workers died in it, or were silent for too long"))
        } else {
            let terms = batch.terms.clone();
            match self.call_mark_done(lease, batch, call, stop).await? {
                Marked::NotCalled(reason) => not_called(reason),
                Marked::Ran(MarkRun { ended: Err(Ending::Cancelled), .. }) => return Ok(self.give_back(lease, Duration::ZERO, stop).await?),
                Marked::Ran(run) => end_of(run, call, &terms, fastrand::f64()),
            }
        };
        let calls = if end.called { call } else { call.saturating_sub(1) };
        match (&end.error, end.again_after) {
            // It is recorded with the batch, and whoever looks at the batch or waits for it is told.
            (Some(error), None) => tracing::info!(batch = %lease.batch, "{}", mark_failure(calls, error)),
            (Some(error), Some(after)) => {
                tracing::info!(batch = %lease.batch, "{}; it is called again in {}", mark_failure(calls, error), show_time(after));
            }
            (None, _) => {}
        }
        let recording = self.insist(stop, "cannot record the end of mark-done", || self.store.record_mark(lease, &end));
        self.keeping(lease, recording).await??;
        if end.again_after.is_none() {
            self.status.publish(Snapshot { done: true, ..snapshot });
            self.assignments.forget(lease.batch);
        }
        Ok(())
    }

    async fn call_mark_done(&self, lease: &FinishLease, batch: Batch, call: u32, stop: &CancellationToken) -> Result<Marked, WorkerError> {
        let processor = match self.keeping(lease, self.registry.find(&batch)).await? {
            Ok(processor) => processor,
            Err(FindError::Unusable(reason)) => return Ok(Marked::NotCalled(reason)),
            Err(FindError::Blobs(error)) => return Err(error.into()),
            Err(FindError::Compiler(error)) => return Err(WorkerError::Compiler(error)),
        };
        let assignment = match self.assignments.get(batch.id) {
            // Where nothing was granted, nothing can have been taken back.
            Some(assignment) if !assignment.grants_something() => assignment,
            _ => self.assign(batch.clone(), self.store.read_app(&batch.app).await?),
        };
        let capabilities = match assignment.capabilities(&self.granter, &processor).await {
            Ok(capabilities) => capabilities,
            Err(reason) => return Ok(Marked::NotCalled(reason)),
        };
        let limits = assignment.limits.clone();
        let Some(room) = self.keeping(lease, self.wait_for_room(&batch.app, limits.memory_bytes, stop)).await? else {
            return Ok(Marked::Ran(MarkRun { ended: Err(Ending::Cancelled), log: None }));
        };
        let spec = SessionSpec { batch, limits, cancel: stop.clone(), progress: None, capabilities };
        let run = self.run_mark_done(lease, processor, spec, call).await?;
        drop(room);
        Ok(Marked::Ran(run))
    }

    async fn run_mark_done(&self, lease: &FinishLease, processor: Processor, spec: SessionSpec, call: u32) -> Result<MarkRun, StoreError> {
        let files = Arc::new(FilesOf { batch: lease.batch, blobs: self.blobs.clone() });
        let mut session = Session::new(processor, spec);
        let run = self.keeping(lease, session.mark_done(Marking { attempt: call, files })).await?;
        session.close().await;
        Ok(run)
    }

    /// Memory for a guest that is told of its batch's end; none when it is to stop.
    async fn wait_for_room(&self, app: &str, needs_bytes: u64, stop: &CancellationToken) -> Option<Room> {
        loop {
            let freed = self.budget.freed();
            tokio::pin!(freed);
            // From now on none is missed.
            freed.as_mut().enable();
            if let Some(room) = self.budget.admit(app, needs_bytes) {
                return Some(room);
            }
            self.warm.end_all();
            tokio::select! {
                () = freed => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    async fn read_answer(&self, batch: &Batch) -> Result<Option<QueryAnswer>, StoreError> {
        if batch.kind != ProcessorKind::SlowQuery {
            return Ok(None);
        }
        let row = self.store.read_results(batch.id, None, 1).await?.pop();
        Ok(Some(QueryAnswer::of(batch, row)))
    }
}

/// What became of an attempt to call `mark-done`.
enum Marked {
    Ran(MarkRun),
    /// There was no processor to call, for this reason.
    NotCalled(String),
}

fn not_called(reason: String) -> MarkEnd {
    MarkEnd { error: Some(reason), ..MarkEnd::default() }
}

/// How a call is recorded. It is followed by another where the processor asks for that, or failed with a code that rows of its batch are retried for, and calls are left. `abort-batch` is
/// final: the batch has ended.
fn end_of(run: MarkRun, call: u32, terms: &Terms, chance: f64) -> MarkEnd {
    let MarkRun { ended, log } = run;
    let Err(ending) = ended else { return MarkEnd { called: true, log, ..MarkEnd::default() } };
    let wanted = match &ending {
        Ending::Retry { after, .. } => Some(*after),
        Ending::AbortBatch { .. } | Ending::Permanent { .. } => None,
        other => other.code().filter(|code| terms.retries.codes.iter().any(|wanted| wanted == code)).map(|_| None),
    };
    let again_after = wanted
        .filter(|_| call < terms.mark_calls_max())
        .map(|after| after.unwrap_or_else(|| backoff(&terms.retries, call, chance)).min(RETRY_AFTER_MAX));
    let error = match ending {
        // The words that its code has for a row would be wrong here.
        Ending::Retry { reason, .. } | Ending::AbortBatch { reason } => reason,
        other => other.explain(),
    };
    MarkEnd { called: true, error: Some(error), log, again_after }
}

/// The output files of a batch in the object store.
struct FilesOf {
    batch: BatchId,
    blobs: Blobs,
}

impl FilesOf {
    /// The guest hears nothing of where files are; the worker's log does.
    fn unavailable(batch: BatchId, name: &str, error: BlobError) -> String {
        tracing::warn!(%batch, "the output file {name:?} cannot be read for mark-done: {:#}", anyhow::Error::new(error));
        format!("the output file {name:?} cannot be read at the moment")
    }
}

#[async_trait]
impl OutputFiles for FilesOf {
    async fn open(&self, file: &OutputFile) -> Result<FileBytes, String> {
        let (batch, name) = (self.batch, file.name.clone());
        let stream = self.blobs.read(&file.object).await.map_err(|error| FilesOf::unavailable(batch, &name, error))?;
        Ok(stream.map(move |part| part.map_err(|error| FilesOf::unavailable(batch, &name, error))).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RetryRule;

    fn ended(call: u32, ending: Ending, terms: &Terms) -> MarkEnd {
        end_of(MarkRun { ended: Err(ending), log: Some("info: x\n".to_owned()) }, call, terms, 0.0)
    }

    fn retry(after: Option<Duration>) -> Ending {
        Ending::Retry { reason: "the partner is away".to_owned(), after }
    }

    #[test]
    fn a_retry_waits_longer_each_time_and_ends_with_the_attempts_of_a_row() {
        let terms = Terms::default();
        let after = |call| ended(call, retry(None), &terms).again_after;
        assert_eq!([1, 2, 3].map(after), [Some(Duration::from_secs(1)), Some(Duration::from_secs(2)), None]);
        let last = ended(3, retry(None), &terms);
        assert_eq!((last.called, last.error.as_deref(), last.log.as_deref()), (true, Some("the partner is away"), Some("info: x\n")));
        let once = Terms { attempts_max: 1, ..Terms::default() };
        assert_eq!(ended(1, retry(None), &once).again_after, None);
    }

    #[test]
    fn there_is_a_bound_however_many_attempts_a_row_has() {
        let terms = Terms { attempts_max: u32::MAX, ..Terms::default() };
        let again = |call| ended(call, retry(Some(Duration::MAX)), &terms).again_after;
        assert_eq!(again(Terms::MARK_CALLS_MAX - 1), Some(RETRY_AFTER_MAX));
        assert_eq!(again(Terms::MARK_CALLS_MAX), None);
    }

    #[test]
    fn what_is_final_is_not_called_again_unless_rows_are_retried_for_its_code() {
        let permanent = || Ending::Permanent { reason: "no".to_owned() };
        let abort = || Ending::AbortBatch { reason: "stop".to_owned() };
        let late = || Ending::Deadline { limit: Duration::from_secs(50), frames: Vec::new() };
        for ending in [permanent(), abort(), late()] {
            assert_eq!(ended(1, ending.clone(), &Terms::default()).again_after, None, "{ending:?}");
        }
        let codes = ["deadline", "batch_aborted", "processing_error"].map(str::to_owned).to_vec();
        let terms = Terms { retries: RetryRule { codes, ..RetryRule::default() }, ..Terms::default() };
        let again = |ending| ended(1, ending, &terms).again_after.is_some();
        assert_eq!((again(late()), again(abort()), again(permanent())), (true, false, false));
    }
}
