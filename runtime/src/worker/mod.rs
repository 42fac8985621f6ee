//! The worker: it claims rows, runs them, records what became of them, and finishes batches.
//!
//! It never holds more leases than it has free slots. What a lease ran is recorded while the next lease runs. A drain lets every running row end, records
//! it and gives the rest back; a worker that dies loses nothing but the work of the leases it held.

mod claim;
mod heartbeat;
mod record;
mod run;
mod summarise;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::heartbeat::HeldLeases;
use crate::blobs::{BlobError, Blobs};
use crate::model::{Batch, BatchId, Lease, Limits};
use crate::registry::Registry;
use crate::status::{Snapshot, StatusBoard};
use crate::store::{Store, StoreError};

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// For people who look at leases.
    pub name: String,
    /// Leases that run at the same time.
    pub slots: u32,
    /// A lease lives this long without a sign of its worker.
    pub lease_ttl: Duration,
    /// A lease should hold about this much work.
    pub lease_target: Duration,
    /// Rows of a lease, at most.
    pub lease_rows_max: u32,
    /// A drain stops rows that still run after this time, and gives them back.
    pub drain_grace: Duration,
}

impl WorkerSettings {
    /// For a process on this machine: twice as many slots as cores, since a slot waits while its lease is claimed and read.
    pub fn local() -> WorkerSettings {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        WorkerSettings {
            name: format!("pid-{}", std::process::id()),
            slots: u32::try_from(cores * 2).unwrap_or(u32::MAX),
            lease_ttl: Duration::from_secs(30),
            lease_target: Duration::from_millis(250),
            lease_rows_max: 5_000,
            drain_grace: Duration::from_secs(10),
        }
    }
}

/// Why a worker gave up. What it had recorded stays, and what it held is run again by the next.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// A batch that this worker runs rows of, and the limits of its app, when it has any.
struct Assignment {
    batch: Batch,
    limits: Option<Limits>,
}

/// What the worker works with.
pub struct Worker {
    store: Arc<dyn Store>,
    blobs: Blobs,
    registry: Arc<Registry>,
    status: Arc<StatusBoard>,
    settings: WorkerSettings,
    /// Set once, when it is to end in good order.
    drain: CancellationToken,
    slots: Arc<Semaphore>,
    /// Results that wait to be written: no more leases than slots, so that a slow disk bounds what is held in memory.
    recording: Arc<Semaphore>,
    held: HeldLeases,
    assignments: Mutex<HashMap<BatchId, Arc<Assignment>>>,
    /// There may be something to claim.
    wake: Notify,
    /// A batch may be ready to be finished.
    finish_wanted: AtomicBool,
    /// The first error that stopped the worker.
    failure: Mutex<Option<WorkerError>>,
}

impl Worker {
    pub fn new(store: Arc<dyn Store>, blobs: Blobs, registry: Arc<Registry>, status: Arc<StatusBoard>, settings: WorkerSettings) -> Arc<Worker> {
        let slots = settings.slots.max(1) as usize;
        Arc::new(Worker {
            store,
            blobs,
            registry,
            status,
            settings,
            drain: CancellationToken::new(),
            slots: Arc::new(Semaphore::new(slots)),
            recording: Arc::new(Semaphore::new(slots)),
            held: HeldLeases::default(),
            assignments: Mutex::default(),
            wake: Notify::new(),
            finish_wanted: AtomicBool::new(true),
            failure: Mutex::new(None),
        })
    }

    /// Lets [`Worker::run`] end in good order: rows that run come to their end and are recorded, the others are given back.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Something was submitted or released: claim at once instead of at the next poll.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Works until it is drained.
    ///
    /// # Errors
    /// [`WorkerError`] when the store or the object store failed.
    pub async fn run(self: &Arc<Worker>) -> Result<(), WorkerError> {
        let stopped = CancellationToken::new();
        let heartbeat = tokio::spawn(Arc::clone(self).beat(stopped.clone()));
        self.claim_until_drained().await;
        self.wait_for_slots().await;
        stopped.cancel();
        // It only ends; an error of its own is in `failure`.
        let _ = heartbeat.await;
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A lease from its claim to its record.
    async fn work(self: Arc<Worker>, lease: Lease, slot: OwnedSemaphorePermit) {
        let held = self.held.hold(&lease);
        let worked = async {
            let assignment = self.assignment(lease.batch).await?;
            let mut ran = self.run_lease(&lease, &assignment, &held).await?;
            let recording = Arc::clone(&self.recording).acquire_owned().await;
            drop(slot);
            self.record_rest(&lease, &mut ran).await?;
            if let Some(reason) = ran.abort {
                self.abort(lease.batch, reason).await?;
            } else if ran.stopped {
                self.store.give_back_lease(lease.key).await?;
            }
            // Not before: who waits for the worker's end waits for this.
            drop(recording);
            Ok::<(), WorkerError>(())
        };
        match worked.await {
            Err(WorkerError::Store(StoreError::LeaseLost)) => tracing::info!(batch = %lease.batch, "a lease was lost; its results were dropped"),
            Err(error) => self.give_up(error),
            Ok(()) => {}
        }
        drop(held);
        self.wake.notify_one();
    }

    /// Lets all that runs come to an end, but not for ever.
    async fn wait_for_slots(&self) {
        let all = self.settings.slots.max(1);
        let quiet = async {
            let _slots = self.slots.acquire_many(all).await;
            let _recording = self.recording.acquire_many(all).await;
        };
        tokio::pin!(quiet);
        if tokio::time::timeout(self.settings.drain_grace, &mut quiet).await.is_err() {
            self.held.cancel_all();
            quiet.await;
        }
    }

    /// What does not change about a batch, read once.
    async fn assignment(&self, id: BatchId) -> Result<Arc<Assignment>, StoreError> {
        if let Some(assignment) = self.assignments.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(assignment));
        }
        let batch = self.store.read_batch(id).await?;
        self.status.publish(Snapshot::of(&batch));
        let limits = self.app_limits(&batch).await?;
        let assignment = Arc::new(Assignment { batch, limits });
        self.assignments.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&assignment));
        Ok(assignment)
    }

    /// What the batch's app may use, when that is registered.
    async fn app_limits(&self, batch: &Batch) -> Result<Option<Limits>, StoreError> {
        Ok(self.store.read_app(&batch.app).await?.and_then(|app| app.limits))
    }

    /// Ends the worker because of an error, in good order as far as that goes.
    fn give_up(&self, error: WorkerError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.drain.cancel();
    }
}
