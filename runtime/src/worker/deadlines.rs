//! Batches are aborted when their deadline passes, by any worker. What rows used is summed up on the way.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::patience::Pauses;
use super::{Worker, WorkerError};

/// Deadlines may be set elsewhere: they are looked for at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two times that usage is summed up: what is read in between sums up more by itself.
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// And not more often than this, though another may be about to abort what is overdue.
const LOOK_LEAST: Duration = Duration::from_millis(10);

impl Worker {
    /// Aborts batches whose deadline has passed, until the worker has stopped.
    pub(super) async fn abort_overdue(self: Arc<Worker>, stopped: CancellationToken) {
        let mut pauses = Pauses::default();
        loop {
            let pause = match self.abort_overdue_once().await {
                Ok(next) => {
                    pauses = Pauses::default();
                    next.map_or(LOOK_EVERY, |next| next.clamp(LOOK_LEAST, LOOK_EVERY))
                }
                Err(error) => {
                    self.report("cannot look for deadlines", error);
                    pauses.next()
                }
            };
            tokio::select! {
                () = stopped.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sums up what records appended, now and then, until the worker has stopped.
    pub(super) async fn fold_usage(self: Arc<Worker>, stopped: CancellationToken) {
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = tokio::time::sleep(FOLD_EVERY) => {}
            }
            self.warm.end_old();
            if let Err(error) = self.store.fold_usage().await {
                // The next one, here or elsewhere, finds the same and more.
                self.report("cannot sum up usage", error.into());
            }
        }
    }

    async fn abort_overdue_once(&self) -> Result<Option<Duration>, WorkerError> {
        let overdue = self.store.abort_overdue().await?;
        for id in overdue.aborted {
            tracing::info!(batch = %id, "aborted: its time is up");
            self.follow_abort(id).await?;
        }
        Ok(overdue.next)
    }
}
