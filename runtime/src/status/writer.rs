//! Writes states to Redis, in a task of its own: the newest of each batch, a few times per second while it runs, and at once when it is final.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::link::{Link, key};
use super::snapshot::Snapshot;
use super::subscriber::CHANNEL;
use crate::model::BatchId;

/// Between two states of a batch that runs.
const EVERY: Duration = Duration::from_millis(250);
/// States of one pipeline.
const PIPELINE_STATES: usize = 200;
const PIPELINE_BYTES: usize = 1 << 20;
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Batches that wait, of those that run and of those that are final.
const WAITING_MAX: usize = 10_000;
/// Bytes of final states that wait.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// A final state is tried so often. After that pollers ask the database.
const TRIES_MAX: u32 = 20;
/// A final status is kept longer by this factor.
const FINAL_FACTOR: u32 = 100;
/// A larger answer stays in the database.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// On one key, so that it is one step for everybody, also in a cluster. KEYS: the batch's hash. ARGV: age, snapshot, milliseconds to keep it, channel, event.
const SCRIPT: &str = "\
local known = redis.call('HGET', KEYS[1], 'age')
if known and known > ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'age', ARGV[1], 'snapshot', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1";

pub(super) struct Writer {
    link: Link,
    cache: Duration,
    waiting: Mutex<Waiting>,
    /// Something waits that did not before.
    more: Notify,
    /// Something final waits, or a flush.
    urgent: Notify,
    /// Something was written, or given up.
    written: Notify,
}

#[derive(Default)]
struct Waiting {
    running: HashMap<BatchId, Snapshot>,
    finals: HashMap<BatchId, (Snapshot, u32)>,
    finals_bytes: usize,
    /// Being written at the moment.
    under_way: usize,
    flush: bool,
}

impl Waiting {
    fn put_final(&mut self, snapshot: Snapshot, tries: u32) {
        let weight = snapshot.weight();
        if self.finals.len() < WAITING_MAX && self.finals_bytes + weight <= WAITING_BYTES_MAX {
            self.finals_bytes += weight;
            if let Some((before, _)) = self.finals.insert(snapshot.id, (snapshot, tries)) {
                self.finals_bytes -= before.weight();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.finals.is_empty() && self.under_way == 0
    }
}

impl Writer {
    pub fn new(link: Link, cache: Duration) -> Writer {
        Writer { link, cache, waiting: Mutex::default(), more: Notify::new(), urgent: Notify::new(), written: Notify::new() }
    }

    pub fn put(&self, mut snapshot: Snapshot) {
        if snapshot.answer.as_ref().and_then(|answer| answer.output.as_ref()).is_some_and(|output| output.len() > ANSWER_BYTES_MAX) {
            snapshot.answer = None;
        }
        let mut waiting = self.waiting();
        if snapshot.status.is_final() {
            waiting.running.remove(&snapshot.id);
            waiting.put_final(snapshot, 0);
            self.urgent.notify_one();
        } else if waiting.running.len() < WAITING_MAX || waiting.running.contains_key(&snapshot.id) {
            waiting.running.insert(snapshot.id, snapshot);
        }
        self.more.notify_one();
    }

    pub fn pending(&self) -> usize {
        let waiting = self.waiting();
        waiting.running.len() + waiting.finals.len()
    }

    /// Comes back when everything was written or given up.
    pub async fn flush(&self) {
        loop {
            let written = self.written.notified();
            {
                let mut waiting = self.waiting();
                if waiting.is_empty() {
                    waiting.flush = false;
                    return;
                }
                waiting.flush = true;
            }
            self.more.notify_one();
            self.urgent.notify_one();
            written.await;
        }
    }

    pub async fn run(self: Arc<Writer>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.write_for_ever() => {}
        }
    }

    async fn write_for_ever(&self) {
        loop {
            if self.waiting().is_empty() {
                self.more.notified().await;
            }
            // Final states go at once, the others when their time has come.
            let due = tokio::time::sleep(EVERY);
            tokio::pin!(due);
            loop {
                if let Some(open_for) = self.link.open_for() {
                    tokio::time::sleep(open_for).await;
                }
                tokio::select! {
                    () = &mut due => break,
                    () = self.urgent.notified() => {
                        if self.waiting().flush {
                            break;
                        }
                        self.write_finals().await;
                    }
                }
            }
            self.write_finals().await;
            self.write_running().await;
        }
    }

    async fn write_finals(&self) {
        let taken: Vec<(Snapshot, u32)> = {
            let mut waiting = self.waiting();
            waiting.finals_bytes = 0;
            let taken: Vec<_> = std::mem::take(&mut waiting.finals).into_values().collect();
            waiting.under_way += taken.len();
            taken
        };
        let count = taken.len();
        let mut taken = taken.into_iter().peekable();
        while taken.peek().is_some() {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while part.len() < PIPELINE_STATES && bytes < PIPELINE_BYTES {
                let Some(next) = taken.next() else { break };
                bytes += next.0.weight();
                part.push(next);
            }
            if !self.write(part.iter().map(|(snapshot, _)| snapshot)).await {
                // What was not written is tried again, unless there is a newer one by now. What no write was tried for keeps its tries.
                let mut waiting = self.waiting();
                let tried = part.into_iter().map(|(snapshot, tries)| (snapshot, tries + 1));
                for (snapshot, tries) in tried.chain(taken) {
                    let overtaken = waiting.finals.get(&snapshot.id).is_some_and(|(newer, _)| newer.age() >= snapshot.age());
                    if tries < TRIES_MAX && !overtaken {
                        waiting.put_final(snapshot, tries);
                    }
                }
                break;
            }
        }
        self.wrote(count);
    }

    async fn write_running(&self) {
        let taken: Vec<Snapshot> = {
            let mut waiting = self.waiting();
            let taken: Vec<_> = std::mem::take(&mut waiting.running).into_values().collect();
            waiting.under_way += taken.len();
            taken
        };
        for part in taken.chunks(PIPELINE_STATES) {
            // What was not written is no loss: the next state comes soon.
            if !self.write(part.iter()).await {
                break;
            }
        }
        self.wrote(taken.len());
    }

    fn wrote(&self, count: usize) {
        let mut waiting = self.waiting();
        waiting.under_way -= count;
        drop(waiting);
        self.written.notify_waiters();
    }

    async fn write(&self, snapshots: impl Iterator<Item = &Snapshot>) -> bool {
        let mut pipeline = redis::pipe();
        for snapshot in snapshots {
            let keep = if snapshot.status.is_final() { self.cache * FINAL_FACTOR } else { self.cache };
            let (Ok(text), Ok(event)) = (serde_json::to_string(snapshot), serde_json::to_string(&snapshot.event())) else { continue };
            // The script itself, not its digest: a Redis that was restarted does not know it any more.
            pipeline.cmd("EVAL").arg(SCRIPT).arg(1).arg(key(snapshot.id)).arg(snapshot.age().as_text()).arg(text);
            pipeline.arg(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)).arg(CHANNEL).arg(event).ignore();
        }
        self.link.write(&pipeline, WRITE_TIMEOUT).await
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
