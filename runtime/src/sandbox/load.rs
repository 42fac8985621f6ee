//! Checks an uploaded processor and makes it ready to be instantiated.

use std::sync::Arc;

use futures_util::FutureExt;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::{batch, config, key_value, mark_done, objects, slow_query, sql};
use super::compile::compile;
use super::contract;
use super::guest::{GuestState, make_store};
use super::inspect::inspect;
use super::limiter::SecondMemory;
use super::turns::Turns;
use super::{Inner, LoadError, http, poll};
use crate::model::{Capability, Grants, Limits, ProcessorKind, hex};

const BATCH: &str = "rowmill:jobs/batch@0.1.0";
const SLOW_QUERY: &str = "rowmill:jobs/slow-query@0.1.0";
const OURS: [&str; 4] = ["rowmill:jobs/types@0.1.0", "rowmill:jobs/host@0.1.0", "rowmill:jobs/mark@0.1.0", "rowmill:jobs/output-files@0.1.0"];
/// Parts of WASI 0.2 that toolchains import by habit. They are linked, and denied when they are called.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:io/", "wasi:clocks/", "wasi:random/", "wasi:filesystem/", "wasi:sockets/"];

/// What is linked for everyone, and imported only where it is granted. The versions of `wasi:http` 0.2 fit each other.
const GRANTED: [(&str, Capability); 8] = [
    ("rowmill:objects/store@0.1.0", Capability::Objects),
    ("rowmill:sql/query@0.1.0", Capability::Sql),
    ("wasi:config/store@0.2.0-rc.1", Capability::Config),
    ("wasi:http/types@0.2.", Capability::Http),
    ("wasi:http/outgoing-handler@0.2.", Capability::Http),
    ("wasi:keyvalue/store@0.2.0-draft", Capability::KeyValue),
    ("wasi:keyvalue/atomics@0.2.0-draft", Capability::KeyValue),
    ("wasi:keyvalue/batch@0.2.0-draft", Capability::KeyValue),
];

/// A processor that can be instantiated.
#[derive(Clone)]
pub struct Processor {
    /// SHA-256 of the bytes that were uploaded, in hexadecimal.
    pub digest: String,
    pub(super) engine: Engine,
    pub(super) world: World,
    /// What it imports that must be granted.
    needs: Arc<[(String, Capability)]>,
}

#[derive(Clone)]
pub(super) enum World {
    Batch(batch::BatchProcessorPre<GuestState>),
    SlowQuery(slow_query::SlowQueryProcessorPre<GuestState>),
}

impl Processor {
    pub fn kind(&self) -> ProcessorKind {
        match self.world {
            World::Batch(_) => ProcessorKind::Batch,
            World::SlowQuery(_) => ProcessorKind::SlowQuery,
        }
    }

    /// The names of what it imports and exports, in order.
    pub fn interface(&self) -> Interface {
        let component = match &self.world {
            World::Batch(pre) => pre.instance_pre().component(),
            World::SlowQuery(pre) => pre.instance_pre().component(),
        };
        let mut imports: Vec<String> = component.component_type().imports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        let mut exports = exports_of(&self.engine, component);
        imports.sort();
        exports.sort();
        Interface { imports, exports }
    }

    /// Whether it imports something that an app must be granted.
    pub fn needs_grants(&self) -> bool {
        !self.needs.is_empty()
    }

    /// Whether all that it imports is granted to this app.
    ///
    /// # Errors
    /// [`LoadError::NotGranted`], with what is missing and how it is granted.
    pub fn check_grants(&self, app: &str, grants: &Grants) -> Result<(), LoadError> {
        let mut missing: Vec<(Capability, Vec<&str>)> = Vec::new();
        for (import, capability) in self.needs.iter().filter(|(_, capability)| !grants.allow(*capability)) {
            match missing.iter_mut().find(|(other, _)| other == capability) {
                Some((_, imports)) => imports.push(import),
                None => missing.push((*capability, vec![import])),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let told = missing
            .iter()
            .map(|(capability, imports)| format!("{} (an operator grants it: rowmill apps grant {app} {})", imports.join(", "), capability.flags()));
        Err(LoadError::NotGranted { app: app.to_owned(), missing: told.collect::<Vec<_>>().join("; ") })
    }
}

/// What a processor imports and exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// Everything a guest may import, whether or not it is granted.
pub(super) fn make_linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    poll::add_to_linker(&mut linker)?;
    // Both worlds import the same interfaces, so one of them links them all.
    batch::BatchProcessor::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    mark_done::rowmill::jobs::mark::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    mark_done::rowmill::jobs::output_files::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    config::wasi::config::store::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    key_value::wasi::keyvalue::store::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    key_value::wasi::keyvalue::atomics::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    key_value::wasi::keyvalue::batch::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    objects::rowmill::objects::store::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    sql::rowmill::sql::query::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    http::add_to_linker(&mut linker)?;
    Ok(linker)
}

pub(super) fn load(sandbox: &Inner, wasm: &[u8]) -> Result<Processor, LoadError> {
    let (component, digest) = take(sandbox, wasm)?;
    prepare(&sandbox.engine, &sandbox.linker, &component, digest)
}

/// A component's code, from the cache when it is there, else from the compiler; and the digest of its upload.
pub(super) fn take(sandbox: &Inner, wasm: &[u8]) -> Result<(Component, String), LoadError> {
    let Inner { engine, cache, compiler, .. } = sandbox;
    inspect(wasm, compiler.upload_max_bytes)?;
    let digest = digest_of(wasm);
    if let Some(component) = cache.load(engine, &digest) {
        return Ok((component, digest));
    }
    let _compiling = cache.lock(&digest);
    // The one that held the lock before may have compiled it.
    if let Some(component) = cache.load(engine, &digest) {
        return Ok((component, digest));
    }
    let code = compile(compiler, engine, cache.engine_hash(), wasm)?;
    let component = cache.add(engine, &digest, &code).map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
    tracing::info!(digest, upload_bytes = wasm.len(), code_bytes = code.len(), "compiled");
    Ok((component, digest))
}

pub(super) fn digest_of(wasm: &[u8]) -> String {
    hex(&Sha256::digest(wasm))
}

/// A processor whose compiled code is in the cache.
pub(super) fn load_compiled(sandbox: &Inner, digest: &str) -> Option<Result<Processor, LoadError>> {
    let component = sandbox.cache.load(&sandbox.engine, digest)?;
    Some(prepare(&sandbox.engine, &sandbox.linker, &component, digest.to_owned()))
}

/// The same for code that was sealed elsewhere, which is put into the cache. None when it is not this installation's.
pub(super) fn load_sealed(sandbox: &Inner, digest: &str, sealed: &[u8]) -> Option<Result<Processor, LoadError>> {
    let component = sandbox.cache.adopt(&sandbox.engine, digest, sealed)?;
    Some(prepare(&sandbox.engine, &sandbox.linker, &component, digest.to_owned()))
}

/// Checks compiled code, and makes it ready to be instantiated.
fn prepare(engine: &Engine, linker: &Linker<GuestState>, component: &Component, digest: String) -> Result<Processor, LoadError> {
    let kind = find_kind(engine, component)?;
    let needs = check_imports(engine, component)?;
    let contract_world = match kind {
        ProcessorKind::Batch => "batch-processor",
        ProcessorKind::SlowQuery => "slow-query-processor",
    };
    contract::compare(engine, component, contract_world).map_err(LoadError::Mismatch)?;
    let mismatch = |error: wasmtime::Error| LoadError::Mismatch(format!("{error:#}"));
    let pre: InstancePre<GuestState> = linker.instantiate_pre(component).map_err(mismatch)?;
    check_memories(engine, &pre)?;
    let world = match kind {
        ProcessorKind::Batch => World::Batch(batch::BatchProcessorPre::new(pre).map_err(mismatch)?),
        ProcessorKind::SlowQuery => World::SlowQuery(slow_query::SlowQueryProcessorPre::new(pre).map_err(mismatch)?),
    };
    Ok(Processor { digest, engine: engine.clone(), world, needs: needs.into() })
}

fn find_kind(engine: &Engine, component: &Component) -> Result<ProcessorKind, LoadError> {
    let exports = exports_of(engine, component);
    let has = |wanted: &str| exports.iter().any(|name| name == wanted);
    match (has(BATCH), has(SLOW_QUERY)) {
        (true, false) => Ok(ProcessorKind::Batch),
        (false, true) => Ok(ProcessorKind::SlowQuery),
        (true, true) => Err(LoadError::BothWorlds),
        (false, false) => Err(LoadError::OtherWorld { exports: list(&exports) }),
    }
}

pub(super) fn exports_of(engine: &Engine, component: &Component) -> Vec<String> {
    component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect()
}

/// Names for people.
pub(super) fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// What it imports that must be granted.
pub(super) fn check_imports(engine: &Engine, component: &Component) -> Result<Vec<(String, Capability)>, LoadError> {
    let allowed = |name: &str| OURS.contains(&name) || (WASI.iter().any(|part| name.starts_with(part)) && name.contains("@0.2."));
    let (mut needs, mut refused) = (Vec::new(), Vec::new());
    for (name, _) in component.component_type().imports(engine) {
        match GRANTED.iter().find(|(part, _)| if part.ends_with('.') { name.starts_with(part) } else { name == *part }) {
            Some((_, capability)) => needs.push((name.to_owned(), *capability)),
            None if allowed(name) => {}
            None => refused.push(name.to_owned()),
        }
    }
    if refused.is_empty() { Ok(needs) } else { Err(LoadError::UnknownImport { imports: refused.join(", ") }) }
}

/// Refuses a second memory that is not empty, as far as that can be seen now: the instance that this makes gets no fuel, so that none of the guest's code is run. Where it needs some to start, a second
/// memory shows when it is started.
fn check_memories(engine: &Engine, pre: &InstancePre<GuestState>) -> Result<(), LoadError> {
    let limits = Limits { memory_bytes: u64::MAX, ..Limits::default() };
    let made = make_store(engine, &limits, CancellationToken::new(), None, &Arc::default(), Turns::NEVER);
    let mut store = made.map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
    match pre.instantiate_async(&mut store).now_or_never() {
        Some(Err(error)) if error.is::<SecondMemory>() => Err(LoadError::SecondMemory),
        _ => Ok(()),
    }
}
