//! Versions of processors, whatever the database: what is refused, and what a query returns.

use std::time::Duration;

use super::StoreError;
use super::columns::{ProcessorRow, count, processor_of};
use super::rules::check_name;
use crate::model::{CodeQuota, NOTE_BYTES_MAX, NewBatch, NewVersion, ProcessorKind, RegisteredVersion, canonical_op};

/// Activations of an operation that are kept: so often a rollback can go back.
pub(super) const ACTIVATIONS_MAX: i64 = 100;
/// Who removes code from the object store is done with it by then, or has died.
pub(super) const REMOVAL_TIME: Duration = Duration::from_secs(300);

/// Why nothing was done about a version.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("app {app:?} has no version {version} of a processor for the operation {op:?} (rowmill processors shows those that it has)")]
    Missing { app: String, op: String, version: u32 },
    #[error("app {app:?} has no version for the operation {op:?} that was active before and is still there: activate one (rowmill activate)")]
    NothingBefore { app: String, op: String },
    #[error("version {version} serves what is submitted: activate another one first")]
    Active { version: u32 },
    #[error("version {version} is used by {batches} batches or queries that have not ended: wait for them, or abort them")]
    InUse { version: u32, batches: u64 },
    #[error("version {version} may be in use by what is being submitted just now: try again")]
    BeingSubmitted { version: u32 },
    /// It was removed between the look at what serves and the submission.
    #[error("version {version} was removed while this was submitted: submit it again")]
    Removed { version: u32 },
    /// The operation is not as it was found any more: it has another version, or its policies say something else.
    #[error("what serves this operation was changed while this was submitted: submit it again")]
    Changed,
    #[error("this code is being removed from the object store just now: try again")]
    CodeBeingRemoved,
    #[error(
        "app {app:?} keeps {versions} versions, as many as it may: remove some that are not needed (rowmill processors remove), or raise processors.versions_max"
    )]
    TooManyVersions { app: String, versions: u64 },
    #[error(
        "app {app:?} would keep {bytes} bytes of code in its versions, and may keep {max}: remove some that are not needed (rowmill processors remove), or raise \
         processors.bytes_max"
    )]
    TooMuchCode { app: String, bytes: u64, max: u64 },
    #[error(
        "the schedule {schedule:?} submits to the operation {op:?} what is of the kind {}, and version {version} is of the kind {}: pause or remove the schedule first",
        wanted.as_str(), kind.as_str()
    )]
    OtherKindScheduled { op: String, schedule: String, wanted: ProcessorKind, version: u32, kind: ProcessorKind },
}

/// Why a batch did not come in that is not there.
pub(super) fn out_of_date(batch: &NewBatch) -> VersionError {
    if batch.as_found.is_some() { VersionError::Changed } else { VersionError::Removed { version: batch.processor_version } }
}

pub(super) fn check_version(new: &NewVersion) -> Result<(), StoreError> {
    check_name("an app", &new.app)?;
    check_name("an operation", &canonical_op(&new.op))?;
    match new.note.as_ref().map(String::len).filter(|bytes| *bytes > NOTE_BYTES_MAX) {
        Some(bytes) => Err(StoreError::Invalid(format!("a note has at most {NOTE_BYTES_MAX} bytes; this one has {bytes}"))),
        None => Ok(()),
    }
}

/// Whether one version more fits, beside so many with so many bytes.
pub(super) fn check_quota(new: &NewVersion, versions: i64, bytes: i64) -> Result<(), VersionError> {
    let CodeQuota { versions_max, bytes_max } = new.quota;
    let (app, versions, bytes) = (new.app.clone(), count(versions), count(bytes).saturating_add(new.size_bytes));
    if versions >= u64::from(versions_max) {
        return Err(VersionError::TooManyVersions { app, versions });
    }
    if bytes > bytes_max { Err(VersionError::TooMuchCode { app, bytes, max: bytes_max }) } else { Ok(()) }
}

/// A version as a query lists it: the version itself, size_bytes, note, active, batches.
#[derive(sqlx::FromRow)]
pub(super) struct RegisteredRow {
    app: String,
    op: String,
    version: i64,
    kind: String,
    digest: String,
    created_at: i64,
    size_bytes: i64,
    note: Option<String>,
    active: bool,
    batches: Option<i64>,
}

impl RegisteredRow {
    pub fn into_version(self) -> RegisteredVersion {
        let row: ProcessorRow = (self.app, self.op, self.version, self.kind, self.digest, self.created_at);
        RegisteredVersion {
            version: processor_of(row),
            size_bytes: count(self.size_bytes),
            note: self.note,
            active: self.active,
            batches: self.batches.map(count),
        }
    }
}
