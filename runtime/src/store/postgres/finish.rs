//! Batches end: by their last outcome, or by an abort.

use std::time::Duration;

use sqlx::postgres::PgQueryResult;
use uuid::Uuid;

use super::connect::{PgStore, refuse};
use super::submit::notify;
use super::text::encode;
use super::{find_batch, millis};
use crate::model::{BatchId, FinishLease, OutputFile, ProcessorKind};
use crate::store::columns::{counts, failed, signed, small, status_of, step_of};
use crate::store::{Aborted, StoreError, StoreEvent};

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
    let recording = failed("record output files");
    let mut db = store.begin().await?;
    let (key, _) = find_batch(&mut db, lease.batch).await?;
    // What an abort left. Before the batch is locked: a record that holds one of these waits for the batch.
    sqlx::query("DELETE FROM rowmill.retries WHERE batch_key = $1").persistent(store.named()).bind(key).execute(&mut *db).await.map_err(recording)?;
    let hit = sqlx::query(
        "UPDATE rowmill.batches SET step = 'mark', finished_at = coalesce($3, rowmill.now_ms()), finish_token = NULL, finish_worker = NULL,
            finish_expires_at = NULL, finish_attempt = 0,
            status = CASE WHEN status = 'aborted' THEN status WHEN failed > 0 THEN 'failed' ELSE 'success' END
         WHERE batch_key = $1 AND step = 'join' AND finish_token = $2 AND finish_expires_at > coalesce($3, rowmill.now_ms())",
    )
    .persistent(store.named())
    .bind(key)
    .bind(lease.token)
    .bind(store.now())
    .execute(&mut *db)
    .await
    .map_err(recording)?;
    if let Err(lost) = ensure_held(&hit) {
        return refuse(db, lost).await;
    }
    for file in files {
        let hit = sqlx::query("UPDATE rowmill.output_files SET object = $1, size_bytes = $2 WHERE batch_key = $3 AND name = $4")
            .persistent(store.named())
            .bind(encode(&file.object))
            .bind(signed(file.size_bytes))
            .bind(key)
            .bind(encode(&file.name))
            .execute(&mut *db)
            .await
            .map_err(recording)?;
        if hit.rows_affected() != 1 {
            return refuse(db, StoreError::Invalid(format!("batch {} has no output file {:?}", lease.batch, file.name))).await;
        }
    }
    notify(&mut db, StoreEvent::Final(lease.batch)).await?;
    db.commit().await.map_err(failed("commit output files"))
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
