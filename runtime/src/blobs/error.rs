//! Why an object could not be read or written.

use std::error::Error;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use crate::model::show_time;

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the object store failed while it was to {doing}")]
pub struct BlobError {
    doing: &'static str,
    #[source]
    pub(super) cause: Cause,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error(transparent)]
    Failed(#[from] object_store::Error),
    #[error("there was no answer within {}", show_time(*.0))]
    Late(Duration),
    /// Only when the runtime shuts down: none of our tasks panics.
    #[error("the upload was stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl BlobError {
    /// Whether the object is not there (on S3: or its bucket).
    pub fn is_not_found(&self) -> bool {
        matches!(self.cause, Cause::Failed(object_store::Error::NotFound { .. }))
    }

    pub(crate) fn late(doing: &'static str, patience: Duration) -> BlobError {
        BlobError { doing, cause: Cause::Late(patience) }
    }

    /// Whether no connection could be made, or nobody answered.
    pub(super) fn is_unreachable(&self) -> bool {
        let error = match &self.cause {
            Cause::Late(_) => return true,
            Cause::Stopped(_) => return false,
            Cause::Failed(error) => error,
        };
        let mut link: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = link {
            if let Some(error) = error.downcast_ref::<HttpError>() {
                return matches!(error.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout);
            }
            link = error.source();
        }
        false
    }
}

pub(super) fn failed<E: Into<Cause>>(doing: &'static str) -> impl FnOnce(E) -> BlobError {
    move |error| BlobError { doing, cause: error.into() }
}
