//! The runtime's side of [`output_files`](crate::output_files) and of the call of `mark_done` in a native build: kept per thread while `mark_done` is called.

use crate::output_files::{Error, Info};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// As in the sandbox.
const READ_BYTES_MAX: usize = 1 << 20;
const READERS_MAX: u32 = 8;

struct Marking {
    attempt: u32,
    files: BTreeMap<String, Vec<u8>>,
    readers: u32,
}

thread_local! {
    static MARKING: RefCell<Option<Marking>> = const { RefCell::new(None) };
}

/// Calls `mark_done` where these files can be read. Not to be nested.
pub(super) fn marking<T>(attempt: u32, files: BTreeMap<String, Vec<u8>>, call: impl FnOnce() -> T) -> T {
    MARKING.set(Some(Marking { attempt, files, readers: 0 }));
    let result = call();
    MARKING.set(None);
    result
}

pub(crate) fn attempt() -> Option<u32> {
    MARKING.with_borrow(|marking| marking.as_ref().map(|marking| marking.attempt))
}

pub(crate) fn list() -> Result<Vec<Info>, Error> {
    MARKING.with_borrow(|marking| {
        let files = &marking.as_ref().ok_or(Error::NotNow)?.files;
        Ok(files.iter().map(|(name, contents)| Info { name: name.clone(), size: contents.len() as u64 }).collect())
    })
}

pub(crate) fn open(name: &str) -> Result<Reader, Error> {
    MARKING.with_borrow_mut(|marking| {
        let marking = marking.as_mut().ok_or(Error::NotNow)?;
        let rest = marking.files.get(name).ok_or(Error::NoSuchFile)?.clone();
        if marking.readers >= READERS_MAX {
            return Err(Error::TooManyOpen(READERS_MAX));
        }
        marking.readers += 1;
        Ok(Reader { rest })
    })
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Vec<u8>,
}

impl Reader {
    pub fn read(&mut self, max: u32) -> Result<Vec<u8>, Error> {
        if attempt().is_none() {
            return Err(Error::NotNow);
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, READ_BYTES_MAX);
        let rest = self.rest.split_off(max.min(self.rest.len()));
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        MARKING.with_borrow_mut(|marking| {
            if let Some(marking) = marking {
                marking.readers = marking.readers.saturating_sub(1);
            }
        });
    }
}
