//! Claims: as many leases as there are free slots, never more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Worker, WorkerError};
use crate::model::ClaimRequest;
use crate::store::StoreError;

/// An idle worker looks at least this often.
const POLL: Duration = Duration::from_secs(1);
/// And not more often than this when something is due.
const POLL_LEAST: Duration = Duration::from_millis(5);

impl Worker {
    /// Keeps all slots busy as long as there is work.
    pub(super) async fn claim_until_drained(self: &Arc<Worker>) {
        while !self.drain.is_cancelled() {
            if let Err(error) = self.claim_once().await {
                self.give_up(error);
            }
        }
    }

    async fn claim_once(self: &Arc<Worker>) -> Result<(), WorkerError> {
        // Before the claim: what is submitted while it runs is not missed.
        let woken = self.wake.notified();
        let first = tokio::select! {
            () = self.drain.cancelled() => return Ok(()),
            slot = Arc::clone(&self.slots).acquire_owned() => slot.expect("the slots are never closed"),
        };
        if self.finish_wanted.swap(false, Ordering::AcqRel)
            && let Some(finish) = self.store.claim_finish(&self.settings.name, None, self.settings.lease_ttl).await?
        {
            self.finish_wanted.store(true, Ordering::Release);
            tokio::spawn(Arc::clone(self).finish(finish, first));
            return Ok(());
        }
        let mut slots = vec![first];
        while let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            slots.push(slot);
        }
        let leases = self.store.claim_leases(&self.claim_request(slots.len())).await?;
        if leases.is_empty() {
            drop(slots);
            self.finish_wanted.store(true, Ordering::Release);
            let idle = self.idle_time().await?;
            tokio::select! {
                () = woken => {}
                () = self.drain.cancelled() => {}
                () = tokio::time::sleep(idle) => {}
            }
            return Ok(());
        }
        for (lease, slot) in leases.into_iter().zip(slots) {
            tokio::spawn(Arc::clone(self).work(lease, slot));
        }
        Ok(())
    }

    fn claim_request(&self, free: usize) -> ClaimRequest {
        ClaimRequest {
            worker: self.settings.name.clone(),
            kind: None,
            leases_max: u32::try_from(free).unwrap_or(u32::MAX),
            rows_max: self.settings.lease_rows_max,
            target: self.settings.lease_target,
            slots: self.settings.slots,
            ttl: self.settings.lease_ttl,
        }
    }

    async fn idle_time(&self) -> Result<Duration, StoreError> {
        Ok(self.store.next_due(None).await?.unwrap_or(POLL).clamp(POLL_LEAST, POLL))
    }
}
