//! What a file was, as it came: its size and its digest, taken while it is read.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::model::hex;

/// The size of a file and the SHA-256 of its contents, before anything is made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSum {
    pub size_bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// Adds up what was read of a file. Shared with its reader, which goes to another thread.
#[derive(Clone, Default)]
pub struct Fingerprint(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    bytes: u64,
    digest: Sha256,
}

/// A reader that adds up what it gives.
pub struct Fingerprinted<R> {
    inner: R,
    fingerprint: Fingerprint,
}

impl Fingerprint {
    /// Adds up what comes out of this reader.
    pub fn of<R: Read>(inner: R) -> (Fingerprint, Fingerprinted<R>) {
        let fingerprint = Fingerprint::default();
        (fingerprint.clone(), Fingerprinted { inner, fingerprint })
    }

    /// That of the bytes so far: of the file, once it was read to its end.
    pub fn sum(&self) -> FileSum {
        let State { bytes, digest } = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        FileSum { size_bytes: bytes, sha256: hex(&digest.finalize()) }
    }
}

impl<R: Read> Read for Fingerprinted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut state = self.fingerprint.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += read as u64;
        state.digest.update(&buffer[..read]);
        Ok(read)
    }
}
