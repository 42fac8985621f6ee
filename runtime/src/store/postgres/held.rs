//! Held batches: rows are appended, and they are released or discarded.

use sqlx::PgConnection;

use super::appends::ensure_no_append;
use super::connect::{PgStore, refuse};
use super::quota::{not_admitted, quota_columns};
use super::rows::{check_inputs, input_bytes_max, insert_all, sort_lines};
use super::text::{decode, encode};
use crate::model::{AppBounds, BatchId, BatchStatus, NewRow, ProcessorKind};
use crate::store::StoreError;
use crate::store::columns::{count, failed, signed, status_of};
use crate::store::lines::{check_lines, number_lines};
use crate::store::quota::longest_input;
use crate::store::rules::{APPENDED_WHILE_HELD, CHAINED, NO_ROWS_WAIT, count_rows};

pub(super) async fn append_rows(store: &PgStore, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
    check_lines(ProcessorKind::Batch, &rows)?;
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, store.named(), id).await?;
    if status != BatchStatus::Wait {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: APPENDED_WHILE_HELD }).await;
    }
    if place.chained {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: CHAINED }).await;
    }
    if let Err(error) = ensure_no_append(&mut db, store, id, place.key).await {
        return refuse(db, error).await;
    }
    let total = match place.append(&mut db, store.named(), &store.bounds, rows).await {
        Ok(total) => total,
        Err(error) => return refuse(db, error).await,
    };
    db.commit().await.map_err(failed("commit appended rows"))?;
    Ok(total)
}

pub(super) async fn release_batch(store: &PgStore, id: BatchId) -> Result<u64, StoreError> {
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, store.named(), id).await?;
    if status == BatchStatus::Wait
        && let Err(error) = ensure_no_append(&mut db, store, id, place.key).await
    {
        return refuse(db, error).await;
    }
    let found: Vec<(String, i32)> = sqlx::query_as("SELECT status, row_count FROM rowmill.release_batch($1)")
        .persistent(store.named())
        .bind(id.uuid())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("release a batch"))?;
    db.commit().await.map_err(failed("commit a release"))?;
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
    // Before the batch, in the order of 0065: advance_chain holds the chain when it waits for the batch.
    for lock in [
        "SELECT rowmill.lock_chains(b.batch_key, false) FROM rowmill.batches b WHERE b.batch_id = $1",
        "SELECT FROM rowmill.chains c JOIN rowmill.batches b USING (batch_key) WHERE b.batch_id = $1 FOR UPDATE OF c",
    ] {
        sqlx::query(lock).persistent(store.named()).bind(id.uuid()).execute(&mut *db).await.map_err(failed("discard a batch"))?;
    }
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
        "DELETE FROM rowmill.past_rounds WHERE batch_key = $1",
        "DELETE FROM rowmill.mark_calls WHERE batch_key = $1",
        // What comes after it does not wait any longer.
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
    pub(super) row_count: i64,
    pub(super) line_last: i64,
    pub(super) lines_ascend: bool,
    pub(super) chained: bool,
}

/// The state of a batch, or of a file that is appended to it, after rows were written.
pub(super) struct Added {
    pub(super) row_count: i64,
    pub(super) line_last: i64,
    pub(super) lines_ascend: bool,
    pub(super) input_bytes_max: i32,
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
    /// The highest line of the batch: the last one as long as lines ascend.
    async fn highest_line(&self, db: &mut PgConnection, named: bool) -> Result<i64, StoreError> {
        if self.lines_ascend {
            return Ok(self.line_last);
        }
        sqlx::query_scalar("SELECT line FROM rowmill.line_order WHERE batch_key = $1 ORDER BY line DESC LIMIT 1")
            .persistent(named)
            .bind(self.key)
            .fetch_one(db)
            .await
            .map_err(failed("find the highest line"))
    }

    /// Appends rows behind those that the batch has, and returns how many it has now.
    async fn append(&self, db: &mut PgConnection, named: bool, bounds: &AppBounds, rows: Vec<NewRow>) -> Result<u64, StoreError> {
        let added = self.write(db, named, bounds, rows).await?;
        self.count(db, named, &added).await?;
        Ok(count(added.row_count))
    }

    /// Writes rows behind those that are there. They do not count as the batch's.
    pub(super) async fn write(&self, db: &mut PgConnection, named: bool, bounds: &AppBounds, rows: Vec<NewRow>) -> Result<Added, StoreError> {
        let rows = &number_lines(rows, self.highest_line(db, named).await?)?;
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
        Ok(Added { row_count: total, line_last: last, lines_ascend: ascend, input_bytes_max: input_bytes_max(rows) })
    }

    /// Counts rows as the batch's.
    pub(super) async fn count(&self, db: &mut PgConnection, named: bool, added: &Added) -> Result<(), StoreError> {
        sqlx::query("UPDATE rowmill.batches SET row_count = $1, line_last = $2, lines_ascend = $3, input_bytes_max = greatest(input_bytes_max, $5) WHERE batch_key = $4")
            .persistent(named)
            .bind(i32::try_from(added.row_count).unwrap_or(i32::MAX))
            .bind(added.line_last)
            .bind(added.lines_ascend)
            .bind(self.key)
            .bind(added.input_bytes_max)
            .execute(db)
            .await
            .map_err(failed("count rows"))?;
        Ok(())
    }
}
