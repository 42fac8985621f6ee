//! The version that serves the slow queries of an operation is remembered from one slow query to the next. The store refuses a query that was made with a version or
//! terms that are out of date, and then the store is asked.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{JobError, JobManager};
use crate::model::{FoundOp, ProcessorKind, canonical_op};
use crate::store::find_served;

/// With more than these it begins anew.
const KNOWN_MAX: usize = 1_000;

#[derive(Default)]
pub(super) struct KnownOps(Mutex<HashMap<(String, String), FoundOp>>);

impl KnownOps {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), FoundOp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobManager {
    /// Finds the version of a kind that serves what is submitted now, and the terms that the policies give it.
    pub(super) async fn find_op(&self, app: &str, op: &str, kind: ProcessorKind) -> Result<FoundOp, JobError> {
        let app = &*self.check_app(app)?;
        Ok(find_served(&*self.shared.store, app, op, kind).await??)
    }

    /// The same for a slow query, as it was some time before; none that is not known to have been.
    pub(super) fn known_op(&self, app: &str, op: &str) -> Option<FoundOp> {
        let app = self.check_app(app).ok()?.into_owned();
        self.shared.ops.lock().get(&(app, canonical_op(op))).cloned()
    }

    /// The same, as it is now, and remembered.
    pub(super) async fn learn_op(&self, app: &str, op: &str) -> Result<FoundOp, JobError> {
        let app = &*self.check_app(app)?;
        let found = self.find_op(app, op, ProcessorKind::SlowQuery).await?;
        let mut known = self.shared.ops.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert((app.to_owned(), found.version.op.clone()), found.clone());
        Ok(found)
    }
}
