//! Who works here.

use super::connect::PgStore;
use super::millis;
use crate::model::{WorkerInfo, WorkerRecord};
use crate::store::StoreError;
use crate::store::columns::{HeldRow, WorkerRow, failed, workers_of};
use crate::store::rules::WORKER_FORGOTTEN;

pub(super) async fn beat_worker(store: &PgStore, worker: &WorkerInfo) -> Result<(), StoreError> {
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut db = store.unit().await?;
    sqlx::query(
        "WITH moment AS (SELECT coalesce($7, rowmill.now_ms()) AS at),
         forgotten AS (DELETE FROM rowmill.workers WHERE seen_at < (SELECT at FROM moment) - $8 AND worker <> $1)
         INSERT INTO rowmill.workers (worker, host, pid, slots, query_slots, draining, started_at, seen_at)
         SELECT $1, $2, $3, $4, $5, $6, at, at FROM moment
         ON CONFLICT (worker) DO UPDATE SET draining = excluded.draining, seen_at = excluded.seen_at",
    )
    .persistent(store.named())
    .bind(&worker.name)
    .bind(&worker.host)
    .bind(i64::from(worker.pid))
    .bind(int(worker.slots))
    .bind(int(worker.query_slots))
    .bind(worker.draining)
    .bind(store.now())
    .bind(millis(WORKER_FORGOTTEN))
    .execute(&mut *db)
    .await
    .map_err(failed("note a worker's heartbeat"))?;
    db.done().await
}

pub(super) async fn remove_worker(store: &PgStore, name: &str) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    sqlx::query("DELETE FROM rowmill.workers WHERE worker = $1")
        .persistent(store.named())
        .bind(name)
        .execute(&mut *db)
        .await
        .map_err(failed("remove a worker"))?;
    db.done().await
}

pub(super) async fn list_workers(store: &PgStore) -> Result<Vec<WorkerRecord>, StoreError> {
    let listing = failed("list workers");
    let mut db = store.unit().await?;
    let workers: Vec<WorkerRow> = sqlx::query_as(
        "SELECT worker, host, pid, slots::bigint, query_slots::bigint, draining, started_at, seen_at FROM rowmill.workers ORDER BY worker",
    )
    .persistent(store.named())
    .fetch_all(&mut *db)
    .await
    .map_err(listing)?;
    let held: Vec<HeldRow> = sqlx::query_as(
        "SELECT l.worker, b.app, b.op, count(*), sum(CASE WHEN l.retries THEN (SELECT count(*) FROM rowmill.retries r WHERE r.lease_id = l.lease_id)
            ELSE l.last_row - l.next_row + 1 END)::bigint
         FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key)
         WHERE l.token <> 0 AND l.expires_at > coalesce($1, rowmill.now_ms()) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    .persistent(store.named())
    .bind(store.now())
    .fetch_all(&mut *db)
    .await
    .map_err(listing)?;
    db.done().await?;
    Ok(workers_of(workers, held))
}
