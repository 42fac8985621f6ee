//! What the batches of an app may hold.

use sqlx::SqliteConnection;

use crate::model::{AppBounds, Quota, RowResult};
use crate::store::columns::{count, failed, quota_of, signed};
use crate::store::lines::LinedRow;
use crate::store::quota::{FittedLogs, fit_logs, longest_input};
use crate::store::rules::pieces;
use crate::store::{OverQuota, StoreError};

/// Lets rows come in, of a batch that has so many then, if its app may hold them.
pub(super) async fn admit_rows(db: &mut SqliteConnection, key: i64, bounds: &AppBounds, rows: &[LinedRow], total: u64) -> Result<(), StoreError> {
    let admitting = failed("look up what an app may hold");
    if rows.is_empty() {
        return Ok(());
    }
    let (app, given): (String, Option<String>) =
        sqlx::query_as("SELECT b.app, a.quota FROM batches b LEFT JOIN apps a USING (app) WHERE b.batch_key = ?")
            .bind(key)
            .fetch_one(&mut *db)
            .await
            .map_err(admitting)?;
    let quota = bounds.quota_of(&quota_of(given)?);
    let length = |row: &LinedRow| row.input.as_str().len() as u64;
    if let Some(row) = longest_input(rows).filter(|row| length(row) > quota.input_bytes) {
        return Err(StoreError::OverQuota(OverQuota::Input { app, line: row.line, bytes: length(row), limit: quota.input_bytes }));
    }
    if total > quota.batch_rows {
        return Err(StoreError::OverQuota(OverQuota::BatchRows { app, rows: total, limit: quota.batch_rows }));
    }
    let coming = rows.len() as u64;
    let known: Option<(i64, i64)> =
        sqlx::query_as("SELECT counted, rows FROM queues WHERE app = ?").bind(&app).fetch_optional(&mut *db).await.map_err(admitting)?;
    let (mut counted, mut bound) = known.map_or((0, 0), |(counted, rows)| (count(counted), count(rows)));
    // Counted when half of what was free at the last count may have come in.
    if bound.saturating_add(coming) > counted.saturating_add(quota.queued_rows) / 2 {
        let open: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(row_count - success - failed), 0) + (
                SELECT coalesce(sum(o.row_count - b.row_count), 0) FROM open_appends o JOIN batches b USING (batch_key) WHERE b.app = ?1)
             FROM batches WHERE app = ?1 AND step = 'rows'",
        )
        .bind(&app)
        .fetch_one(&mut *db)
        .await
        .map_err(admitting)?;
        (counted, bound) = (count(open), count(open));
        if bound.saturating_add(coming) > quota.queued_rows {
            return Err(StoreError::OverQuota(OverQuota::QueuedRows { app, rows: bound + coming, limit: quota.queued_rows }));
        }
    }
    sqlx::query(
        "INSERT INTO queues (app, counted, rows) VALUES (?, ?, ?) ON CONFLICT (app) DO UPDATE SET counted = excluded.counted, rows = excluded.rows",
    )
    .bind(app)
    .bind(signed(counted))
    .bind(signed(bound + coming))
    .execute(db)
    .await
    .map_err(admitting)?;
    Ok(())
}

/// What results add to the bytes of their batch.
pub(super) struct Fitted {
    pub logs: FittedLogs,
    pub file_bytes: u64,
}

/// What a batch may still log, and whether it may have these files, where it has logged and written so much.
pub(super) fn fit_into_quota(quota: &Quota, logged: i64, filed: i64, results: &[RowResult]) -> Result<Fitted, StoreError> {
    let file_bytes: u64 = results.iter().flat_map(pieces).map(|piece| piece.text.len() as u64).sum();
    let left = quota.batch_file_bytes.saturating_sub(count(filed));
    if file_bytes > left {
        return Err(StoreError::FilesTooLarge { left, limit: quota.batch_file_bytes });
    }
    Ok(Fitted { logs: fit_logs(results, quota.batch_log_bytes.saturating_sub(count(logged))), file_bytes })
}
