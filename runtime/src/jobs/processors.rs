//! Processors: versions are registered, activated, rolled back, compared and removed.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{JobError, JobManager};
use crate::model::{App, CodeQuota, Limits, NewVersion, ProcessorKind, ProcessorVersion, RegisteredVersion, canonical_op};
use crate::registry::FindError;
use crate::sandbox::Processor;
use crate::store::{StoreError, VersionError};

/// Code that is being removed from the object store is gone within this time, or its remover has died.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(310);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a component is to become.
struct Upload<'a> {
    app: &'a str,
    op: &'a str,
    wasm: Bytes,
    wanted: Option<ProcessorKind>,
    note: Option<&'a str>,
    activate: bool,
}

/// What is different between two versions.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VersionDiff {
    pub before: RegisteredVersion,
    pub after: RegisteredVersion,
    /// Names of interfaces, in order.
    pub imports_added: Vec<String>,
    pub imports_removed: Vec<String>,
    pub exports_added: Vec<String>,
    pub exports_removed: Vec<String>,
}

impl JobManager {
    /// The same, but an app keeps no more than this in versions. [`CodeQuota::default`] holds where nothing else is said.
    #[must_use]
    pub fn with_code_quota(self, quota: CodeQuota) -> JobManager {
        JobManager { code_quota: quota, ..self }
    }

    /// The same, but processors are registered without the trial start ([`Sandbox::try_start`](crate::sandbox::Sandbox::try_start)): those that cannot start where nothing is granted and the context is `{}`, too.
    #[must_use]
    pub fn without_trial_start(self) -> JobManager {
        JobManager { starts_on_trial: false, ..self }
    }

    /// Registers a component as the newest version of an app's processor for an operation, and lets it serve what is submitted from then on: [`JobManager::deploy`] and [`JobManager::activate`] in one.
    /// It takes the place of the version of the same kind: a batch processor and a slow-query processor serve beside each other. Batches that were submitted before keep their version. The same code
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
    /// [`JobError::Unusable`] when it is no processor, or cannot start; [`JobError::Blobs`]; [`JobError::Store`] for a name that cannot be, for an app that keeps as many versions or as much code as it may, and as for
    /// [`JobManager::activate`].
    pub async fn register_processor(&self, app: &str, op: &str, wasm: impl Into<Bytes>) -> Result<ProcessorVersion, JobError> {
        self.register(Upload { app, op, wasm: wasm.into(), wanted: None, note: None, activate: true }).await
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
        self.register(Upload { app, op, wasm: wasm.into(), wanted: Some(ProcessorKind::Batch), note: None, activate: true }).await
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
        self.register(Upload { app, op, wasm: wasm.into(), wanted: Some(ProcessorKind::SlowQuery), note: None, activate: true }).await
    }

    /// Registers a component as the newest version of an app's processor for an operation, and nothing else: what serves, serves on, until the new version is activated. The same code as that of the newest
    /// version of its kind is the same version; a note that is given becomes its note.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// let version = jobs.deploy("bank", "validate", std::fs::read("bank-transactions.wasm")?, Some("with the new rules")).await?;
    /// println!("{:?}", jobs.diff_versions("bank", "validate", version.version - 1, version.version).await?);
    /// jobs.activate("bank", "validate", version.version).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`JobManager::register_processor`], and [`JobError::Store`] for a note that is too long.
    pub async fn deploy(&self, app: &str, op: &str, wasm: impl Into<Bytes>, note: Option<&str>) -> Result<ProcessorVersion, JobError> {
        self.register(Upload { app, op, wasm: wasm.into(), wanted: None, note, activate: false }).await
    }

    /// The same, and lets it serve what is submitted from then on, in one step.
    ///
    /// # Errors
    /// As for [`JobManager::deploy`] and [`JobManager::activate`].
    pub async fn deploy_and_activate(&self, app: &str, op: &str, wasm: impl Into<Bytes>, note: Option<&str>) -> Result<ProcessorVersion, JobError> {
        self.register(Upload { app, op, wasm: wasm.into(), wanted: None, note, activate: true }).await
    }

    async fn register(&self, upload: Upload<'_>) -> Result<ProcessorVersion, JobError> {
        let Upload { app, op, wasm, wanted, note, activate } = upload;
        let app = &*self.check_app(app)?;
        let processor = self.shared.registry.load(app, wasm.clone()).await.map_err(JobError::Unusable)?;
        let registered = self.shared.store.read_app(app).await?.unwrap_or_else(|| App::named(app));
        processor.check_grants(app, &registered.grants).map_err(JobError::Unusable)?;
        let kind = processor.kind();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != kind) {
            return Err(JobError::OtherKind { app: app.to_owned(), op: canonical_op(op), found: kind, wanted });
        }
        if self.starts_on_trial {
            self.start_on_trial(&processor, app, op, registered.limits).await?;
        }
        let new = NewVersion {
            app: app.to_owned(),
            op: op.to_owned(),
            kind,
            digest: processor.digest.clone(),
            size_bytes: wasm.len() as u64,
            note: note.map(str::to_owned),
            // Once it is sure that the code is there.
            activate: false,
            quota: self.code_quota,
        };
        let until = Instant::now() + REMOVAL_PATIENCE;
        loop {
            // First the code, then the version: nothing is submitted for code that is not there.
            self.shared.registry.store(processor.clone(), wasm.clone()).await?;
            match self.shared.store.put_processor(&new).await {
                // Then it is stored again.
                Err(StoreError::Version(VersionError::CodeBeingRemoved)) if Instant::now() < until => tokio::time::sleep(LOOK_EVERY).await,
                put => {
                    let version = put?;
                    // Whoever removed the same code may have been through in between, with what was stored. From here on nobody removes it: a version has it.
                    if !self.shared.registry.is_stored(&processor.digest).await? {
                        self.shared.registry.store(processor, wasm).await?;
                    }
                    return if activate { Ok(self.shared.store.activate_processor(app, op, version.version).await?) } else { Ok(version) };
                }
            }
        }
    }

    /// A processor that imports something granted may start only with it, so its failure is logged and not returned.
    async fn start_on_trial(&self, processor: &Processor, app: &str, op: &str, limits: Option<Limits>) -> Result<(), JobError> {
        let limits = self.shared.worker.limits_of(limits);
        match self.shared.registry.try_start(processor, app, &canonical_op(op), &limits).await {
            Err(error) if processor.needs_grants() => {
                tracing::warn!(app, op, digest = processor.digest, "the trial start without grants failed: {error}");
                Ok(())
            }
            started => started.map_err(JobError::Unusable),
        }
    }

    /// Lets a version serve what is submitted from now on, instead of the version of the same kind that did. Batches that were submitted before keep their version.
    /// A batch processor and a slow-query processor of one operation serve beside each other.
    ///
    /// # Errors
    /// [`JobError::Store`] with [`VersionError`]; [`JobError::OtherApp`].
    pub async fn activate(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.activate_processor(app, op, version).await?)
    }

    /// Lets a version no longer serve: no processor of its kind serves the operation then, until one is activated. Batches that were submitted before keep their version.
    ///
    /// # Errors
    /// [`JobError::Store`] with [`VersionError`]: it is not active, or a schedule that is not paused submits to its kind; [`JobError::OtherApp`].
    pub async fn deactivate(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.deactivate_processor(app, op, version).await?)
    }

    /// Lets the version of a kind serve again that did before the one that does now. Once more goes back further. The kind is needed where both kinds serve the operation.
    ///
    /// # Errors
    /// As for [`JobManager::activate`]; [`VersionError::BothServe`] where the kind is needed.
    pub async fn rollback(&self, app: &str, op: &str, kind: Option<ProcessorKind>) -> Result<ProcessorVersion, JobError> {
        let app = &*self.find_app(app).await?;
        Ok(self.shared.store.rollback_processor(app, op, kind).await?)
    }

    /// The versions of an app, for one operation or all, by operation and version, with the batches that use them.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_versions(&self, app: &str, op: Option<&str>) -> Result<Vec<RegisteredVersion>, JobError> {
        let app = &*self.find_app(app).await?;
        let mut versions = self.shared.store.list_processors(Some(app)).await?;
        if let Some(op) = op.map(canonical_op) {
            versions.retain(|listed| listed.version.op == op);
        }
        Ok(versions)
    }

    /// What is different between two versions: sizes, kind, and the interfaces that they import and export, by name.
    ///
    /// # Errors
    /// [`JobError::Store`] for a version that is not there; [`JobError::Unusable`] and [`JobError::Blobs`] when its code cannot be read.
    pub async fn diff_versions(&self, app: &str, op: &str, before: u32, after: u32) -> Result<VersionDiff, JobError> {
        let versions = self.list_versions(app, Some(op)).await?;
        let find = |version: u32| {
            let found = versions.iter().find(|listed| listed.version.version == version).cloned();
            found.ok_or_else(|| JobError::from(StoreError::from(VersionError::Missing { app: app.to_owned(), op: canonical_op(op), version })))
        };
        let (before, after) = (find(before)?, find(after)?);
        let (old, new) = (self.interface_of(&before).await?, self.interface_of(&after).await?);
        let missing = |from: &[String], other: &[String]| from.iter().filter(|name| !other.contains(name)).cloned().collect();
        Ok(VersionDiff {
            imports_added: missing(&new.imports, &old.imports),
            imports_removed: missing(&old.imports, &new.imports),
            exports_added: missing(&new.exports, &old.exports),
            exports_removed: missing(&old.exports, &new.exports),
            before,
            after,
        })
    }

    async fn interface_of(&self, listed: &RegisteredVersion) -> Result<crate::sandbox::Interface, JobError> {
        let found = self.shared.registry.fetch(&listed.version.app, &listed.version.digest).await;
        let processor = found.map_err(|error| match error {
            FindError::Blobs(error) => JobError::Blobs(error),
            FindError::Compiler(error) => JobError::Unusable(error),
            FindError::Unusable(problem) => JobError::NoCode { version: listed.version.version, problem },
        })?;
        Ok(processor.interface())
    }

    /// Removes a version, and its code when no other version has it.
    ///
    /// # Errors
    /// [`JobError::Store`] with [`VersionError`]: it serves, or a batch uses it that has not ended; [`JobError::OtherApp`].
    pub async fn remove_version(&self, app: &str, op: &str, version: u32) -> Result<(), JobError> {
        let app = &*self.find_app(app).await?;
        for digest in self.shared.store.remove_processor(app, op, version).await? {
            match self.shared.registry.remove(&digest).await {
                Ok(()) => self.shared.store.forget_code(&digest).await?,
                // The version is gone. What is left costs room, until the next one is removed.
                Err(error) => tracing::warn!(digest, "code that no version has is still in the object store: {:#}", anyhow::Error::from(error)),
            }
        }
        Ok(())
    }
}
