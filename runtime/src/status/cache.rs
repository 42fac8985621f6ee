//! The newest state of batches that this process has published. Bounded in number and bytes: whatever is dropped, the store knows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;
use crate::model::BatchId;

const BATCHES_MAX: usize = 10_000;
const BYTES_MAX: usize = 32 << 20;

#[derive(Default)]
pub(super) struct Cache {
    known: HashMap<BatchId, Known>,
    bytes: usize,
}

struct Known {
    snapshot: Snapshot,
    at: Instant,
}

impl Cache {
    /// Settled states, and others that are not older than this.
    pub fn get(&self, id: BatchId, believed: Duration) -> Option<Snapshot> {
        let known = self.known.get(&id)?;
        (known.snapshot.is_settled() || known.at.elapsed() <= believed).then(|| known.snapshot.clone())
    }

    /// Keeps a state unless it is older than the known one. Returns what holds now when it was kept.
    pub fn put(&mut self, mut snapshot: Snapshot) -> Option<Snapshot> {
        let id = snapshot.id;
        if let Some(known) = self.known.get(&id) {
            if snapshot.age() < known.snapshot.age() {
                return None;
            }
            if snapshot.said.is_none() {
                snapshot.said.clone_from(&known.snapshot.said);
            }
        }
        self.remove(id);
        // One that alone would take the place of many is written to Redis, but not kept here.
        let weight = snapshot.weight();
        if weight <= BYTES_MAX / 100 {
            self.bytes += weight;
            self.known.insert(id, Known { snapshot: snapshot.clone(), at: Instant::now() });
            self.make_room();
        }
        Some(snapshot)
    }

    /// Changes a known state. Returns what holds now when it changed.
    pub fn change(&mut self, id: BatchId, change: impl FnOnce(&mut Snapshot) -> bool) -> Option<Snapshot> {
        let known = self.known.get_mut(&id)?;
        let before = known.snapshot.weight();
        if !change(&mut known.snapshot) {
            return None;
        }
        known.at = Instant::now();
        self.bytes = self.bytes + known.snapshot.weight() - before;
        Some(known.snapshot.clone())
    }

    pub fn forget(&mut self, id: BatchId) {
        self.remove(id);
    }

    fn remove(&mut self, id: BatchId) {
        if let Some(known) = self.known.remove(&id) {
            self.bytes -= known.snapshot.weight();
        }
    }

    /// Drops the older half when there is too much, so that this is seldom done.
    fn make_room(&mut self) {
        if self.known.len() <= BATCHES_MAX && self.bytes <= BYTES_MAX {
            return;
        }
        let mut ages: Vec<(Instant, BatchId)> = self.known.iter().map(|(id, known)| (known.at, *id)).collect();
        ages.sort_unstable();
        for (_, id) in &ages[..ages.len() / 2] {
            self.remove(*id);
        }
    }
}
