//! The compiler as a process of its own: what it does, what it may use, and that whatever becomes of it is one error.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rowmill::sandbox::{CompilerSettings, LoadError, Sandbox, SandboxSettings};
use tempfile::TempDir;

use crate::support::sessions::{limits, output, run_one};
use crate::support::wat::{Wat, answer, with_core_module};
use crate::support::{bombs, guests, target};

/// What should take a second never takes longer than this.
const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn program() -> PathBuf {
    target().join("release/rowmill")
}

fn compiler() -> CompilerSettings {
    CompilerSettings { program: Some((program(), vec!["compile-processor".into()])), ..CompilerSettings::default() }
}

fn sandbox_with(cache: &Path, compiler: CompilerSettings) -> Sandbox {
    Sandbox::open(SandboxSettings { compiler, ..SandboxSettings::new(2, cache) }).unwrap()
}

/// A program that is a shell script.
fn script(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("compiler.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// What comes of an upload when this script is the compiler.
fn refused_by(text: &str, time_max: Duration) -> LoadError {
    let directory = TempDir::new().unwrap();
    let compiler = CompilerSettings { program: Some((script(&directory, text), Vec::new())), time_max, ..CompilerSettings::default() };
    let refused = sandbox_with(&directory.path().join("cache"), compiler).load(&Wat::batch().module());
    refused.err().expect("there is no code")
}

#[tokio::test]
async fn what_the_process_compiles_runs_and_is_kept() {
    let cache = TempDir::new().unwrap();
    let module = Wat::batch().body("process-row", &answer(2_000, 2)).fields("(data (i32.const 2000) \"42\")").module();
    let processor = sandbox_with(cache.path(), compiler()).load(&module).unwrap();
    assert_eq!(output(&run_one(&processor, limits(), "{}").await), "42");
    // A sandbox that compiles for itself takes it from the cache: it is the same code.
    let nobody = CompilerSettings { program: Some((cache.path().join("nobody"), Vec::new())), ..CompilerSettings::default() };
    let processor = sandbox_with(cache.path(), nobody).load(&module).unwrap();
    assert_eq!(output(&run_one(&processor, limits(), "{}").await), "42");
}

#[test]
fn what_is_wrong_with_an_upload_is_told_as_without_the_process() {
    let (cache, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (apart, here) = (sandbox_with(cache.path(), compiler()), sandbox_with(other.path(), CompilerSettings::default()));
    let memory = wat::parse_str("(component (core module (memory i64 1)))").unwrap();
    let no_wit = wat::parse_str("(module (func (export \"process-row\")))").unwrap();
    let cut_off = Wat::batch().module()[..600].to_vec();
    for file in [memory, no_wit, cut_off, wat::parse_str("(component)").unwrap(), b"<html>".to_vec(), Wat::both().module()] {
        assert_eq!(apart.load(&file).err().unwrap().to_string(), here.load(&file).err().unwrap().to_string());
    }
}

#[test]
fn a_compiler_that_fails_is_one_error() {
    assert!(matches!(refused_by("kill -SEGV $$", SOON), LoadError::CompilerCrashed { how } if how == "was ended by signal 11"));
    assert!(matches!(refused_by("kill -XCPU $$", SOON), LoadError::CompilerLate { .. }));
    assert!(matches!(refused_by("exit 3", SOON), LoadError::CompilerCrashed { how } if how == "ended with status 3"));
    assert!(matches!(refused_by("echo 'memory allocation of 8 bytes failed' >&2; exit 134", SOON), LoadError::CompilerMemory { .. }));
    assert!(matches!(refused_by("printf 'C\\001\\377\\377\\377\\377\\377\\377\\377\\177'", SOON), LoadError::CompilerCrashed { .. }));
    assert!(matches!(refused_by("printf 'C\\001\\005\\000\\000\\000\\000\\000\\000\\000abc'", SOON), LoadError::CompilerCrashed { .. }));
    assert!(matches!(refused_by("printf 'C\\001\\003\\000\\000\\000\\000\\000\\000\\000abc'", SOON), LoadError::Invalid(_)), "no code");
    assert!(matches!(refused_by("printf '?\\001\\000\\000\\000\\000\\000\\000\\000\\000'", SOON), LoadError::NoCompiler { .. }));
    let other = refused_by(&format!("exec {} compile-processor 0123 $2 $3", program().display()), SOON);
    assert!(matches!(&other, LoadError::NoCompiler { reason } if reason.ends_with("is of another version, or for other settings")), "{other}");
    let missing = CompilerSettings { program: Some(("/nowhere/compiler".into(), Vec::new())), ..CompilerSettings::default() };
    let cache = TempDir::new().unwrap();
    let error = sandbox_with(cache.path(), missing).load(&Wat::batch().module()).err().unwrap();
    assert!(error.may_pass() && error.to_string().starts_with("nothing can be compiled now: /nowhere/compiler cannot be started"), "{error}");
}

#[test]
fn a_compiler_that_takes_too_long_is_killed() {
    let directory = TempDir::new().unwrap();
    let pid_file = directory.path().join("pid");
    let error = refused_by(&format!("echo $$ > {}; exec /bin/sleep 1000", pid_file.display()), Duration::from_secs(1));
    assert_eq!(error.to_string(), "this file cannot be compiled: the compiler needed more time than it may have (1s)");
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "it lives on");
}

/// It has no environment but what it is told, no network where that can be, and limits.
#[test]
fn the_process_is_bounded_before_it_reads_anything() {
    let directory = TempDir::new().unwrap();
    let environment = directory.path().join("environment");
    let text = format!("/usr/bin/env > {}; exec {} compile-processor \"$@\"", environment.display(), program().display());
    let compiler = CompilerSettings { program: Some((script(&directory, &text), Vec::new())), threads: 3, ..CompilerSettings::default() };
    sandbox_with(&directory.path().join("cache"), compiler).load(&Wat::batch().module()).unwrap();
    let mut names: Vec<String> = fs::read_to_string(&environment).unwrap().lines().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    names.sort();
    // The shell's own, and how many threads it may have.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
    assert_eq!(names, ["RAYON_NUM_THREADS"]);

    let mut command = Command::new(program());
    command.args(["compile-processor", "0123", &(512 * MIB).to_string(), "77"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let place = PathBuf::from(format!("/proc/{}", child.id()));
    let limit = |name: &str| {
        let limits = fs::read_to_string(place.join("limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.split_whitespace().next().unwrap().to_owned()
    };
    // Its niceness is what it sets before its network.
    let nice = || fs::read_to_string(place.join("stat")).unwrap().rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().to_owned();
    let until = Instant::now() + SOON;
    while nice() == "0" || limit("Max open files") != "64" {
        assert!(Instant::now() < until, "it never bounds itself");
        std::thread::yield_now();
    }
    assert_eq!(
        ["Max address space", "Max cpu time", "Max core file size", "Max file size"].map(limit),
        [(512 * MIB).to_string(), "77".to_owned(), "0".to_owned(), "0".to_owned()]
    );
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"anything").unwrap();
    drop(stdin);
    let mut answer = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(answer[0], b'V', "it is for another engine");
    println!("without a network: {}", answer[1] == 1);
}

fn sandbox_bytes(cache: &Path, digest: &str) -> u64 {
    let mut files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(digest))).unwrap();
    fs::metadata(file).unwrap().len()
}

#[test]
fn comp_1_compile_bombs_are_refused_or_end_in_the_process() {
    let with = |bodies: &[Vec<u8>]| with_core_module(Wat::batch().component(), &bombs::module(bodies));
    let cache = TempDir::new().unwrap();
    let bounded = CompilerSettings { time_max: Duration::from_secs(15), memory_max_bytes: 1024 * MIB, ..compiler() };
    let sandbox = sandbox_with(cache.path(), bounded);
    let refused = |bodies: &[Vec<u8>]| match sandbox.load(&with(bodies)) {
        Err(LoadError::TooLarge { what, limit, .. }) => (what, limit),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was compiled"),
    };
    // What sandbox.md names, and each once more just above our limits.
    assert_eq!(refused(&[bombs::branches(60_000)]), ("blocks and branches in one function", 50_000));
    assert_eq!(refused(&[bombs::branches(25_001)]), ("blocks and branches in one function", 50_000));
    assert_eq!(refused(&[bombs::locals(50_000, 10)]), ("locals in one function", 20_000));
    assert_eq!(refused(&[bombs::locals(20_001, 10)]), ("locals in one function", 20_000));
    assert_eq!(refused(&[bombs::nesting(100_000)]), ("blocks within each other", 5_000));
    assert_eq!(refused(&[bombs::nesting(5_001)]), ("blocks within each other", 5_000));
    assert_eq!(refused(&[bombs::nops(64 << 20)]), ("bytes", 64 * MIB));
    assert_eq!(refused(&[bombs::nops(63 << 20)]), ("bytes in one function", 2 * MIB));
    assert_eq!(refused(&bombs::tiny(200_001)), ("functions", 200_000));
    // What is within them is compiled, or the process ends within its own limits: nothing else can become of it.
    let megabytes = vec![bombs::nops((2 << 20) - 10); 31];
    for (name, bodies) in [
        ("20,000 tiny functions", bombs::tiny(20_000)),
        ("20,000 functions like those of an interpreter", vec![bombs::branches(30); 20_000]),
        ("62 MiB of no-ops", megabytes),
        ("24,000 branches", vec![bombs::branches(24_000)]),
        ("5,000 blocks", vec![bombs::nesting(4_990)]),
        ("20,000 locals", vec![bombs::locals(19_999, 2_000)]),
    ] {
        let begun = Instant::now();
        let end = match sandbox.load(&with(&bodies)) {
            Ok(processor) => {
                let (bytes, begun) = (sandbox_bytes(cache.path(), &processor.digest), Instant::now());
                drop(sandbox.load_compiled(&processor.digest).expect("it is in the cache").unwrap());
                format!("compiled to {} MiB, loaded in {:.1} ms,", bytes / MIB, begun.elapsed().as_secs_f64() * 1e3)
            }
            Err(error @ (LoadError::CompilerLate { .. } | LoadError::CompilerMemory { .. } | LoadError::CompilerCrashed { .. })) => error.to_string(),
            Err(other) => panic!("{name}: {other}"),
        };
        println!("{name}: {end} after {:.1} s", begun.elapsed().as_secs_f64());
    }
}

#[test]
fn comp_1_a_compiler_without_memory_is_one_error() {
    let cache = TempDir::new().unwrap();
    let little = CompilerSettings { memory_max_bytes: 256 * MIB, ..compiler() };
    let large = with_core_module(Wat::batch().component(), &bombs::module(&vec![bombs::branches(20_000); 120]));
    let error = sandbox_with(cache.path(), little).load(&large).err().expect("it has enough");
    assert!(matches!(error, LoadError::CompilerMemory { .. } | LoadError::CompilerCrashed { .. }), "{error}");
    assert!(error.to_string().starts_with("this file cannot be compiled: the compiler "), "{error}");
}

#[test]
fn comp_3_compiled_code_and_programs_are_no_uploads() {
    let cache = TempDir::new().unwrap();
    let sandbox = sandbox_with(cache.path(), compiler());
    sandbox.load(&guests::read("bank-transactions")).unwrap();
    let compiled = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "cwasm"));
    let sealed = fs::read(compiled.unwrap()).unwrap();
    for upload in [&sealed[..], &sealed[..sealed.len() - 32], &fs::read(program()).unwrap()[..1_000]] {
        let error = sandbox.load(upload).err().expect("it is taken");
        assert!(matches!(error, LoadError::NotWasm { .. }), "{error}");
    }
    assert_eq!(&sealed[..4], b"\x7fELF");
}
