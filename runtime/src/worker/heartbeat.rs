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
    is_lost: bool,
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
        let held = Held { batch: lease.batch, app: None, since: Instant::now(), cancel: cancel.clone(), yields: yields.clone(), is_lost: false };
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

    /// Leases of other apps than this one end after the row that they run, and give the rest back. Asked again too soon, they do not. Whether any does.
    pub(super) fn ask_to_yield(&self, other_than: &str) -> bool {
        let (now, mut leases) = (Instant::now(), self.lock());
        if leases.yielded_at.is_some_and(|at| now - at < YIELD_EVERY) {
            return false;
        }
        leases.yielded_at = Some(now);
        let yields = |held: &&Held| held.app.as_ref().is_some_and(|app| app != other_than) && now - held.since > YIELD_AFTER;
        let mut any = false;
        for held in leases.held.values().filter(yields) {
            held.yields.cancel();
            any = true;
        }
        any
    }

    /// Stops all guests.
    pub(super) fn cancel_all(&self) {
        self.stop.cancel();
    }

    /// Stops the guests of leases that others may have by now.
    fn lose(&self, keys: &[LeaseKey]) {
        let mut leases = self.lock();
        for key in keys {
            if let Some(held) = leases.held.get_mut(key) {
                held.is_lost = true;
                held.cancel.cancel();
            }
        }
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

    /// It is another's, as far as is known.
    pub(super) fn is_lost(&self) -> bool {
        self.all.lock().held.get(&self.key).is_some_and(|held| held.is_lost)
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
                        self.held.lose(&self.held.keys());
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
            self.held.lose(&lost);
        }
        let draining = self.drain.is_cancelled();
        self.store.beat_worker(&self.settings.info(draining)).await?;
        Ok(draining)
    }
}
