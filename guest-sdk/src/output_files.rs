//! The output files of the batch or query whose `mark_done` is called, as streams: to push them out from there. Nothing has to be granted for it, since they
//! are the app's own. Outside `mark_done` each call fails with [`Error::NotNow`].
//!
//! ```no_run
//! use rowmill_guest::output_files;
//!
//! # fn example() -> Result<(), output_files::Error> {
//! for file in output_files::list()? {
//!     let mut reader = output_files::open(&file.name)?;
//!     loop {
//!         let part = reader.read(64 << 10)?;
//!         if part.is_empty() {
//!             break;
//!         }
//!         // Send it.
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! In a native build the files are those of the rows that [`testing::Batch::mark_done`](crate::testing::Batch::mark_done) is given.

use std::fmt;
use std::io;

/// An output file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The name that the processor gave.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Output files can be read in `mark_done` only.
    NotNow,
    /// The batch has no output file of this name.
    NoSuchFile,
    /// As many files are open as may be: this many. Drop a reader first.
    TooManyOpen(u32),
    /// The file cannot be read at the moment; says why. Return [`Failure::retry`](crate::Failure::retry) to be called again.
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNow => f.write_str("output files can be read in mark-done only"),
            Self::NoSuchFile => f.write_str("the batch has no output file of this name"),
            Self::TooManyOpen(most) => write!(f, "{most} output files are open, and no more can be: drop a reader first"),
            Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// A file that is being read from its beginning to its end.
#[derive(Debug)]
pub struct Reader(runtime::Reader);

impl Reader {
    /// Returns the next bytes: at most `max` of them and at most 1 MiB, fewer only before the end of the file. 0 counts as 1. None are left when it is empty.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(&mut self, max: u32) -> Result<Vec<u8>, Error> {
        self.0.read(max)
    }
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let part = self.0.read(u32::try_from(buffer.len()).unwrap_or(u32::MAX)).map_err(io::Error::other)?;
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

/// The output files of the batch, by name.
///
/// # Errors
/// [`Error::NotNow`].
pub fn list() -> Result<Vec<Info>, Error> {
    runtime::list()
}

/// Opens a file at its beginning. At most 8 readers are open at the same time.
///
/// # Errors
/// [`Error`].
pub fn open(name: impl AsRef<str>) -> Result<Reader, Error> {
    runtime::open(name.as_ref()).map(Reader)
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::output_files as runtime;

#[cfg(target_arch = "wasm32")]
mod runtime {
    use super::{Error, Info};
    use crate::bindings::mark_part::rowmill::jobs::output_files;

    #[derive(Debug)]
    pub struct Reader(output_files::Reader);

    impl Reader {
        pub fn read(&mut self, max: u32) -> Result<Vec<u8>, Error> {
            self.0.read(max).map_err(told)
        }
    }

    fn told(error: output_files::Error) -> Error {
        match error {
            output_files::Error::NotNow => Error::NotNow,
            output_files::Error::NoSuchFile => Error::NoSuchFile,
            output_files::Error::TooManyOpen(most) => Error::TooManyOpen(most),
            output_files::Error::Unavailable(text) => Error::Unavailable(text),
        }
    }

    pub fn list() -> Result<Vec<Info>, Error> {
        let files = output_files::list().map_err(told)?;
        Ok(files.into_iter().map(|file| Info { name: file.name, size: file.size }).collect())
    }

    pub fn open(name: &str) -> Result<Reader, Error> {
        output_files::open(name).map(Reader).map_err(told)
    }
}
