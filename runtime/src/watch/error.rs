use std::path::PathBuf;

use super::Reason;
use crate::intake::IntakeError;
use crate::jobs::{JobError, KeepError};
use crate::model::Message;
use crate::store::{OverQuota, StoreError};

/// Why directories are not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the directory {} cannot be used", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is on another file system than {}: files are renamed from place to place, which works within one file system only", other.display(), path.display())]
    OtherFileSystem { path: PathBuf, other: PathBuf },
    #[error("{} is watched twice: each directory is watched once, with all its types", path.display())]
    WatchedTwice { path: PathBuf },
    /// Only when it was to end by itself.
    #[error("{files} files could not be taken now; they are kept, and the next watcher goes on with them")]
    FilesLeft { files: usize },
}

/// Why a file did not become a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    /// The file is at fault, or nobody wants it.
    #[error("{}", .0.first().map_or("it was refused", |reason| reason.text.as_str()))]
    Refused(Vec<Reason>),
    /// Somebody writes to it still.
    #[error("it was changed while it was read")]
    Changed,
    /// It was not the file's fault, and may pass.
    #[error(transparent)]
    Jobs(JobError),
    #[error("its place cannot be used")]
    Place(#[source] std::io::Error),
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// The watcher is to stop.
    #[error("the watcher stops")]
    Stopped,
}

impl TakeError {
    pub(super) fn refused(code: &str, text: impl Into<String>) -> TakeError {
        TakeError::Refused(vec![Reason::of_file(code, text)])
    }
}

impl From<JobError> for TakeError {
    /// What will not pass by itself is the end of the file.
    fn from(error: JobError) -> TakeError {
        match error {
            JobError::NoProcessor { .. }
            | JobError::OtherKind { .. }
            | JobError::OtherApp { .. }
            | JobError::FilesOfAllApps { .. }
            | JobError::ContextTooLarge { .. }
            | JobError::InputTooLarge { .. }
            | JobError::Store(StoreError::Invalid(_) | StoreError::OverQuota(OverQuota::Input { .. } | OverQuota::BatchRows { .. })) => {
                TakeError::refused("not_submitted", error.to_string())
            }
            error => TakeError::Jobs(error),
        }
    }
}

impl From<StoreError> for TakeError {
    fn from(error: StoreError) -> TakeError {
        JobError::from(error).into()
    }
}

impl From<KeepError> for TakeError {
    fn from(error: KeepError) -> TakeError {
        match error {
            KeepError::Read(error) => TakeError::Read(error),
            KeepError::Jobs(error) => error.into(),
        }
    }
}

impl From<IntakeError> for TakeError {
    fn from(error: IntakeError) -> TakeError {
        match error {
            IntakeError::Read(error) => TakeError::Read(error),
            error => TakeError::refused("bad_file", error.to_string()),
        }
    }
}

impl From<Message> for Reason {
    fn from(message: Message) -> Reason {
        let text = message.text();
        Reason { line: None, code: message.code, field: message.field, values: message.values, text }
    }
}
