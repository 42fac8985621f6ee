//! The worker: it claims rows, runs them, records what became of them, and finishes batches.
//!
//! It never holds more leases than it has free slots. What a lease ran is recorded while the next lease runs. A drain lets every running row end, records
//! it and gives the rest back; a worker that dies loses nothing but the work of the leases it held.

mod assignment;
mod at_once;
mod budget;
mod chains;
mod claim;
mod deadlines;
mod heartbeat;
mod lane;
mod listen;
mod mark;
mod patience;
mod record;
mod run;
mod settings;
mod summarise;
mod warm;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

pub use self::at_once::QueryPlace;
pub use self::settings::WorkerSettings;

use self::assignment::Assignments;
use self::budget::MemoryBudget;
use self::heartbeat::{HeldLease, HeldLeases};
use self::lane::Lane;
use self::warm::{Isolations, WarmSessions};
use crate::blobs::{BlobError, Blobs};
use crate::grants::{GrantSettings, Granter};
use crate::model::{ClaimedWork, ProcessorKind};
use crate::registry::Registry;
use crate::sandbox::LoadError;
use crate::status::StatusBoard;
use crate::store::{Store, StoreError};

/// Results of less weight do not wait for large ones before them.
const SMALL_RECORD_BYTES: usize = 64 << 10;
/// What ran of a lease that yielded is recorded after this time.
const RECORD_YIELDED_AFTER: Duration = Duration::from_millis(100);

/// Why a worker gave up. What it had recorded stays, and what it held is run again by the next.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error("a processor cannot be made ready")]
    Compiler(#[source] LoadError),
}

/// What the worker works with.
pub struct Worker {
    store: Arc<dyn Store>,
    blobs: Blobs,
    registry: Arc<Registry>,
    granter: Granter,
    status: Arc<StatusBoard>,
    settings: WorkerSettings,
    /// Set once, when it is to end in good order.
    drain: CancellationToken,
    batches: Arc<Lane>,
    queries: Arc<Lane>,
    held: HeldLeases,
    assignments: Assignments,
    /// A batch may have ended that others come after.
    chain_wake: Notify,
    budget: Arc<MemoryBudget>,
    warm: WarmSessions,
    isolations: Isolations,
    /// The first error that stopped the worker.
    failure: Mutex<Option<WorkerError>>,
}

impl Worker {
    pub fn new(store: Arc<dyn Store>, blobs: Blobs, registry: Arc<Registry>, status: Arc<StatusBoard>, settings: WorkerSettings) -> Arc<Worker> {
        let batches = Arc::new(Lane::new(ProcessorKind::Batch, settings.slots));
        let queries = Arc::new(Lane::new(ProcessorKind::SlowQuery, settings.query_slots));
        let granter = Granter::new(GrantSettings { objects: Some(blobs.clone()), ..settings.grants.clone() });
        Arc::new(Worker {
            budget: MemoryBudget::new(settings.memory_bytes, [Arc::clone(&batches), Arc::clone(&queries)]),
            warm: WarmSessions::new(settings.slots),
            isolations: Isolations::default(),
            batches,
            queries,
            store,
            blobs,
            registry,
            granter,
            status,
            settings,
            drain: CancellationToken::new(),
            held: HeldLeases::default(),
            assignments: Assignments::default(),
            chain_wake: Notify::new(),
            failure: Mutex::new(None),
        })
    }

    /// Lets [`Worker::run`] end in good order: rows that run come to their end and are recorded, the others are given back.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// There may be anything to do: look at once instead of at the next poll.
    fn wake(&self) {
        for lane in [&self.batches, &self.queries] {
            lane.wake.notify_one();
            lane.finish_wake.notify_one();
        }
    }

    /// Works until it is drained.
    ///
    /// # Errors
    /// [`WorkerError`] when the store or the object store failed, unless it outlasts failures.
    pub async fn run(self: &Arc<Worker>) -> Result<(), WorkerError> {
        let stopped = CancellationToken::new();
        let beside = [
            tokio::spawn(Arc::clone(self).beat(stopped.clone())),
            tokio::spawn(Arc::clone(self).listen(stopped.clone())),
            tokio::spawn(Arc::clone(self).abort_overdue(stopped.clone())),
            tokio::spawn(Arc::clone(self).advance_chains(stopped.clone())),
            tokio::spawn(Arc::clone(self).fold_usage(stopped.clone())),
        ];
        tokio::join!(
            Arc::clone(self).claim_until_drained(Arc::clone(&self.batches)),
            Arc::clone(self).claim_until_drained(Arc::clone(&self.queries)),
            Arc::clone(self).finish_until_drained(Arc::clone(&self.batches)),
            Arc::clone(self).finish_until_drained(Arc::clone(&self.queries)),
        );
        self.wait_for_slots().await;
        self.warm.close().await;
        stopped.cancel();
        for task in beside {
            // It only ends; an error of its own is in `failure`.
            let _ = task.await;
        }
        if let Err(error) = self.store.remove_worker(&self.settings.name).await {
            tracing::warn!("the worker stays listed until it is forgotten: {error:#}");
        }
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A lease from its claim to its record.
    async fn work(self: Arc<Worker>, claimed: ClaimedWork, lane: Arc<Lane>, slot: OwnedSemaphorePermit) {
        let lease = claimed.lease;
        let held = self.held.hold(&lease, lane.kind);
        match self.work_held(claimed, &lane, &held, slot).await {
            Err(WorkerError::Store(StoreError::LeaseLost)) => tracing::info!(batch = %lease.batch, "a lease was lost; its results were dropped"),
            Err(error) => {
                self.report("gives a lease back", error);
                // It lives as long as it is held. When it cannot be given back it ends by the clock, and counts as a crash.
                if let Err(error) = self.insist(&held.cancel, "cannot give a lease back", || self.store.give_back_lease(lease.key)).await {
                    tracing::warn!(batch = %lease.batch, "a lease could not be given back: {error:#}");
                }
            }
            // It was all there was of its batch, and nothing waited for it.
            Ok(true) => return,
            Ok(false) => {}
        }
        drop(held);
        lane.wake.notify_one();
    }

    /// Whether its end lets nothing else be claimed.
    async fn work_held(
        self: &Arc<Worker>,
        claimed: ClaimedWork,
        lane: &Arc<Lane>,
        held: &HeldLease,
        slot: OwnedSemaphorePermit,
    ) -> Result<bool, WorkerError> {
        let ClaimedWork { lease, batch, rows } = claimed;
        // The two do not wait for each other.
        let (assignment, rows) = tokio::join!(
            async {
                match batch {
                    Some((batch, app)) => Ok(self.assign(batch, app)),
                    None => self.insist(&held.cancel, "cannot read a batch", || self.assignment(lease.batch)).await,
                }
            },
            async {
                match rows {
                    Some(rows) => Ok(rows),
                    None => self.insist(&held.cancel, "cannot read rows", || self.store.read_leased_rows(lease.key)).await,
                }
            },
        );
        let assignment = assignment?;
        held.set_app(&assignment.batch.app);
        let Some(place) = self.place(&assignment).await? else {
            // There is no room for its guest. The next claim passes its app over until there is.
            self.insist(&held.cancel, "cannot give a lease back", || self.store.give_back_lease(lease.key)).await?;
            return Ok(false);
        };
        let mut ran = self.run_lease(&lease, &assignment, held, rows?, place).await?;
        let beside = || Arc::clone(&lane.recording_beside).acquire_owned();
        let recording = tokio::select! {
            biased;
            () = held.yields.cancelled() => beside().await,
            place = beside(), if ran.weight < SMALL_RECORD_BYTES => place,
            place = Arc::clone(&lane.recording).acquire_owned() => place,
        };
        drop(slot);
        if held.yields.is_cancelled() {
            // Its record would be in the way of those for whom it yielded.
            self.idle(held.cancel.cancelled(), RECORD_YIELDED_AFTER).await;
        }
        // What one record ends is finished by who recorded it: a small batch, or a query.
        let ends = ran.results.len() == usize::try_from(assignment.batch.counts.rows).unwrap_or(usize::MAX);
        let hand = if ends { Arc::clone(&lane.finishing).try_acquire_owned().ok() } else { None };
        let finish = self.record_to_finish(&lease, held, &mut ran, hand.is_some()).await?;
        let whole = finish.is_some() && !assignment.is_limited && !self.settings.ends_when_idle;
        if let (Some(finish), Some(hand)) = (finish, hand) {
            tokio::spawn(Arc::clone(self).finish(finish, Arc::clone(lane), hand));
        }
        if let Some(reason) = ran.abort {
            self.insist(&held.cancel, "cannot abort a batch", || self.abort(lease.batch, &reason)).await?;
        } else if held.is_lost() && ran.stopped {
            return Err(StoreError::LeaseLost.into());
        } else if ran.stopped {
            self.insist(&held.cancel, "cannot give a lease back", || self.store.give_back_lease(lease.key)).await?;
        }
        // Not before: who waits for the worker's end waits for this.
        drop(recording);
        Ok(whole)
    }

    /// Lets all that runs come to an end, but not for ever.
    async fn wait_for_slots(&self) {
        let quiet = async { tokio::join!(self.batches.take_all_slots(), self.queries.take_all_slots()) };
        tokio::pin!(quiet);
        if tokio::time::timeout(self.settings.drain_grace, &mut quiet).await.is_err() {
            self.held.cancel_all();
            quiet.await;
        }
    }

    /// Ends the worker because of an error, in good order as far as that goes.
    fn give_up(&self, error: WorkerError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.drain.cancel();
    }
}
