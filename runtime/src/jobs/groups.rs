//! Operations on groups of batches.

use std::time::{Duration, Instant};

use super::{JobError, JobManager};
use crate::model::Group;

/// Between two looks at a group that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look counts the group's batches: of the time no more than this part goes into looking.
const LOOKING_PART: u32 = 20;

impl JobManager {
    /// Lets no further batch come into a group. One that is sealed stays so. It has ended when it is sealed and each of its batches is done; whichever happens last ends it, once.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, rows: Vec<rowmill::model::NewRow>) -> anyhow::Result<()> {
    /// use rowmill::jobs::BatchRequest;
    ///
    /// jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(rows).in_group("january")).await?;
    /// jobs.seal_group("bank", "january").await?;
    /// let group = jobs.wait_for_group("bank", "january").await?;
    /// println!("{} of {} batches succeeded", group.batches.success, group.batches.all);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoGroup`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn seal_group(&self, app: &str, name: &str) -> Result<(), JobError> {
        let app = &*self.find_app(app).await?;
        let name = &*self.find_group(app, name).await?;
        let sealed = self.shared.store.seal_group(app, name).await?;
        if sealed { Ok(()) } else { Err(no_group(app, name)) }
    }

    /// A group, and how far its batches are.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// let group = jobs.read_group("bank", "january").await?;
    /// println!("{}: {} of {} batches are open", group.state().as_str(), group.batches.open, group.batches.all);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoGroup`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn read_group(&self, app: &str, name: &str) -> Result<Group, JobError> {
        let app = &*self.find_app(app).await?;
        let name = &*self.find_group(app, name).await?;
        self.shared.store.read_group(app, name).await?.ok_or_else(|| no_group(app, name))
    }

    /// A page of the groups of an app, by name, behind a name. The end is an empty page.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// let first = jobs.list_groups("bank", None, 100).await?;
    /// let second = jobs.list_groups("bank", first.last().map(|group| group.name.as_str()), 100).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_groups(&self, app: &str, after: Option<&str>, limit: u32) -> Result<Vec<Group>, JobError> {
        let app = &*self.find_app(app).await?;
        let after = match after {
            Some(after) => Some(self.find_group(app, after).await?),
            None => None,
        };
        let mut groups = self.shared.store.list_groups(app, after.as_deref().unwrap_or_default(), limit.saturating_add(1)).await?;
        groups.retain(|group| after.as_deref() != Some(&group.name));
        groups.truncate(limit as usize);
        Ok(groups)
    }

    /// Waits until a group has ended and none of its batches is open: of one that had ended before, until those that are being retried are done again.
    ///
    /// # Errors
    /// [`JobError::NoGroup`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn wait_for_group(&self, app: &str, name: &str) -> Result<Group, JobError> {
        loop {
            let before = Instant::now();
            let group = self.read_group(app, name).await?;
            if group.ended_at.is_some() && group.batches.open == 0 {
                return Ok(group);
            }
            tokio::time::sleep(LOOK_EVERY.max(before.elapsed() * LOOKING_PART)).await;
        }
    }
}

fn no_group(app: &str, name: &str) -> JobError {
    JobError::NoGroup { app: app.to_owned(), name: name.to_owned() }
}
