//! How far batches are, for those who wait: kept in the process, and never asked of the database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::model::{BatchCounts, BatchId};

/// What is known of a batch at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub counts: BatchCounts,
    /// A slow query's own word about it: 0 to 100, and a text.
    pub said: Option<(u8, String)>,
    /// The status and the files are final, and `mark-done` was called.
    pub done: bool,
}

/// The progress of the batches that this process works on.
#[derive(Default)]
pub struct StatusBoard(Mutex<HashMap<BatchId, watch::Sender<Progress>>>);

impl StatusBoard {
    /// Follows a batch from now on.
    pub fn watch(&self, batch: BatchId) -> watch::Receiver<Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(batch).or_default().subscribe()
    }

    /// Counts after a record. Records of one batch may arrive here out of order; counts only grow, so the larger ones are the newer.
    pub fn publish_counts(&self, batch: BatchId, counts: BatchCounts) {
        self.publish(batch, |progress| {
            let ended = |counts: &BatchCounts| counts.success + counts.failed + counts.aborted;
            let newer = ended(&counts) > ended(&progress.counts);
            if newer {
                progress.counts = counts;
            }
            newer
        });
    }

    /// A slow query's own word.
    pub fn publish_said(&self, batch: BatchId, percent: u8, text: String) {
        self.publish(batch, |progress| {
            progress.said = Some((percent, text));
            true
        });
    }

    /// Nothing remains to be done. The batch is forgotten when the last watcher has gone.
    pub fn publish_done(&self, batch: BatchId) {
        self.publish(batch, |progress| {
            progress.done = true;
            true
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
    }

    fn publish(&self, batch: BatchId, change: impl FnOnce(&mut Progress) -> bool) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&batch) {
            sender.send_if_modified(change);
        }
    }
}
