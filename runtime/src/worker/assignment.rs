//! What a worker knows of the batches it runs rows of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::Worker;
use crate::grants::Granter;
use crate::model::{App, Batch, BatchId, Grants, Limits};
use crate::sandbox::{Capabilities, Processor};
use crate::status::Snapshot;
use crate::store::StoreError;

/// When it knows so many, it forgets those that it does not run at the moment.
const KNOWN_MAX: usize = 1_000;

/// A batch that this worker runs rows of, what one row of it may use, and what it may reach.
pub(super) struct Assignment {
    pub batch: Batch,
    pub limits: Limits,
    granted: Mutex<Arc<Granted>>,
    /// The end of one of its leases may let another be claimed.
    pub is_limited: bool,
}

/// What the batch's app was granted, as it was last seen.
struct Granted {
    grants: Grants,
    /// Made when they are first needed: secrets and the like are read once.
    capabilities: OnceCell<Arc<Capabilities>>,
}

impl Granted {
    fn new(grants: Grants) -> Arc<Granted> {
        Arc::new(Granted { grants, capabilities: OnceCell::new() })
    }
}

impl Assignment {
    /// What guests of the batch's app get, if this processor imports nothing that is not granted. What was granted when the worker last looked counts, which it does with each lease.
    ///
    /// # Errors
    /// A sentence for its rows.
    pub async fn capabilities(&self, granter: &Granter, processor: &Processor) -> Result<Arc<Capabilities>, String> {
        let granted = self.granted();
        processor.check_grants(&self.batch.app, &granted.grants).map_err(|error| error.to_string())?;
        let make = async || granter.capabilities(&self.batch.app, &granted.grants).await.map(Arc::new);
        granted.capabilities.get_or_try_init(make).await.map(Arc::clone)
    }

    /// Whether a guest that was made with these has what is granted now.
    pub fn is_current(&self, capabilities: &Arc<Capabilities>) -> bool {
        self.granted().capabilities.get().is_some_and(|current| Arc::ptr_eq(current, capabilities))
    }

    pub fn grants_something(&self) -> bool {
        !self.granted().grants.is_empty()
    }

    fn granted(&self) -> Arc<Granted> {
        Arc::clone(&self.granted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what the app is granted now.
    fn regrant(&self, app: Option<&App>) {
        let nothing = Grants::default();
        let grants = app.map_or(&nothing, |app| &app.grants);
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if granted.grants != *grants {
            *granted = Granted::new(grants.clone());
        }
    }
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
    /// What does not change about a batch, read once; and what its app is granted now.
    pub(super) async fn assignment(&self, id: BatchId) -> Result<Arc<Assignment>, StoreError> {
        if let Some(assignment) = self.assignments.get(id) {
            assignment.regrant(self.store.read_app(&assignment.batch.app).await?.as_ref());
            return Ok(assignment);
        }
        let batch = self.store.read_batch(id).await?;
        let app = self.store.read_app(&batch.app).await?;
        Ok(self.assign(batch, app))
    }

    /// The same, where it came with a lease.
    pub(super) fn assign(&self, batch: Batch, app: Option<App>) -> Arc<Assignment> {
        if let Some(assignment) = self.assignments.get(batch.id) {
            assignment.regrant(app.as_ref());
            return assignment;
        }
        self.status.publish(Snapshot::of(&batch));
        let is_limited = app.as_ref().is_some_and(|app| app.running_max.is_some());
        let granted = Mutex::new(Granted::new(app.as_ref().map(|app| app.grants.clone()).unwrap_or_default()));
        let assignment = Arc::new(Assignment { batch, limits: self.limits_of(app), granted, is_limited });
        self.assignments.insert(Arc::clone(&assignment));
        assignment
    }

    fn limits_of(&self, app: Option<App>) -> Limits {
        self.settings.limits_of(app.and_then(|app| app.limits))
    }
}
