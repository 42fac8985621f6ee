//! Instances that are kept for further leases of their batch, where its processor's isolation is `warm`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Worker;
use super::budget::Room;
use crate::model::{BatchId, Isolation};
use crate::sandbox::Session;
use crate::store::StoreError;

/// An instance that nothing was run in for so long is ended.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// What operators say is looked up so often at most.
const KNOWN_FOR: Duration = Duration::from_secs(1);

struct Parked {
    batch: BatchId,
    since: Instant,
    session: Box<Session>,
    room: Room,
}

/// Instances that wait, the oldest first. No more than slots.
pub(super) struct WarmSessions {
    parked: Mutex<Vec<Parked>>,
    most: usize,
}

impl WarmSessions {
    pub fn new(most: u32) -> WarmSessions {
        WarmSessions { parked: Mutex::default(), most: most as usize }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of this batch, with its memory.
    pub fn take(&self, batch: BatchId) -> Option<(Box<Session>, Room)> {
        let mut parked = self.lock();
        let at = parked.iter().rposition(|parked| parked.batch == batch)?;
        let Parked { session, room, .. } = parked.remove(at);
        Some((session, room))
    }

    /// Keeps one. The oldest goes where there are too many.
    pub fn park(&self, batch: BatchId, session: Box<Session>, room: Room) {
        let surplus = {
            let mut parked = self.lock();
            parked.push(Parked { batch, since: Instant::now(), session, room });
            (parked.len() > self.most).then(|| parked.remove(0))
        };
        end(surplus.into_iter().collect());
    }

    /// Ends those of a batch.
    pub fn end_batch(&self, batch: BatchId) {
        self.end_where(|parked| parked.batch == batch);
    }

    /// Ends those that nothing was run in for long.
    pub fn end_old(&self) {
        self.end_where(|parked| parked.since.elapsed() > KEPT_FOR);
    }

    /// Ends all, since their memory is needed.
    pub fn end_all(&self) {
        self.end_where(|_| true);
    }

    fn end_where(&self, ends: impl Fn(&Parked) -> bool) {
        end(self.lock().extract_if(.., |parked| ends(parked)).collect());
    }

    /// Ends all, and waits for it.
    pub async fn close(&self) {
        let all: Vec<Parked> = self.lock().drain(..).collect();
        for parked in all {
            parked.session.close().await;
        }
    }
}

/// Beside what the caller does: a guest may take its time.
fn end(parked: Vec<Parked>) {
    if parked.is_empty() {
        return;
    }
    tokio::spawn(async move {
        for Parked { session, room, .. } in parked {
            session.close().await;
            drop(room);
        }
    });
}

/// What operators say about isolation, as it was a moment ago.
#[derive(Default)]
pub(super) struct Isolations(Mutex<Known>);

#[derive(Default)]
struct Known {
    at: Option<Instant>,
    modes: HashMap<(String, Option<String>), Isolation>,
}

impl Worker {
    /// How the rows of an operation are kept apart.
    pub(super) async fn isolation(&self, app: &str, op: &str) -> Result<Isolation, StoreError> {
        let look = |known: &Known| {
            let of = |op: Option<&str>| known.modes.get(&(app.to_owned(), op.map(str::to_owned))).copied();
            if known.modes.is_empty() { Isolation::default() } else { of(Some(op)).or_else(|| of(None)).unwrap_or_default() }
        };
        {
            let known = self.isolations.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.at.is_some_and(|at| at.elapsed() < KNOWN_FOR) {
                return Ok(look(&known));
            }
        }
        let policies = self.store.list_policies().await?;
        let mut known = self.isolations.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.at = Some(Instant::now());
        known.modes = policies.into_iter().filter_map(|policy| Some(((policy.app, policy.op), policy.isolation?))).collect();
        Ok(look(&known))
    }
}
