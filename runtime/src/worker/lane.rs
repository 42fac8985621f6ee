//! Slots for one kind of work: slow queries have slots that batches cannot take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, Semaphore};

use crate::model::ProcessorKind;

/// The slots of one kind, and what wakes their claims.
pub(super) struct Lane {
    pub kind: ProcessorKind,
    count: u32,
    pub slots: Arc<Semaphore>,
    /// Results that wait to be written: no more leases than slots, so that a slow disk bounds what is held in memory.
    pub recording: Arc<Semaphore>,
    /// Batches that are finished at the same time, beside what runs: a small batch does not wait for a slot with its files.
    pub finishing: Arc<Semaphore>,
    /// There may be something to claim.
    pub wake: Notify,
    /// A batch may be ready to be finished.
    pub finish_wake: Notify,
    idle: AtomicBool,
}

impl Lane {
    pub fn new(kind: ProcessorKind, slots: u32) -> Lane {
        let count = slots.max(1);
        Lane {
            kind,
            count,
            slots: Arc::new(Semaphore::new(count as usize)),
            recording: Arc::new(Semaphore::new(count as usize)),
            finishing: Arc::new(Semaphore::new(count as usize)),
            wake: Notify::new(),
            finish_wake: Notify::new(),
            idle: AtomicBool::new(false),
        }
    }

    /// How many slots there are, used or free.
    pub fn slot_count(&self) -> u32 {
        self.count
    }

    /// Notes whether there is nothing to do, as the last claim found.
    pub fn set_idle(&self, nothing_due: bool) {
        let quiet = |slots: &Semaphore| slots.available_permits() == self.count as usize;
        self.idle.store(nothing_due && quiet(&self.slots) && quiet(&self.recording) && quiet(&self.finishing), Ordering::Release);
    }

    /// The last claim found nothing, and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// Waits until nothing runs, and nothing is being recorded or finished. Nothing can begin afterwards.
    pub async fn take_all_slots(&self) {
        for slots in [&self.slots, &self.recording, &self.finishing] {
            // A closed semaphore has no slots either.
            if let Ok(all) = slots.acquire_many(self.count).await {
                all.forget();
            }
        }
    }
}
