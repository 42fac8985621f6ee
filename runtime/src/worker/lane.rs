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
    /// Results that wait to be written: of half as many leases as there are slots. A slow disk bounds what is held in memory; and more records at the same time
    /// would not be written faster, but keep the database from everything else.
    pub recording: Arc<Semaphore>,
    /// Places for what waits for none of these: results that are few, and those of leases that yielded, whose slot others wait for. They yield now and then only.
    pub recording_beside: Arc<Semaphore>,
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
        let places = |count: u32| Arc::new(Semaphore::new(count as usize));
        Lane {
            kind,
            count,
            slots: places(count),
            recording: places(recording_places(count)),
            recording_beside: places(count),
            finishing: places(count),
            wake: Notify::new(),
            finish_wake: Notify::new(),
            idle: AtomicBool::new(false),
        }
    }

    /// All that something may stand in, with how many places there are: first the slots, from which the others are reached.
    fn places(&self) -> [(&Semaphore, u32); 4] {
        [
            (&self.slots, self.count),
            (&self.recording, recording_places(self.count)),
            (&self.recording_beside, self.count),
            (&self.finishing, self.count),
        ]
    }

    /// How many slots there are, used or free.
    pub fn slot_count(&self) -> u32 {
        self.count
    }

    /// Notes whether there is nothing to do, as the last claim found.
    pub fn set_idle(&self, nothing_due: bool) {
        let quiet = self.places().into_iter().all(|(places, count)| places.available_permits() == count as usize);
        self.idle.store(nothing_due && quiet, Ordering::Release);
    }

    /// The last claim found nothing, and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// Waits until nothing runs, and nothing is being recorded or finished. Nothing can begin afterwards.
    pub async fn take_all_slots(&self) {
        for (places, count) in self.places() {
            // A closed semaphore has no places either.
            if let Ok(all) = places.acquire_many(count).await {
                all.forget();
            }
        }
    }
}

fn recording_places(slots: u32) -> u32 {
    slots.div_ceil(2)
}
