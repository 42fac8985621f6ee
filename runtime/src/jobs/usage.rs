//! What apps used.

use super::{JobError, JobManager};
use crate::model::{FuelProfile, Timestamp, UsageRecord};

/// Records of one answer, at most.
const RECORDS_MAX: u32 = 100_000;

impl JobManager {
    /// What the recorded rows of an app used, of one operation or of all, in the hours that begin from `since` until before `until`; the first hundred thousand records. They are there as soon
    /// as their rows are.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::model::{Clock, Meter, SystemClock, Timestamp};
    ///
    /// let mut sum = Meter::default();
    /// for record in jobs.usage("bank", Some("validate"), Timestamp(0), SystemClock.now()).await? {
    ///     sum.add(&record.meter);
    /// }
    /// println!("{} rows, {} fuel", sum.success + sum.failed, sum.fuel);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn usage(&self, app: &str, op: Option<&str>, since: Timestamp, until: Timestamp) -> Result<Vec<UsageRecord>, JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.read_usage(app, op, since, until, RECORDS_MAX).await?)
    }

    /// How much fuel the rows of an app's processors used, by operation and version: percentiles, the most, and the limit that follows from them.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// for profile in jobs.fuel_profiles("bank").await? {
    ///     println!("{} v{}: p99 {:?}, a limit of {:?} would do", profile.op, profile.version, profile.percentile(99), profile.suggested_limit());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn fuel_profiles(&self, app: &str) -> Result<Vec<FuelProfile>, JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.read_fuel(app).await?)
    }
}
