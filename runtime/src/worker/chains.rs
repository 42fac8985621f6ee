//! Chained batches are made when those that they come after have ended, by any worker.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::patience::Pauses;
use super::{Worker, WorkerError};
use crate::status::Snapshot;
use crate::store::ChainEnd;

/// Ends of batches are heard of. Those that are missed are looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// Makes rows of chained batches, until the worker has stopped.
    pub(super) async fn advance_chains(self: Arc<Worker>, stopped: CancellationToken) {
        let mut pauses = Pauses::default();
        loop {
            let woken = self.chain_wake.notified();
            let pause = match self.advance_chain().await {
                Ok(true) => {
                    pauses = Pauses::default();
                    Duration::ZERO
                }
                Ok(false) => {
                    pauses = Pauses::default();
                    LOOK_EVERY
                }
                Err(error) => {
                    self.report("cannot make rows of a chained batch", error);
                    pauses.next()
                }
            };
            tokio::select! {
                () = stopped.cancelled() => return,
                () = woken => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether there may be more to do.
    async fn advance_chain(&self) -> Result<bool, WorkerError> {
        let Some(step) = self.store.advance_chain().await? else { return Ok(false) };
        let lane = self.lane(step.kind);
        match (step.end, step.batch) {
            (ChainEnd::Queued, Some(id)) => {
                self.status.publish(Snapshot::of(&self.store.read_batch(id).await?));
                lane.wake.notify_one();
            }
            (ChainEnd::Aborted, Some(id)) => self.follow_abort(id).await?,
            _ => {}
        }
        Ok(true)
    }
}
