//! Code of processors, by its digest: loaded once per process, from the cache of compiled code or from the object store.

mod turns;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OnceCell;

use self::turns::Turns;
use crate::blobs::{BlobError, Blobs};
use crate::model::{Batch, Limits};
use crate::sandbox::{Checker, LoadError, Processor, Sandbox};

/// Loaded at the same time, at most. The one that was not used for the longest time makes room.
const LOADED_MAX: usize = 200;
/// Compiled code in the object store is no larger; what is, is none.
const SEALED_BYTES_MAX: u64 = 1 << 30;
/// Objects of compiled code for one upload: one for each kind of machine and version that ran it.
const SEALED_OBJECTS_MAX: usize = 1_000;
/// The objects of code that nobody needs are removed within this time. Others may store the same code again after five minutes.
const REMOVE_PATIENCE: Duration = Duration::from_secs(120);

/// Why the code of a batch cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A sentence for the rows of the batch: it will not get better by itself.
    #[error("{0}")]
    Unusable(String),
    /// The object store failed; it may come back.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// It could not be compiled now; another time it may be.
    #[error("a processor cannot be made ready now")]
    Compiler(#[source] LoadError),
}

struct Entry {
    code: Arc<OnceCell<Processor>>,
    used_at: Instant,
}

/// What becomes of an upload, for all that have the same bytes.
type Upload = Arc<OnceCell<Result<Processor, LoadError>>>;

/// The processors that this process has loaded, and where the others are. One per process.
pub struct Registry {
    sandbox: Sandbox,
    blobs: Blobs,
    loaded: Mutex<HashMap<String, Entry>>,
    uploads: Mutex<HashMap<String, Upload>>,
    turns: Turns,
}

impl Registry {
    pub fn new(sandbox: Sandbox, blobs: Blobs) -> Registry {
        let turns = Turns::new(usize::try_from(sandbox.compiles_at_once()).unwrap_or(1));
        Registry { sandbox, blobs, loaded: Mutex::default(), uploads: Mutex::default(), turns }
    }

    /// Keeps a processor that was loaded already.
    pub fn add(&self, processor: Processor) {
        let digest = processor.digest.clone();
        // It may be there: then it is the same code.
        let _ = self.entry(&digest).set(processor);
    }

    /// Starts a processor on trial: [`Sandbox::try_start`].
    ///
    /// # Errors
    /// [`LoadError::CannotStart`].
    pub async fn try_start(&self, processor: &Processor, app: &str, op: &str, limits: &Limits) -> Result<(), LoadError> {
        self.sandbox.try_start(processor, app, op, limits).await
    }

    /// Stores the code of a processor that was loaded from it, so that every process can run it.
    ///
    /// # Errors
    /// [`BlobError`]; nothing is stored then.
    pub async fn store(&self, processor: Processor, wasm: Bytes) -> Result<(), BlobError> {
        self.blobs.put(&object_of(&processor.digest), wasm).await?;
        self.offer(&processor.digest).await;
        self.add(processor);
        Ok(())
    }

    /// Whether the code is in the object store.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn is_stored(&self, digest: &str) -> Result<bool, BlobError> {
        self.blobs.exists(&object_of(digest)).await
    }

    /// Lets other processes of this installation have the compiled code. That they cannot costs them the time to compile it.
    async fn offer(&self, digest: &str) {
        let (sandbox, wanted) = (self.sandbox.clone(), digest.to_owned());
        if let Some(sealed) = blocking(move || sandbox.sealed(&wanted)).await
            && let Err(error) = self.blobs.put(&self.sealed_object(digest), sealed.into()).await
        {
            tracing::warn!(digest, "compiled code is not shared: {:#}", anyhow::Error::from(error));
        }
    }

    /// Removes code that no version has any more from the object store.
    ///
    /// # Errors
    /// [`BlobError`]; some of it may be left.
    pub async fn remove(&self, digest: &str) -> Result<(), BlobError> {
        let removing = async {
            for object in self.blobs.list(&format!("compiled/{digest}/"), SEALED_OBJECTS_MAX).await? {
                self.blobs.delete(&object).await?;
            }
            self.blobs.delete(&object_of(digest)).await
        };
        tokio::time::timeout(REMOVE_PATIENCE, removing).await.unwrap_or_else(|_| Err(BlobError::late("remove code", REMOVE_PATIENCE)))
    }

    /// The processor with which a batch was submitted.
    ///
    /// # Errors
    /// [`FindError`].
    pub async fn find(&self, batch: &Batch) -> Result<Processor, FindError> {
        let (app, op, version) = (&batch.app, &batch.op, batch.processor_version);
        let unusable = |problem: String| FindError::Unusable(format!("version {version} of app {app:?}, operation {op:?} cannot be run: {problem}"));
        let processor = self.fetch(app, &batch.processor_digest).await.map_err(|error| match error {
            FindError::Unusable(problem) => unusable(problem),
            error => error,
        })?;
        if processor.kind() != batch.kind {
            return Err(unusable(format!("its code is of the other kind: {}", processor.kind().as_str())));
        }
        Ok(processor)
    }

    /// A processor by its digest.
    ///
    /// # Errors
    /// [`FindError`].
    pub async fn fetch(&self, app: &str, digest: &str) -> Result<Processor, FindError> {
        let code = self.entry(digest);
        // Others who want the same code wait, instead of compiling it too.
        code.get_or_try_init(|| self.bring(app, digest)).await.cloned()
    }

    /// From the cache, else as others compiled it, else from the upload.
    async fn bring(&self, app: &str, digest: &str) -> Result<Processor, FindError> {
        let unusable = |error: LoadError| if error.may_pass() { FindError::Compiler(error) } else { FindError::Unusable(error.to_string()) };
        if let Some(loaded) = self.load_compiled(digest).await {
            return loaded.map_err(unusable);
        }
        if let Some(loaded) = self.bring_sealed(digest).await {
            return loaded.map_err(unusable);
        }
        let object = object_of(digest);
        let wasm = self.blobs.get(&object).await.map_err(|error| {
            if error.is_not_found() { FindError::Unusable(format!("its code, {object}, is not in the object store")) } else { error.into() }
        })?;
        if digest_of(wasm.clone()).await != digest {
            return Err(FindError::Unusable(format!("what is stored as {object} is other code")));
        }
        let processor = self.compile(app, wasm).await.map_err(unusable)?;
        self.offer(digest).await;
        Ok(processor)
    }

    async fn load_compiled(&self, digest: &str) -> Option<Result<Processor, LoadError>> {
        let (sandbox, wanted) = (self.sandbox.clone(), digest.to_owned());
        blocking(move || sandbox.load_compiled(&wanted)).await
    }

    /// What another process compiled and sealed with the installation's key. An object store that fails is asked for the upload next, and that tells.
    async fn bring_sealed(&self, digest: &str) -> Option<Result<Processor, LoadError>> {
        if !self.sandbox.shares_code() {
            return None;
        }
        let sealed = self.blobs.get_at_most(&self.sealed_object(digest), SEALED_BYTES_MAX).await;
        let sealed = sealed.inspect_err(|error| tracing::debug!(digest, "no compiled code: {error}")).ok()??;
        let (sandbox, wanted) = (self.sandbox.clone(), digest.to_owned());
        blocking(move || sandbox.load_sealed(&wanted, &sealed)).await
    }

    /// Looks at an upload, compiles and checks it, which takes from a tenth of a second to half a minute; or finds that it was compiled before. Those who come with the same bytes meanwhile wait for the
    /// one that came first, and get what it gets.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(&self, app: &str, wasm: Bytes) -> Result<Processor, LoadError> {
        self.sandbox.check_size(wasm.len())?;
        let digest = digest_of(wasm.clone()).await;
        let upload = Arc::clone(self.uploads().entry(digest.clone()).or_default());
        let loaded = upload.get_or_init(|| self.load_first(app, &digest, wasm)).await.clone();
        // What is asked later is asked anew: it may be found in the cache by then, or a failure may have passed.
        let mut uploads = self.uploads();
        if uploads.get(&digest).is_some_and(|known| Arc::ptr_eq(known, &upload)) {
            uploads.remove(&digest);
        }
        loaded
    }

    async fn load_first(&self, app: &str, digest: &str, wasm: Bytes) -> Result<Processor, LoadError> {
        match self.load_compiled(digest).await {
            Some(loaded) => loaded,
            None => self.compile(app, wasm).await,
        }
    }

    async fn compile(&self, app: &str, wasm: Bytes) -> Result<Processor, LoadError> {
        let turn = self.turns.take(app).await;
        let sandbox = self.sandbox.clone();
        blocking(move || {
            let loaded = sandbox.load(&wasm);
            // The turn lasts as long as the compiler, also when nobody waits for it any more.
            drop(turn);
            loaded
        })
        .await
    }

    /// The same for a checker of files.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load_checker(&self, wasm: Bytes) -> Result<Checker, LoadError> {
        let sandbox = self.sandbox.clone();
        blocking(move || sandbox.load_checker(&wasm)).await
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, HashMap<String, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Where the compiled code of an upload is kept for processes like this one.
    fn sealed_object(&self, digest: &str) -> String {
        format!("compiled/{digest}/{}.cwasm", self.sandbox.engine_hash())
    }
}

/// Where the code of a processor is kept.
fn object_of(digest: &str) -> String {
    format!("processors/{digest}.wasm")
}

async fn digest_of(wasm: Bytes) -> String {
    blocking(move || Sandbox::digest(&wasm)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
