//! Finishes a batch: joins its output files, then tells its processor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::{Worker, WorkerError};
use crate::blobs::{BlobError, BlobWriter};
use crate::model::{BatchStep, FinishLease, OutputFile};
use crate::store::{RowPieces, StoreError};

/// Rows with pieces that are read at once.
const PAGE_ROWS: u32 = 2_000;
/// A batch that could not be finished because something failed is tried again after this time; others are finished meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(3);

impl Worker {
    /// Does the step that a batch is at.
    pub(super) async fn finish(self: Arc<Worker>, lease: FinishLease, lane: Arc<Lane>, hand: OwnedSemaphorePermit) {
        let stop = self.held.stopper();
        let finished = match lease.step {
            BatchStep::Join => self.join_files(&lease, &stop).await,
            _ => self.mark_done(&lease, &stop).await,
        };
        match finished {
            Err(WorkerError::Store(StoreError::LeaseLost)) => tracing::info!(batch = %lease.batch, "another worker finishes the batch"),
            Err(error) => {
                self.report("finishes a batch later", error);
                if let Err(error) = self.give_back(&lease, TRY_AGAIN, &stop).await {
                    tracing::warn!(batch = %lease.batch, "the lease of a batch to finish could not be given back: {error:#}");
                }
            }
            Ok(()) => {}
        }
        drop(hand);
        if lease.step == BatchStep::Join {
            // The next step waits.
            lane.finish_wake.notify_one();
        }
        if self.settings.ends_when_idle {
            // This may have been the last thing to do.
            lane.wake.notify_one();
        }
    }

    pub(super) async fn give_back(&self, lease: &FinishLease, after: Duration, stop: &CancellationToken) -> Result<(), StoreError> {
        self.insist(stop, "cannot give the lease of a batch back", || self.store.give_back_finish(lease, after)).await
    }

    async fn join_files(&self, lease: &FinishLease, stop: &CancellationToken) -> Result<(), WorkerError> {
        // The lease is kept all the while: a slow object store may take longer than it lives.
        match self.keeping(lease, self.write_files(lease)).await?? {
            Some(files) => {
                self.keeping(lease, self.insist(stop, "cannot record output files", || self.store.record_files(lease, &files))).await??;
            }
            None => self.give_back(lease, Duration::ZERO, stop).await?,
        }
        Ok(())
    }

    /// Joins the pieces of each output file in line order. All files are written in one pass over the outcomes, and none is ever whole in memory. None when the
    /// worker drains.
    async fn write_files(&self, lease: &FinishLease) -> Result<Option<Vec<OutputFile>>, WorkerError> {
        let (names, page) = tokio::join!(self.store.list_file_names(lease.batch), self.store.read_pieces(lease.batch, None, PAGE_ROWS));
        let (names, mut page) = (names?, page?);
        let mut writers: Vec<Joined> = names.iter().map(|_| Joined { writer: self.blobs.begin(lease.batch), has_pieces: false }).collect();
        while let Some(last) = page.last() {
            // The database reads the next page while this one is written.
            let (next, written) = tokio::join!(self.store.read_pieces(lease.batch, Some(last.at), PAGE_ROWS), write_page(&mut writers, &page));
            written?;
            page = next?;
            if self.drain.is_cancelled() {
                return Ok(None);
            }
        }
        let mut files = Vec::with_capacity(names.len());
        // A row that wrote to a file may have been run again, and written to none.
        for (name, Joined { writer, .. }) in names.into_iter().zip(writers).filter(|(_, joined)| joined.has_pieces) {
            let (object, size_bytes) = writer.finish().await?;
            files.push(OutputFile { name, object, size_bytes });
        }
        Ok(Some(files))
    }

    /// Renews a finish lease while something is done under it.
    pub(super) async fn keeping<T>(&self, lease: &FinishLease, doing: impl Future<Output = T>) -> Result<T, StoreError> {
        let ttl = self.settings.lease_ttl();
        let mut renewed_at = Instant::now();
        let mut pause = self.settings.heartbeat;
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return Ok(done),
                () = tokio::time::sleep(pause) => {}
            }
            let begun_at = Instant::now();
            match self.store.renew_finish(lease, ttl).await {
                Ok(()) => (renewed_at, pause) = (begun_at, self.settings.heartbeat),
                Err(error @ StoreError::Failed { .. }) if self.settings.outlasts_failures && begun_at.duration_since(renewed_at) < ttl => {
                    self.report("cannot renew the lease of a batch to finish", error.into());
                    pause = self.settings.heartbeat / 6;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// An output file that is being joined.
struct Joined {
    writer: BlobWriter,
    has_pieces: bool,
}

/// Each piece is trimmed and ends with a line break; empty ones are left out.
async fn write_page(writers: &mut [Joined], page: &[RowPieces]) -> Result<(), BlobError> {
    for (file, text) in page.iter().flat_map(|row| &row.pieces) {
        let (text, Joined { writer, has_pieces }) = (text.trim(), &mut writers[*file]);
        *has_pieces = true;
        if !text.is_empty() {
            writer.write(text.as_bytes()).await?;
            writer.write(b"\n").await?;
        }
    }
    Ok(())
}
