//! Signs of life: leases are renewed as long as they are worked on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::model::{BatchId, Lease, LeaseKey};
use crate::store::StoreError;

type Leases = HashMap<LeaseKey, (BatchId, CancellationToken)>;

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
    pub(super) cancel: CancellationToken,
}

impl HeldLeases {
    pub(super) fn hold(&self, lease: &Lease) -> HeldLease {
        let cancel = self.stopper();
        self.lock().insert(lease.key, (lease.batch, cancel.clone()));
        HeldLease { all: self.clone(), key: lease.key, cancel }
    }

    /// What stops a guest when all are to stop.
    pub(super) fn stopper(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Stops the guests that run rows of a batch.
    pub(super) fn cancel_batch(&self, id: BatchId) {
        self.lock().values().filter(|(batch, _)| *batch == id).for_each(|(_, cancel)| cancel.cancel());
    }

    /// Stops all guests.
    pub(super) fn cancel_all(&self) {
        self.stop.cancel();
    }

    fn cancel(&self, keys: &[LeaseKey]) {
        let leases = self.lock();
        keys.iter().filter_map(|key| leases.get(key)).for_each(|(_, cancel)| cancel.cancel());
    }

    fn keys(&self) -> Vec<LeaseKey> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
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
        // A batch whose finisher died is looked for although there are rows without end.
        self.batches.want_finish();
        self.queries.want_finish();
        Ok(draining)
    }
}
