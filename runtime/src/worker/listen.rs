//! What happens elsewhere wakes the worker, and stops what is no longer wanted.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::model::ProcessorKind;
use crate::store::StoreEvent;

impl Worker {
    /// Follows the store's events until the worker has stopped.
    pub(super) async fn listen(self: Arc<Worker>, stopped: CancellationToken) {
        let mut events = self.store.events();
        loop {
            let event = tokio::select! {
                () = stopped.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(StoreEvent::Submitted { app, kind }) => {
                    self.make_room(&app, kind);
                    self.lane(kind).wake.notify_one();
                }
                Ok(StoreEvent::Work(kind)) => {
                    self.lane(kind).finish_wake.notify_one();
                    self.lane(kind).wake.notify_one();
                    self.chain_wake.notify_one();
                }
                Ok(StoreEvent::Aborted(id)) => self.held.cancel_batch(id),
                Ok(StoreEvent::Final(_)) => self.chain_wake.notify_one(),
                // What was missed may have been anything; aborted batches show at the next heartbeat.
                Err(RecvError::Lagged(_)) => self.wake(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// When all slots are taken, other apps give back what they have not run: the next claim decides who has the slots. Within an app it would decide as before.
    fn make_room(&self, app: &str, kind: ProcessorKind) {
        if kind == ProcessorKind::Batch && self.batches.slots.available_permits() == 0 && self.held.ask_to_yield(app) {
            self.batches.calm_down();
        }
    }

    pub(super) fn lane(&self, kind: ProcessorKind) -> &super::Lane {
        match kind {
            ProcessorKind::Batch => &self.batches,
            ProcessorKind::SlowQuery => &self.queries,
        }
    }
}
