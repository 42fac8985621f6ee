//! Values by keys, kept for the app alone beyond the end of the processor, as `wasi:keyvalue`. An operator grants them: `rowmill apps grant APP --key-value`.
//!
//! Several instances may work on the same key at the same time; [`increment`] is the one change that depends on what was there before and loses nothing. A row that
//! is run again meets what its first run has set. In a native build the values are kept per thread.

#[cfg(target_arch = "wasm32")]
mod runtime {
    use crate::GrantError;
    use crate::bindings::granted_part::wasi::keyvalue::{atomics, batch, store};

    fn told(error: store::Error) -> GrantError {
        GrantError(match error {
            store::Error::NoSuchStore => "there is no store of values".to_owned(),
            store::Error::AccessDenied => "no store of values is granted to this app".to_owned(),
            store::Error::Other(text) => text,
        })
    }

    fn with<T>(work: impl FnOnce(&store::Bucket) -> Result<T, store::Error>) -> Result<T, GrantError> {
        store::open("default").and_then(|bucket| work(&bucket)).map_err(told)
    }

    pub fn get(key: &str) -> Result<Option<Vec<u8>>, GrantError> {
        with(|bucket| bucket.get(key))
    }

    pub fn set(key: &str, value: &[u8]) -> Result<(), GrantError> {
        with(|bucket| bucket.set(key, value))
    }

    pub fn delete(key: &str) -> Result<(), GrantError> {
        with(|bucket| bucket.delete(key))
    }

    pub fn increment(key: &str, delta: u64) -> Result<u64, GrantError> {
        with(|bucket| atomics::increment(bucket, key, delta))
    }

    pub fn get_many(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, GrantError> {
        Ok(with(|bucket| batch::get_many(bucket, keys))?.into_iter().map(|found| found.map(|(_, value)| value)).collect())
    }

    pub fn list_keys() -> Result<Vec<String>, GrantError> {
        with(|bucket| {
            let (mut keys, mut cursor) = (Vec::new(), None);
            loop {
                let page = bucket.list_keys(cursor)?;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    keys.sort();
                    keys.dedup();
                    return Ok(keys);
                }
            }
        })
    }
}
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::granted as runtime;

use crate::GrantError;

/// The value of a key; `None` when there is none.
///
/// # Errors
/// [`GrantError`], as for all functions here: values by keys are not granted, a limit was reached, or the values cannot be
/// reached at the moment.
pub fn get(key: impl AsRef<str>) -> Result<Option<Vec<u8>>, GrantError> {
    runtime::get(key.as_ref())
}

/// The values of up to 32 keys, in their order.
///
/// # Errors
/// As for [`get`].
pub fn get_many(keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, GrantError> {
    runtime::get_many(keys)
}

/// Sets the value of a key, whether or not it has one.
///
/// # Errors
/// As for [`get`].
pub fn set(key: impl AsRef<str>, value: impl AsRef<[u8]>) -> Result<(), GrantError> {
    runtime::set(key.as_ref(), value.as_ref())
}

/// Removes a key, if it is there.
///
/// # Errors
/// As for [`get`].
pub fn delete(key: impl AsRef<str>) -> Result<(), GrantError> {
    runtime::delete(key.as_ref())
}

/// Adds to a number that is kept in decimal digits, 0 when there is none, and returns the sum. Nobody else's addition is lost.
///
/// # Errors
/// As for [`get`]; and when what is there is no number, or the sum is too large.
pub fn increment(key: impl AsRef<str>, delta: u64) -> Result<u64, GrantError> {
    runtime::increment(key.as_ref(), delta)
}

/// All keys, sorted. It takes long when there are many.
///
/// # Errors
/// As for [`get`].
pub fn list_keys() -> Result<Vec<String>, GrantError> {
    runtime::list_keys()
}
