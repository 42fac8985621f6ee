//! Batches are exported, and removed when they are.

use super::{JobError, JobManager};
use crate::export::{Manifest, Place, archive_batch, read_manifest};
use crate::model::{BatchId, BatchStep, PrunedParts};
use crate::prune::PruneReport;

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
    /// that was retried what was before, and a manifest last. With `remove` the batch is removed once all of it is written. A crash in the middle is gone on with by calling this again with the same place.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use rowmill::export::Place;
    ///
    /// let exported = jobs.export_batch(id, Place::Objects("exports/2026-01"), true).await?;
    /// println!("{} files", exported.manifest.files.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::NotFinal`] unless it is done; [`JobError::FilesOfAllApps`] for objects, where only one app may be used;
    /// [`JobError::NotExported`], and nothing was removed then; as for [`JobManager::remove_batch`].
    pub async fn export_batch(&self, id: BatchId, place: Place<'_>, remove: bool) -> Result<Exported, JobError> {
        if matches!(place, Place::Objects(_)) {
            self.check_all_apps()?;
        }
        let failed = |source: anyhow::Error| JobError::NotExported { id, source: source.into() };
        let shared = &self.shared;
        let batch = match self.read_batch(id).await {
            // It may have been exported and removed before, by one who could not say so any more.
            Err(error @ JobError::NoBatch { .. }) if remove && self.only_app.is_none() => {
                return match read_manifest(&shared.blobs, place).await.map_err(failed)?.filter(|there| there.batch == id) {
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
        let (manifest, was_there) = match known.filter(|there| there.batch == id) {
            Some(manifest) => (manifest, true),
            None => (archive_batch(&*shared.store, &shared.blobs, &batch, place).await.map_err(failed)?, false),
        };
        let removed = if remove { Some(self.remove_batch(id).await?) } else { None };
        Ok(Exported { manifest, was_there, removed })
    }
}
