//! What the tests share: the guests, the program as a process, and its results.

pub mod bombs;
pub mod guests;
pub mod sessions;
pub mod wat;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The directory of everything that was built.
pub fn target() -> PathBuf {
    // This test is target/release/deps/suite-….
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

/// `rowmill run` with a guest, and results in `directory/out`.
pub fn rowmill(directory: &Path, guest_name: &str) -> Command {
    let program = target().join("release/rowmill");
    assert!(program.exists(), "{} is missing: run `cargo build --release --workspace --bins`", program.display());
    let mut command = Command::new(program);
    command.current_dir(directory).env("ROWMILL_CACHE_DIR", guests::cache()).arg("run");
    command.arg("--processor").arg(guests::path(guest_name)).args(["--out", "out"]);
    command
}

/// Runs a command to its end; its status and what it said on stderr.
pub fn ended(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8(stderr).unwrap())
}

/// The lines of `out/results.ndjson`.
pub fn results(directory: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(directory.join("out/results.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `out/summary.json`.
pub fn summary(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("out/summary.json")).unwrap()).unwrap()
}
