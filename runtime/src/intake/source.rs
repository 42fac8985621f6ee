//! What readers read from.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::RECORD_BYTES_MAX;

/// How far the record that is being read may go. Its reader and what it reads from share it, and go from thread to thread together.
#[derive(Clone, Default)]
pub(super) struct RecordBudget(Arc<AtomicU64>);

impl RecordBudget {
    /// A new record begins.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Stops a reader that collects one record without end.
pub(super) struct Budgeted<R> {
    inner: R,
    budget: RecordBudget,
}

/// Raised as an `io::Error`, so that it comes through the CSV library.
#[derive(Debug, thiserror::Error)]
#[error("a record is too large")]
struct OverBudget;

impl<R> Budgeted<R> {
    pub(super) fn new(inner: R, budget: RecordBudget) -> Budgeted<R> {
        Budgeted { inner, budget }
    }
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let used = self.budget.0.load(Ordering::Relaxed);
        if used > RECORD_BYTES_MAX {
            return Err(io::Error::other(OverBudget));
        }
        let read = self.inner.read(buffer)?;
        self.budget.0.store(used + read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Whether an error is the budget's.
pub(super) fn is_over_budget(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<OverBudget>()).is_some()
}
