//! Claims: as many leases as there are free slots, never more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lane::Lane;
use super::patience::Pauses;
use super::{Worker, WorkerError};
use crate::model::ClaimRequest;

/// An idle worker looks at least this often.
const POLL: Duration = Duration::from_secs(1);
/// And not more often than this when something is due.
const POLL_LEAST: Duration = Duration::from_millis(5);
/// Rows of a lease that is claimed while others have yielded: what comes behind what they yielded for is soon read and recorded, and the database is free again.
const CALM_ROWS: u32 = 250;
/// Not more often than this when there is nothing more to claim, or only others can do what is due.
const POLL_BESIDE: Duration = Duration::from_millis(50);

impl Worker {
    /// Keeps all slots of a lane busy as long as there is work.
    pub(super) async fn claim_until_drained(self: Arc<Worker>, lane: Arc<Lane>) {
        let mut pauses = Pauses::default();
        while !self.drain.is_cancelled() {
            match self.claim_once(&lane).await {
                Ok(()) => pauses = Pauses::default(),
                Err(error) => self.pause_after(error, &mut pauses).await,
            }
        }
    }

    /// Finishes batches of a lane as long as there are some, beside what runs in its slots.
    pub(super) async fn finish_until_drained(self: Arc<Worker>, lane: Arc<Lane>) {
        let mut pauses = Pauses::default();
        while !self.drain.is_cancelled() {
            match self.claim_finish_once(&lane).await {
                Ok(()) => pauses = Pauses::default(),
                Err(error) => self.pause_after(error, &mut pauses).await,
            }
        }
    }

    async fn pause_after(&self, error: WorkerError, pauses: &mut Pauses) {
        self.report("claims nothing", error);
        self.idle(std::future::pending(), pauses.next()).await;
    }

    /// Until it is woken, or so long.
    pub(super) async fn idle(&self, woken: impl Future<Output = ()>, most: Duration) {
        tokio::select! {
            () = woken => {}
            () = self.drain.cancelled() => {}
            () = tokio::time::sleep(most) => {}
        }
    }

    async fn claim_once(self: &Arc<Worker>, lane: &Arc<Lane>) -> Result<(), WorkerError> {
        // Before the claim: what is submitted while it runs is not missed.
        let woken = lane.wake.notified();
        let Some(first) = self.take(&lane.slots).await else { return Ok(()) };
        let mut slots = vec![first];
        let calm = lane.calm();
        while calm.is_none()
            && let Ok(slot) = Arc::clone(&lane.slots).try_acquire_owned()
        {
            slots.push(slot);
        }
        if self.budget.is_short() {
            // What nobody needs at the moment makes room for those who wait.
            self.warm.end_all();
        }
        let request = self.claim_request(lane, slots.len(), calm.is_some());
        let work = self.store.claim_work(&request).await?;
        if work.is_empty() {
            drop(slots);
            let due = self.store.next_due(Some(lane.kind)).await?;
            lane.set_idle(due.is_none() && request.apps_except.is_empty());
            if self.settings.ends_when_idle && self.batches.is_idle() && self.queries.is_idle() {
                self.drain();
            }
            let mut most = self.poll().min(due.unwrap_or(POLL)).max(POLL_LEAST);
            if due == Some(Duration::ZERO) {
                // What is due is nothing that was claimed: a batch to be finished, for which there may be no hand free.
                lane.finish_wake.notify_one();
                most = POLL_BESIDE;
            }
            self.idle(woken, most).await;
            return Ok(());
        }
        lane.set_idle(false);
        let found_all = work.len() < slots.len();
        let mut last = None;
        for (claimed, slot) in work.into_iter().zip(slots) {
            last = Some(tokio::spawn(Arc::clone(self).work(claimed, Arc::clone(lane), slot)));
        }
        if let (Some(left), Some(working)) = (calm, last) {
            let through = async {
                // It only ends; what went wrong is told elsewhere.
                let _ = working.await;
                lane.until_finished().await;
            };
            self.idle(through, left).await;
        } else if found_all {
            // But for what was being recorded at that moment. A look at once would be in the way of what was found.
            self.idle(woken, POLL_BESIDE).await;
        }
        Ok(())
    }

    async fn claim_finish_once(self: &Arc<Worker>, lane: &Arc<Lane>) -> Result<(), WorkerError> {
        let woken = lane.finish_wake.notified();
        let Some(hand) = self.take(&lane.finishing).await else { return Ok(()) };
        let finish = self.store.claim_finish(&self.settings.name, Some(lane.kind), self.settings.lease_ttl()).await?;
        match finish {
            Some(finish) => {
                lane.set_idle(false);
                tokio::spawn(Arc::clone(self).finish(finish, Arc::clone(lane), hand));
            }
            None => {
                drop(hand);
                self.idle(woken, self.poll()).await;
            }
        }
        Ok(())
    }

    /// A place that is free, or none when the worker drains.
    async fn take(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = self.drain.cancelled() => None,
            place = Arc::clone(places).acquire_owned() => place.ok(),
        }
    }

    fn claim_request(&self, lane: &Lane, free: usize, calm: bool) -> ClaimRequest {
        let rows_max = self.settings.lease_rows_max;
        ClaimRequest {
            worker: self.settings.name.clone(),
            kind: Some(lane.kind),
            apps_except: self.budget.apps_without_room(),
            leases_max: u32::try_from(free).unwrap_or(u32::MAX),
            rows_max: if calm { rows_max.min(CALM_ROWS) } else { rows_max },
            target: self.settings.lease_target,
            slots: lane.slot_count(),
            ttl: self.settings.lease_ttl(),
        }
    }

    /// Between two looks of an idle worker: not so long that what a dead worker leaves behind would wait past two heartbeats.
    fn poll(&self) -> Duration {
        POLL.min(self.settings.heartbeat / 4).max(POLL_LEAST)
    }
}
