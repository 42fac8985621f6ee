//! What operators say about the work of apps and their operations.

use super::{JobError, JobManager};
use crate::model::Policy;

impl JobManager {
    /// Sets what holds for an app or one of its operations, instead of what was said before.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::model::{PartialTerms, Policy};
    ///
    /// // At most 500 rows per second, and five attempts for each.
    /// let terms = PartialTerms { attempts_max: Some(5), ..PartialTerms::default() };
    /// jobs.put_policy(&Policy { rate: Some("500/s".parse()?), terms, ..Policy::of("shop", Some("mail")) }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`]; [`JobError::Store`] for a name, rate or terms that cannot be.
    pub async fn put_policy(&self, policy: &Policy) -> Result<(), JobError> {
        let app = self.check_app(&policy.app)?.into_owned();
        Ok(self.shared.store.put_policy(&Policy { app, ..policy.clone() }).await?)
    }

    /// Pauses an app or one of its operations, or lets it go on: while it is paused no row is begun. Rows that run come to their end, and batches come in.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// jobs.set_paused("shop", Some("mail"), true).await?;
    /// jobs.set_paused("shop", Some("mail"), false).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`]; [`JobError::Store`] for a name that cannot be.
    pub async fn set_paused(&self, app: &str, op: Option<&str>, paused: bool) -> Result<(), JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.set_paused(app, op, paused).await?)
    }

    /// The policies that were set, by app and operation; that of an app comes before those of its operations.
    ///
    /// # Errors
    /// [`JobError::Store`].
    pub async fn list_policies(&self) -> Result<Vec<Policy>, JobError> {
        let mut policies = self.shared.store.list_policies().await?;
        policies.retain(|policy| self.check_app(&policy.app).is_ok());
        Ok(policies)
    }

    /// Takes a policy back: nothing is said any more. Whether there was one.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn remove_policy(&self, app: &str, op: Option<&str>) -> Result<bool, JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.remove_policy(app, op).await?)
    }
}
