//! Where guests run. This is the only room that knows wasmtime, and it knows neither the database nor HTTP: a component and an input go in, an
//! [`Ending`](crate::model::Ending) comes out.

mod bindings;
mod cache;
mod capabilities;
mod check;
mod child;
mod compile;
mod contract;
mod debug;
mod ending;
mod engine;
mod evict;
mod guest;
mod http;
mod inspect;
mod key;
mod key_value;
mod lift;
mod limiter;
mod load;
mod log;
mod mask;
mod objects;
mod output_files;
mod places;
mod poll;
mod scripts;
mod session;
mod sql;
mod trial;
mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use self::cache::CompiledCache;
use self::guest::GuestState;
use crate::model::{show_time, visible};

pub use capabilities::{Capabilities, Directory};
pub use check::{CheckError, CheckSession, CheckSpec, CheckedFile, Checker, Finding};
pub use child::serve_compiler;
pub use compile::CompilerSettings;
pub use guest::ProgressSink;
pub use http::{Http, HttpBody, HttpCapability, HttpFailure, HttpFailureKind, HttpTimes};
pub use key_value::KeyValue;
pub use load::{Interface, Processor};
pub use mask::Masks;
pub use objects::{ObjectInfo, Objects, ObjectsFailure};
pub use output_files::{FileBytes, Marking, OutputFiles};
pub use session::{MarkRun, Session, SessionSpec};
pub use sql::{Sql, SqlFailure, SqlValue};
pub use turns::Turns;

// What limits may allow, the engine has room for.
const _: () = assert!(engine::MEMORY_MAX_BYTES as u64 == crate::model::Limits::MEMORY_MAX_BYTES);

/// Loads processors. One per process; cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<GuestState>,
    cache: CompiledCache,
    compiler: CompilerSettings,
    trials: Semaphore,
}

/// What a sandbox is made with.
#[derive(Clone)]
pub struct SandboxSettings {
    /// Live instances at a time, at most.
    pub instances: u32,
    /// Where compiled code is kept: a directory of this user's alone.
    pub cache_directory: PathBuf,
    /// Bytes of compiled code that are kept there. The least recently used code is removed first; code that was just compiled is kept, whatever its size.
    pub cache_max_bytes: u64,
    /// A key that the processes of an installation share, by which they know compiled code as their own; none for one that is made once and kept in the cache. Whoever has it can make code that is run as
    /// it is.
    pub key: Option<Vec<u8>>,
    pub compiler: CompilerSettings,
}

impl SandboxSettings {
    /// Compiled code that is kept by default: that of some fifty processors in Python, or of some thousands in Rust.
    pub const CACHE_MAX_BYTES: u64 = 2 << 30;

    /// Uploads are compiled in this process, with a key of the cache's own.
    pub fn new(instances: u32, cache_directory: impl Into<PathBuf>) -> SandboxSettings {
        SandboxSettings {
            instances,
            cache_directory: cache_directory.into(),
            cache_max_bytes: SandboxSettings::CACHE_MAX_BYTES,
            key: None,
            compiler: CompilerSettings::default(),
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the WebAssembly engine cannot be made: {0}")]
    Engine(String),
    #[error("the directory for compiled processors, {directory}, cannot be used")]
    Cache {
        directory: String,
        #[source]
        source: std::io::Error,
    },
}

/// Why a file is not a processor. The text says what was expected and what was found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    #[error("this file has {found} {what}, and may have {limit}")]
    TooLarge { what: &'static str, found: u64, limit: u64 },
    #[error("this is not a WebAssembly file: it {begins}")]
    NotWasm { begins: String },
    #[error(
        "this is a core module that does not carry its WIT, so nobody can tell what it takes and returns: build it with wit-bindgen, or make a component of it \
         (wasm-tools component embed, then wasm-tools component new)"
    )]
    CoreModuleWithoutWit,
    #[error("this WebAssembly file is not valid, or needs a feature that is not offered: {0}")]
    Invalid(String),
    #[error(
        "this component is no processor: it should export rowmill:jobs/batch@0.1.0 (for rows) or rowmill:jobs/slow-query@0.1.0 (for queries), but exports {exports}"
    )]
    OtherWorld { exports: String },
    #[error("this component exports both rowmill:jobs/batch@0.1.0 and rowmill:jobs/slow-query@0.1.0: a processor is one of the two")]
    BothWorlds,
    #[error("this component is no checker of files: it should export rowmill:jobs/file-check@0.1.0, but exports {exports}")]
    NoChecker { exports: String },
    #[error("this component imports what no processor is given: {imports}")]
    UnknownImport { imports: String },
    #[error("this component imports what app {app:?} was not granted: {missing}")]
    NotGranted { app: String, missing: String },
    #[error("this component has more than one memory that is not empty, and a processor has one: components cannot be put together in one")]
    SecondMemory,
    #[error("this component does not fit the interfaces of rowmill:jobs@0.1.0: {0}; build it with the wit directory of this version")]
    Mismatch(String),
    #[error(
        "this processor cannot start: {reason} (it was started without grants, and with the context {{}}; to register it as it is: rowmill deploy --force)"
    )]
    CannotStart { reason: String },
    #[error("this file cannot be compiled: the compiler needed more memory than it may have ({} MiB)", limit >> 20)]
    CompilerMemory { limit: u64 },
    /// It may be the machine that is busy.
    #[error("this file cannot be compiled: the compiler needed more time than it may have ({})", show_time(*time_max))]
    CompilerLate { time_max: Duration },
    #[error("this file cannot be compiled: the compiler {how}")]
    CompilerCrashed { how: String },
    /// Whatever the file is.
    #[error("nothing can be compiled now: {reason}")]
    NoCompiler { reason: String },
}

impl LoadError {
    /// It says nothing about the file: it may be taken another time.
    pub fn may_pass(&self) -> bool {
        matches!(self, LoadError::NoCompiler { .. } | LoadError::CompilerLate { .. })
    }

    /// As it can be told: what it repeats of the file, names among it, is whatever its author wrote, and as long.
    fn shown(self) -> LoadError {
        let line = |text: String| ending::cut(visible(&text).replace(['\n', '\t'], " "));
        match self {
            LoadError::Invalid(reason) => LoadError::Invalid(line(reason)),
            LoadError::OtherWorld { exports } => LoadError::OtherWorld { exports: line(exports) },
            LoadError::NoChecker { exports } => LoadError::NoChecker { exports: line(exports) },
            LoadError::UnknownImport { imports } => LoadError::UnknownImport { imports: line(imports) },
            LoadError::Mismatch(reason) => LoadError::Mismatch(line(reason)),
            LoadError::CannotStart { reason } => LoadError::CannotStart { reason: line(reason) },
            other => other,
        }
    }
}

impl Sandbox {
    /// Makes the engine, for at most `instances` live instances at a time, and opens the cache of compiled code in `cache_directory`. Uploads are compiled in this process: a program that takes
    /// uploads from strangers should name a compiler ([`Sandbox::open`], [`CompilerSettings::program`]).
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn new(instances: u32, cache_directory: &Path) -> Result<Sandbox, SandboxError> {
        Sandbox::open(SandboxSettings::new(instances, cache_directory))
    }

    /// The same, with all that can be said.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn open(settings: SandboxSettings) -> Result<Sandbox, SandboxError> {
        let SandboxSettings { instances, cache_directory, cache_max_bytes, key, compiler } = settings;
        let engine = engine::make_engine(instances.saturating_add(trial::AT_ONCE)).map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let linker = load::make_linker(&engine).map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let cache = CompiledCache::open(&cache_directory, &engine, key.as_deref(), cache_max_bytes)
            .map_err(|source| SandboxError::Cache { directory: cache_directory.display().to_string(), source })?;
        Ok(Sandbox(Arc::new(Inner { engine, linker, cache, compiler, trials: Semaphore::new(trial::AT_ONCE as usize) })))
    }

    /// Looks at a component, or a core module that carries its WIT, compiles and checks it; takes compiled code from the cache when it is there. Blocks: compiling
    /// takes 0.1 s for a Rust guest, and up to half a minute for Python. Of all who load the same upload on this machine at the same time one compiles it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self, wasm: &[u8]) -> Result<Processor, LoadError> {
        load::load(&self.0, wasm).map_err(LoadError::shown)
    }

    /// Returns true if the cache has compiled code of an upload. Another process may remove it, and the
    /// code may be refused when it is loaded.
    pub fn has_compiled(&self, wasm: &[u8]) -> bool {
        self.0.cache.has(&load::digest_of(wasm))
    }

    /// Whether an upload of so many bytes is taken: for those who look for its compiled code first.
    ///
    /// # Errors
    /// [`LoadError::TooLarge`].
    pub fn check_size(&self, bytes: usize) -> Result<(), LoadError> {
        inspect::check_size(bytes, self.0.compiler.upload_max_bytes)
    }

    /// SHA-256 of an upload, in hexadecimal: what its processor and its compiled code are known by.
    pub fn digest(wasm: &[u8]) -> String {
        load::digest_of(wasm)
    }

    /// A processor whose compiled code is in the cache, by the SHA-256 of its upload. None when it is not there.
    ///
    /// # Errors
    /// [`LoadError`], as for [`Sandbox::load`].
    pub fn load_compiled(&self, digest: &str) -> Option<Result<Processor, LoadError>> {
        load::load_compiled(&self.0, digest).map(|loaded| loaded.map_err(LoadError::shown))
    }

    /// A processor from compiled code that another process of this installation sealed ([`Sandbox::sealed`]), which is put into the cache. None when it was not made with this installation's key
    /// for this upload and this engine: then it is not run.
    ///
    /// # Errors
    /// [`LoadError`], as for [`Sandbox::load`].
    pub fn load_sealed(&self, digest: &str, sealed: &[u8]) -> Option<Result<Processor, LoadError>> {
        load::load_sealed(&self.0, digest, sealed).map(|loaded| loaded.map_err(LoadError::shown))
    }

    /// The compiled code of an upload from the cache, for other processes of this installation. None when it is not there, or when this process shares its key with nobody.
    pub fn sealed(&self, digest: &str) -> Option<Vec<u8>> {
        if self.shares_code() { self.0.cache.read_sealed(digest) } else { None }
    }

    /// Other processes have the same key, so that compiled code can be theirs.
    pub fn shares_code(&self) -> bool {
        self.0.cache.key_is_shared
    }

    /// Uploads that may be compiled at the same time. It is for the callers to keep to it.
    pub fn compiles_at_once(&self) -> u32 {
        self.0.compiler.at_once
    }

    /// What compiled code is for: the versions of wasmtime and of this library, settings, and what the processor of this machine can do. Code for another is not loaded.
    pub fn engine_hash(&self) -> &str {
        self.0.cache.engine_hash()
    }

    /// Looks at a checker of files, compiles and checks it, as [`Sandbox::load`] does with a processor.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_checker(&self, wasm: &[u8]) -> Result<Checker, LoadError> {
        check::load(&self.0, wasm).map_err(LoadError::shown)
    }
}
