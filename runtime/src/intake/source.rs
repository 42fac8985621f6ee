//! What readers read from.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{IntakeError, RECORD_BYTES_MAX};

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

/// Why a source gives no more of a file. Raised as an `io::Error`, so that it comes through the CSV library.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a record is too large")]
    RecordTooLarge,
    #[error("the compressed data ends too early")]
    CutOff,
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
    #[error("there is more than {limit} bytes of it")]
    InflatedTooLarge { limit: u64 },
    #[error("it grows to more than {limit} times its size")]
    RatioTooHigh { limit: u64 },
    #[error("byte {at} is NUL")]
    NotText { at: u64 },
}

impl Refusal {
    /// As an error of a read.
    pub(super) fn raise(self) -> io::Error {
        io::Error::other(self)
    }

    /// What an error of a read says of the file, where the record that was being read has this number and begins in this line.
    pub(super) fn explain(error: io::Error, record: u64, line: u64) -> IntakeError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>()) {
            None => IntakeError::Read(error),
            Some(Refusal::RecordTooLarge) => IntakeError::TooLarge { record, line },
            Some(Refusal::CutOff) => IntakeError::CutOff,
            Some(Refusal::Damaged(reason)) => IntakeError::Damaged { reason: reason.clone() },
            Some(Refusal::InflatedTooLarge { limit }) => IntakeError::InflatedTooLarge { limit: *limit },
            Some(Refusal::RatioTooHigh { limit }) => IntakeError::RatioTooHigh { limit: *limit },
            Some(Refusal::NotText { at }) => IntakeError::NotText { at: *at },
        }
    }
}

impl<R> Budgeted<R> {
    pub(super) fn new(inner: R, budget: RecordBudget) -> Budgeted<R> {
        Budgeted { inner, budget }
    }
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let used = self.budget.0.load(Ordering::Relaxed);
        if used > RECORD_BYTES_MAX {
            return Err(Refusal::RecordTooLarge.raise());
        }
        let read = self.inner.read(buffer)?;
        self.budget.0.store(used + read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
