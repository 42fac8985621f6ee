//! The example guests, as `make guests` leaves them.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a guest's file is.
pub fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").join(name).with_extension("wasm");
    assert!(path.exists(), "{} is missing: run `make guests` first", path.display());
    path
}

/// A guest's bytes.
pub fn read(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

/// Compiled guests, shared by all tests: compiling one takes longer than most tests do.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-guests")
}
