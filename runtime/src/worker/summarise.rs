//! Finishes a batch: joins its output files, then tells its processor.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::{Worker, WorkerError};
use crate::blobs::BlobWriter;
use crate::model::{Batch, BatchStep, Ending, FinishLease, OutputFile, ProcessorKind};
use crate::sandbox::{Session, SessionSpec};
use crate::status::{QueryAnswer, Snapshot};
use crate::store::StoreError;

/// Rows with pieces that are read at once.
const PAGE_ROWS: u32 = 2_000;
/// `mark-done` is given up after so many workers died in it.
const MARK_ATTEMPTS_MAX: u32 = 3;

impl Worker {
    /// Does the step that a batch is at.
    pub(super) async fn finish(self: Arc<Worker>, lease: FinishLease, slot: OwnedSemaphorePermit) {
        let finished = match lease.step {
            BatchStep::Join => self.join_files(&lease).await,
            _ => self.mark_done(&lease).await,
        };
        match finished {
            Err(WorkerError::Store(StoreError::LeaseLost)) => tracing::info!(batch = %lease.batch, "another worker finishes the batch"),
            Err(error) => self.give_up(error),
            Ok(()) => {}
        }
        drop(slot);
        self.finish_wanted.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    async fn join_files(&self, lease: &FinishLease) -> Result<(), WorkerError> {
        // The lease is kept all the while: a slow object store may take longer than it lives.
        match self.keeping(lease, self.write_files(lease)).await?? {
            Some(files) => self.store.record_files(lease, &files).await?,
            None => self.store.give_back_finish(lease).await?,
        }
        Ok(())
    }

    /// Joins the pieces of each output file in line order. All files are written in one pass over the outcomes, and none is ever whole in memory. None when the
    /// worker drains.
    async fn write_files(&self, lease: &FinishLease) -> Result<Option<Vec<OutputFile>>, WorkerError> {
        let names = self.store.list_file_names(lease.batch).await?;
        let mut writers: Vec<BlobWriter> = names.iter().map(|_| self.blobs.begin(lease.batch)).collect();
        let mut after = None;
        while !writers.is_empty() {
            let page = self.store.read_pieces(lease.batch, after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.at);
            for (file, text) in page.iter().flat_map(|row| &row.pieces) {
                let text = text.trim();
                if !text.is_empty() {
                    writers[*file].write(text.as_bytes()).await?;
                    writers[*file].write(b"\n").await?;
                }
            }
            if self.drain.is_cancelled() {
                return Ok(None);
            }
        }
        let mut files = Vec::with_capacity(names.len());
        for (name, writer) in names.into_iter().zip(writers) {
            let (object, size_bytes) = writer.finish().await?;
            files.push(OutputFile { name, object, size_bytes });
        }
        Ok(Some(files))
    }

    async fn mark_done(&self, lease: &FinishLease) -> Result<(), WorkerError> {
        let batch = self.store.read_batch(lease.batch).await?;
        // The status, the files and the answer are final: pollers need not wait for the processor.
        let snapshot = Snapshot::of(&batch).with_answer(self.read_answer(&batch).await?);
        self.status.publish(snapshot.clone());
        let error = if lease.attempt > MARK_ATTEMPTS_MAX {
            Some(format!("mark-done was given up: {MARK_ATTEMPTS_MAX} workers died in it"))
        } else {
            match self.registry.find(&batch) {
                Err(reason) => Some(reason),
                Ok(registered) => {
                    let limits = self.app_limits(&batch).await?.unwrap_or(registered.limits);
                    let spec = SessionSpec { batch, limits, cancel: self.held.stopper(), progress: None };
                    let mut session = Session::new(registered.processor, spec);
                    let marked = self.keeping(lease, session.mark_done()).await?;
                    session.close().await;
                    match marked {
                        Err(Ending::Cancelled) => return Ok(self.store.give_back_finish(lease).await?),
                        marked => marked.err().map(|ending| ending.explain()),
                    }
                }
            }
        };
        if let Some(error) = &error {
            tracing::warn!(batch = %lease.batch, "mark-done failed: {error}");
        }
        self.store.record_mark_done(lease, error.as_deref()).await?;
        self.status.publish(Snapshot { done: true, ..snapshot });
        self.assignments.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&lease.batch);
        Ok(())
    }

    async fn read_answer(&self, batch: &Batch) -> Result<Option<QueryAnswer>, StoreError> {
        if batch.kind != ProcessorKind::SlowQuery {
            return Ok(None);
        }
        let row = self.store.read_results(batch.id, None, 1).await?.pop();
        Ok(row.map(|row| QueryAnswer { output: row.output, messages: row.messages }))
    }

    /// Renews a finish lease while something is done under it.
    async fn keeping<T>(&self, lease: &FinishLease, doing: impl Future<Output = T>) -> Result<T, StoreError> {
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return Ok(done),
                () = tokio::time::sleep(self.settings.lease_ttl / 3) => self.store.renew_finish(lease, self.settings.lease_ttl).await?,
            }
        }
    }
}
