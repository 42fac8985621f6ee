//! Batches and rows come in.

use sqlx::PgConnection;

use super::bytes;
use super::connect::{PgStore, refuse};
use super::listen::{CHANNEL, write};
use super::text::{INPUT_END, encode};
use crate::model::{BatchId, BatchStatus, NewBatch, NewRow, ProcessorKind};
use crate::store::columns::{count, failed, status_of};
use crate::store::rules::{check_rows, check_submit, count_rows, line_twice};
use crate::store::{StoreError, StoreEvent};

/// Rows of one statement, at most, and their bytes. Arrays need no protocol of their own, as COPY does.
const ROWS_PER_INSERT: usize = 10_000;
const BYTES_PER_INSERT: usize = 8 << 20;

pub(super) async fn submit_batch(store: &PgStore, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
    let mut db = store.begin().await?;
    submit_batch_in(&mut db, store.now(), batch, rows).await?;
    db.commit().await.map_err(failed("commit a submitted batch"))
}

pub(super) async fn submit_batch_in(db: &mut PgConnection, now: Option<i64>, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
    check_submit(&batch, &rows)?;
    let key: Option<i64> = sqlx::query_scalar(
        "INSERT INTO rowmill.batches (batch_id, app, op, kind, priority, processor_version, processor_digest, context, attempts_max, status, submitted_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce($11, rowmill.now_ms())) ON CONFLICT (batch_id) DO NOTHING RETURNING batch_key",
    ).persistent(false)
    .bind(batch.id.uuid())
    .bind(encode(&batch.app))
    .bind(encode(&batch.op.to_lowercase()))
    .bind(batch.kind.as_str())
    .bind(batch.priority)
    .bind(i64::from(batch.processor_version))
    .bind(encode(&batch.processor_digest))
    .bind(batch.context.as_str())
    .bind(i64::from(batch.attempts_max))
    .bind(BatchStatus::Wait.as_str())
    .bind(now)
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("submit a batch"))?;
    let Some(key) = key else { return Err(StoreError::Invalid(format!("there is a batch {} already", batch.id))) };
    let place = Place { key, row_count: 0, line_last: -1, lines_ascend: true };
    place.append(db, &rows).await?;
    if !batch.hold {
        queue(db, key).await?;
        notify(db, StoreEvent::Submitted(batch.id, batch.kind)).await?;
    }
    Ok(())
}

pub(super) async fn append_rows(store: &PgStore, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
    check_rows(ProcessorKind::Batch, &rows)?;
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, id).await?;
    if status != BatchStatus::Wait {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: "rows can be appended only while it is held" }).await;
    }
    let total = match place.append(&mut db, &rows).await {
        Ok(total) => total,
        Err(error) => return refuse(db, error).await,
    };
    db.commit().await.map_err(failed("commit appended rows"))?;
    Ok(total)
}

pub(super) async fn release_batch(store: &PgStore, id: BatchId) -> Result<u64, StoreError> {
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, id).await?;
    match status {
        BatchStatus::Queued => {
            db.commit().await.map_err(failed("commit a release"))?;
            return Ok(count(place.row_count));
        }
        BatchStatus::Wait => {}
        status => return refuse(db, StoreError::WrongStatus { id, status, wanted: "only a held batch can be released" }).await,
    }
    if place.row_count == 0 {
        return refuse(db, StoreError::Invalid(format!("batch {id} has no rows: append some before it is released, or abort it"))).await;
    }
    queue(&mut db, place.key).await?;
    notify(&mut db, StoreEvent::Submitted(id, ProcessorKind::Batch)).await?;
    db.commit().await.map_err(failed("commit a release"))?;
    Ok(count(place.row_count))
}

pub(super) async fn discard_batch(store: &PgStore, id: BatchId) -> Result<(), StoreError> {
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, id).await?;
    if status != BatchStatus::Wait {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: "only a held batch can be discarded" }).await;
    }
    for delete in [
        "DELETE FROM rowmill.rows WHERE batch_key = $1",
        "DELETE FROM rowmill.line_order WHERE batch_key = $1",
        "DELETE FROM rowmill.batches WHERE batch_key = $1",
    ] {
        sqlx::query(delete).persistent(store.named()).bind(place.key).execute(&mut *db).await.map_err(failed("discard a batch"))?;
    }
    db.commit().await.map_err(failed("commit a discard"))
}

/// `wait` becomes `queued`.
async fn queue(db: &mut PgConnection, key: i64) -> Result<(), StoreError> {
    let hit = sqlx::query("UPDATE rowmill.batches SET status = 'queued', fresh = true WHERE batch_key = $1 AND status = 'wait'")
        .persistent(false)
        .bind(key)
        .execute(db)
        .await
        .map_err(failed("queue a batch"))?;
    debug_assert_eq!(hit.rows_affected(), 1);
    Ok(())
}

/// Tells everybody, when the transaction commits.
pub(super) async fn notify(db: &mut PgConnection, event: StoreEvent) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .persistent(false)
        .bind(CHANNEL)
        .bind(write(event))
        .execute(db)
        .await
        .map_err(failed("tell of an event"))?;
    Ok(())
}

/// Where further rows of a batch go.
struct Place {
    key: i64,
    row_count: i64,
    line_last: i64,
    lines_ascend: bool,
}

/// Locks a batch, so that others who change it wait.
async fn lock_place(db: &mut PgConnection, id: BatchId) -> Result<(Place, BatchStatus), StoreError> {
    let found: Option<(i64, String, i32, i64, bool)> =
        sqlx::query_as("SELECT batch_key, status, row_count, line_last, lines_ascend FROM rowmill.batches WHERE batch_id = $1 FOR NO KEY UPDATE")
            .persistent(false)
            .bind(id.uuid())
            .fetch_optional(db)
            .await
            .map_err(failed("lock a batch"))?;
    let (key, status, row_count, line_last, lines_ascend) = found.ok_or(StoreError::NotFound(id))?;
    Ok((Place { key, row_count: row_count.into(), line_last, lines_ascend }, status_of(&status)))
}

impl Place {
    /// Appends rows behind those that the batch has, and returns how many it has now.
    async fn append(&self, db: &mut PgConnection, rows: &[NewRow]) -> Result<u64, StoreError> {
        if let Some(wrong) = rows.iter().position(|row| row.input.as_str().contains(INPUT_END)) {
            return Err(StoreError::Invalid(format!("the input of row {} of this request is no JSON: it holds a control character", wrong + 1)));
        }
        let (total, last, in_order) = count_rows(self.row_count, self.line_last, rows, i64::from(i32::MAX))?;
        let ascend = self.lines_ascend && in_order;
        let mut row_no = i32::try_from(self.row_count).unwrap_or(i32::MAX);
        let mut rest = rows;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk_rows(rest));
            self.insert(db, row_no, chunk).await?;
            row_no += i32::try_from(chunk.len()).unwrap_or(i32::MAX);
            rest = after;
        }
        if !ascend {
            self.sort_lines(db, total).await?;
        }
        sqlx::query("UPDATE rowmill.batches SET row_count = $1, line_last = $2, lines_ascend = $3, input_bytes_max = greatest(input_bytes_max, $5) WHERE batch_key = $4")
            .persistent(false)
            .bind(i32::try_from(total).unwrap_or(i32::MAX))
            .bind(last)
            .bind(ascend)
            .bind(self.key)
            .bind(rows.iter().map(|row| row.input.as_str().len()).max().map_or(0, bytes))
            .execute(db)
            .await
            .map_err(failed("count rows"))?;
        Ok(count(total))
    }

    /// Keeps the order of lines: of all rows when these are the first that are out of order, else of the new ones.
    async fn sort_lines(&self, db: &mut PgConnection, total: i64) -> Result<(), StoreError> {
        let after = if self.lines_ascend { 0 } else { self.row_count };
        let sorted = sqlx::query(
            "INSERT INTO rowmill.line_order SELECT batch_key, line, row_no FROM rowmill.rows WHERE batch_key = $1 AND row_no > $2
             ON CONFLICT DO NOTHING",
        )
        .persistent(false)
        .bind(self.key)
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
        .persistent(false)
        .bind(self.key)
        .bind(after)
        .fetch_optional(db)
        .await
        .map_err(failed("find a line that comes twice"))?;
        Err(line_twice(twice.unwrap_or_default()))
    }

    async fn insert(&self, db: &mut PgConnection, row_no: i32, rows: &[NewRow]) -> Result<(), StoreError> {
        let lines: Vec<i64> = rows.iter().map(|row| row.line.into()).collect();
        let inputs: Vec<&str> = rows.iter().map(|row| row.input.as_str()).collect();
        // Nearly always there are none.
        let rejected: Vec<Option<std::borrow::Cow<'_, str>>> = if rows.iter().any(|row| row.rejected.is_some()) {
            rows.iter().map(|row| row.rejected.as_deref().map(encode)).collect()
        } else {
            Vec::new()
        };
        sqlx::query(
            "INSERT INTO rowmill.rows (batch_key, line, row_no, input, rejected)
             SELECT $1, u.line, $2 + u.at::int, u.input, u.rejected FROM ROWS FROM (unnest($3::bigint[]), unnest($4::text[]), unnest($5::text[]))
             WITH ORDINALITY u (line, input, rejected, at)",
        )
        .persistent(false)
        .bind(self.key)
        .bind(row_no)
        .bind(lines)
        .bind(inputs)
        .bind(rejected)
        .execute(db)
        .await
        .map_err(failed("write rows"))?;
        Ok(())
    }
}

/// Rows for the next statement: one at least.
fn chunk_rows(rows: &[NewRow]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&NewRow| {
        bytes += row.input.as_str().len();
        bytes <= BYTES_PER_INSERT
    };
    rows.iter().take(ROWS_PER_INSERT).take_while(fits).count().max(1)
}
