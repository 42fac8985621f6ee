//! Apps and workers.

use super::{JobError, JobManager};
use crate::model::{App, Grants, WorkerRecord, canonical_name};

impl JobManager {
    /// Registers an app, or changes its weight and limits. An app that was never registered has the defaults.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> Result<(), rowmill::jobs::JobError> {
    /// use rowmill::model::{App, Limits};
    ///
    /// // Twice the share of others, at most three rows at a time, and little fuel for each.
    /// let limits = Limits { fuel: 10_000_000, ..Limits::default() };
    /// jobs.register_app(&App { weight: 2, running_max: Some(3), limits: Some(limits), ..App::named("bank") }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::Store`] for a name, weight or limit that cannot be.
    pub async fn register_app(&self, app: &App) -> Result<(), JobError> {
        let name = self.check_app(&app.name)?.into_owned();
        Ok(self.shared.store.put_app(&App { name, ..app.clone() }).await?)
    }

    /// Changes what the processors of an app may reach beyond their rows. False, and nothing is changed, when something else than `from` is granted to it by now:
    /// read it again. Whoever may use one app only cannot grant it anything.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// use rowmill::model::{Grants, HttpGrant};
    ///
    /// let http = HttpGrant { allow: ["https://api.example.com".parse()?].into(), ..HttpGrant::default() };
    /// jobs.set_grants("bank", &Grants::default(), &Grants { http: Some(http), ..Grants::default() }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OnlyOperators`]; [`JobError::Store`] for grants that cannot be.
    pub async fn set_grants(&self, app: &str, from: &Grants, to: &Grants) -> Result<bool, JobError> {
        match &self.only_app {
            Some(allowed) => Err(JobError::OnlyOperators { allowed: allowed.clone() }),
            None => Ok(self.shared.store.set_grants(&canonical_name(app), from, to).await?),
        }
    }

    /// The apps that are registered, by name.
    ///
    /// # Errors
    /// [`JobError::Store`].
    pub async fn list_apps(&self) -> Result<Vec<App>, JobError> {
        let mut apps = self.shared.store.list_apps().await?;
        apps.retain(|app| self.check_app(&app.name).is_ok());
        Ok(apps)
    }

    /// The workers that were seen and have not ended, with what they run now (of one app alone, where only that may be seen).
    ///
    /// # Errors
    /// [`JobError::Store`].
    pub async fn list_workers(&self) -> Result<Vec<WorkerRecord>, JobError> {
        let mut workers = self.shared.store.list_workers().await?;
        for worker in &mut workers {
            worker.runs.retain(|run| self.check_app(&run.app).is_ok());
        }
        Ok(workers)
    }
}
