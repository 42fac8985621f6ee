//! Objects that the app keeps beyond the end of its processors, when an operator granted that (`rowmill apps grant APP --objects`), as `rowmill:objects`.
//!
//! ```no_run
//! use rowmill_guest::objects;
//!
//! # fn example() -> Result<(), objects::Error> {
//! objects::put("rates-2026-01.json", br#"{"EUR": 1.0}"#)?;
//! let rates = objects::get("rates-2026-01.json")?.unwrap_or_default();
//! # Ok(())
//! # }
//! ```
//!
//! Names are 1 to 128 ASCII letters, digits, `.`, `-` and `_`, not beginning with `.`. A row that is run again meets what its first run has written. In a native build
//! the objects are kept per thread.

use std::fmt;

/// So many come at a time at most.
const PAGE: usize = 1_000;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// What it is got by.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No objects are granted to this app.
    Denied,
    /// This cannot be the name of an object; says why.
    BadName(String),
    /// The object is larger than one may be; says how large that is.
    TooLarge(String),
    /// The app would have more objects, or more bytes in them, than it may; says which.
    Full(String),
    /// The objects cannot be reached at the moment.
    Unavailable(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("no objects are granted to this app"),
            Self::BadName(text) | Self::TooLarge(text) | Self::Full(text) | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Writes an object as a whole. One of this name is replaced.
///
/// # Errors
/// [`Error`].
pub fn put(name: impl AsRef<str>, contents: impl AsRef<[u8]>) -> Result<(), Error> {
    runtime::put(name.as_ref(), contents.as_ref())
}

/// Reads an object as a whole; `None` when there is none of this name.
///
/// # Errors
/// [`Error`].
pub fn get(name: impl AsRef<str>) -> Result<Option<Vec<u8>>, Error> {
    runtime::get(name.as_ref())
}

/// Removes an object, if it is there.
///
/// # Errors
/// [`Error`].
pub fn delete(name: impl AsRef<str>) -> Result<(), Error> {
    runtime::delete(name.as_ref())
}

/// All objects whose names begin with this, in the order of their names.
///
/// # Errors
/// [`Error`].
pub fn list(prefix: impl AsRef<str>) -> Result<Vec<Info>, Error> {
    let mut all: Vec<Info> = Vec::new();
    loop {
        let page = runtime::list(prefix.as_ref(), all.last().map(|last| last.name.as_str()))?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::objects as runtime;

#[cfg(target_arch = "wasm32")]
mod runtime {
    use super::{Error, Info};
    use crate::bindings::granted_part::rowmill::objects::store;

    fn told(error: store::Error) -> Error {
        match error {
            store::Error::Denied => Error::Denied,
            store::Error::BadName(text) => Error::BadName(text),
            store::Error::TooLarge(text) => Error::TooLarge(text),
            store::Error::Full(text) => Error::Full(text),
            store::Error::Unavailable(text) => Error::Unavailable(text),
        }
    }

    pub fn put(name: &str, contents: &[u8]) -> Result<(), Error> {
        store::put(name, contents).map_err(told)
    }

    pub fn get(name: &str) -> Result<Option<Vec<u8>>, Error> {
        store::get(name).map_err(told)
    }

    pub fn delete(name: &str) -> Result<(), Error> {
        store::delete(name).map_err(told)
    }

    pub fn list(prefix: &str, after: Option<&str>) -> Result<Vec<Info>, Error> {
        let page = store::list(prefix, after).map_err(told)?;
        Ok(page.into_iter().map(|object| Info { name: object.name, size: object.size }).collect())
    }
}
