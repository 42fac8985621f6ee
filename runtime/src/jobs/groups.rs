//! Operations on groups of batches.

use super::{JobError, JobManager};
use crate::model::Group;

impl JobManager {
    /// Lets no further batch come into a group. One that is sealed stays so.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, rows: Vec<rowmill::model::NewRow>) -> anyhow::Result<()> {
    /// use rowmill::jobs::BatchRequest;
    ///
    /// jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(rows).in_group("january")).await?;
    /// jobs.seal_group("bank", "january").await?;
    /// println!("complete: {}", jobs.read_group("bank", "january").await?.complete);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoGroup`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn seal_group(&self, app: &str, name: &str) -> Result<(), JobError> {
        self.check_app(app)?;
        let sealed = self.shared.store.seal_group(app, name).await?;
        if sealed { Ok(()) } else { Err(JobError::NoGroup { app: app.to_owned(), name: name.to_owned() }) }
    }

    /// A group, and how far its batches are.
    ///
    /// # Errors
    /// [`JobError::NoGroup`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn read_group(&self, app: &str, name: &str) -> Result<Group, JobError> {
        self.check_app(app)?;
        let found = self.shared.store.read_group(app, name).await?;
        found.ok_or_else(|| JobError::NoGroup { app: app.to_owned(), name: name.to_owned() })
    }

    /// A page of the groups of an app, by name, after a name. The end is an empty page.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_groups(&self, app: &str, after: Option<&str>, limit: u32) -> Result<Vec<Group>, JobError> {
        self.check_app(app)?;
        let mut groups = self.shared.store.list_groups(app, after.unwrap_or_default(), limit.saturating_add(1)).await?;
        groups.retain(|group| after.is_none_or(|after| group.name != after));
        groups.truncate(limit as usize);
        Ok(groups)
    }
}
