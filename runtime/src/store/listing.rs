//! How batches of an app are listed, the same in every database.

use crate::model::{BatchFile, BatchFilter, BatchPage, BatchPosition, ListedBatch, Timestamp};
use crate::store::columns::{count, counts, kind_of, small, status_of, step_of, worded};

/// Batches that one page looks at, at most, where its filter may not match them.
pub(super) const LOOKS_MAX: i64 = 2_000;
/// Batches of one page, at most.
const LISTED_MAX: u32 = 1_000;

/// The index along which a page looks for its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    App,
    Group,
    FileName,
    FileDigest,
    Id,
}

/// The work of one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub along: Along,
    /// The filter may leave out batches of the index: the page looks at [`LOOKS_MAX`] of them at most.
    pub is_narrow: bool,
    /// Only batches with a number below this.
    pub before: i64,
    pub limit: u32,
}

impl Look {
    pub fn new(of: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Look {
        let BatchFilter { app: _, op, statuses, version, group, id, file_name, file_sha256, since, until } = of;
        let along = if id.is_some() {
            Along::Id
        } else if file_sha256.is_some() {
            Along::FileDigest
        } else if file_name.is_some() {
            Along::FileName
        } else if group.is_some() {
            Along::Group
        } else {
            Along::App
        };
        let has_others = op.is_some() || !statuses.is_empty() || version.is_some() || since.is_some() || until.is_some();
        Look {
            along,
            is_narrow: has_others || !matches!(along, Along::App | Along::Group),
            before: after.map_or(i64::MAX, |after| i64::try_from(after.0).unwrap_or(i64::MAX)),
            limit: limit.min(LISTED_MAX),
        }
    }

    /// The page with these batches. `floor` is the last batch that was looked at, where there may be
    /// more behind it.
    pub fn page(&self, batches: Vec<ListedBatch>, floor: Option<i64>) -> BatchPage {
        let is_full = batches.len() >= self.limit as usize;
        let next = match batches.last() {
            Some(last) if is_full => Some(last.position),
            _ if is_full => None,
            _ => floor.map(|floor| BatchPosition(count(floor))),
        };
        BatchPage { batches, next }
    }
}

/// A batch of a list as a query returns it, without its id, its texts encoded as the database has
/// them.
#[derive(sqlx::FromRow)]
pub(super) struct ListedRow {
    pub batch_key: i64,
    pub op: String,
    pub kind: String,
    pub processor_version: i64,
    pub priority: i64,
    pub group_name: Option<String>,
    pub round: i64,
    pub status: String,
    pub step: String,
    pub row_count: i64,
    pub success: i64,
    pub failed: i64,
    pub fuel: i64,
    pub abort_reason: Option<String>,
    pub mark_error: Option<String>,
    pub submitted_at: i64,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
}

impl ListedRow {
    pub fn listed(self, app: &str, id: crate::model::BatchId, file: Option<BatchFile>, decode: impl Fn(String) -> String) -> ListedBatch {
        let status = status_of(&self.status);
        ListedBatch {
            position: BatchPosition(count(self.batch_key)),
            id,
            app: app.to_owned(),
            op: decode(self.op),
            kind: kind_of(&self.kind),
            version: small(self.processor_version),
            priority: i32::try_from(self.priority).unwrap_or(0),
            group: self.group_name.map(&decode),
            round: small(self.round),
            status,
            done: step_of(&self.step) == crate::model::BatchStep::Done,
            counts: counts(status, self.row_count, self.success, self.failed),
            fuel: count(self.fuel),
            abort_reason: self.abort_reason.map(|reason| worded(decode(reason))),
            mark_error: self.mark_error.map(&decode),
            submitted_at: Timestamp(self.submitted_at),
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            file,
        }
    }
}

/// The file of a batch of a list as a query returns it; all are none without a file.
#[derive(sqlx::FromRow)]
pub(super) struct ListedFileRow {
    first_row: Option<i64>,
    name: Option<String>,
    form: Option<String>,
    size_bytes: Option<i64>,
    sha256: Option<String>,
    object: Option<String>,
    source_object: Option<String>,
}

impl ListedFileRow {
    pub fn file(self, decode: impl Fn(String) -> String) -> Option<BatchFile> {
        Some(BatchFile {
            first_row: small(self.first_row?),
            name: decode(self.name?),
            form: decode(self.form?),
            size_bytes: count(self.size_bytes?),
            sha256: decode(self.sha256?),
            object: self.object.map(&decode),
            source_object: self.source_object.map(&decode),
        })
    }
}
