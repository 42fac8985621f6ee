//! Code of processors, by its digest: loaded once per process, from the cache of compiled code or from the object store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::blobs::{BlobError, Blobs};
use crate::model::Batch;
use crate::sandbox::{Checker, LoadError, Processor, Sandbox};

/// Loaded at the same time, at most. The one that was not used for the longest time makes room.
const LOADED_MAX: usize = 200;

/// Why the code of a batch cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A sentence for the rows of the batch: it will not get better by itself.
    #[error("{0}")]
    Unusable(String),
    /// The object store failed; it may come back.
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

struct Entry {
    code: Arc<OnceCell<Processor>>,
    used_at: Instant,
}

/// The processors that this process has loaded, and where the others are. One per process.
pub struct Registry {
    sandbox: Sandbox,
    blobs: Blobs,
    loaded: Mutex<HashMap<String, Entry>>,
}

impl Registry {
    pub fn new(sandbox: Sandbox, blobs: Blobs) -> Registry {
        Registry { sandbox, blobs, loaded: Mutex::default() }
    }

    /// Keeps a processor that was loaded already.
    pub fn add(&self, processor: Processor) {
        let digest = processor.digest.clone();
        // It may be there: then it is the same code.
        let _ = self.entry(&digest).set(processor);
    }

    /// Stores the code of a processor that was loaded from it, so that every process can run it.
    ///
    /// # Errors
    /// [`BlobError`]; nothing is stored then.
    pub async fn store(&self, processor: Processor, wasm: Bytes) -> Result<(), BlobError> {
        self.blobs.put(&object_of(&processor.digest), wasm).await?;
        self.add(processor);
        Ok(())
    }

    /// The processor with which a batch was submitted.
    ///
    /// # Errors
    /// [`FindError`].
    pub async fn find(&self, batch: &Batch) -> Result<Processor, FindError> {
        let (app, op, version) = (&batch.app, &batch.op, batch.processor_version);
        let unusable = |problem: String| FindError::Unusable(format!("version {version} of app {app:?}, operation {op:?} cannot be run: {problem}"));
        let code = self.entry(&batch.processor_digest);
        // Others who want the same code wait, instead of compiling it too.
        let processor = code.get_or_try_init(|| self.fetch(&batch.processor_digest)).await.map_err(|error| match error {
            FindError::Unusable(problem) => unusable(problem),
            error => error,
        })?;
        if processor.kind() != batch.kind {
            return Err(unusable(format!("its code is of the other kind: {}", processor.kind().as_str())));
        }
        Ok(processor.clone())
    }

    async fn fetch(&self, digest: &str) -> Result<Processor, FindError> {
        let unusable = |error: LoadError| FindError::Unusable(error.to_string());
        let (sandbox, wanted) = (self.sandbox.clone(), digest.to_owned());
        if let Some(loaded) = blocking(move || sandbox.load_compiled(&wanted)).await {
            return loaded.map_err(unusable);
        }
        let object = object_of(digest);
        let wasm = self.blobs.get(&object).await.map_err(|error| {
            if error.is_not_found() { FindError::Unusable(format!("its code, {object}, is not in the object store")) } else { error.into() }
        })?;
        let processor = self.load(wasm).await.map_err(unusable)?;
        if processor.digest != digest {
            return Err(FindError::Unusable(format!("what is stored as {object} is other code")));
        }
        Ok(processor)
    }

    /// Checks and compiles a component, which takes from a tenth of a second to half a minute.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, wasm: Bytes) -> Result<Processor, LoadError> {
        let sandbox = self.sandbox.clone();
        blocking(move || sandbox.load(&wasm)).await
    }

    /// The same for a checker of files.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load_checker(&self, wasm: Bytes) -> Result<Checker, LoadError> {
        let sandbox = self.sandbox.clone();
        blocking(move || sandbox.load_checker(&wasm)).await
    }

    fn entry(&self, digest: &str) -> Arc<OnceCell<Processor>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = loaded.get_mut(digest) {
            entry.used_at = Instant::now();
            return Arc::clone(&entry.code);
        }
        if loaded.len() >= LOADED_MAX
            && let Some(oldest) = loaded.iter().min_by_key(|(_, entry)| entry.used_at).map(|(digest, _)| digest.clone())
        {
            loaded.remove(&oldest);
        }
        let code = Arc::new(OnceCell::new());
        loaded.insert(digest.to_owned(), Entry { code: Arc::clone(&code), used_at: Instant::now() });
        code
    }
}

/// Where the code of a processor is kept.
fn object_of(digest: &str) -> String {
    format!("processors/{digest}.wasm")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
