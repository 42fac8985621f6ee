//! Failed rows, of whatever batch.

use super::{JobError, JobManager};
use crate::model::{FailedPage, FailedPosition, FailedRows};

impl JobManager {
    /// A page of the failed rows of an app: those of the newest batch first, and in each batch in the order in which its rows came in. The next page begins behind `next`;
    /// without one that was all. A page may be empty before that: its work is bounded, too, where few rows are those that are wanted.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::model::FailedRows;
    ///
    /// let trapped = FailedRows { codes: vec!["trap".to_owned()], ..FailedRows::of("bank") };
    /// let mut page = jobs.list_failed(&trapped, None, 100).await?;
    /// loop {
    ///     for failed in &page.rows {
    ///         println!("{} line {}: {:?}", failed.batch, failed.row.line, failed.row.messages);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     page = jobs.list_failed(&trapped, Some(next), 100).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_failed(&self, rows: &FailedRows, after: Option<FailedPosition>, limit: u32) -> Result<FailedPage, JobError> {
        let app = self.find_app(&rows.app).await?.into_owned();
        Ok(self.shared.store.list_failed(&FailedRows { app, ..rows.clone() }, after, limit).await?)
    }
}
