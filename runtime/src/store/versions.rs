//! Versions of processors, whatever the database: what is refused, and what a query returns.

use std::time::Duration;

use super::columns::{ProcessorRow, count, processor_of};
use super::rules::check_name;
use super::{Store, StoreError};
use crate::model::{CodeQuota, FoundOp, NOTE_BYTES_MAX, NewBatch, NewVersion, NotServed, ProcessorKind, RegisteredVersion, canonical_op};

/// Activations that are kept of each kind of an operation: a rollback can go back this many times.
pub(super) const ACTIVATIONS_MAX: i64 = 100;
/// Who removes code from the object store is done with it by then, or has died.
pub(super) const REMOVAL_TIME: Duration = Duration::from_secs(300);

/// Why nothing was done about a version.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("app {app:?} has no version {version} of a processor for the operation {op:?} (rowmill processors shows those that it has)")]
    Missing { app: String, op: String, version: u32 },
    #[error(
        "app {app:?} has no version of a {} for the operation {op:?} that was active before and is still there: activate one (rowmill activate)",
        kind.map_or("processor", ProcessorKind::noun)
    )]
    NothingBefore { app: String, op: String, kind: Option<ProcessorKind> },
    /// A rollback did not name the kind, and a version of each kind serves.
    #[error(
        "app {app:?} has a batch processor (version {batch}) and a slow-query processor (version {query}) that serve the operation {op:?}: say which one to \
         roll back (rowmill rollback --kind batch, or --kind query)"
    )]
    BothServe { app: String, op: String, batch: u32, query: u32 },
    #[error("version {version} serves what is submitted: activate another version of its kind first, or deactivate this one (rowmill deactivate)")]
    Active { version: u32 },
    #[error("version {version} does not serve: rowmill processors shows the active versions")]
    NotActive { version: u32 },
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
    /// A version is not deactivated while each tick of a schedule would fail without it.
    #[error("the schedule {schedule:?} submits to the {} of the operation {op:?}: pause or remove the schedule first", kind.noun())]
    Scheduled { op: String, schedule: String, kind: ProcessorKind },
}

/// Finds the version of a kind that serves an operation, or says why there is none.
///
/// # Errors
/// As for [`Store::find_op`].
pub async fn find_served(store: &dyn Store, app: &str, op: &str, kind: ProcessorKind) -> Result<Result<FoundOp, NotServed>, StoreError> {
    if let Some(found) = store.find_op(app, op, kind).await? {
        return Ok(Ok(found));
    }
    let other_serves = store.find_op(app, op, kind.other()).await?.is_some();
    Ok(Err(NotServed { app: app.to_owned(), op: canonical_op(op), kind, other_serves }))
}

/// The number of an activation that holds, and the version that is active by it.
pub(super) type Activation = (i64, i64);

/// The kind that a rollback is for, with its activation: the kind that was named, or else the only one that serves.
pub(super) fn kind_to_roll_back(
    (app, op): (&str, &str),
    named: Option<ProcessorKind>,
    batch: Option<Activation>,
    query: Option<Activation>,
) -> Result<(ProcessorKind, Activation), VersionError> {
    let number = |version: i64| u32::try_from(version).unwrap_or(u32::MAX);
    match (named, batch, query) {
        (None, Some((_, batch)), Some((_, query))) => {
            Err(VersionError::BothServe { app: app.to_owned(), op: op.to_owned(), batch: number(batch), query: number(query) })
        }
        (Some(ProcessorKind::Batch) | None, Some(active), _) => Ok((ProcessorKind::Batch, active)),
        (Some(ProcessorKind::SlowQuery) | None, _, Some(active)) => Ok((ProcessorKind::SlowQuery, active)),
        (kind, _, _) => Err(VersionError::NothingBefore { app: app.to_owned(), op: op.to_owned(), kind }),
    }
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
