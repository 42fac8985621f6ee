//! Whether a file is text.

use std::io::{self, Cursor, Read};

use super::source::Refusal;

/// So much of a file is looked at: what is no text shows it early.
const LOOKED_AT_BYTES: u64 = 8 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Refuses a file that has a NUL near its beginning, as binary files and UTF-16 have. It looks at bytes as they pass, so that a source that gives them slowly is
/// not waited for. A byte order mark at the beginning is left out here, in however many pieces it comes: what reads CSV knows it only in one, with something behind it.
pub(super) struct Text<R> {
    inner: R,
    /// The first bytes, once they were looked at.
    first: Option<Cursor<Vec<u8>>>,
    passed: u64,
}

impl<R: Read> Text<R> {
    pub(super) fn new(inner: R) -> Text<R> {
        Text { inner, first: None, passed: 0 }
    }

    fn look_at_first(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        if self.first.is_none() {
            let mut first = Vec::new();
            self.inner.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut first)?;
            if first == BYTE_ORDER_MARK {
                self.passed = first.len() as u64;
                first.clear();
            }
            self.first = Some(Cursor::new(first));
        }
        Ok(self.first.get_or_insert_default())
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.look_at_first()?.read(buffer)? {
            0 => self.inner.read(buffer)?,
            read => read,
        };
        if self.passed < LOOKED_AT_BYTES {
            // No further than that, however much comes at once: what is refused does not depend on the pieces that a file comes in.
            let looked_at = usize::try_from(LOOKED_AT_BYTES - self.passed).map_or(read, |left| read.min(left));
            if let Some(at) = buffer[..looked_at].iter().position(|&byte| byte == 0) {
                return Err(Refusal::NotText { at: self.passed + at as u64 + 1 }.raise());
            }
            self.passed += read as u64;
        }
        Ok(read)
    }
}
