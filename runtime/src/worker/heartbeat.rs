//! Signs of life: leases are renewed as long as they are worked on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::model::{BatchId, Lease, LeaseKey};

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

    fn cancel(&self, key: LeaseKey) {
        if let Some((_, cancel)) = self.lock().get(&key) {
            cancel.cancel();
        }
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
    /// Renews the held leases, three times in their life, until the worker has stopped. A lost lease stops its guest: what it does is not recorded.
    pub(super) async fn beat(self: Arc<Worker>, stopped: CancellationToken) {
        let mut beat = tokio::time::interval(self.settings.lease_ttl / 3);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                _ = beat.tick() => {}
            }
            let keys = self.held.keys();
            if keys.is_empty() {
                continue;
            }
            match self.store.renew_leases(&keys, self.settings.lease_ttl).await {
                Ok(lost) => lost.into_iter().for_each(|key| self.held.cancel(key)),
                Err(error) => self.give_up(error.into()),
            }
        }
    }
}
