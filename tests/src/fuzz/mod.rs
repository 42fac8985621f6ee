//! What is done with arbitrary bytes: each `check` takes some, and panics when what must hold does not. `tests/fuzz` drives them with libFuzzer (`make fuzz`), and the suite with a fixed number of
//! inputs.

mod calls;
mod guest;
pub mod host;
pub mod intake;
pub mod outcome;
pub mod upload;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::random::Random;

/// What is told for people is cut to 8 KiB where strangers wrote it; what stands around that is short.
const TOLD_BYTES_MAX: usize = 9 << 10;

/// Behind it comes the number of the process.
const SCRATCH: &str = "rowmill-fuzz-";

/// So many bytes by chance, the same for the same seed.
pub fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(count).collect()
}

/// What is told of a stranger's file is one line of bounded length, and commands no terminal.
#[track_caller]
fn check_told(text: &str) {
    assert!(text.len() <= TOLD_BYTES_MAX, "a text of {} bytes: {:.200}…", text.len(), text);
    assert!(!text.chars().any(char::is_control), "a text that is not printable: {text:?}");
}

/// A directory for one process, in memory where there is such a place: what is written there is written millions of times. A static keeps it, and is never dropped: so what processes have left
/// that ended is removed by the next.
fn scratch() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(SCRATCH)).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another may be at it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new().prefix(&format!("{SCRATCH}{}-", std::process::id())).tempdir_in(place).expect("a directory can be made")
}
