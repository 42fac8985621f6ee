//! Where guests run. This is the only room that knows wasmtime, and it knows neither the database nor HTTP: a component and an input go in, an
//! [`Ending`](crate::model::Ending) comes out.

mod bindings;
mod cache;
mod capabilities;
mod check;
mod ending;
mod engine;
mod guest;
mod http;
mod key_value;
mod lift;
mod limiter;
mod load;
mod log;
mod mask;
mod session;
mod sql;

use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::Linker;

use self::cache::CompiledCache;
use self::guest::GuestState;

pub use capabilities::{Capabilities, Directory};
pub use check::{CheckError, CheckSession, CheckSpec, CheckedFile, Checker, Finding};
pub use guest::ProgressSink;
pub use http::{Http, HttpBody, HttpCapability, HttpFailure, HttpFailureKind, HttpTimes};
pub use key_value::KeyValue;
pub use load::Processor;
pub use mask::Masks;
pub use session::{Session, SessionSpec};
pub use sql::{Sql, SqlFailure, SqlValue};

// What limits may allow, the engine has room for.
const _: () = assert!(engine::MEMORY_MAX_BYTES as u64 == crate::model::Limits::MEMORY_MAX_BYTES);

/// Loads processors. One per process; cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<GuestState>,
    cache: CompiledCache,
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
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
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
    #[error("this component does not fit the interfaces of rowmill:jobs@0.1.0: {0}")]
    Mismatch(String),
}

impl Sandbox {
    /// Makes the engine, for at most `instances` live instances at a time, and opens the cache of compiled code in `cache_directory`.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn new(instances: u32, cache_directory: &Path) -> Result<Sandbox, SandboxError> {
        let engine = engine::make_engine(instances).map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let linker = load::make_linker(&engine).map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let cache = CompiledCache::open(cache_directory, &engine)
            .map_err(|source| SandboxError::Cache { directory: cache_directory.display().to_string(), source })?;
        Ok(Sandbox(Arc::new(Inner { engine, linker, cache })))
    }

    /// Checks and compiles a component, or a core module that carries its WIT; takes compiled code from the cache when it is there. Blocks: compiling
    /// takes 0.1 s for a Rust guest, and up to half a minute for Python.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self, wasm: &[u8]) -> Result<Processor, LoadError> {
        load::load(&self.0.engine, &self.0.linker, &self.0.cache, wasm)
    }

    /// A processor whose compiled code is in the cache, by the SHA-256 of its upload. None when it is not there.
    ///
    /// # Errors
    /// [`LoadError`], as for [`Sandbox::load`].
    pub fn load_compiled(&self, digest: &str) -> Option<Result<Processor, LoadError>> {
        load::load_compiled(&self.0.engine, &self.0.linker, &self.0.cache, digest)
    }

    /// Checks and compiles a checker of files, as [`Sandbox::load`] does a processor.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_checker(&self, wasm: &[u8]) -> Result<Checker, LoadError> {
        check::load(&self.0.engine, &self.0.linker, &self.0.cache, wasm)
    }
}
