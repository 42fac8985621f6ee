//! What a worker does when the store or the object store fails.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Worker, WorkerError};
use crate::store::StoreError;

const PAUSE_LEAST: Duration = Duration::from_millis(50);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// Pauses between tries, each twice as long as the one before.
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses(PAUSE_LEAST)
    }
}

impl Pauses {
    pub fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MOST);
        pause
    }
}

impl Worker {
    /// A failure that only costs time, when this worker outlasts failures; else it ends.
    pub(super) fn report(&self, consequence: &str, error: WorkerError) {
        if self.settings.outlasts_failures {
            tracing::warn!("the worker {consequence}: {:#}", anyhow::Error::from(error));
        } else {
            self.give_up(error);
        }
    }

    /// Asks the store again while it fails, until this is cancelled: what has run is not thrown away because the database restarts.
    ///
    /// A failed answer does not tell whether the store did it. What is asked here is refused the second time, so nothing is done twice.
    pub(super) async fn insist<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        cancel: &CancellationToken,
        consequence: &str,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let mut pauses = Pauses::default();
        loop {
            match ask().await {
                Err(error @ StoreError::Failed { .. }) if self.settings.outlasts_failures && !cancel.is_cancelled() => {
                    self.report(consequence, error.into());
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = tokio::time::sleep(pauses.next()) => {}
                    }
                }
                answer => return answer,
            }
        }
    }
}
