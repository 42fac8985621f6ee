//! What is kept, and what goes.

use std::borrow::Cow;

use super::{JobError, JobManager};
use crate::model::BatchId;
use crate::prune::{DueOp, Pace, PruneError, PruneReport, Pruner};
use crate::store::StoreError;

impl JobManager {
    /// Prunes what is due by the policies and the settings' `keep`, of one app or one of its operations where these are given, until nothing is. Every process that runs
    /// ([`JobManager::run`]) does so by itself.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::model::{PartialKeep, Policy};
    ///
    /// // Output files for a week, and batches for a year.
    /// let keep = PartialKeep { files: Some("7d".parse()?), batches: Some("365d".parse()?), ..PartialKeep::default() };
    /// jobs.put_policy(&Policy { keep, ..Policy::of("shop", Some("mail")) }).await?;
    /// let pruned = jobs.prune(Some("shop"), Some("mail")).await?;
    /// println!("{} batches are gone, {} rows", pruned.batches, pruned.rows);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`], [`JobError::Blobs`]. What was pruned before stays so.
    pub async fn prune(&self, app: Option<&str>, op: Option<&str>) -> Result<PruneReport, JobError> {
        let app = self.app_to_prune(app).await?;
        Ok(self.pruner(Pace::Foreground).prune_due(app.as_deref(), op).await?)
    }

    /// What [`JobManager::prune`] would prune now, by app and operation.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_due(&self, app: Option<&str>, op: Option<&str>) -> Result<Vec<DueOp>, JobError> {
        let app = self.app_to_prune(app).await?;
        Ok(self.pruner(Pace::Foreground).list_due(app.as_deref(), op).await?)
    }

    /// Removes a batch or a slow query that is done, with all that belongs to it, whether it is due or not. Nothing brings it back.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// let removed = jobs.remove_batch(id).await?;
    /// println!("{} rows and {} objects are gone", removed.rows, removed.objects);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::Store`] unless it is done; [`JobError::Blobs`]: the rest is removed later, by whoever works, or by calling this again.
    pub async fn remove_batch(&self, id: BatchId) -> Result<PruneReport, JobError> {
        self.check_batch(id).await?;
        let removed = self.pruner(Pace::Foreground).remove(id).await;
        removed.map_err(|error| match error {
            PruneError::Store(StoreError::NotFound(id)) => self.no_batch(id),
            error => error.into(),
        })
    }

    pub(super) fn pruner(&self, pace: Pace) -> Pruner {
        let shared = &self.shared;
        Pruner::new(shared.store.clone(), shared.blobs.clone(), shared.status.clone(), shared.worker.keep, pace)
    }

    async fn app_to_prune<'a>(&'a self, app: Option<&'a str>) -> Result<Option<Cow<'a, str>>, JobError> {
        match app {
            Some(app) => self.find_app(app).await.map(Some),
            None => Ok(self.only_app.as_deref().map(Cow::Borrowed)),
        }
    }
}
