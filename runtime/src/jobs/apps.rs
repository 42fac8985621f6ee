//! Apps and their processors.

use bytes::Bytes;

use super::{JobError, JobManager};
use crate::model::{App, Grants, PartialTerms, ProcessorKind, ProcessorVersion, WorkerRecord};

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
        self.check_app(&app.name)?;
        Ok(self.shared.store.put_app(app).await?)
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
            None => Ok(self.shared.store.set_grants(app, from, to).await?),
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

    /// Registers a component as the newest version of an app's processor for an operation. Batches that were submitted before keep theirs. The same code
    /// again is the same version.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// let version = jobs.register_processor("bank", "validate", std::fs::read("bank-transactions.wasm")?).await?;
    /// println!("version {} of {}", version.version, version.op);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::Unusable`] when it is no processor; [`JobError::Blobs`]; [`JobError::Store`] for a name that cannot be.
    pub async fn register_processor(&self, app: &str, op: &str, wasm: impl Into<Bytes>) -> Result<ProcessorVersion, JobError> {
        self.register(app, op, wasm.into(), None).await
    }

    /// Like [`JobManager::register_processor`], for a processor of rows only.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// jobs.register_batch_processor("bank", "validate", std::fs::read("bank-transactions.wasm")?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherKind`], and as for [`JobManager::register_processor`].
    pub async fn register_batch_processor(&self, app: &str, op: &str, wasm: impl Into<Bytes>) -> Result<ProcessorVersion, JobError> {
        self.register(app, op, wasm.into(), Some(ProcessorKind::Batch)).await
    }

    /// Like [`JobManager::register_processor`], for a processor of slow queries only.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// jobs.register_slow_query_processor("bank", "statement", std::fs::read("account-statement.wasm")?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherKind`], and as for [`JobManager::register_processor`].
    pub async fn register_slow_query_processor(&self, app: &str, op: &str, wasm: impl Into<Bytes>) -> Result<ProcessorVersion, JobError> {
        self.register(app, op, wasm.into(), Some(ProcessorKind::SlowQuery)).await
    }

    async fn register(&self, app: &str, op: &str, wasm: Bytes, wanted: Option<ProcessorKind>) -> Result<ProcessorVersion, JobError> {
        self.check_app(app)?;
        let processor = self.shared.registry.load(wasm.clone()).await.map_err(JobError::Unusable)?;
        let granted = self.shared.store.read_app(app).await?.map(|app| app.grants).unwrap_or_default();
        processor.check_grants(app, &granted).map_err(JobError::Unusable)?;
        let kind = processor.kind();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != kind) {
            return Err(JobError::OtherKind { app: app.to_owned(), op: op.to_lowercase(), found: kind, wanted });
        }
        let digest = processor.digest.clone();
        self.shared.registry.store(processor, wasm).await?;
        Ok(self.shared.store.put_processor(app, op, kind, &digest).await?)
    }

    /// The version that serves what is submitted now, and the terms that the policies give it.
    pub(super) async fn find_op(&self, app: &str, op: &str, wanted: ProcessorKind) -> Result<(ProcessorVersion, PartialTerms), JobError> {
        self.check_app(app)?;
        let found = self.shared.store.find_op(app, op).await?;
        let (version, terms) = found.ok_or_else(|| JobError::NoProcessor { app: app.to_owned(), op: op.to_lowercase() })?;
        if version.kind == wanted {
            Ok((version, terms))
        } else {
            Err(JobError::OtherKind { app: app.to_owned(), op: version.op, found: version.kind, wanted })
        }
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
