//! Who works here. With one process it is one worker, or two when one follows the other.

use super::SqliteStore;
use crate::model::{WorkerInfo, WorkerRecord};
use crate::store::StoreError;
use crate::store::columns::{HeldRow, WorkerRow, failed, workers_of};
use crate::store::rules::WORKER_FORGOTTEN;

pub(super) async fn beat_worker(store: &SqliteStore, worker: &WorkerInfo) -> Result<(), StoreError> {
    let beating = failed("note a worker's heartbeat");
    let now = store.now();
    sqlx::query(
        "INSERT INTO workers (worker, host, pid, slots, query_slots, draining, started_at, seen_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
         ON CONFLICT (worker) DO UPDATE SET draining = excluded.draining, seen_at = excluded.seen_at",
    )
    .bind(&worker.name)
    .bind(&worker.host)
    .bind(worker.pid)
    .bind(worker.slots)
    .bind(worker.query_slots)
    .bind(worker.draining)
    .bind(now.0)
    .execute(&store.writer)
    .await
    .map_err(beating)?;
    let forgotten = i64::try_from(WORKER_FORGOTTEN.as_millis()).unwrap_or(i64::MAX);
    sqlx::query("DELETE FROM workers WHERE seen_at < ?").bind(now.0.saturating_sub(forgotten)).execute(&store.writer).await.map_err(beating)?;
    Ok(())
}

pub(super) async fn remove_worker(store: &SqliteStore, name: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM workers WHERE worker = ?").bind(name).execute(&store.writer).await.map_err(failed("remove a worker"))?;
    Ok(())
}

pub(super) async fn list_workers(store: &SqliteStore) -> Result<Vec<WorkerRecord>, StoreError> {
    let listing = failed("list workers");
    let mut db = store.readers.begin().await.map_err(listing)?;
    let workers: Vec<WorkerRow> =
        sqlx::query_as("SELECT worker, host, pid, slots, query_slots, draining, started_at, seen_at FROM workers ORDER BY worker")
            .fetch_all(&mut *db)
            .await
            .map_err(listing)?;
    let held: Vec<HeldRow> = sqlx::query_as(
        "SELECT l.worker, b.app, b.op, count(*), sum(CASE WHEN l.retries THEN (SELECT count(*) FROM retries r WHERE r.lease_id = l.lease_id)
            ELSE l.last_row - l.next_row + 1 END)
         FROM leases l JOIN batches b USING (batch_key) WHERE l.token <> 0 AND l.expires_at > ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    .bind(store.now().0)
    .fetch_all(&mut *db)
    .await
    .map_err(listing)?;
    Ok(workers_of(workers, held))
}
