//! What a worker knows of the batches it runs rows of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Worker;
use crate::model::{App, Batch, BatchId, Limits};
use crate::status::Snapshot;
use crate::store::StoreError;

/// When it knows so many, it forgets those that it does not run at the moment.
const KNOWN_MAX: usize = 1_000;

/// A batch that this worker runs rows of, and what one row of it may use.
pub(super) struct Assignment {
    pub batch: Batch,
    pub limits: Limits,
    /// The end of one of its leases may let another be claimed.
    pub is_limited: bool,
}

#[derive(Default)]
pub(super) struct Assignments(Mutex<HashMap<BatchId, Arc<Assignment>>>);

impl Assignments {
    fn lock(&self) -> MutexGuard<'_, HashMap<BatchId, Arc<Assignment>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn forget(&self, id: BatchId) {
        self.lock().remove(&id);
    }

    pub fn get(&self, id: BatchId) -> Option<Arc<Assignment>> {
        self.lock().get(&id).map(Arc::clone)
    }

    fn insert(&self, assignment: Arc<Assignment>) {
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, assignment| Arc::strong_count(assignment) > 1);
        }
        known.insert(assignment.batch.id, assignment);
    }
}

impl Worker {
    /// What does not change about a batch, read once.
    pub(super) async fn assignment(&self, id: BatchId) -> Result<Arc<Assignment>, StoreError> {
        if let Some(assignment) = self.assignments.get(id) {
            return Ok(assignment);
        }
        let batch = self.store.read_batch(id).await?;
        let app = self.store.read_app(&batch.app).await?;
        Ok(self.assign(batch, app))
    }

    /// The same, where it came with a lease.
    pub(super) fn assign(&self, batch: Batch, app: Option<App>) -> Arc<Assignment> {
        if let Some(assignment) = self.assignments.get(batch.id) {
            return assignment;
        }
        self.status.publish(Snapshot::of(&batch));
        let is_limited = app.as_ref().is_some_and(|app| app.running_max.is_some());
        let assignment = Arc::new(Assignment { batch, limits: self.limits_of(app), is_limited });
        self.assignments.insert(Arc::clone(&assignment));
        assignment
    }

    /// What one call for an app may use.
    pub(super) async fn limits(&self, app: &str) -> Result<Limits, StoreError> {
        Ok(self.limits_of(self.store.read_app(app).await?))
    }

    fn limits_of(&self, app: Option<App>) -> Limits {
        self.settings.limits_of(app.and_then(|app| app.limits))
    }
}
