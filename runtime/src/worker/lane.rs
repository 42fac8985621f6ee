//! Slots for one kind of work: slow queries have slots that batches cannot take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use crate::model::ProcessorKind;

/// What leases yielded for has the machine to itself for so long at most: a small batch is through by then, and they yield seldom.
const CALM: Duration = Duration::from_millis(30);

/// The slots of one kind, and what wakes their claims.
pub(super) struct Lane {
    pub kind: ProcessorKind,
    count: u32,
    pub slots: Arc<Semaphore>,
    /// Results that wait to be written: of one lease for every four slots. A slow disk bounds what is held in memory; and more records at the same time would hardly be
    /// written faster (by a twentieth with two of four), but keep the database from everything else.
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
    calm_until: Mutex<Option<Instant>>,
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
            calm_until: Mutex::new(None),
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

    /// Leases have yielded: what they yielded for is not to share the cores with what would be claimed behind it.
    pub fn calm_down(&self) {
        *self.calm_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + CALM);
    }

    /// How long one lease at a time is enough.
    pub fn calm(&self) -> Option<Duration> {
        let left = self.calm_until.lock().unwrap_or_else(PoisonError::into_inner).map(|until| until.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero())
    }

    /// Waits until no batch is being finished.
    pub async fn until_finished(&self) {
        // A closed semaphore has no places: then nothing is finished either.
        let _ = self.finishing.acquire_many(self.count).await;
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
    slots.div_ceil(4)
}
