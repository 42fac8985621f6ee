//! Whether a file is text.

use std::io::{self, Read};

use super::source::Refusal;

/// So much of a file is looked at: what is no text shows it early.
const LOOKED_AT_BYTES: u64 = 8 << 10;

/// Refuses a file that has a NUL near its beginning, as binary files and UTF-16 have. It looks at bytes as they pass, so that a source that gives them slowly is
/// not waited for.
pub(super) struct Text<R> {
    inner: R,
    passed: u64,
}

impl<R> Text<R> {
    pub(super) fn new(inner: R) -> Text<R> {
        Text { inner, passed: 0 }
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if self.passed < LOOKED_AT_BYTES {
            if let Some(at) = buffer[..read].iter().position(|&byte| byte == 0) {
                return Err(Refusal::NotText { at: self.passed + at as u64 + 1 }.raise());
            }
            self.passed += read as u64;
        }
        Ok(read)
    }
}
