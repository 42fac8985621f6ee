use tokio::sync::broadcast;

use crate::model::{BatchId, ProcessorKind};

/// Events that a slow receiver may be behind before it misses some.
const BEHIND_MAX: usize = 1_024;

/// Something that somebody may wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// A batch of an app can be claimed from now on.
    Submitted { app: String, kind: ProcessorKind },
    /// There may be something to claim or to finish.
    Work(ProcessorKind),
    /// A batch was aborted: its guests are to be stopped.
    Aborted(BatchId),
    /// The status and the files of a batch are final.
    Final(BatchId),
}

/// Hands events to those who listen in this process.
#[derive(Clone, Debug)]
pub(super) struct Events(broadcast::Sender<StoreEvent>);

impl Events {
    pub(super) fn new() -> Events {
        Events(broadcast::Sender::new(BEHIND_MAX))
    }

    pub(super) fn tell(&self, event: StoreEvent) {
        // Nobody may be listening.
        let _ = self.0.send(event);
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.0.subscribe()
    }
}
