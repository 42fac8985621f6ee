//! What is not kept any longer is removed, in small steps. How is said in migrations/postgres/0020_keeping.sql.

use std::time::Duration;

use uuid::Uuid;

use super::connect::PgStore;
use super::millis;
use super::text::{decode, encode};
use crate::model::{BatchId, Due, DueCounts, OpKey, Pruning};
use crate::store::columns::{count, failed, status_of};
use crate::store::pruned::{DueRow, NOT_DONE, WHOLE, due_of, pruning_of};
use crate::store::{PruneStep, StoreError};

pub(super) async fn list_done_ops(store: &PgStore, after: Option<&OpKey>, limit: u32) -> Result<Vec<OpKey>, StoreError> {
    let mut db = store.unit().await?;
    let ops: Vec<(String, String)> = sqlx::query_as("SELECT app, op FROM rowmill.list_done_ops($1, $2, $3)")
        .persistent(store.named())
        .bind(after.map(|key| encode(&key.app)))
        .bind(after.map(|key| encode(&key.op)))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .fetch_all(&mut *db)
        .await
        .map_err(failed("list operations with batches that are done"))?;
    db.done().await?;
    Ok(ops.into_iter().map(|(app, op)| OpKey { app: decode(app), op: decode(op) }).collect())
}

pub(super) async fn count_due(store: &PgStore, op: &OpKey, due: &Due) -> Result<DueCounts, StoreError> {
    let mut db = store.unit().await?;
    let counted: Vec<DueRow> = sqlx::query_as(
        "WITH due AS (
            SELECT d.*, (d.whole OR d.finished_at <= $3) AND d.parts & 1 <> 0 AS files, (d.whole OR d.finished_at <= $4) AND d.parts & 2 <> 0 AS inputs,
                (d.whole OR d.finished_at <= $5) AND d.parts & 4 <> 0 AS outcomes
            FROM (SELECT b.batch_key, b.row_count::bigint, b.parts, k.kept_from AS finished_at, (k.kept_from <= $6) IS TRUE AS whole
                FROM rowmill.batches b CROSS JOIN LATERAL (
                    SELECT CASE WHEN b.group_name IS NULL THEN b.finished_at ELSE rowmill.kept_from(b.app, b.group_name, b.finished_at) END AS kept_from) k
                WHERE b.step = 'done' AND b.pruning = 0 AND b.app = $1 AND b.op = $2 AND b.finished_at <= $7 AND k.kept_from <= $7
                    AND NOT EXISTS (SELECT FROM rowmill.chains c WHERE c.first_key = b.batch_key)) d)
         SELECT count(*) FILTER (WHERE whole), coalesce(sum(row_count) FILTER (WHERE whole), 0)::bigint,
            count(*) FILTER (WHERE NOT whole AND files),
            count(*) FILTER (WHERE NOT whole AND inputs), coalesce(sum(row_count) FILTER (WHERE NOT whole AND inputs), 0)::bigint,
            count(*) FILTER (WHERE NOT whole AND outcomes), coalesce(sum(row_count) FILTER (WHERE NOT whole AND outcomes), 0)::bigint,
            coalesce(sum(o.objects), 0)::bigint, coalesce(sum(o.bytes), 0)::bigint
         FROM due LEFT JOIN LATERAL (
            SELECT count(*) AS objects, sum(f.size_bytes) AS bytes FROM (
                SELECT f.size_bytes FROM rowmill.output_files f WHERE f.batch_key = due.batch_key AND due.files AND f.object IS NOT NULL
                UNION ALL
                SELECT f.size_bytes FROM rowmill.past_files f WHERE f.batch_key = due.batch_key AND due.files
                UNION ALL
                SELECT f.size_bytes FROM rowmill.batch_files f WHERE f.batch_key = due.batch_key AND due.inputs AND f.object IS NOT NULL) f) o ON true",
    )
    .persistent(store.named())
    .bind(encode(&op.app))
    .bind(encode(&op.op))
    .bind(due.files.map(|at| at.0))
    .bind(due.inputs.map(|at| at.0))
    .bind(due.outcomes.map(|at| at.0))
    .bind(due.batches.map(|at| at.0))
    .bind(due.last().map(|at| at.0))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("count what is due to be pruned"))?;
    db.done().await?;
    Ok(counted.into_iter().next().map(due_of).unwrap_or_default())
}

pub(super) async fn begin_prune(store: &PgStore, op: &OpKey, due: &Due, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
    let mut db = store.unit().await?;
    let begun: Vec<(Uuid, i32)> = sqlx::query_as("SELECT batch_id, pruning FROM rowmill.begin_prune($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .persistent(store.named())
        .bind(encode(&op.app))
        .bind(encode(&op.op))
        .bind(due.files.map(|at| at.0))
        .bind(due.inputs.map(|at| at.0))
        .bind(due.outcomes.map(|at| at.0))
        .bind(due.events.map(|at| at.0))
        .bind(due.batches.map(|at| at.0))
        .bind(millis(ttl))
        .bind(store.now())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("take up a batch to prune"))?;
    db.done().await?;
    Ok(begun.into_iter().next().map(|(id, bits)| pruning_of(id.into(), bits.into())))
}

pub(super) async fn resume_prune(store: &PgStore, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
    let mut db = store.unit().await?;
    let resumed: Vec<(Uuid, i32)> = sqlx::query_as("SELECT batch_id, pruning FROM rowmill.resume_prune($1, $2)")
        .persistent(store.named())
        .bind(millis(ttl))
        .bind(store.now())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("take up a batch that is being pruned"))?;
    db.done().await?;
    Ok(resumed.into_iter().next().map(|(id, bits)| pruning_of(id.into(), bits.into())))
}

pub(super) async fn begin_removal(store: &PgStore, id: BatchId, ttl: Duration) -> Result<Pruning, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<(String, Option<i32>)> = sqlx::query_as(
        "WITH batch AS (SELECT batch_key, status, step, parts::int FROM rowmill.batches WHERE batch_id = $1 FOR NO KEY UPDATE)
         SELECT b.status, m.pruning FROM batch b LEFT JOIN LATERAL
            rowmill.mark_pruned(CASE WHEN b.step = 'done' THEN b.batch_key END, b.parts | $2, coalesce($4, rowmill.now_ms()), $3) m ON true",
    )
    .persistent(store.named())
    .bind(id.uuid())
    .bind(i32::try_from(WHOLE).unwrap_or_default())
    .bind(millis(ttl))
    .bind(store.now())
    .fetch_all(&mut *db)
    .await
    .map_err(failed("begin to remove a batch"))?;
    db.done().await?;
    match found.into_iter().next() {
        None => Err(StoreError::NotFound(id)),
        Some((_, Some(bits))) => Ok(pruning_of(id, bits.into())),
        Some((status, None)) => Err(StoreError::WrongStatus { id, status: status_of(&status), wanted: NOT_DONE }),
    }
}

pub(super) async fn list_pruned_objects(store: &PgStore, id: BatchId, limit: u32) -> Result<Vec<String>, StoreError> {
    let mut db = store.unit().await?;
    let objects: Vec<String> = sqlx::query_scalar("SELECT * FROM rowmill.list_pruned_objects($1, $2)")
        .persistent(store.named())
        .bind(id.uuid())
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .fetch_all(&mut *db)
        .await
        .map_err(failed("list objects to prune"))?;
    db.done().await?;
    Ok(objects.into_iter().map(decode).collect())
}

pub(super) async fn forget_objects(store: &PgStore, id: BatchId, objects: &[String]) -> Result<bool, StoreError> {
    let mut db = store.unit().await?;
    let left: Vec<bool> = sqlx::query_scalar("SELECT rowmill.forget_objects($1, $2)")
        .persistent(store.named())
        .bind(id.uuid())
        .bind(objects.iter().map(|object| encode(object)).collect::<Vec<_>>())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("forget objects"))?;
    db.done().await?;
    Ok(left == [true])
}

pub(super) async fn prune_rows(store: &PgStore, id: BatchId, rows: u32, ttl: Duration) -> Result<PruneStep, StoreError> {
    let mut db = store.unit().await?;
    let step: Vec<(i32, bool)> = sqlx::query_as("SELECT went_through, is_left FROM rowmill.prune_rows($1, $2, $3, $4)")
        .persistent(store.named())
        .bind(id.uuid())
        .bind(i32::try_from(rows).unwrap_or(i32::MAX))
        .bind(millis(ttl))
        .bind(store.now())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("prune rows"))?;
    db.done().await?;
    let (rows, left) = step.into_iter().next().unwrap_or_default();
    Ok(PruneStep { rows: count(rows.into()), left })
}
