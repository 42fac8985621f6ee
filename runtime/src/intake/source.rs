//! Why a source gives no more of a file.

use std::io;

use super::IntakeError;

/// Raised as an `io::Error` by a reader of compressed data, so that it comes through other readers.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the compressed data ends too early")]
    CutOff,
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
    #[error("the compressed data is followed by other data at byte {at}")]
    Trailing { at: u64 },
    #[error("there is more than {limit} bytes of it")]
    InflatedTooLarge { limit: u64 },
    #[error("it grows to more than {limit} times its size")]
    RatioTooHigh { limit: u64 },
}

impl Refusal {
    /// As an error of a read.
    pub(super) fn raise(self) -> io::Error {
        io::Error::other(self)
    }
}

/// The error of the file that an error of a read stands for.
pub(super) fn explain(error: io::Error) -> IntakeError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>()) {
        None => IntakeError::Read(error),
        Some(Refusal::CutOff) => IntakeError::CutOff,
        Some(Refusal::Damaged(reason)) => IntakeError::Damaged { reason: reason.clone() },
        Some(Refusal::Trailing { at }) => IntakeError::Trailing { at: *at },
        Some(Refusal::InflatedTooLarge { limit }) => IntakeError::InflatedTooLarge { limit: *limit },
        Some(Refusal::RatioTooHigh { limit }) => IntakeError::RatioTooHigh { limit: *limit },
    }
}
