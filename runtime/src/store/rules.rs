//! What may be stored, whatever the database.

use std::time::Duration;

use crate::model::{
    self, AbortReason, App, AppBounds, AppendKey, BatchFile, BatchId, BatchStatus, FailedPosition, Grants, NewBatch, NewRow, PastCursor, Piece,
    Policy, ProcessorKind, Rate, RetryRows, RowResult, RowStatus, Verdict, canonical_op,
};
use crate::store::columns::count;
use crate::store::lines::{LinedRow, check_lines};
use crate::store::{StoreError, StoreEvent};

/// How much the newest measurement counts in the time per row: 1 in this many.
pub(super) const SMOOTHING: i64 = 4;

/// An app that was idle may be so much virtual time behind the others, so that its few rows go first.
pub(super) const CREDIT: Duration = Duration::from_secs(10);

/// A worker that was silent for so long is forgotten.
pub(super) const WORKER_FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn check_submit(batch: &NewBatch, rows: &[NewRow]) -> Result<(), StoreError> {
    check_name("an app", &batch.app)?;
    check_name("an operation", &canonical_op(&batch.op))?;
    batch.group.as_ref().map_or(Ok(()), |group| check_name("a group", group))?;
    batch.terms.check().map_err(StoreError::Invalid)?;
    check_lines(batch.kind, rows)?;
    let wrong = if batch.after.is_some_and(|after| after.batch == batch.id) {
        "a batch cannot come after itself"
    } else if batch.group.is_some() && batch.kind != ProcessorKind::Batch {
        "a slow query is in no group"
    } else if batch.after.is_some() && (batch.kind != ProcessorKind::Batch || batch.hold || !rows.is_empty()) {
        "what comes after a batch is a batch whose rows are made of it: it is neither held nor has rows of its own"
    } else if rows.is_empty() && !batch.hold && batch.after.is_none() {
        "a batch needs at least one row, unless it is held for rows to be appended"
    } else if batch.kind == ProcessorKind::SlowQuery && (rows.len() != 1 || batch.hold) {
        "a slow query has exactly one input and is never held"
    } else if batch.terms.deadline_at.is_some_and(|deadline| batch.terms.start_at.is_some_and(|start| start >= deadline)) {
        "a batch cannot start after its deadline"
    } else {
        return Ok(());
    };
    Err(StoreError::Invalid(wrong.to_owned()))
}

/// A priority decides about rows that wait.
pub(super) const NO_ROWS_WAIT: &str = "none of its rows waits any longer";

/// Batches that are aborted at once for their deadline, at most.
pub(super) const OVERDUE_MAX: u32 = 100;

pub(super) fn check_policy(policy: &Policy) -> Result<(), StoreError> {
    check_policy_names(&policy.app, policy.op.as_deref())?;
    let wrong = match policy.rate {
        Some(rate) if !(1..=Rate::MICROS_MAX).contains(&rate.micros) => "a rate is a millionth to a million rows per second",
        Some(rate) if !(1..=Rate::BURST_MAX).contains(&rate.burst) => "the burst of a rate is 1 to 1,000,000 rows",
        _ => return policy.terms.check().map_err(StoreError::Invalid),
    };
    Err(StoreError::Invalid(wrong.to_owned()))
}

/// No operation at all is something else than an operation without a name, of which there is none.
pub(super) fn check_policy_names(app: &str, op: Option<&str>) -> Result<(), StoreError> {
    check_name("an app", app)?;
    match op {
        Some("") => Err(StoreError::Invalid("an operation has a name: leave it out to mean all of the app".to_owned())),
        Some(op) => check_name("an operation", &canonical_op(op)),
        None => Ok(()),
    }
}

/// What a submission tells: nothing of what is held. What begins later is no reason for others to make room, but workers look when that is.
pub(super) fn submission(batch: &NewBatch) -> Option<StoreEvent> {
    match (batch.hold, batch.terms.start_at) {
        (true, _) => None,
        // What it comes after may have ended.
        _ if batch.after.is_some() => Some(StoreEvent::Work(batch.kind)),
        (false, Some(_)) => Some(StoreEvent::Work(batch.kind)),
        (false, None) => Some(StoreEvent::Submitted { app: batch.app.clone(), kind: batch.kind }),
    }
}

/// Rows of the first batch that are looked at in a step of a chained batch, and bytes of their outputs: a row more than that at most.
pub(super) const CHAIN_PAGE_ROWS: i64 = 5_000;
pub(super) const CHAIN_PAGE_BYTES: i64 = 4 << 20;

/// Whether a batch of this kind, if there is one of the app, can have one after it. It is there before what comes after it: so no chain leads back to its beginning.
pub(super) fn check_first(id: BatchId, app: &str, kind: Option<ProcessorKind>) -> Result<(), StoreError> {
    match kind {
        Some(ProcessorKind::Batch) => Ok(()),
        Some(ProcessorKind::SlowQuery) => Err(StoreError::Invalid(format!("{id} is a slow query: only batches have batches that come after them"))),
        None => Err(StoreError::Invalid(format!("app {app:?} has no batch {id} that another could come after"))),
    }
}

/// What is said to a batch that comes too late.
pub(super) fn group_is_sealed(app: &str, name: &str) -> StoreError {
    StoreError::Invalid(format!("the group {name:?} of app {app:?} is sealed: no batch comes into it any more"))
}

/// What comes after another batch is not appended to or released by hand.
pub(super) const CHAINED: &str = "its rows are made of the batch that it comes after, and then it is released";

/// Whether what is submitted under an id that is there was submitted before.
pub(super) fn was_submitted(id: BatchId, known: Option<&str>, request: Option<&str>) -> Result<(), StoreError> {
    if request.is_some() && known == request { Ok(()) } else { Err(StoreError::Exists(id)) }
}

/// How many rows a batch has with so many more, and whether its lines still grow.
pub(super) fn count_rows(old_count: i64, old_last: i64, rows: &[LinedRow], rows_max: i64) -> Result<(i64, i64, bool), StoreError> {
    let total = old_count + i64::try_from(rows.len()).unwrap_or(i64::MAX);
    if total > rows_max {
        return Err(StoreError::Invalid(format!("a batch holds at most {rows_max} rows; this one would have {total}")));
    }
    let lines = std::iter::once(old_last).chain(rows.iter().map(|row| i64::from(row.line)));
    let ascend = lines.clone().zip(lines.clone().skip(1)).all(|(before, after)| before < after);
    Ok((total, lines.last().unwrap_or(old_last), ascend))
}

/// The state of a batch that an append needs.
pub(super) const APPENDED_WHILE_HELD: &str = "rows can be appended only while it is held";

/// The result of a completed append with this key: how many rows the batch had then.
pub(super) fn key_of_append(id: BatchId, key: &AppendKey, digest: &str, rows: i64) -> Result<u64, StoreError> {
    if key.digest == digest { Ok(count(rows)) } else { Err(StoreError::AppendKeyReused { id, key: key.name.clone() }) }
}

pub(super) fn check_batch_file(file: &BatchFile) -> Result<(), StoreError> {
    if file.first_row == 0 {
        return Err(StoreError::Invalid(format!("rows are numbered from 1 on, but the file {:?} was to begin with row 0", file.name)));
    }
    Ok(())
}

pub(super) fn check_app(app: &App, bounds: &AppBounds) -> Result<(), StoreError> {
    check_name("an app", &app.name)?;

    if !(1..=App::WEIGHT_MAX).contains(&app.weight) {
        return Err(StoreError::Invalid(format!("the weight of an app is 1 to {}, but {:?} was to have {}", App::WEIGHT_MAX, app.name, app.weight)));
    }
    if app.running_max == Some(0) {
        return Err(StoreError::Invalid(format!("an app runs one lease at least, but {:?} was to run 0", app.name)));
    }
    bounds.check(app).map_err(StoreError::Invalid)
}

/// Returns true if two descriptions of an app differ in nothing but their grants, which change on their own.
pub(super) fn is_same_but_for_grants(one: &App, other: &App) -> bool {
    App { grants: Grants::default(), ..one.clone() } == App { grants: Grants::default(), ..other.clone() }
}

pub(super) fn check_grants(app: &str, grants: &Grants) -> Result<(), StoreError> {
    check_name("an app", app)?;
    grants.check().map_err(|reason| StoreError::Invalid(format!("this cannot be granted to app {app:?}: {reason}")))
}

/// Checks the name of `whose`, such as "an app", as it is to be stored.
pub(super) fn check_name(whose: &str, name: &str) -> Result<(), StoreError> {
    model::check_name(&format!("the name of {whose}"), name).map_err(|wrong| StoreError::Invalid(wrong.to_string()))
}

/// A result ends its row as success or failed.
pub(super) fn check_verdicts(results: &[RowResult]) -> Result<(), StoreError> {
    match results.iter().find(|result| matches!(result.verdict, Verdict::Final { status: RowStatus::Aborted, .. })) {
        Some(result) => Err(StoreError::Invalid(format!("row {} was to be recorded as aborted, which only a batch can be", result.row_no))),
        None => Ok(()),
    }
}

/// What a record says to a result that is not of the lease's next row.
pub(super) fn not_the_next_row(row_no: impl std::fmt::Display, wanted: Option<impl std::fmt::Display>) -> StoreError {
    let wanted = wanted.map_or("the lease has no more rows".to_owned(), |row_no| format!("the lease's next is {row_no}"));
    StoreError::Invalid(format!("a result is of row {row_no}, but {wanted}"))
}

/// The pieces of a result that add text to a file.
pub(super) fn pieces(result: &RowResult) -> impl Iterator<Item = &Piece> {
    let pieces: &[Piece] = match &result.verdict {
        Verdict::Final { pieces, .. } => pieces,
        Verdict::Retry { .. } => &[],
    };
    pieces.iter().filter(|piece| !piece.is_blank())
}

/// The names of the files that results write to, each once.
pub(super) fn file_names(results: &[RowResult]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    // Nearly all pieces are for the same file as the one before.
    for piece in results.iter().flat_map(pieces) {
        if names.last().is_none_or(|last| *last != piece.file) {
            names.push(&piece.file);
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Why a batch is not run again.
#[derive(Clone, Copy, Debug)]
pub(super) enum RetryRefusal {
    /// It is a slow query.
    Kind,
    /// It has not ended.
    Runs,
    /// It was aborted, and its aborted rows are not wanted.
    Aborted,
    Nothing,
    /// Its inputs or outcomes are not kept any more.
    Pruned,
    /// Rows of another are being made of its rows.
    Chained,
}

impl RetryRefusal {
    /// By the word of the database.
    pub fn of(word: &str) -> RetryRefusal {
        match word {
            "kind" => RetryRefusal::Kind,
            "runs" => RetryRefusal::Runs,
            "aborted" => RetryRefusal::Aborted,
            "chained" => RetryRefusal::Chained,
            "pruned" => RetryRefusal::Pruned,
            _ => RetryRefusal::Nothing,
        }
    }

    pub fn error(self, id: BatchId, status: BatchStatus, rows: &RetryRows) -> StoreError {
        StoreError::Invalid(match self {
            RetryRefusal::Kind => format!("{id} is a slow query: ask it again, only batches are retried"),
            RetryRefusal::Runs => {
                return StoreError::WrongStatus { id, status, wanted: "it can be retried once it has ended and its processor was told (mark-done)" };
            }
            RetryRefusal::Aborted => format!("batch {id} was aborted: it can only be retried with the rows that were aborted (--aborted)"),
            RetryRefusal::Pruned => format!("batch {id} cannot be retried: its inputs or outcomes were pruned; submit its rows again"),
            RetryRefusal::Chained => {
                format!("batch {id} cannot be retried at the moment: the rows of a batch that comes after it are being made of its outputs")
            }
            RetryRefusal::Nothing if rows.codes.is_empty() && rows.aborted => {
                format!("batch {id} has no failed or aborted row: there is nothing to retry")
            }
            RetryRefusal::Nothing if rows.codes.is_empty() => format!("batch {id} has no failed row: there is nothing to retry"),
            RetryRefusal::Nothing => format!("batch {id} has no failed row with one of these codes: there is nothing to retry"),
        })
    }
}

/// A retry lets at most this many batches behind its batch wait again: it locks each of them. The others stay aborted, and are
/// retried by themselves (`rowmill retry BATCH --aborted`).
pub(super) const WAITS_MAX: usize = 1_000;

/// The error of a retry of a chained batch that would be aborted again at once.
pub(super) fn lapses(id: BatchId, reason: &AbortReason) -> StoreError {
    let is_for_good = matches!(reason, AbortReason::PredecessorPruned { .. } | AbortReason::PredecessorRemoved { .. });
    StoreError::Invalid(if is_for_good {
        format!("batch {id} cannot run again: {reason}; submit its rows again")
    } else {
        format!("batch {id} would be aborted again: {reason}; retry that batch first")
    })
}

/// Codes as they stand in the stored messages of a row, where nothing else can look like them: inside a text the quotes would be escaped.
pub(super) fn code_marks(codes: &[String]) -> Vec<String> {
    codes.iter().map(|code| format!("\"code\":{}", serde_json::to_string(code).expect("a string is always JSON"))).collect()
}

/// Batches and failed rows that are looked at for a page of failed rows, at most.
pub(super) const FAILED_LOOKS: i64 = 10_000;

/// Where to go on among failed rows: no batch is newer than the first place.
pub(super) fn failed_from(after: Option<FailedPosition>) -> (i64, i64) {
    after.map_or((i64::MAX, 0), |after| (i64::try_from(after.batch).unwrap_or(i64::MAX), i64::from(after.row_no)))
}

/// Where to go on among past outcomes.
pub(super) fn cursor_of(after: Option<PastCursor>) -> (i64, i64) {
    after.map_or((0, 0), |after| (i64::from(after.row_no), i64::from(after.round)))
}
