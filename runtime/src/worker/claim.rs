//! Claims: as many leases as there are free slots, never more.

use std::sync::Arc;
use std::time::Duration;

use super::lane::Lane;
use super::patience::Pauses;
use super::{Worker, WorkerError};
use crate::model::{ClaimRequest, FinishLease};
use crate::store::StoreError;

/// An idle worker looks at least this often.
const POLL: Duration = Duration::from_secs(1);
/// And not more often than this when something is due.
const POLL_LEAST: Duration = Duration::from_millis(5);

impl Worker {
    /// Keeps all slots of a lane busy as long as there is work.
    pub(super) async fn claim_until_drained(self: Arc<Worker>, lane: Arc<Lane>) {
        let mut pauses = Pauses::default();
        while !self.drain.is_cancelled() {
            match self.claim_once(&lane).await {
                Ok(()) => pauses = Pauses::default(),
                Err(error) => {
                    self.report("claims nothing", error);
                    tokio::select! {
                        () = self.drain.cancelled() => {}
                        () = tokio::time::sleep(pauses.next()) => {}
                    }
                }
            }
        }
    }

    async fn claim_once(self: &Arc<Worker>, lane: &Arc<Lane>) -> Result<(), WorkerError> {
        // Before the claim: what is submitted while it runs is not missed.
        let woken = lane.wake.notified();
        let first = tokio::select! {
            () = self.drain.cancelled() => return Ok(()),
            slot = Arc::clone(&lane.slots).acquire_owned() => slot.expect("the slots are never closed"),
        };
        let looks_first = lane.take_finish_wanted();
        if looks_first && let Some(finish) = self.claim_finish(lane).await? {
            lane.set_idle(false);
            lane.want_finish();
            tokio::spawn(Arc::clone(self).finish(finish, Arc::clone(lane), first));
            return Ok(());
        }
        let mut slots = vec![first];
        while let Ok(slot) = Arc::clone(&lane.slots).try_acquire_owned() {
            slots.push(slot);
        }
        let leases = self.store.claim_leases(&self.claim_request(lane, slots.len())).await?;
        if leases.is_empty() {
            if !looks_first && let Some(finish) = self.claim_finish(lane).await? {
                lane.want_finish();
                let first = slots.swap_remove(0);
                tokio::spawn(Arc::clone(self).finish(finish, Arc::clone(lane), first));
                return Ok(());
            }
            drop(slots);
            let due = self.store.next_due(Some(lane.kind)).await?;
            lane.set_idle(due.is_none());
            if self.settings.ends_when_idle && self.batches.is_idle() && self.queries.is_idle() {
                self.drain();
            }
            let idle = self.idle_time(due);
            tokio::select! {
                () = woken => {}
                () = self.drain.cancelled() => {}
                () = tokio::time::sleep(idle) => {}
            }
            return Ok(());
        }
        lane.set_idle(false);
        for (lease, slot) in leases.into_iter().zip(slots) {
            tokio::spawn(Arc::clone(self).work(lease, Arc::clone(lane), slot));
        }
        Ok(())
    }

    async fn claim_finish(&self, lane: &Lane) -> Result<Option<FinishLease>, StoreError> {
        self.store.claim_finish(&self.settings.name, Some(lane.kind), self.settings.lease_ttl()).await
    }

    fn claim_request(&self, lane: &Lane, free: usize) -> ClaimRequest {
        ClaimRequest {
            worker: self.settings.name.clone(),
            kind: Some(lane.kind),
            leases_max: u32::try_from(free).unwrap_or(u32::MAX),
            rows_max: self.settings.lease_rows_max,
            target: self.settings.lease_target,
            slots: lane.slot_count(),
            ttl: self.settings.lease_ttl(),
        }
    }

    /// Until something is due, and not so long that what a dead worker leaves behind would wait past two heartbeats.
    fn idle_time(&self, due: Option<Duration>) -> Duration {
        let most = POLL.min(self.settings.heartbeat / 4).max(POLL_LEAST);
        due.unwrap_or(most).clamp(POLL_LEAST, most)
    }
}
