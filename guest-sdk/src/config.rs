//! Values and secrets that an operator granted to the app (`rowmill apps grant APP --value KEY=VALUE`, `--secret KEY=NAME`), as `wasi:config`.
//!
//! In a native build they are what [`testing::set_config`](crate::testing::set_config) said.

use crate::GrantError;

/// The value of a key; `None` when there is none.
///
/// # Errors
/// [`GrantError`] when the runtime cannot read its configuration.
pub fn get(key: impl AsRef<str>) -> Result<Option<String>, GrantError> {
    let key = key.as_ref();
    #[cfg(not(target_arch = "wasm32"))]
    return Ok(crate::testing::granted::config(key));
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::granted_part::wasi::config::store::{Error, get};
        get(key).map_err(|error| match error {
            Error::Upstream(text) | Error::Io(text) => GrantError(text),
        })
    }
}

/// The value of a key that must be there.
///
/// # Errors
/// [`GrantError`] that names the key.
pub fn require(key: impl AsRef<str>) -> Result<String, GrantError> {
    let key = key.as_ref();
    get(key)?.ok_or_else(|| GrantError(format!("nothing is configured for {key:?}")))
}
