//! The batches of an app are listed and found.

use super::{JobError, JobManager, key};
use crate::model::{BatchFilter, BatchId, BatchPage, BatchPosition, canonical_name};

impl JobManager {
    /// A page of the batches and slow queries of an app that a filter matches, the newest first: at
    /// most `limit`, and 1,000. The next page begins behind `next`; without one the list has ended. A
    /// page may be short or empty before that, since it looks at 2,000 batches at most.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::model::{BatchFilter, BatchStatus};
    ///
    /// let failed = BatchFilter { statuses: vec![BatchStatus::Failed], ..BatchFilter::of("bank") };
    /// let mut page = jobs.list_batches(&failed, None, 100).await?;
    /// loop {
    ///     for batch in &page.batches {
    ///         println!("{}: {} of {} rows failed", batch.id, batch.counts.failed, batch.counts.rows);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     page = jobs.list_batches(&failed, Some(next), 100).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_batches(&self, filter: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Result<BatchPage, JobError> {
        let app = self.find_app(&filter.app).await?.into_owned();
        let group = match &filter.group {
            Some(group) => Some(self.find_group(&app, group).await?.into_owned()),
            None => None,
        };
        let file_name = filter.file_name.as_deref().map(|name| canonical_name(name).into_owned());
        let filter = BatchFilter { app, group, file_name, ..filter.clone() };
        Ok(self.shared.store.list_batches(&filter, after, limit).await?)
    }

    /// The id that a submission of an app with a key has, or would have.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::BadKey`].
    pub fn id_of_key(&self, app: &str, key: &str) -> Result<BatchId, JobError> {
        key::id_of(&self.check_app(app)?, &canonical_name(key))
    }
}
