//! From what went wrong to a kind and a sentence.

use crate::sandbox::{HttpFailure, HttpFailureKind as Kind};

pub(super) fn failure(kind: Kind, reason: impl Into<String>) -> HttpFailure {
    HttpFailure::new(kind, reason)
}

/// Why an exchange with a place failed.
pub(super) fn failed(place: &str, error: &hyper::Error) -> HttpFailure {
    // A limit, or the guest, ended it.
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<HttpFailure>() {
            return own.clone();
        }
        source = cause.source();
    }
    let kind = if error.is_parse_too_large() {
        Kind::ResponseHeadersTooLarge
    } else if error.is_timeout() {
        Kind::ResponseTimeout
    } else if error.is_parse() {
        Kind::Protocol
    } else {
        Kind::Terminated
    };
    failure(kind, format!("{place} could not be talked to: {error}"))
}
