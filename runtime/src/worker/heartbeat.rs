//! Signs of life: leases are renewed as long as they are worked on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::model::{BatchId, Lease, LeaseKey, ProcessorKind};
use crate::store::StoreError;

/// Between two times that leases are asked to yield: it costs a claim for each.
const YIELD_EVERY: Duration = Duration::from_millis(200);
/// A lease that has just begun does not yield.
const YIELD_AFTER: Duration = Duration::from_millis(10);

struct Held {
    batch: BatchId,
    /// None until the batch was read.
    app: Option<String>,
    since: Instant,
    cancel: CancellationToken,
    yields: CancellationToken,
}

#[derive(Default)]
struct Leases {
    held: HashMap<LeaseKey, Held>,
    yielded_at: Option<Instant>,
}

/// The leases that this worker works on, each with what stops its guest.
#[derive(Clone, Default)]
pub(super) struct HeldLeases {
    leases: Arc<Mutex<Leases>>,
    /// Stops all guests.
    stop: CancellationToken,
}

/// One of them. It is no longer renewed once this is dropped.
pub(super) struct HeldLease {
    all: HeldLeases,
    key: LeaseKey,
    pub(super) kind: ProcessorKind,
    pub(super) cancel: CancellationToken,
    /// It is to end after the row that it runs.
    pub(super) yields: CancellationToken,
}

impl HeldLeases {
    pub(super) fn hold(&self, lease: &Lease, kind: ProcessorKind) -> HeldLease {
        let (cancel, yields) = (self.stopper(), CancellationToken::new());
        let held = Held { batch: lease.batch, app: None, since: Instant::now(), cancel: cancel.clone(), yields: yields.clone() };
        self.lock().held.insert(lease.key, held);
        HeldLease { all: self.clone(), key: lease.key, kind, cancel, yields }
    }

    /// What stops a guest when all are to stop.
    pub(super) fn stopper(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Stops the guests that run rows of a batch.
    pub(super) fn cancel_batch(&self, id: BatchId) {
        self.lock().held.values().filter(|held| held.batch == id).for_each(|held| held.cancel.cancel());
    }

    /// Whether leases may be asked to yield now; true once in a while.
    pub(super) fn may_ask_to_yield(&self) -> bool {
        let (now, mut leases) = (Instant::now(), self.lock());
        let may = leases.yielded_at.is_none_or(|at| now - at >= YIELD_EVERY);
        if may {
            leases.yielded_at = Some(now);
        }
        may
    }

    /// Leases of other apps than this one end after the row that they run, and give the rest back.
    pub(super) fn ask_to_yield(&self, other_than: &str) {
        let yields = |held: &&Held| held.app.as_ref().is_some_and(|app| app != other_than) && held.since.elapsed() > YIELD_AFTER;
        self.lock().held.values().filter(yields).for_each(|held| held.yields.cancel());
    }

    /// Stops all guests.
    pub(super) fn cancel_all(&self) {
        self.stop.cancel();
    }

    fn cancel(&self, keys: &[LeaseKey]) {
        let leases = self.lock();
        keys.iter().filter_map(|key| leases.held.get(key)).for_each(|held| held.cancel.cancel());
    }

    fn keys(&self) -> Vec<LeaseKey> {
        self.lock().held.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldLease {
    /// Says whose rows it holds.
    pub(super) fn set_app(&self, app: &str) {
        if let Some(held) = self.all.lock().held.get_mut(&self.key) {
            held.app = Some(app.to_owned());
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.all.lock().held.remove(&self.key);
    }
}

impl Worker {
    /// Renews the held leases and shows that the worker lives, until it has stopped. A lost lease stops its guest: what it does is not recorded.
    pub(super) async fn beat(self: Arc<Worker>, stopped: CancellationToken) {
        let mut renewed_at = Instant::now();
        loop {
            let begun_at = Instant::now();
            let mut shows_drain = false;
            let pause = match self.beat_once().await {
                Ok(draining) => {
                    renewed_at = begun_at;
                    shows_drain = !draining;
                    self.settings.heartbeat
                }
                Err(error) => {
                    self.report("cannot renew its leases", error.into());
                    if begun_at.duration_since(renewed_at) > self.settings.lease_ttl() {
                        // They have ended, and others may have them.
                        self.held.cancel(&self.held.keys());
                    }
                    self.settings.heartbeat / 6
                }
            };
            tokio::select! {
                () = stopped.cancelled() => return,
                // It is to be seen at once that it takes nothing more.
                () = self.drain.cancelled(), if shows_drain => {}
                () = tokio::time::sleep(pause.saturating_sub(begun_at.elapsed())) => {}
            }
        }
    }

    /// Whether it shows that it takes nothing more.
    async fn beat_once(&self) -> Result<bool, StoreError> {
        let keys = self.held.keys();
        if !keys.is_empty() {
            let lost = self.store.renew_leases(&keys, self.settings.lease_ttl()).await?;
            self.held.cancel(&lost);
        }
        let draining = self.drain.is_cancelled();
        self.store.beat_worker(&self.settings.info(draining)).await?;
        Ok(draining)
    }
}
