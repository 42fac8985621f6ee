//! What the runtime gives every processor while it runs. Everything else is granted per app.
//!
//! In a native build (unit tests) these functions talk to [`testing`](crate::testing) instead.

#[cfg(target_arch = "wasm32")]
use crate::bindings::host as runtime;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::recorder as runtime;
use std::time::Duration;

pub use crate::bindings::host::Level;

/// Writes to the log that is kept with the row. What is over the runtime's limit is cut, with a mark.
pub fn log(level: Level, text: impl AsRef<str>) {
    runtime::log(level, text.as_ref());
}

/// [`log`] at level trace.
pub fn trace(text: impl AsRef<str>) {
    log(Level::Trace, text);
}

/// [`log`] at level debug.
pub fn debug(text: impl AsRef<str>) {
    log(Level::Debug, text);
}

/// [`log`] at level info.
pub fn info(text: impl AsRef<str>) {
    log(Level::Info, text);
}

/// [`log`] at level warn.
pub fn warn(text: impl AsRef<str>) {
    log(Level::Warn, text);
}

/// [`log`] at level error.
pub fn error(text: impl AsRef<str>) {
    log(Level::Error, text);
}

/// Tells the one who waits for a slow query how far it has come, and a word about it. More than 100 percent counts as 100.
pub fn progress(percent: u8, text: impl AsRef<str>) {
    runtime::progress(percent.min(100), text.as_ref());
}

/// True once the batch or query was aborted. A processor that looks can leave in good order; it is stopped a moment later in any case.
#[must_use]
pub fn cancelled() -> bool {
    runtime::cancelled()
}

/// Which call of `mark_done` this is for the batch: 1 for the first, 2 for the call after a retry or a failure of the machine. `None` outside `mark_done`.
#[must_use]
pub fn mark_attempt() -> Option<u32> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::mark_part::rowmill::jobs::mark::attempt();
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::output_files::attempt()
}

/// The time left for this row or query, to the millisecond.
#[must_use]
pub fn remaining() -> Duration {
    Duration::from_millis(runtime::remaining_ms())
}
