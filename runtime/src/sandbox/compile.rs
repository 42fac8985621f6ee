//! The compiler, as a process of its own: compiling what strangers upload may take memory and time, and may crash, and all of that happens there.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use wasmtime::Engine;

use super::LoadError;
use super::lift::to_component;

/// Compiled code is some times as large as its upload; that of interpreters has some hundred million bytes.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// What a compiler that stopped says last.
const SAID_BYTES_MAX: u64 = 4 << 10;
/// A compiler that closed its output has so long to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How an answer begins: the kind, whether the process had no network, and the length of what follows.
pub(super) const HEADER_BYTES: usize = 10;
pub(super) const CODE: u8 = b'C';
pub(super) const NO_WIT: u8 = b'W';
pub(super) const INVALID: u8 = b'I';
pub(super) const OTHER_ENGINE: u8 = b'V';

/// How uploads are compiled.
#[derive(Clone, Debug)]
pub struct CompilerSettings {
    /// The program that compiles, and its first arguments; those that [`serve_compiler`](super::serve_compiler) takes are put behind them. It is started for each upload, without any
    /// environment, and ends with it. `rowmill` itself is one, with the argument `compile-processor`. None: uploads are compiled in this process, where neither memory nor time bounds them.
    pub program: Option<(PathBuf, Vec<OsString>)>,
    /// It is killed after this time.
    pub time_max: Duration,
    /// Its address space.
    pub memory_max_bytes: u64,
    /// Threads of one process.
    pub threads: u32,
    /// Uploads are at most so large.
    pub upload_max_bytes: u64,
    /// Uploads that are compiled at the same time, at most; of one app one.
    pub at_once: u32,
}

impl Default for CompilerSettings {
    /// In this process: uploads up to 64 MiB.
    fn default() -> CompilerSettings {
        CompilerSettings {
            program: None,
            time_max: Duration::from_secs(120),
            memory_max_bytes: 2 << 30,
            threads: half_of_the_cores(),
            upload_max_bytes: 64 << 20,
            at_once: half_of_the_cores(),
        }
    }
}

impl CompilerSettings {
    /// The program that this process runs, if that is `rowmill`.
    #[must_use]
    pub fn this_program() -> CompilerSettings {
        // It is the same program even when another version was installed meanwhile.
        let program = if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { std::env::current_exe() };
        CompilerSettings {
            program: program.ok().map(|program| (program, vec![OsString::from(super::child::SUBCOMMAND)])),
            ..CompilerSettings::default()
        }
    }
}

/// Others have work to do, too.
fn half_of_the_cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get() / 2).unwrap_or(1).max(1))
}

/// Machine code for an upload, which was inspected.
pub(super) fn compile(settings: &CompilerSettings, engine: &Engine, engine_hash: &str, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    match &settings.program {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(engine_hash).arg(settings.memory_max_bytes.to_string()).arg(cpu_seconds(settings).to_string());
            command.env_clear().env("RAYON_NUM_THREADS", settings.threads.to_string()).current_dir("/");
            compile_in(command, settings, wasm)
        }
        None => {
            let component = to_component(engine, wasm)?;
            engine.precompile_component(&component).map_err(|error| LoadError::Invalid(format!("{error:#}")))
        }
    }
}

/// A process that is alone on the machine comes to the end of its time first.
fn cpu_seconds(settings: &CompilerSettings) -> u64 {
    settings.time_max.as_secs().saturating_add(1).saturating_mul(u64::from(settings.threads).saturating_add(1))
}

fn compile_in(mut command: Command, settings: &CompilerSettings, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    let begun = Instant::now();
    let not_started = |error: std::io::Error| LoadError::NoCompiler { reason: format!("{} cannot be started: {error}", command_name(settings)) };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(not_started)?;
    let (stdin, mut stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (answered, answer) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || write(stdin, wasm));
        let said = scope.spawn(move || read_said(stderr));
        scope.spawn(move || {
            // Nobody listens any more: it was too late.
            let _ = answered.send(stdout.as_mut().and_then(|stdout| read_answer(stdout).ok()));
        });
        let answer = answer.recv_timeout(settings.time_max.saturating_sub(begun.elapsed()));
        let status = match answer {
            // It ends by itself, and says how.
            Ok(None) => wait(&mut child, END_PATIENCE),
            _ => None,
        };
        // It may have ended; else it does now, and lets go of what the threads wait for.
        let _ = child.kill();
        let _ = child.wait();
        let said = said.join().unwrap_or_default();
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(LoadError::CompilerLate { time_max: settings.time_max }),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => Err(why_it_ended(status, &said, settings)),
        }
    })
    .and_then(|answer| understand(answer, settings))
}

fn command_name(settings: &CompilerSettings) -> String {
    settings.program.as_ref().map_or_else(String::new, |(program, _)| program.display().to_string())
}

fn write(stdin: Option<ChildStdin>, wasm: &[u8]) {
    if let Some(mut stdin) = stdin {
        // One that has ended reads no more, and its end tells more than this.
        let _ = stdin.write_all(wasm);
    }
}

fn read_said(stderr: Option<ChildStderr>) -> String {
    let mut said = Vec::new();
    if let Some(mut stderr) = stderr {
        let _ = Read::by_ref(&mut stderr).take(SAID_BYTES_MAX).read_to_end(&mut said);
        // The rest is read, so that it does not wait.
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    }
    String::from_utf8_lossy(&said).into_owned()
}

struct Answer {
    kind: u8,
    has_no_network: bool,
    bytes: Vec<u8>,
}

fn read_answer(stdout: &mut impl Read) -> std::io::Result<Answer> {
    let mut header = [0; HEADER_BYTES];
    stdout.read_exact(&mut header)?;
    let [kind, network, length @ ..] = header;
    let length = u64::from_le_bytes(length);
    if length > CODE_BYTES_MAX {
        return Err(std::io::Error::other("there is more than code can have"));
    }
    let mut bytes = Vec::new();
    stdout.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length {
        Ok(Answer { kind, has_no_network: network == 1, bytes })
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

fn understand(answer: Answer, settings: &CompilerSettings) -> Result<Vec<u8>, LoadError> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !answer.has_no_network && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::info!("the compiler runs in this process's network, since the kernel gives it no namespace of its own; it uses none");
    }
    let text = || String::from_utf8_lossy(&answer.bytes).into_owned();
    match answer.kind {
        CODE => Ok(answer.bytes),
        NO_WIT => Err(LoadError::CoreModuleWithoutWit),
        INVALID => Err(LoadError::Invalid(text())),
        OTHER_ENGINE => Err(LoadError::NoCompiler { reason: format!("{} is of another version, or for other settings", command_name(settings)) }),
        _ => Err(LoadError::NoCompiler { reason: format!("{} answers what nobody understands", command_name(settings)) }),
    }
}

/// How it ended, if it does so in time.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

fn why_it_ended(status: Option<ExitStatus>, said: &str, settings: &CompilerSettings) -> LoadError {
    use std::os::unix::process::ExitStatusExt;
    const SIGXCPU: i32 = 24;
    tracing::warn!(?status, "the compiler ended without code: {}", said.trim());
    // What Rust and the kernel say when there is no more memory.
    let out_of_memory = ["memory allocation of", "Cannot allocate memory", "out of memory"].iter().any(|text| said.contains(text));
    let signal = status.and_then(|status| status.signal());
    if out_of_memory {
        return LoadError::CompilerMemory { limit: settings.memory_max_bytes };
    }
    if signal == Some(SIGXCPU) {
        return LoadError::CompilerLate { time_max: settings.time_max };
    }
    let how = match (signal, status.and_then(|status| status.code())) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with status {code}"),
        (None, None) => "ended nobody knows how".to_owned(),
    };
    LoadError::CompilerCrashed { how }
}
