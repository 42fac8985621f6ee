//! Memory of the guests that live at the same time, under one budget: a lease begins when its app's memory fits in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::lane::Lane;

/// From then on others get only so much of the memory that the app that has waited longer fits in beside them once what was there before it has ended. Else small ones could keep a large
/// one from beginning for ever.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct MemoryBudget {
    total_bytes: u64,
    state: Mutex<State>,
    freed: Notify,
    /// What may claim when there is room again.
    lanes: [Arc<Lane>; 2],
}

#[derive(Default)]
struct State {
    /// The guests that live, by a number of their own.
    living: HashMap<u64, Living>,
    next: u64,
    /// Apps that did not fit when they were to begin.
    waiting: HashMap<String, Waiting>,
}

struct Living {
    app: String,
    bytes: u64,
    since: Instant,
}

#[derive(Clone, Copy)]
struct Waiting {
    needs_bytes: u64,
    since: Instant,
}

/// Memory that a guest may use. It is free again when this is dropped.
pub(super) struct Room {
    budget: Arc<MemoryBudget>,
    number: u64,
}

impl State {
    fn used_bytes(&self, counts: impl Fn(&Living) -> bool) -> u64 {
        self.living.values().filter(|living| counts(living)).map(|living| living.bytes).sum()
    }

    fn fits(&self, app: &str, needs_bytes: u64, total_bytes: u64) -> bool {
        if self.used_bytes(|_| true).saturating_add(needs_bytes) > total_bytes {
            return false;
        }
        // An app that has a guest does not wait for its first.
        let own = self.waiting.get(app).map(|own| own.since);
        let comes_first = |name: &String, other: &Waiting| {
            name != app
                && other.since.elapsed() > PATIENCE
                && own.is_none_or(|own| other.since < own)
                && self.living.values().all(|living| living.app != *name)
        };
        let first = self.waiting.iter().filter(|(name, other)| comes_first(name, other)).map(|(_, other)| other).min_by_key(|other| other.since);
        first.is_none_or(|first| {
            let since = self.used_bytes(|living| living.since > first.since);
            since.saturating_add(needs_bytes).saturating_add(first.needs_bytes) <= total_bytes
        })
    }
}

impl MemoryBudget {
    pub fn new(total_bytes: u64, lanes: [Arc<Lane>; 2]) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget { total_bytes, state: Mutex::default(), freed: Notify::new(), lanes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a guest of an app, if there is some now. One that needs more than all of it gets all.
    pub fn admit(self: &Arc<Self>, app: &str, needs_bytes: u64) -> Option<Room> {
        let bytes = needs_bytes.min(self.total_bytes);
        let mut state = self.lock();
        if !state.fits(app, bytes, self.total_bytes) {
            state.waiting.entry(app.to_owned()).or_insert(Waiting { needs_bytes: bytes, since: Instant::now() }).needs_bytes = bytes;
            return None;
        }
        state.waiting.remove(app);
        let number = state.next;
        state.next += 1;
        state.living.insert(number, Living { app: app.to_owned(), bytes, since: Instant::now() });
        Some(Room { budget: Arc::clone(self), number })
    }

    /// Apps for whose guests there is no room now. One for which there is again is forgotten: it may have nothing to run any more.
    pub fn apps_without_room(&self) -> Vec<String> {
        let mut state = self.lock();
        let fits = |app: &str, waiting: &Waiting| state.fits(app, waiting.needs_bytes, self.total_bytes);
        let without: Vec<String> = state.waiting.iter().filter(|(app, waiting)| !fits(app, waiting)).map(|(app, _)| app.clone()).collect();
        state.waiting.retain(|app, _| without.contains(app));
        without
    }

    /// Some app waits.
    pub fn is_short(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Until a guest has left.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let waits = {
            let mut state = self.budget.lock();
            state.living.remove(&self.number);
            !state.waiting.is_empty()
        };
        self.budget.freed.notify_waiters();
        if waits {
            self.budget.lanes.iter().for_each(|lane| lane.wake.notify_one());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessorKind;

    fn budget(total_bytes: u64) -> Arc<MemoryBudget> {
        MemoryBudget::new(total_bytes, [ProcessorKind::Batch, ProcessorKind::SlowQuery].map(|kind| Arc::new(Lane::new(kind, 1))))
    }

    #[test]
    fn guests_together_get_no_more_than_the_budget() {
        let budget = budget(100);
        let (large, small) = (budget.admit("large", 70).unwrap(), budget.admit("small", 20).unwrap());
        assert!(budget.admit("large", 70).is_none());
        assert_eq!(budget.apps_without_room(), ["large"]);
        // Others go on beside it.
        let more = budget.admit("small", 10).unwrap();
        assert!(budget.admit("small", 10).is_none());
        drop(small);
        assert_eq!(budget.apps_without_room(), ["large"]);
        drop((large, more));
        assert!(budget.apps_without_room().is_empty() && !budget.is_short());
        // One that needs more than there is runs alone.
        let alone = budget.admit("huge", 1_000).unwrap();
        assert!(budget.admit("small", 1).is_none());
        drop(alone);
        assert!(budget.admit("small", 1).is_some());
    }

    #[test]
    fn others_leave_room_for_an_app_that_has_waited_for_long() {
        let budget = budget(100);
        let before = budget.admit("before", 60).unwrap();
        assert!(budget.admit("large", 80).is_none());
        let long_ago = Instant::now().checked_sub(PATIENCE * 2).unwrap();
        budget.lock().waiting.get_mut("large").unwrap().since = long_ago;
        budget.lock().living.values_mut().for_each(|living| living.since = long_ago - PATIENCE);
        // Beside what was there before, others get what is left beside it.
        let small = budget.admit("small", 15).unwrap();
        assert!(budget.admit("small", 15).is_none());
        assert_eq!(budget.apps_without_room().len(), 2);
        drop(before);
        assert!(budget.admit("small", 15).is_none());
        let large = budget.admit("large", 80).unwrap();
        drop(small);
        let small = budget.admit("small", 15).unwrap();
        // It has a guest now: others need not leave room for a second.
        assert!(budget.admit("large", 80).is_none());
        drop((large, small));
        assert!(budget.apps_without_room().is_empty());
    }
}
