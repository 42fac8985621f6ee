//! Batches end: by their last outcome, or by an abort.

use std::time::Duration;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteQueryResult;

use super::{SqliteStore, find_batch, new_token};
use crate::model::{AbortReason, BatchId, FinishLease, MarkEnd, OutputFile, ProcessorKind, Timestamp};
use crate::store::columns::{count, counts, failed, kind_of, quota_of, signed, small, status_of, step_of};
use crate::store::rules::OVERDUE_MAX;
use crate::store::{Aborted, Overdue, StoreError, StoreEvent};

pub(super) async fn abort_batch(store: &SqliteStore, id: BatchId, reason: Option<String>) -> Result<Aborted, StoreError> {
    let aborting = failed("abort a batch");
    let mut db = store.begin().await?;
    let (key, _) = find_batch(&mut db, id).await?;
    let changed = abort(&mut db, key, reason.map(AbortReason::Asked).as_ref()).await?;
    let (kind, status, rows, success, failures): (String, String, i64, i64, i64) =
        sqlx::query_as("SELECT kind, status, row_count, success, failed FROM batches WHERE batch_key = ?")
            .bind(key)
            .fetch_one(&mut *db)
            .await
            .map_err(aborting)?;
    db.commit().await.map_err(failed("commit an abort"))?;
    if changed {
        store.events.tell(StoreEvent::Aborted(id));
        store.events.tell(StoreEvent::Work(kind_of(&kind)));
    }
    let status = status_of(&status);
    Ok(Aborted { status, counts: counts(status, rows, success, failures), changed })
}

/// Aborts a batch. Returns true if that changed it: false if it has all its outcomes, or was aborted before.
pub(super) async fn abort(db: &mut SqliteConnection, key: i64, reason: Option<&AbortReason>) -> Result<bool, StoreError> {
    let aborting = failed("abort a batch");
    let hit = sqlx::query(
        "UPDATE batches SET status = 'aborted', step = 'join', abort_reason = ? WHERE batch_key = ? AND step = 'rows' AND status IN ('wait', 'queued', 'inprog')",
    )
    .bind(reason.map(AbortReason::to_stored))
    .bind(key)
    .execute(&mut *db)
    .await
    .map_err(aborting)?;
    let changed = hit.rows_affected() == 1;
    if changed {
        for end in ["DELETE FROM leases WHERE batch_key = ?", "DELETE FROM retries WHERE batch_key = ?"] {
            sqlx::query(end).bind(key).execute(&mut *db).await.map_err(aborting)?;
        }
    }
    Ok(changed)
}

pub(super) async fn abort_overdue(store: &SqliteStore) -> Result<Overdue, StoreError> {
    let aborting = failed("abort batches whose deadline has passed");
    let now = store.now();
    let next = "SELECT deadline_at FROM batches WHERE deadline_at IS NOT NULL AND step = 'rows' ORDER BY deadline_at LIMIT 1";
    let next = || sqlx::query_scalar::<_, i64>(next);
    // Nearly always there is none, which needs no writer.
    let first: Option<i64> = next().fetch_optional(&store.readers).await.map_err(aborting)?;
    let too_long = run_too_long(store, now).await?;
    if first.is_none_or(|deadline| deadline > now.0) && too_long.is_empty() {
        return Ok(Overdue { aborted: Vec::new(), next: first.map(|deadline| Timestamp(deadline).since(now)) });
    }
    let mut db = store.begin().await?;
    let overdue: Vec<(i64, String, String)> =
        sqlx::query_as("SELECT batch_key, batch_id, kind FROM batches WHERE deadline_at <= ? AND step = 'rows' ORDER BY deadline_at LIMIT ?")
            .bind(now.0)
            .bind(OVERDUE_MAX)
            .fetch_all(&mut *db)
            .await
            .map_err(aborting)?;
    let mut aborted = Vec::with_capacity(overdue.len());
    let overdue = overdue.into_iter().map(|(key, id, kind)| (key, id, kind, AbortReason::DeadlinePassed {}));
    for (key, id, kind, reason) in overdue.chain(too_long) {
        if abort(&mut db, key, Some(&reason)).await? {
            let id: BatchId = id.parse().map_err(failed("read a batch's id"))?;
            aborted.push((id, kind_of(&kind)));
        }
    }
    let next: Option<i64> = next().fetch_optional(&mut *db).await.map_err(aborting)?;
    db.commit().await.map_err(failed("commit aborts"))?;
    for (id, kind) in &aborted {
        store.events.tell(StoreEvent::Aborted(*id));
        store.events.tell(StoreEvent::Work(*kind));
    }
    Ok(Overdue { aborted: aborted.into_iter().map(|(id, _)| id).collect(), next: next.map(|deadline| Timestamp(deadline).since(now)) })
}

/// Batches with a lease that have run for longer than their app's may: key, id, kind, and the reason.
async fn run_too_long(store: &SqliteStore, now: Timestamp) -> Result<Vec<(i64, String, String, AbortReason)>, StoreError> {
    let (default, most) = (millis(store.bounds.quota.batch_time), millis(store.bounds.quota_max.batch_time));
    let found: Vec<(i64, String, String, i64, i64)> = sqlx::query_as(
        "SELECT batch_key, batch_id, kind, ran, most FROM (
            SELECT DISTINCT b.batch_key, b.batch_id, b.kind, ?1 - b.started_at AS ran, min(coalesce(json_extract(a.quota, '$.batch_time_ms'), ?2), ?3) AS most
            FROM leases l JOIN batches b USING (batch_key) LEFT JOIN apps a ON a.app = b.app WHERE b.step = 'rows' AND b.status = 'inprog') WHERE ran >= most LIMIT ?4",
    )
    .bind(now.0)
    .bind(default)
    .bind(most)
    .bind(OVERDUE_MAX)
    .fetch_all(&store.readers)
    .await
    .map_err(failed("look for batches that run for too long"))?;
    Ok(found
        .into_iter()
        .map(|(key, id, kind, ran, most)| (key, id, kind, AbortReason::RanTooLong { ran_ms: count(ran), limit_ms: count(most) }))
        .collect())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) async fn claim_finish(
    store: &SqliteStore,
    worker: &str,
    kind: Option<ProcessorKind>,
    ttl: Duration,
) -> Result<Option<FinishLease>, StoreError> {
    let claiming = failed("lease a batch to finish");
    let now = store.now();
    let token = new_token();
    let claimed: Option<(String, String, i64)> = sqlx::query_as(
        "UPDATE batches SET finish_token = ?1, finish_worker = ?2, finish_expires_at = ?3, finish_attempt = finish_attempt + 1
         WHERE batch_key = (SELECT batch_key FROM batches
                            WHERE step IN ('join', 'mark') AND (finish_expires_at IS NULL OR finish_expires_at <= ?4) AND kind = coalesce(?5, kind) ORDER BY batch_key LIMIT 1)
         RETURNING batch_id, step, finish_attempt",
    )
    .bind(token)
    .bind(worker)
    .bind(now.after(ttl).0)
    .bind(now.0)
    .bind(kind.map(ProcessorKind::as_str))
    .fetch_optional(&store.writer)
    .await
    .map_err(claiming)?;
    let Some((batch, step, attempt)) = claimed else { return Ok(None) };
    let batch = batch.parse().map_err(failed("read a batch's id"))?;
    Ok(Some(FinishLease { batch, step: step_of(&step), token, attempt: small(attempt) }))
}

pub(super) async fn renew_finish(store: &SqliteStore, lease: &FinishLease, ttl: Duration) -> Result<(), StoreError> {
    let now = store.now();
    let hit = sqlx::query("UPDATE batches SET finish_expires_at = ? WHERE batch_id = ? AND finish_token = ? AND finish_expires_at > ?")
        .bind(now.after(ttl).0)
        .bind(lease.batch.to_string())
        .bind(lease.token)
        .bind(now.0)
        .execute(&store.writer)
        .await
        .map_err(failed("renew the lease of a batch to finish"))?;
    ensure_held(&hit)
}

pub(super) async fn give_back_finish(store: &SqliteStore, lease: &FinishLease, after: Duration) -> Result<(), StoreError> {
    let now = store.now();
    sqlx::query(
        "UPDATE batches SET finish_token = NULL, finish_worker = NULL, finish_expires_at = ?, finish_attempt = finish_attempt - 1
         WHERE batch_id = ? AND finish_token = ? AND finish_expires_at > ?",
    )
    .bind((!after.is_zero()).then(|| now.after(after).0))
    .bind(lease.batch.to_string())
    .bind(lease.token)
    .bind(now.0)
    .execute(&store.writer)
    .await
    .map_err(failed("give the lease of a batch to finish back"))?;
    Ok(())
}

pub(super) async fn record_files(store: &SqliteStore, lease: &FinishLease, files: &[OutputFile]) -> Result<(), StoreError> {
    let recording = failed("record output files");
    let now = store.now();
    let mut db = store.begin().await?;
    let (key, _) = find_batch(&mut db, lease.batch).await?;
    let hit = sqlx::query(
        "UPDATE batches SET step = 'mark', finished_at = ?1, finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL, finish_attempt = 0,
            status = CASE WHEN status = 'aborted' THEN status WHEN failed > 0 THEN 'failed' ELSE 'success' END
         WHERE batch_key = ?2 AND step = 'join' AND finish_token = ?3 AND finish_expires_at > ?1",
    )
    .bind(now.0)
    .bind(key)
    .bind(lease.token)
    .execute(&mut *db)
    .await
    .map_err(recording)?;
    ensure_held(&hit)?;
    let waits = super::chains::make_ready(&mut db, key).await?;
    for file in files {
        let hit = sqlx::query("UPDATE output_files SET object = ?, size_bytes = ? WHERE batch_key = ? AND name = ?")
            .bind(&file.object)
            .bind(signed(file.size_bytes))
            .bind(key)
            .bind(&file.name)
            .execute(&mut *db)
            .await
            .map_err(recording)?;
        if hit.rows_affected() != 1 {
            return Err(StoreError::Invalid(format!("batch {} has no output file {:?}", lease.batch, file.name)));
        }
    }
    db.commit().await.map_err(failed("commit output files"))?;
    store.events.tell(StoreEvent::Final(lease.batch));
    if waits {
        store.events.tell(StoreEvent::Work(ProcessorKind::Batch));
    }
    Ok(())
}

pub(super) async fn record_mark(store: &SqliteStore, lease: &FinishLease, end: &MarkEnd) -> Result<(), StoreError> {
    let recording = failed("record the end of mark-done");
    let now = store.now();
    let ending = || {
        // Claims that ended without a record were calls whose worker died.
        sqlx::query_as(
            "UPDATE batches SET step = CASE WHEN ?1 IS NULL THEN 'done' ELSE 'mark' END, mark_error = ?2, mark_calls = mark_calls + finish_attempt - ?3,
                finish_token = NULL, finish_worker = NULL, finish_expires_at = ?1, finish_attempt = CASE WHEN ?1 IS NULL THEN finish_attempt ELSE 0 END
             WHERE batch_id = ?4 AND step = 'mark' AND finish_token = ?5 AND finish_expires_at > ?6
             RETURNING batch_key, app, round, mark_calls, log_bytes",
        )
        .bind(end.again_after.map(|after| now.after(after).0))
        .bind(end.error.as_deref())
        .bind(i64::from(!end.called))
        .bind(lease.batch.to_string())
        .bind(lease.token)
        .bind(now.0)
    };
    if !end.called || (end.error.is_none() && end.log.is_none()) {
        let recorded: Option<MarkedRow> = ending().fetch_optional(&store.writer).await.map_err(recording)?;
        return recorded.map(drop).ok_or(StoreError::LeaseLost);
    }
    let mut db = store.begin().await?;
    let recorded: Option<MarkedRow> = ending().fetch_optional(&mut *db).await.map_err(recording)?;
    keep_mark_call(store, &mut db, recorded.ok_or(StoreError::LeaseLost)?, end, now).await?;
    db.commit().await.map_err(failed("commit the end of mark-done"))
}

/// A batch whose call of `mark-done` ended: its key, app, round, calls, and the bytes that it logged before.
type MarkedRow = (i64, String, i64, i64, i64);

async fn keep_mark_call(store: &SqliteStore, db: &mut SqliteConnection, marked: MarkedRow, end: &MarkEnd, now: Timestamp) -> Result<(), StoreError> {
    let recording = failed("record a call of mark-done");
    let (key, app, round, call, logged) = marked;
    let quota: Option<Option<String>> =
        sqlx::query_scalar("SELECT quota FROM apps WHERE app = ?").bind(app).fetch_optional(&mut *db).await.map_err(recording)?;
    let log_max = store.bounds.quota_of(&quota_of(quota.flatten())?).batch_log_bytes;
    let log = end.log.as_deref().filter(|log| log.len() as u64 <= log_max.saturating_sub(count(logged)));
    sqlx::query("INSERT INTO mark_calls (batch_key, round, call, ended_at, error, log, log_dropped) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(key)
        .bind(round)
        .bind(call)
        .bind(now.0)
        .bind(end.error.as_deref())
        .bind(log)
        .bind(end.log.is_some() && log.is_none())
        .execute(&mut *db)
        .await
        .map_err(recording)?;
    if let Some(log) = log {
        sqlx::query("UPDATE batches SET log_bytes = log_bytes + ? WHERE batch_key = ?")
            .bind(signed(log.len() as u64))
            .bind(key)
            .execute(db)
            .await
            .map_err(recording)?;
    }
    Ok(())
}

fn ensure_held(hit: &SqliteQueryResult) -> Result<(), StoreError> {
    if hit.rows_affected() == 1 { Ok(()) } else { Err(StoreError::LeaseLost) }
}
