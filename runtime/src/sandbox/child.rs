//! The compiler's side: a process that does nothing else, and can do little else.

use std::io::{Read, Write};

use nix::sys::resource::{Resource, setrlimit};
use wasmtime::Engine;

use super::cache::hash_of;
use super::compile::{CODE, INVALID, NO_WIT, OTHER_ENGINE};
use super::lift::to_component;
use super::{LoadError, engine};

/// How `rowmill` is told to be the compiler.
pub(super) const SUBCOMMAND: &str = "compile-processor";
/// Files that it may have open: its input, its output, and what it is loaded from.
const FILES_MAX: u64 = 64;
/// How much it gives way to others, of 19: a quarter of a core's time when all are busy. With more, others were answered no faster, and what takes long to compile would not be compiled in its time.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 6;

/// Compiles one upload from stdin to stdout: the whole work of a program named by [`CompilerSettings::program`](super::CompilerSettings). It must be called before the process has other threads, with the
/// last arguments that it got: what the code is for, its address space in bytes, its time on processors in seconds.
///
/// It bounds itself before it reads anything. Whatever happens to it then is one error for the one that started it.
///
/// # Errors
/// When it cannot bound itself, or nobody takes what it has to say.
pub fn serve_compiler(engine_hash: &str, memory_max_bytes: u64, cpu_seconds: u64) -> std::io::Result<()> {
    let has_no_network = restrict(memory_max_bytes, cpu_seconds)?;
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm)?;
    let (kind, bytes) = match compile(engine_hash, &wasm) {
        Ok(code) => (CODE, code),
        Err(Refused::OtherEngine) => (OTHER_ENGINE, Vec::new()),
        Err(Refused::Upload(LoadError::CoreModuleWithoutWit)) => (NO_WIT, Vec::new()),
        Err(Refused::Upload(LoadError::Invalid(text))) => (INVALID, text.into_bytes()),
        Err(Refused::Upload(other)) => (INVALID, other.to_string().into_bytes()),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&[kind, u8::from(has_no_network)])?;
    stdout.write_all(&(bytes.len() as u64).to_le_bytes())?;
    stdout.write_all(&bytes)?;
    stdout.flush()
}

enum Refused {
    OtherEngine,
    Upload(LoadError),
}

fn compile(engine_hash: &str, wasm: &[u8]) -> Result<Vec<u8>, Refused> {
    let invalid = |error: wasmtime::Error| Refused::Upload(LoadError::Invalid(format!("{error:#}")));
    // Nothing is run here, so there is no pool, for whose address space there would be no room.
    let engine = Engine::new(&engine::base_config()).map_err(invalid)?;
    if hash_of(&engine) != engine_hash {
        return Err(Refused::OtherEngine);
    }
    let component = to_component(&engine, wasm).map_err(Refused::Upload)?;
    engine.precompile_component(&component).map_err(invalid)
}

/// Whether it has no network any more.
fn restrict(memory_max_bytes: u64, cpu_seconds: u64) -> std::io::Result<bool> {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, memory_max_bytes),
        (Resource::RLIMIT_CPU, cpu_seconds),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    give_way()
}

#[cfg(target_os = "linux")]
fn give_way() -> std::io::Result<bool> {
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::prctl;
    use nix::sys::signal::Signal;
    // It does not outlive the one that waits for it, and no program that it might start has more rights than it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_no_new_privs()?;
    // That it could not give way is no reason not to compile.
    let _ = rustix::process::nice(NICENESS);
    // A namespace of users of its own is what lets one that is not root have one for the network.
    Ok(unshare(CloneFlags::CLONE_NEWNET).or_else(|_| unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn give_way() -> std::io::Result<bool> {
    Ok(false)
}
