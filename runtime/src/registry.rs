//! Which processor serves which app and operation.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::model::{Batch, Limits};
use crate::sandbox::Processor;

/// A processor with what its rows may use.
#[derive(Clone)]
pub struct Registered {
    pub processor: Processor,
    pub limits: Limits,
}

/// An app, an operation in lower case, and a version. Kept apart: joined into one text, ("ab", "c") and ("a", "bc") would be the same.
type Key = (String, String, u32);

/// The processors that this process has loaded.
#[derive(Default)]
pub struct Registry(RwLock<HashMap<Key, Registered>>);

impl Registry {
    /// Registers a version. Returns false, and changes nothing, when there is one already.
    pub fn register(&self, app: &str, op: &str, version: u32, registered: Registered) -> bool {
        let mut processors = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match processors.entry((app.to_owned(), op.to_lowercase(), version)) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(registered);
                true
            }
        }
    }

    /// The processor with which a batch was submitted.
    ///
    /// # Errors
    /// A sentence for the rows of the batch, when there is none or it does not fit.
    pub fn find(&self, batch: &Batch) -> Result<Registered, String> {
        let (app, op, version) = (&batch.app, &batch.op, batch.processor_version);
        let processors = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = processors.get(&(app.clone(), op.clone(), version));
        let registered = found.ok_or_else(|| format!("there is no processor for app {app:?}, operation {op:?}, version {version}"))?;
        if registered.processor.digest != batch.processor_digest {
            return Err(format!("version {version} of app {app:?}, operation {op:?} is other code than the batch was submitted with"));
        }
        if registered.processor.kind() != batch.kind {
            return Err(format!("the processor of app {app:?}, operation {op:?} is of the other kind: {}", registered.processor.kind().as_str()));
        }
        Ok(registered.clone())
    }
}
