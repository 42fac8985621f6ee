//! Batches and rows come in.

use std::borrow::Cow;

use sqlx::PgConnection;

use super::bytes;
use super::chains::{chain, find_first};
use super::connect::{PgStore, refuse};
use super::groups::enter_group;
use super::listen::{CHANNEL, write};
use super::quota::{not_admitted, quota_columns};
use super::text::{INPUT_END, decode, encode};
use crate::model::{AppBounds, BatchId, BatchStatus, NewBatch, NewRow, ProcessorKind};
use crate::store::columns::{count, failed, failure_limit, retry_json, signed, status_of};
use crate::store::quota::longest_input;
use crate::store::rules::{CHAINED, NO_ROWS_WAIT, check_rows, check_submit, count_rows, line_twice, submission, was_submitted};
use crate::store::{StoreError, VersionError};

/// Rows of one statement, at most, and their bytes. Arrays need no protocol of their own, as COPY does.
const ROWS_PER_INSERT: usize = 10_000;
const BYTES_PER_INSERT: usize = 8 << 20;

pub(super) async fn submit_batch(store: &PgStore, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
    let new = New::check(&batch, &rows)?;
    // Nearly always it is one statement, and so a transaction of its own.
    if new.rest.is_empty() && new.lines_ascend && new.batch.after.is_none() && new.batch.group.is_none() {
        let submit = async {
            let mut db = store.unit().await?;
            match new.insert(&mut db, store.named(), store.now(), &store.bounds).await {
                Ok(key) => db.done().await.map(|()| key.is_some()),
                Err(error) => {
                    db.undone().await;
                    Err(error)
                }
            }
        };
        return store.tell_own(submission(&batch), submit).await;
    }
    let mut db = store.begin().await?;
    if let Err(error) = new.write(&mut db, store.named(), store.now(), &store.bounds).await {
        return refuse(db, error).await;
    }
    db.commit().await.map_err(failed("commit a submitted batch"))
}

/// In a transaction that is there already. Statements have names only where the connection is known to keep them: a caller's own may be a pooler's.
pub(super) async fn submit_batch_in(
    db: &mut PgConnection,
    named: bool,
    now: Option<i64>,
    bounds: &AppBounds,
    batch: NewBatch,
    rows: Vec<NewRow>,
) -> Result<(), StoreError> {
    New::check(&batch, &rows)?.write(db, named, now, bounds).await
}

/// Whether these could be submitted.
pub(super) fn check(batch: &NewBatch, rows: &[NewRow]) -> Result<(), StoreError> {
    New::check(batch, rows).map(drop)
}

/// A batch that comes in.
struct New<'a> {
    batch: &'a NewBatch,
    row_count: i64,
    line_last: i64,
    lines_ascend: bool,
    input_bytes_max: i32,
    longest_input: Option<&'a NewRow>,
    /// Rows that go in with the batch, and those that follow.
    first: &'a [NewRow],
    rest: &'a [NewRow],
}

impl<'a> New<'a> {
    fn check(batch: &'a NewBatch, rows: &'a [NewRow]) -> Result<New<'a>, StoreError> {
        check_submit(batch, rows)?;
        check_inputs(rows)?;
        let (row_count, line_last, lines_ascend) = count_rows(0, -1, rows, i64::from(i32::MAX))?;
        let (first, rest) = rows.split_at(chunk_rows(rows));
        Ok(New { batch, row_count, line_last, lines_ascend, input_bytes_max: input_bytes_max(rows), longest_input: longest_input(rows), first, rest })
    }

    async fn write(&self, db: &mut PgConnection, named: bool, now: Option<i64>, bounds: &AppBounds) -> Result<(), StoreError> {
        if (self.batch.after.is_some() || self.batch.group.is_some()) && self.is_there(db, named).await? {
            return Ok(());
        }
        enter_group(db, named, now, self.batch).await?;
        let first = find_first(db, named, self.batch).await?;
        let Some(key) = self.insert(db, named, now, bounds).await? else { return Ok(()) };
        if let Some(first) = first {
            chain(db, named, key, &first).await?;
        }
        insert_all(db, named, key, self.first.len(), self.rest).await?;
        if !self.lines_ascend {
            sort_lines(db, named, key, 0, self.row_count).await?;
        }
        Ok(())
    }

    /// Whether it was submitted before.
    async fn is_there(&self, db: &mut PgConnection, named: bool) -> Result<bool, StoreError> {
        let NewBatch { id, request_digest, .. } = self.batch;
        let known: Option<Option<String>> = sqlx::query_scalar("SELECT request_digest FROM rowmill.batches WHERE batch_id = $1")
            .persistent(named)
            .bind(id.uuid())
            .fetch_optional(db)
            .await
            .map_err(failed("look up a batch"))?;
        match known {
            Some(known) => was_submitted(*id, known.as_deref(), request_digest.as_deref()).map(|()| true),
            None => Ok(false),
        }
    }

    /// The batch and its first rows, and tells everybody when that commits. Its key; none when it was submitted before.
    async fn insert(&self, db: &mut PgConnection, named: bool, now: Option<i64>, bounds: &AppBounds) -> Result<Option<i64>, StoreError> {
        let NewBatch { id, app, op, kind, terms, processor_version, processor_digest, context, hold, after, group, request_digest } = self.batch;
        let (failures_max, failures_percent) = failure_limit(terms);
        let columns = Columns::of(self.first);
        let event = submission(self.batch).as_ref().map(write);
        let written: Vec<(i64,)> = sqlx::query_as(
            "WITH batch AS (
                INSERT INTO rowmill.batches (batch_id, app, op, kind, priority, processor_version, processor_digest, context, attempts_max, status, fresh,
                    row_count, line_last, lines_ascend, input_bytes_max, submitted_at, request_digest, retry_rule, start_at, deferred, deadline_at,
                    failures_max, failures_percent, after_batch, after_condition, group_name, row_micros)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, coalesce($16, rowmill.now_ms()), $22, $23, $24, $24 IS NOT NULL, $25,
                    $26, $27, $28, $29, $33,
                    (SELECT p.row_micros FROM rowmill.processors p WHERE p.app = $2 AND p.op = $3 AND p.version = $6)
                WHERE NOT EXISTS (SELECT FROM rowmill.processors p WHERE p.app = $2 AND p.op = $3 AND p.version = $6 AND p.removed_at IS NOT NULL)
                ON CONFLICT (batch_id) DO NOTHING RETURNING batch_key),
             written AS (
                INSERT INTO rowmill.rows (batch_key, line, row_no, input, rejected)
                SELECT batch.batch_key, u.line, u.at, u.input, u.rejected FROM batch, ROWS FROM (unnest($17::bigint[]), unnest($18::text[]), unnest($19::text[]))
                WITH ORDINALITY u (line, input, rejected, at))
             SELECT batch.batch_key, CASE WHEN $20::text IS NOT NULL THEN pg_notify($21, $20) END,
                rowmill.admit_rows($2, batch.batch_key, $12, $12, $30, $31, $32) FROM batch",
        )
        .persistent(named)
        .bind(id.uuid())
        .bind(encode(app))
        .bind(encode(&op.to_lowercase()))
        .bind(kind.as_str())
        .bind(terms.priority)
        .bind(i64::from(*processor_version))
        .bind(encode(processor_digest))
        .bind(context.as_str())
        .bind(i64::from(terms.attempts_max))
        .bind(if *hold || after.is_some() { BatchStatus::Wait } else { BatchStatus::Queued }.as_str())
        .bind(!hold && after.is_none() && terms.start_at.is_none())
        .bind(i32::try_from(self.row_count).unwrap_or(i32::MAX))
        .bind(self.line_last)
        .bind(self.lines_ascend)
        .bind(self.input_bytes_max)
        .bind(now)
        .bind(columns.lines)
        .bind(columns.inputs)
        .bind(columns.rejected)
        .bind(event)
        .bind(CHANNEL)
        .bind(request_digest.as_deref())
        .bind(retry_json(terms))
        .bind(terms.start_at.map(|at| at.0))
        .bind(terms.deadline_at.map(|at| at.0))
        .bind(failures_max)
        .bind(failures_percent.map(i64::from))
        .bind(after.map(|after| after.batch.uuid()))
        .bind(after.map(|after| after.condition.as_str()))
        .bind(signed(self.longest_input.map_or(0, |row| row.input.as_str().len() as u64)))
        .bind(quota_columns(&bounds.quota))
        .bind(quota_columns(&bounds.quota_max))
        .bind(group.as_deref().map(encode))
        .fetch_all(&mut *db)
        .await
        .map_err(|error| not_admitted("submit a batch", app, self.longest_input, error))?;
        if let [(key,)] = written[..] {
            return Ok(Some(key));
        }
        // It is there, and whoever wrote it has committed: the insert waited for that. Or its version was removed.
        let known: Vec<Option<String>> = sqlx::query_scalar("SELECT request_digest FROM rowmill.batches WHERE batch_id = $1")
            .persistent(named)
            .bind(id.uuid())
            .fetch_all(db)
            .await
            .map_err(failed("look up a batch"))?;
        let known = known.into_iter().next().ok_or(VersionError::Removed { version: *processor_version })?;
        was_submitted(*id, known.as_deref(), request_digest.as_deref()).map(|()| None)
    }
}

pub(super) async fn append_rows(store: &PgStore, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
    check_rows(ProcessorKind::Batch, &rows)?;
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, store.named(), id).await?;
    if status != BatchStatus::Wait {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: "rows can be appended only while it is held" }).await;
    }
    if place.chained {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: CHAINED }).await;
    }
    let total = match place.append(&mut db, store.named(), &store.bounds, &rows).await {
        Ok(total) => total,
        Err(error) => return refuse(db, error).await,
    };
    db.commit().await.map_err(failed("commit appended rows"))?;
    Ok(total)
}

pub(super) async fn release_batch(store: &PgStore, id: BatchId) -> Result<u64, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<(String, i32)> = sqlx::query_as("SELECT status, row_count FROM rowmill.release_batch($1)")
        .persistent(store.named())
        .bind(id.uuid())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("release a batch"))?;
    db.done().await?;
    let (status, row_count) = found.into_iter().next().ok_or(StoreError::NotFound(id))?;
    match status_of(&status) {
        BatchStatus::Queued => Ok(count(row_count.into())),
        status @ BatchStatus::Wait if row_count > 0 || is_chained(store, id).await? => Err(StoreError::WrongStatus { id, status, wanted: CHAINED }),
        BatchStatus::Wait => Err(StoreError::Invalid(format!("batch {id} has no rows: append some before it is released, or abort it"))),
        status => Err(StoreError::WrongStatus { id, status, wanted: "only a held batch can be released" }),
    }
}

async fn is_chained(store: &PgStore, id: BatchId) -> Result<bool, StoreError> {
    Ok(super::read::read_batch(store, id).await?.after.is_some())
}

pub(super) async fn set_priority(store: &PgStore, id: BatchId, priority: i32) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<(String, bool)> = sqlx::query_as(
        "WITH moved AS (UPDATE rowmill.batches SET priority = $2 WHERE batch_id = $1 AND step = 'rows' RETURNING 1)
         SELECT status, EXISTS (SELECT FROM moved) FROM rowmill.batches WHERE batch_id = $1",
    )
    .persistent(store.named())
    .bind(id.uuid())
    .bind(priority)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("change the priority of a batch"))?;
    db.done().await?;
    match found.into_iter().next() {
        None => Err(StoreError::NotFound(id)),
        Some((_, true)) => Ok(()),
        Some((status, false)) => Err(StoreError::WrongStatus { id, status: status_of(&status), wanted: NO_ROWS_WAIT }),
    }
}

pub(super) async fn discard_batch(store: &PgStore, id: BatchId) -> Result<(), StoreError> {
    let mut db = store.begin().await?;
    // Before the batch: whoever makes its rows holds this when he waits for the batch.
    sqlx::query("SELECT FROM rowmill.chains c JOIN rowmill.batches b USING (batch_key) WHERE b.batch_id = $1 FOR UPDATE OF c")
        .persistent(store.named())
        .bind(id.uuid())
        .execute(&mut *db)
        .await
        .map_err(failed("discard a batch"))?;
    let (place, status) = lock_place(&mut db, store.named(), id).await?;
    if status != BatchStatus::Wait {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: "only a held batch can be discarded" }).await;
    }
    for delete in [
        "DELETE FROM rowmill.rows WHERE batch_key = $1",
        "DELETE FROM rowmill.line_order WHERE batch_key = $1",
        "DELETE FROM rowmill.batch_files WHERE batch_key = $1",
        "DELETE FROM rowmill.batch_events WHERE batch_key = $1",
        "DELETE FROM rowmill.chains WHERE batch_key = $1",
        // What comes after it does not wait any longer.
        "SELECT rowmill.lock_chains($1, false)",
        "UPDATE rowmill.chains SET ready = true WHERE first_key = $1",
        "DELETE FROM rowmill.batches WHERE batch_key = $1",
    ] {
        sqlx::query(delete).persistent(store.named()).bind(place.key).execute(&mut *db).await.map_err(failed("discard a batch"))?;
    }
    db.commit().await.map_err(failed("commit a discard"))
}

/// Where further rows of a batch go.
pub(super) struct Place {
    pub(super) key: i64,
    app: String,
    row_count: i64,
    line_last: i64,
    lines_ascend: bool,
    chained: bool,
}

/// Locks a batch, so that others who change it wait.
pub(super) async fn lock_place(db: &mut PgConnection, named: bool, id: BatchId) -> Result<(Place, BatchStatus), StoreError> {
    let found: Option<(i64, String, String, i32, i64, bool, bool)> = sqlx::query_as(
        "SELECT batch_key, app, status, row_count, line_last, lines_ascend, after_batch IS NOT NULL FROM rowmill.batches WHERE batch_id = $1 FOR NO KEY UPDATE",
    )
    .persistent(named)
    .bind(id.uuid())
    .fetch_optional(db)
    .await
    .map_err(failed("lock a batch"))?;
    let (key, app, status, row_count, line_last, lines_ascend, chained) = found.ok_or(StoreError::NotFound(id))?;
    Ok((Place { key, app: decode(app), row_count: row_count.into(), line_last, lines_ascend, chained }, status_of(&status)))
}

impl Place {
    /// Appends rows behind those that the batch has, and returns how many it has now.
    async fn append(&self, db: &mut PgConnection, named: bool, bounds: &AppBounds, rows: &[NewRow]) -> Result<u64, StoreError> {
        check_inputs(rows)?;
        let (total, last, in_order) = count_rows(self.row_count, self.line_last, rows, i64::from(i32::MAX))?;
        let longest = longest_input(rows);
        sqlx::query("SELECT rowmill.admit_rows($1, NULL, $2, $3, $4, $5, $6)")
            .persistent(named)
            .bind(encode(&self.app))
            .bind(total - self.row_count)
            .bind(total)
            .bind(signed(longest.map_or(0, |row| row.input.as_str().len() as u64)))
            .bind(quota_columns(&bounds.quota))
            .bind(quota_columns(&bounds.quota_max))
            .execute(&mut *db)
            .await
            .map_err(|error| not_admitted("append rows", &self.app, longest, error))?;
        let ascend = self.lines_ascend && in_order;
        insert_all(db, named, self.key, usize::try_from(self.row_count).unwrap_or(usize::MAX), rows).await?;
        if !ascend {
            // All rows when these are the first that are out of order, else the new ones.
            sort_lines(db, named, self.key, if self.lines_ascend { 0 } else { self.row_count }, total).await?;
        }
        sqlx::query("UPDATE rowmill.batches SET row_count = $1, line_last = $2, lines_ascend = $3, input_bytes_max = greatest(input_bytes_max, $5) WHERE batch_key = $4")
            .persistent(named)
            .bind(i32::try_from(total).unwrap_or(i32::MAX))
            .bind(last)
            .bind(ascend)
            .bind(self.key)
            .bind(input_bytes_max(rows))
            .execute(db)
            .await
            .map_err(failed("count rows"))?;
        Ok(count(total))
    }
}

fn check_inputs(rows: &[NewRow]) -> Result<(), StoreError> {
    match rows.iter().position(|row| row.input.as_str().contains(INPUT_END)) {
        Some(wrong) => Err(StoreError::Invalid(format!("the input of row {} of this request is no JSON: it holds a control character", wrong + 1))),
        None => Ok(()),
    }
}

fn input_bytes_max(rows: &[NewRow]) -> i32 {
    rows.iter().map(|row| row.input.as_str().len()).max().map_or(0, bytes)
}

/// Keeps the order of lines, of the rows after this one.
async fn sort_lines(db: &mut PgConnection, named: bool, key: i64, after: i64, total: i64) -> Result<(), StoreError> {
    let sorted = sqlx::query(
        "INSERT INTO rowmill.line_order SELECT batch_key, line, row_no FROM rowmill.rows WHERE batch_key = $1 AND row_no > $2
         ON CONFLICT DO NOTHING",
    )
    .persistent(named)
    .bind(key)
    .bind(after)
    .execute(&mut *db)
    .await
    .map_err(failed("sort lines"))?;
    if sorted.rows_affected() == count(total - after) {
        return Ok(());
    }
    let twice: Option<i64> = sqlx::query_scalar(
        "SELECT r.line FROM rowmill.rows r LEFT JOIN rowmill.line_order l USING (batch_key, line, row_no)
         WHERE r.batch_key = $1 AND r.row_no > $2 AND l.row_no IS NULL ORDER BY r.row_no LIMIT 1",
    )
    .persistent(named)
    .bind(key)
    .bind(after)
    .fetch_optional(db)
    .await
    .map_err(failed("find a line that comes twice"))?;
    Err(line_twice(twice.unwrap_or_default()))
}

/// Writes rows behind so many.
async fn insert_all(db: &mut PgConnection, named: bool, key: i64, row_count: usize, mut rows: &[NewRow]) -> Result<(), StoreError> {
    let mut row_no = i32::try_from(row_count).unwrap_or(i32::MAX);
    while !rows.is_empty() {
        let (chunk, rest) = rows.split_at(chunk_rows(rows));
        let columns = Columns::of(chunk);
        sqlx::query(
            "INSERT INTO rowmill.rows (batch_key, line, row_no, input, rejected)
             SELECT $1, u.line, $2 + u.at::int, u.input, u.rejected FROM ROWS FROM (unnest($3::bigint[]), unnest($4::text[]), unnest($5::text[]))
             WITH ORDINALITY u (line, input, rejected, at)",
        )
        .persistent(named)
        .bind(key)
        .bind(row_no)
        .bind(columns.lines)
        .bind(columns.inputs)
        .bind(columns.rejected)
        .execute(&mut *db)
        .await
        .map_err(failed("write rows"))?;
        row_no += i32::try_from(chunk.len()).unwrap_or(i32::MAX);
        rows = rest;
    }
    Ok(())
}

/// Rows as columns.
struct Columns<'a> {
    lines: Vec<i64>,
    inputs: Vec<&'a str>,
    /// Empty when none was rejected, as nearly always.
    rejected: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a [NewRow]) -> Columns<'a> {
        let any_rejected = rows.iter().any(|row| row.rejected.is_some());
        Columns {
            lines: rows.iter().map(|row| row.line.into()).collect(),
            inputs: rows.iter().map(|row| row.input.as_str()).collect(),
            rejected: if any_rejected { rows.iter().map(|row| row.rejected.as_deref().map(encode)).collect() } else { Vec::new() },
        }
    }
}

/// Rows for the next statement: one at least, if there is one.
fn chunk_rows(rows: &[NewRow]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&NewRow| {
        bytes += row.input.as_str().len();
        bytes <= BYTES_PER_INSERT
    };
    rows.iter().take(ROWS_PER_INSERT).take_while(fits).count().max(1).min(rows.len())
}
