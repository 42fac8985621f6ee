//! Those who watch batches, in this process.

use std::collections::HashMap;

use tokio::sync::watch;

use super::snapshot::{Event, Progress, Snapshot};
use crate::model::BatchId;

/// Batches whose watchers have gone are looked for when there are so many.
const SWEEP_FROM: usize = 1_000;

#[derive(Default)]
pub(super) struct Watchers {
    senders: HashMap<BatchId, watch::Sender<Progress>>,
    sweep_at: usize,
}

impl Watchers {
    pub fn watch(&mut self, batch: BatchId, known: Option<&Snapshot>) -> watch::Receiver<Progress> {
        if self.senders.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.senders.retain(|_, sender| sender.receiver_count() > 0);
            self.sweep_at = self.senders.len() * 2;
        }
        let sender = self.senders.entry(batch).or_default();
        let receiver = sender.subscribe();
        if let Some(known) = known {
            sender.send_if_modified(|progress| progress.merge(&known.event()));
            if known.done {
                self.senders.remove(&batch);
            }
        }
        receiver
    }

    pub fn change(&mut self, batch: BatchId, change: impl FnOnce(&mut Progress) -> bool) {
        if let Some(sender) = self.senders.get(&batch) {
            sender.send_if_modified(change);
        }
    }

    pub fn merge(&mut self, event: &Event) {
        self.change(event.id, |progress| progress.merge(event));
    }

    /// Watchers keep the last they were told.
    pub fn forget(&mut self, batch: BatchId) {
        self.senders.remove(&batch);
    }

    pub fn batches(&self) -> Vec<BatchId> {
        self.senders.iter().filter(|(_, sender)| sender.receiver_count() > 0).map(|(batch, _)| *batch).collect()
    }
}
