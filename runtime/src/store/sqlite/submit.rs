//! Batches and rows come in.

use std::sync::{Arc, LazyLock};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::appends::ensure_no_append;
use super::chains::{chain, find_first, make_ready};
use super::groups::enter_group;
use super::quota::admit_rows;
use super::{ROWS_PER_INSERT, SqliteStore, find_batch};
use crate::model::{AppBounds, BatchId, BatchStatus, NewBatch, NewRow, ProcessorKind, Timestamp, canonical_op};
use crate::store::columns::{count, failed, failure_limit, retry_json, signed};
use crate::store::lines::{LinedRow, check_lines, line_twice, number_lines};
use crate::store::rules::{APPENDED_WHILE_HELD, CHAINED, NO_ROWS_WAIT, check_submit, count_rows, submission, was_submitted};
use crate::store::versions::out_of_date;
use crate::store::{StoreError, StoreEvent};

pub(super) async fn submit_batch(store: &SqliteStore, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
    check_submit(&batch, &rows)?;
    let told = submission(&batch);
    let mut db = store.begin().await?;
    if !insert_batch(&mut db, store.now(), &store.bounds, batch, rows).await? {
        return Ok(());
    }
    db.commit().await.map_err(failed("commit a submitted batch"))?;
    if let Some(event) = told {
        store.events.tell(event);
    }
    Ok(())
}

/// A batch and its first rows. False when it was submitted before.
pub(super) async fn insert_batch(
    db: &mut SqliteConnection,
    now: Timestamp,
    bounds: &AppBounds,
    batch: NewBatch,
    rows: Vec<NewRow>,
) -> Result<bool, StoreError> {
    let (failures_max, failures_percent) = failure_limit(&batch.terms);
    let inserted = sqlx::query(
        "INSERT INTO batches (batch_id, app, op, kind, priority, processor_version, processor_digest, context, attempts_max, status, submitted_at,
            request_digest, retry_rule, start_at, deferred, deadline_at, failures_max, failures_percent, after_batch, after_condition, group_name, row_micros)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14 IS NOT NULL, ?15, ?16, ?17, ?18, ?19, ?20,
            (SELECT row_micros FROM processors WHERE app = ?2 AND op = ?3 AND version = ?6)
         WHERE NOT EXISTS (SELECT 1 FROM processors WHERE app = ?2 AND op = ?3 AND version = ?6 AND removed_at IS NOT NULL)
            AND (NOT ?21 OR (
                ?6 IS (SELECT version FROM activations WHERE app = ?2 AND op = ?3 AND kind = ?4 AND undone_at IS NULL ORDER BY activation_no DESC LIMIT 1)
                AND ?22 IS (SELECT terms FROM policies WHERE app = ?2 AND op = ?3) AND ?23 IS (SELECT terms FROM policies WHERE app = ?2 AND op = '')))
         ON CONFLICT (batch_id) DO NOTHING",
    )
    .bind(batch.id.to_string())
    .bind(&batch.app)
    .bind(canonical_op(&batch.op))
    .bind(batch.kind.as_str())
    .bind(batch.terms.priority)
    .bind(i64::from(batch.processor_version))
    .bind(&batch.processor_digest)
    .bind(batch.context.as_str())
    .bind(i64::from(batch.terms.attempts_max))
    .bind(if batch.hold || batch.after.is_some() { BatchStatus::Wait } else { BatchStatus::Queued }.as_str())
    .bind(now.0)
    .bind(batch.request_digest.as_deref())
    .bind(retry_json(&batch.terms))
    .bind(batch.terms.start_at.map(|at| at.0))
    .bind(batch.terms.deadline_at.map(|at| at.0))
    .bind(failures_max)
    .bind(failures_percent)
    .bind(batch.after.map(|after| after.batch.to_string()))
    .bind(batch.after.map(|after| after.condition.as_str()))
    .bind(batch.group.as_deref())
    .bind(batch.as_found.is_some())
    .bind(batch.as_found.as_ref().and_then(|stamp| stamp.of_op.as_deref()))
    .bind(batch.as_found.as_ref().and_then(|stamp| stamp.of_app.as_deref()))
    .execute(&mut *db)
    .await
    .map_err(failed("submit a batch"))?;
    if inserted.rows_affected() == 0 {
        // It is there, or its operation was changed.
        let known: Option<Option<String>> = sqlx::query_scalar("SELECT request_digest FROM batches WHERE batch_id = ?")
            .bind(batch.id.to_string())
            .fetch_optional(&mut *db)
            .await
            .map_err(failed("look up a batch"))?;
        let known = known.ok_or_else(|| out_of_date(&batch))?;
        return was_submitted(batch.id, known.as_deref(), batch.request_digest.as_deref()).map(|()| false);
    }
    let key = inserted.last_insert_rowid();
    enter_group(db, now, &batch).await?;
    if let Some(first) = find_first(db, &batch).await? {
        chain(db, key, &first).await?;
    }
    let total = insert_rows(db, key, bounds, rows).await?;
    // The trigger told of a batch without rows.
    sqlx::query("UPDATE batch_events SET row_count = ? WHERE batch_key = ? AND seq = 1")
        .bind(signed(total))
        .bind(key)
        .execute(db)
        .await
        .map_err(failed("tell of a submitted batch"))?;
    Ok(true)
}

pub(super) async fn append_rows(store: &SqliteStore, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
    check_lines(ProcessorKind::Batch, &rows)?;
    let mut db = store.begin().await?;
    let (key, status) = find_batch(&mut db, id).await?;
    if status != BatchStatus::Wait {
        return Err(StoreError::WrongStatus { id, status, wanted: APPENDED_WHILE_HELD });
    }
    ensure_unchained(&mut db, id, key).await?;
    ensure_no_append(&mut db, store.now(), id, key).await?;
    let total = insert_rows(&mut db, key, &store.bounds, rows).await?;
    db.commit().await.map_err(failed("commit appended rows"))?;
    Ok(total)
}

pub(super) async fn release_batch(store: &SqliteStore, id: BatchId) -> Result<u64, StoreError> {
    let mut db = store.begin().await?;
    let (key, status) = find_batch(&mut db, id).await?;
    let (app, rows, deferred): (String, i64, bool) = sqlx::query_as("SELECT app, row_count, deferred FROM batches WHERE batch_key = ?")
        .bind(key)
        .fetch_one(&mut *db)
        .await
        .map_err(failed("count rows"))?;
    match status {
        BatchStatus::Queued => return Ok(count(rows)),
        BatchStatus::Wait => {}
        status => return Err(StoreError::WrongStatus { id, status, wanted: "only a held batch can be released" }),
    }
    ensure_unchained(&mut db, id, key).await?;
    ensure_no_append(&mut db, store.now(), id, key).await?;
    if rows == 0 {
        return Err(StoreError::Invalid(format!("batch {id} has no rows: append some before it is released, or abort it")));
    }
    sqlx::query("UPDATE batches SET status = 'queued' WHERE batch_key = ? AND status = 'wait'")
        .bind(key)
        .execute(&mut *db)
        .await
        .map_err(failed("release a batch"))?;
    db.commit().await.map_err(failed("commit a release"))?;
    let kind = ProcessorKind::Batch;
    store.events.tell(if deferred { StoreEvent::Work(kind) } else { StoreEvent::Submitted { app, kind } });
    Ok(count(rows))
}

pub(super) async fn set_priority(store: &SqliteStore, id: BatchId, priority: i32) -> Result<(), StoreError> {
    let mut db = store.begin().await?;
    let (key, status) = find_batch(&mut db, id).await?;
    let hit = sqlx::query("UPDATE batches SET priority = ? WHERE batch_key = ? AND step = 'rows'")
        .bind(priority)
        .bind(key)
        .execute(&mut *db)
        .await
        .map_err(failed("change the priority of a batch"))?;
    if hit.rows_affected() != 1 {
        return Err(StoreError::WrongStatus { id, status, wanted: NO_ROWS_WAIT });
    }
    db.commit().await.map_err(failed("commit a priority"))
}

pub(super) async fn discard_batch(store: &SqliteStore, id: BatchId) -> Result<(), StoreError> {
    let mut db = store.begin().await?;
    let (key, status) = find_batch(&mut db, id).await?;
    if status != BatchStatus::Wait {
        return Err(StoreError::WrongStatus { id, status, wanted: "only a held batch can be discarded" });
    }
    for delete in [
        "DELETE FROM rows WHERE batch_key = ?",
        "DELETE FROM line_order WHERE batch_key = ?",
        "DELETE FROM batch_files WHERE batch_key = ?",
        "DELETE FROM batch_events WHERE batch_key = ?",
        "DELETE FROM chains WHERE batch_key = ?",
        "DELETE FROM past_rounds WHERE batch_key = ?",
        "DELETE FROM mark_calls WHERE batch_key = ?",
        "DELETE FROM batches WHERE batch_key = ?",
    ] {
        sqlx::query(delete).bind(key).execute(&mut *db).await.map_err(failed("discard a batch"))?;
    }
    let waits = make_ready(&mut db, key).await?;
    db.commit().await.map_err(failed("commit a discard"))?;
    if waits {
        store.events.tell(StoreEvent::Work(ProcessorKind::Batch));
    }
    Ok(())
}

/// It does not come after another batch.
pub(super) async fn ensure_unchained(db: &mut SqliteConnection, id: BatchId, key: i64) -> Result<(), StoreError> {
    let chained: bool = sqlx::query_scalar("SELECT after_batch IS NOT NULL FROM batches WHERE batch_key = ?")
        .bind(key)
        .fetch_one(db)
        .await
        .map_err(failed("look up a batch"))?;
    if chained { Err(StoreError::WrongStatus { id, status: BatchStatus::Wait, wanted: CHAINED }) } else { Ok(()) }
}

/// Appends rows behind those that the batch has, and returns how many it has now.
async fn insert_rows(db: &mut SqliteConnection, key: i64, bounds: &AppBounds, rows: Vec<NewRow>) -> Result<u64, StoreError> {
    let place = read_place(db, key).await?;
    let place = write_rows(db, key, place, bounds, rows).await?;
    count_as_rows(db, key, &place).await?;
    Ok(count(place.row_count))
}

/// Where further rows of a batch, or of a file that is appended to it, go.
#[derive(sqlx::FromRow)]
pub(super) struct Place {
    pub(super) row_count: i64,
    pub(super) line_last: i64,
    pub(super) lines_ascend: bool,
}

/// Where further rows of a batch go.
pub(super) async fn read_place(db: &mut SqliteConnection, key: i64) -> Result<Place, StoreError> {
    sqlx::query_as("SELECT row_count, line_last, lines_ascend FROM batches WHERE batch_key = ?")
        .bind(key)
        .fetch_one(db)
        .await
        .map_err(failed("count rows"))
}

/// Writes rows behind those that are there. They do not count as the batch's.
pub(super) async fn write_rows(
    db: &mut SqliteConnection,
    key: i64,
    place: Place,
    bounds: &AppBounds,
    rows: Vec<NewRow>,
) -> Result<Place, StoreError> {
    let Place { row_count: old_count, line_last: old_last, lines_ascend: mut ascend } = place;
    let highest = if ascend { old_last } else { highest_line(db, key).await? };
    let rows = number_lines(rows, highest)?;
    let (total, last, in_order) = count_rows(old_count, old_last, &rows, i64::from(u32::MAX))?;
    admit_rows(db, key, bounds, &rows, count(total)).await?;
    if ascend && !in_order {
        ascend = false;
        sqlx::query("INSERT INTO line_order SELECT batch_key, line, row_no FROM rows WHERE batch_key = ?")
            .bind(key)
            .execute(&mut *db)
            .await
            .map_err(failed("sort lines"))?;
    }
    static FULL: LazyLock<Arc<str>> = LazyLock::new(|| insert_rows_sql(ROWS_PER_INSERT).into());
    let mut row_no = old_count;
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<LinedRow> = rows.by_ref().take(ROWS_PER_INSERT).collect();
        let full = chunk.len() == ROWS_PER_INSERT;
        // Made of constants and question marks only.
        let sql = if full { AssertSqlSafe(FULL.clone()) } else { AssertSqlSafe(insert_rows_sql(chunk.len()).into()) };
        let mut insert = sqlx::query(sql).persistent(full);
        for row in chunk {
            row_no += 1;
            insert = insert.bind(key).bind(row_no).bind(i64::from(row.line)).bind(row.input.into_string()).bind(row.rejected);
        }
        insert.execute(&mut *db).await.map_err(failed("write rows"))?;
    }
    if !ascend {
        let sorted =
            sqlx::query("INSERT INTO line_order SELECT batch_key, line, row_no FROM rows WHERE batch_key = ? AND row_no > ? ON CONFLICT DO NOTHING")
                .bind(key)
                .bind(old_count)
                .execute(&mut *db)
                .await
                .map_err(failed("sort lines"))?;
        if sorted.rows_affected() != count(total - old_count) {
            return Err(find_line_twice(db, key, old_count).await);
        }
    }
    Ok(Place { row_count: total, line_last: last, lines_ascend: ascend })
}

/// Counts rows as the batch's.
pub(super) async fn count_as_rows(db: &mut SqliteConnection, key: i64, place: &Place) -> Result<(), StoreError> {
    sqlx::query("UPDATE batches SET row_count = ?, line_last = ?, lines_ascend = ? WHERE batch_key = ?")
        .bind(place.row_count)
        .bind(place.line_last)
        .bind(place.lines_ascend)
        .bind(key)
        .execute(db)
        .await
        .map_err(failed("count rows"))?;
    Ok(())
}

/// The highest line of a batch whose lines do not ascend.
async fn highest_line(db: &mut SqliteConnection, key: i64) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT line FROM line_order WHERE batch_key = ? ORDER BY line DESC LIMIT 1")
        .bind(key)
        .fetch_one(db)
        .await
        .map_err(failed("find the highest line"))
}

/// The error of a line that the batch had before.
async fn find_line_twice(db: &mut SqliteConnection, key: i64, old_count: i64) -> StoreError {
    let found: Result<i64, sqlx::Error> = sqlx::query_scalar(
        "SELECT line FROM rows r WHERE batch_key = ?1 AND row_no > ?2
            AND NOT EXISTS (SELECT 1 FROM line_order l WHERE l.batch_key = ?1 AND l.line = r.line AND l.row_no = r.row_no) ORDER BY row_no LIMIT 1",
    )
    .bind(key)
    .bind(old_count)
    .fetch_one(db)
    .await;
    found.map_or_else(failed("find a line that comes twice"), line_twice)
}

fn insert_rows_sql(rows: usize) -> String {
    format!("INSERT INTO rows (batch_key, row_no, line, input, rejected) VALUES {}", vec!["(?,?,?,?,?)"; rows].join(","))
}
