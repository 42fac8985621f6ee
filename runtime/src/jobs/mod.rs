//! Every operation on apps, processors, batches and slow queries, for programs that use this library, and for the command line.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let (work_directory, cache_directory) = (directory.path().join("work"), directory.path().join("cache"));
//! # std::fs::create_dir(&work_directory)?;
//! # let wasm = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests/bank-transactions.wasm"))?;
//! use std::sync::Arc;
//!
//! use rowmill::blobs::Blobs;
//! use rowmill::jobs::{BatchRequest, JobManager};
//! use rowmill::model::{JsonText, NewRow, SystemClock};
//! use rowmill::sandbox::Sandbox;
//! use rowmill::status::StatusBoard;
//! use rowmill::store::SqliteStore;
//! use rowmill::worker::WorkerSettings;
//!
//! let store = SqliteStore::open(&work_directory.join("store.db"), Arc::new(SystemClock)).await?;
//! let settings = WorkerSettings::local();
//! let sandbox = Sandbox::new(settings.instances_max(), &cache_directory)?;
//! let jobs = JobManager::new(Arc::new(store), Blobs::local(&work_directory)?, Arc::new(StatusBoard::in_process()), sandbox, settings);
//! let worker = tokio::spawn({
//!     let jobs = jobs.clone();
//!     async move { jobs.run().await }
//! });
//!
//! jobs.register_batch_processor("bank", "validate", wasm).await?;
//! let row = r#"{"id":"T1","account":"DE9710027535","amount":"10.25","currency":"EUR","date":"2026-01-31","type":"deposit"}"#;
//! let batch = jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![NewRow::new(1, JsonText::check(row)?)])).await?;
//! jobs.wait(batch).await?;
//! let done = jobs.batch_done(batch).await?.expect("it has ended");
//! assert_eq!(done.counts.success, 1);
//!
//! jobs.shutdown();
//! worker.await??;
//! # Ok(())
//! # }
//! ```

mod append;
mod apps;
mod batches;
mod error;
mod events;
mod export;
mod failed;
mod files;
mod groups;
mod keeping;
mod key;
mod listing;
mod logs;
mod names;
mod ops;
mod policies;
mod processors;
mod queries;
mod request;
mod rounds;
mod schedules;
mod usage;
mod wait;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

pub use self::append::{FileAppend, RENEW_APPEND_EVERY};
pub use self::error::JobError;
pub use self::events::EventsFrom;
pub use self::export::{ExportOptions, Exported};
pub use self::files::{KeepError, KeptFile};
pub use self::key::KEY_BYTES_MAX;
pub use self::logs::LogPage;
pub use self::processors::VersionDiff;
pub use self::queries::{QueryResult, QueryState};
pub use self::request::{BatchRequest, QueryRequest};
pub use self::schedules::{ScheduleRequest, Scheduled};

use self::ops::KnownOps;
use crate::blobs::Blobs;
use crate::model::{Batch, BatchId, CodeQuota, canonical_name};
use crate::prune::Pace;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::schedule::Ticker;
use crate::status::StatusBoard;
use crate::store::{Store, StoreError};
use crate::worker::{Worker, WorkerError, WorkerSettings};

/// Every operation. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct JobManager {
    shared: Arc<Shared>,
    /// The only app whose batches can be used through this one.
    only_app: Option<String>,
    code_quota: CodeQuota,
    /// Whether processors are started on trial before they are registered.
    starts_on_trial: bool,
}

struct Shared {
    store: Arc<dyn Store>,
    blobs: Blobs,
    status: Arc<StatusBoard>,
    registry: Arc<Registry>,
    worker: WorkerSettings,
    ops: KnownOps,
    /// The one that runs in this process, while it does.
    running: RwLock<Option<Arc<Worker>>>,
    shutdown: CancellationToken,
}

impl JobManager {
    /// Works with these. Any number of processes may have one over the same PostgreSQL database, object store and Redis.
    pub fn new(store: Arc<dyn Store>, blobs: Blobs, status: Arc<StatusBoard>, sandbox: Sandbox, worker: WorkerSettings) -> JobManager {
        let registry = Arc::new(Registry::new(sandbox, blobs.clone()));
        JobManager {
            shared: Arc::new(Shared {
                store,
                blobs,
                status,
                registry,
                worker,
                ops: KnownOps::default(),
                running: RwLock::default(),
                shutdown: CancellationToken::new(),
            }),
            only_app: None,
            code_quota: CodeQuota::default(),
            starts_on_trial: true,
        }
    }

    /// The same, for one app alone: to everything else it says that it is not there.
    #[must_use]
    pub fn restricted_to(&self, app: impl Into<String>) -> JobManager {
        let app = canonical_name(&app.into()).into_owned();
        JobManager { only_app: Some(app), ..self.clone() }
    }

    /// Claims and runs what was submitted, here or elsewhere, submits what schedules ask for, and prunes what is not kept any longer, until [`JobManager::shutdown`]. Rows that run then come to their end, for the settings'
    /// `drain_grace`; the others are given back.
    ///
    /// # Errors
    /// When the store or the object store failed, unless the settings say that it `outlasts_failures`.
    pub async fn run(&self) -> Result<(), WorkerError> {
        let Shared { store, blobs, status, registry, worker: settings, running, shutdown, .. } = &*self.shared;
        let worker = Worker::new(Arc::clone(store), blobs.clone(), Arc::clone(registry), Arc::clone(status), settings.clone());
        let draining = {
            let (worker, shutdown) = (Arc::clone(&worker), shutdown.clone());
            tokio::spawn(async move {
                shutdown.cancelled().await;
                worker.drain();
            })
        };
        let ticker = Ticker::new(Arc::clone(store), settings.outlasts_failures);
        if settings.ends_when_idle {
            // What is due when it begins is run, too. It does not wait for later ticks.
            ticker.run_due().await?;
        }
        let stopped = shutdown.child_token();
        let working = async {
            let here = Here::begin(running, &worker);
            let ended = worker.run().await;
            drop(here);
            stopped.cancel();
            ended
        };
        let ticking = async {
            let ticked = ticker.run(&stopped).await;
            if ticked.is_err() {
                worker.drain();
            }
            ticked
        };
        let pruner = self.pruner(Pace::Background);
        let (ended, ticked, ()) = tokio::join!(working, ticking, pruner.run(&stopped));
        draining.abort();
        ended?;
        Ok(ticked?)
    }

    /// Lets [`JobManager::run`] end in good order, in all clones. It does not run again.
    pub fn shutdown(&self) {
        self.shared.shutdown.cancel();
    }

    /// The store below, for what is read in other ways.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Where output files are.
    pub fn blobs(&self) -> &Blobs {
        &self.shared.blobs
    }

    /// How far batches are, as far as it is known without asking the store.
    pub fn status(&self) -> &Arc<StatusBoard> {
        &self.shared.status
    }

    /// The name of an app as it is stored, if this manager may use that app.
    fn check_app<'a>(&self, app: &'a str) -> Result<Cow<'a, str>, JobError> {
        let app = canonical_name(app);
        match &self.only_app {
            Some(allowed) if *allowed != app => Err(JobError::OtherApp { app: app.into_owned(), allowed: allowed.clone() }),
            _ => Ok(app),
        }
    }

    fn may_see(&self, id: BatchId, app: &str) -> Result<(), JobError> {
        if self.only_app.as_ref().is_none_or(|allowed| allowed == app) { Ok(()) } else { Err(self.no_batch(id)) }
    }

    fn no_batch(&self, id: BatchId) -> JobError {
        JobError::NoBatch { id, app: self.only_app.clone() }
    }

    /// A batch as the store has it, unless it is another app's.
    async fn read_batch(&self, id: BatchId) -> Result<Batch, JobError> {
        let batch = self.shared.store.read_batch(id).await.map_err(|error| self.not_here(error))?;
        self.may_see(id, &batch.app)?;
        Ok(batch)
    }

    /// What the store says of a batch that is not there.
    fn not_here(&self, error: StoreError) -> JobError {
        match error {
            StoreError::NotFound(id) => self.no_batch(id),
            error => error.into(),
        }
    }

    /// For an operation that the store does at once: it costs a look only where that has to be.
    async fn check_batch(&self, id: BatchId) -> Result<(), JobError> {
        match self.only_app {
            Some(_) => self.read_batch(id).await.map(drop),
            None => Ok(()),
        }
    }
}

/// As long as it lives, queries that are submitted in this process may begin in this worker. It ends also when nobody waits for the worker any more.
struct Here<'a>(&'a RwLock<Option<Arc<Worker>>>);

impl Here<'_> {
    fn begin<'a>(running: &'a RwLock<Option<Arc<Worker>>>, worker: &Arc<Worker>) -> Here<'a> {
        *running.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(worker));
        Here(running)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
