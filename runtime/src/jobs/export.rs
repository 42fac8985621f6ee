//! Batches are exported, and removed when they are.

use super::{JobError, JobManager};
use crate::export::{Manifest, Place, ResultKind, archive_batch, read_manifest};
use crate::model::{BatchId, BatchStep, PrunedParts};
use crate::prune::PruneReport;

/// How a batch is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// Remove the batch when all of it is written.
    pub remove: bool,
    /// Replace the result of another batch that Rowmill wrote to the same place.
    pub overwrite: bool,
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub manifest: Manifest,
    /// The export was there and whole before, and was not written again.
    pub was_there: bool,
    /// What was removed, where that was asked for.
    pub removed: Option<PruneReport>,
}

impl JobManager {
    /// Writes all that is known of a batch or a slow query that is done: a summary, rows with their inputs and what became of them, failed rows, output files, of a batch
    /// that was retried what was before, and a manifest last. With `remove` the batch is removed once all of it is written.
    ///
    /// The place is the export's own: another export of the same batch is replaced, files that Rowmill did not write or that were changed since are refused, and so is the result of another
    /// batch, unless `overwrite` is set. After a crash, call this again with the same place.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use rowmill::export::Place;
    /// use rowmill::jobs::ExportOptions;
    ///
    /// let options = ExportOptions { remove: true, ..ExportOptions::default() };
    /// let exported = jobs.export_batch(id, Place::Objects("exports/2026-01"), options).await?;
    /// println!("{} files", exported.manifest.files.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::NotFinal`] unless it is done; [`JobError::FilesOfAllApps`] for objects, where only one app may be used;
    /// [`JobError::NotExported`], and nothing was removed then; as for [`JobManager::remove_batch`].
    pub async fn export_batch(&self, id: BatchId, place: Place<'_>, options: ExportOptions) -> Result<Exported, JobError> {
        let ExportOptions { remove, overwrite } = options;
        if matches!(place, Place::Objects(_)) {
            self.check_all_apps()?;
        }
        let failed = |source: anyhow::Error| JobError::NotExported { id, source: source.into() };
        let is_whole = |there: &Manifest| there.batch == id && there.kind == ResultKind::Export;
        let shared = &self.shared;
        let batch = match self.read_batch(id).await {
            // It may have been exported and removed before, by one who could not say so any more.
            Err(error @ JobError::NoBatch { .. }) if remove && self.only_app.is_none() => {
                return match read_manifest(&shared.blobs, place).await.map_err(failed)?.filter(is_whole) {
                    Some(manifest) => Ok(Exported { manifest, was_there: true, removed: Some(PruneReport::default()) }),
                    None => Err(error),
                };
            }
            batch => batch?,
        };
        if batch.step != BatchStep::Done {
            return Err(JobError::NotFinal { id, status: batch.status });
        }
        // Where its removal has begun, there is nothing whole to export any more.
        let known = if remove && batch.pruned != PrunedParts::default() { read_manifest(&shared.blobs, place).await.map_err(failed)? } else { None };
        let (manifest, was_there) = match known.filter(is_whole) {
            Some(manifest) => (manifest, true),
            None => (archive_batch(&*shared.store, &shared.blobs, &batch, place, overwrite).await.map_err(failed)?, false),
        };
        let removed = if remove { Some(self.remove_batch(id).await?) } else { None };
        Ok(Exported { manifest, was_there, removed })
    }
}
