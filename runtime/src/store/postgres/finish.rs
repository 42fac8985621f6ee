//! Batches end: by their last outcome, or by an abort.

use std::time::Duration;

use sqlx::postgres::PgQueryResult;
use uuid::Uuid;

use super::connect::PgStore;
use super::text::{decode, encode};
use super::{millis, refused};
use crate::model::{BatchId, FinishLease, OutputFile, ProcessorKind};
use crate::store::columns::{count, counts, failed, signed, small, status_of, step_of};
use crate::store::rules::{OVERDUE, OVERDUE_MAX};
use crate::store::{Aborted, Overdue, StoreError};

/// One update, whatever the size of the batch. Leases and retries are left behind, and are nothing without their batch: to delete them here, this would wait for
/// records, which wait for the batch.
pub(super) async fn abort_batch(store: &PgStore, id: BatchId, reason: Option<String>) -> Result<Aborted, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<(String, i32, i32, i32, bool)> = sqlx::query_as(
        "WITH aborted AS (
            UPDATE rowmill.batches SET status = 'aborted', step = 'join', fresh = false, abort_reason = $2
            WHERE batch_id = $1 AND step = 'rows' AND status IN ('wait', 'queued', 'inprog')
            RETURNING kind, status, row_count, success, failed),
         told AS (SELECT pg_notify('rowmill', 'aborted ' || $1::text), pg_notify('rowmill', 'work ' || kind) FROM aborted)
         SELECT status, row_count, success, failed, true FROM aborted LEFT JOIN told ON true
         UNION ALL
         SELECT status, row_count, success, failed, false FROM rowmill.batches WHERE batch_id = $1 AND NOT EXISTS (SELECT FROM aborted)",
    )
    .persistent(store.named())
    .bind(id.uuid())
    .bind(reason.as_deref().map(encode))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("abort a batch"))?;
    db.done().await?;
    let (status, rows, success, failures, changed) = found.into_iter().next().ok_or(StoreError::NotFound(id))?;
    let status = status_of(&status);
    Ok(Aborted { status, counts: counts(status, rows.into(), success.into(), failures.into()), changed })
}

pub(super) async fn abort_overdue(store: &PgStore) -> Result<Overdue, StoreError> {
    let mut db = store.unit().await?;
    let aborted: Vec<(Uuid,)> = sqlx::query_as(
        "WITH due AS (
            SELECT batch_key FROM rowmill.batches WHERE deadline_at <= coalesce($1, rowmill.now_ms()) AND step = 'rows'
            ORDER BY deadline_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED),
         aborted AS (
            UPDATE rowmill.batches b SET status = 'aborted', step = 'join', fresh = false, abort_reason = $3
            FROM due WHERE b.batch_key = due.batch_key RETURNING b.batch_id, b.kind)
         SELECT batch_id, pg_notify('rowmill', 'aborted ' || batch_id), pg_notify('rowmill', 'work ' || kind) FROM aborted",
    )
    .persistent(store.named())
    .bind(store.now())
    .bind(i64::from(OVERDUE_MAX))
    .bind(OVERDUE)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("abort batches whose deadline has passed"))?;
    // What runs has a lease, and of these there are no more than slots.
    let too_long: Vec<(Uuid,)> = sqlx::query_as(
        "WITH due AS (
            SELECT b.batch_key, d.ran, d.most FROM (SELECT DISTINCT l.batch_key, l.app FROM rowmill.leases l) l
            JOIN rowmill.batches b USING (batch_key) LEFT JOIN rowmill.apps a ON a.app = l.app
            CROSS JOIN LATERAL (SELECT coalesce($1, rowmill.now_ms()) - b.started_at AS ran,
                least(coalesce((a.quota::json ->> 'batch_time_ms')::bigint, $3), $4) AS most) d
            WHERE b.step = 'rows' AND b.status = 'inprog' AND d.ran >= d.most LIMIT $2 FOR NO KEY UPDATE OF b SKIP LOCKED),
         aborted AS (
            UPDATE rowmill.batches b SET status = 'aborted', step = 'join', fresh = false,
                abort_reason = 'it has run for ' || rowmill.show_time(due.ran) || ', and batches of its app may run for ' || rowmill.show_time(due.most)
            FROM due WHERE b.batch_key = due.batch_key RETURNING b.batch_id, b.kind)
         SELECT batch_id, pg_notify('rowmill', 'aborted ' || batch_id), pg_notify('rowmill', 'work ' || kind) FROM aborted",
    )
    .persistent(store.named())
    .bind(store.now())
    .bind(i64::from(OVERDUE_MAX))
    .bind(millis(store.bounds.quota.batch_time))
    .bind(millis(store.bounds.quota_max.batch_time))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("abort batches that run for too long"))?;
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT greatest(deadline_at - coalesce($1, rowmill.now_ms()), 0) FROM rowmill.batches WHERE deadline_at IS NOT NULL AND step = 'rows'
         ORDER BY deadline_at LIMIT 1",
    )
    .persistent(store.named())
    .bind(store.now())
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("look for the next deadline"))?;
    db.done().await?;
    let aborted = aborted.into_iter().chain(too_long).map(|(id,)| id.into()).collect();
    Ok(Overdue { aborted, next: next.map(|millis| Duration::from_millis(count(millis))) })
}

pub(super) async fn claim_finish(
    store: &PgStore,
    worker: &str,
    kind: Option<ProcessorKind>,
    ttl: Duration,
) -> Result<Option<FinishLease>, StoreError> {
    let mut db = store.unit().await?;
    let claimed: Vec<(Uuid, String, i64, i32)> = sqlx::query_as("SELECT batch_id, step, token, attempt FROM rowmill.claim_finish($1, $2, $3, $4)")
        .persistent(store.named())
        .bind(worker)
        .bind(kind.map(ProcessorKind::as_str))
        .bind(millis(ttl))
        .bind(store.now())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("lease a batch to finish"))?;
    db.done().await?;
    Ok(claimed.into_iter().next().map(|(batch, step, token, attempt)| FinishLease {
        batch: batch.into(),
        step: step_of(&step),
        token,
        attempt: small(attempt),
    }))
}

pub(super) async fn renew_finish(store: &PgStore, lease: &FinishLease, ttl: Duration) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    let hit = sqlx::query(
        "UPDATE rowmill.batches SET finish_expires_at = rowmill.later(coalesce($3, rowmill.now_ms()), $4)
         WHERE batch_id = $1 AND finish_token = $2 AND finish_expires_at > coalesce($3, rowmill.now_ms())",
    )
    .persistent(store.named())
    .bind(lease.batch.uuid())
    .bind(lease.token)
    .bind(store.now())
    .bind(millis(ttl))
    .execute(&mut *db)
    .await
    .map_err(failed("renew the lease of a batch to finish"))?;
    db.done().await?;
    ensure_held(&hit)
}

pub(super) async fn give_back_finish(store: &PgStore, lease: &FinishLease, after: Duration) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    sqlx::query(
        "WITH given AS (
            UPDATE rowmill.batches SET finish_token = NULL, finish_worker = NULL, finish_attempt = finish_attempt - 1,
                finish_expires_at = CASE WHEN $4 > 0 THEN rowmill.later(coalesce($3, rowmill.now_ms()), $4) END
            WHERE batch_id = $1 AND finish_token = $2 AND finish_expires_at > coalesce($3, rowmill.now_ms()) RETURNING kind, finish_expires_at)
         SELECT pg_notify('rowmill', 'work ' || kind) FROM given WHERE finish_expires_at IS NULL",
    )
    .persistent(store.named())
    .bind(lease.batch.uuid())
    .bind(lease.token)
    .bind(store.now())
    .bind(millis(after))
    .execute(&mut *db)
    .await
    .map_err(failed("give the lease of a batch to finish back"))?;
    db.done().await
}

pub(super) async fn record_files(store: &PgStore, lease: &FinishLease, files: &[OutputFile]) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    let recorded = sqlx::query("SELECT rowmill.record_files($1, $2, $3, $4, $5, $6)")
        .persistent(store.named())
        .bind(lease.batch.uuid())
        .bind(lease.token)
        .bind(store.now())
        .bind(files.iter().map(|file| encode(&file.name)).collect::<Vec<_>>())
        .bind(files.iter().map(|file| encode(&file.object)).collect::<Vec<_>>())
        .bind(files.iter().map(|file| signed(file.size_bytes)).collect::<Vec<_>>())
        .execute(&mut *db)
        .await;
    match recorded {
        Ok(_) => db.done().await,
        Err(error) => {
            let refusal = match refused(&error) {
                Some(("RM001", _)) => StoreError::LeaseLost,
                Some(("RM004", name)) => StoreError::Invalid(format!("batch {} has no output file {:?}", lease.batch, decode(name.to_owned()))),
                _ => return Err(failed("record output files")(error)),
            };
            db.undone().await;
            Err(refusal)
        }
    }
}

pub(super) async fn record_mark_done(store: &PgStore, lease: &FinishLease, error: Option<&str>) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    let hit = sqlx::query(
        "UPDATE rowmill.batches SET step = 'done', mark_error = $4, finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL
         WHERE batch_id = $1 AND step = 'mark' AND finish_token = $2 AND finish_expires_at > coalesce($3, rowmill.now_ms())",
    )
    .persistent(store.named())
    .bind(lease.batch.uuid())
    .bind(lease.token)
    .bind(store.now())
    .bind(error.map(encode))
    .execute(&mut *db)
    .await
    .map_err(failed("record the end of mark-done"))?;
    db.done().await?;
    ensure_held(&hit)
}

fn ensure_held(hit: &PgQueryResult) -> Result<(), StoreError> {
    if hit.rows_affected() == 1 { Ok(()) } else { Err(StoreError::LeaseLost) }
}
