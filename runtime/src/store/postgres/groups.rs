//! Groups of batches. How their rows are locked is said in migrations/postgres/0050_groups.sql.

use sqlx::PgConnection;

use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{Group, NewBatch};
use crate::store::StoreError;
use crate::store::columns::{GroupRow, failed};
use crate::store::rules::group_is_sealed;

/// A new batch comes into its group, which nobody seals until that commits.
pub(super) async fn enter_group(db: &mut PgConnection, named: bool, now: Option<i64>, batch: &NewBatch) -> Result<(), StoreError> {
    let Some(name) = &batch.group else { return Ok(()) };
    let open: bool = sqlx::query_scalar("SELECT rowmill.enter_group($1, $2, $3)")
        .persistent(named)
        .bind(encode(&batch.app))
        .bind(encode(name))
        .bind(now)
        .fetch_one(db)
        .await
        .map_err(failed("look up a group"))?;
    if open { Ok(()) } else { Err(group_is_sealed(&batch.app, name)) }
}

pub(super) async fn seal_group(store: &PgStore, app: &str, name: &str) -> Result<bool, StoreError> {
    let mut db = store.unit().await?;
    let sealed: Vec<bool> = sqlx::query_scalar("SELECT rowmill.seal_group($1, $2, $3)")
        .persistent(store.named())
        .bind(encode(app))
        .bind(encode(name))
        .bind(store.now())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("seal a group"))?;
    db.done().await?;
    Ok(sealed == [true])
}

pub(super) async fn list_groups(store: &PgStore, app: &str, from: &str, limit: u32) -> Result<Vec<Group>, StoreError> {
    let mut db = store.unit().await?;
    // One statement: it tells of one moment. What is counted is that of a group, whatever the database thinks of its tables (LATERAL).
    let rows: Vec<GroupRow> = sqlx::query_as(
        "SELECT g.app, g.name, g.created_at, g.sealed_at, g.ended_at, m.*
         FROM (SELECT * FROM rowmill.groups g WHERE g.app = $1 AND g.name >= $2 ORDER BY g.name LIMIT $3) g CROSS JOIN LATERAL (
            SELECT count(*) AS batches, count(*) FILTER (WHERE b.step <> 'done') AS open,
                count(*) FILTER (WHERE b.step = 'done' AND b.status = 'success') AS successes,
                count(*) FILTER (WHERE b.step = 'done' AND b.status = 'failed') AS failures,
                coalesce(sum(b.row_count), 0)::bigint AS row_count, coalesce(sum(b.success), 0)::bigint AS success, coalesce(sum(b.failed), 0)::bigint AS failed,
                coalesce(sum(CASE WHEN b.status = 'aborted' THEN b.row_count - b.success - b.failed END), 0)::bigint AS aborted
            FROM rowmill.batches b WHERE b.app = g.app AND b.group_name = g.name) m
         ORDER BY g.name",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(from))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read groups"))?;
    db.done().await?;
    Ok(rows.into_iter().map(|row| GroupRow { app: decode(row.app), name: decode(row.name), ..row }.group()).collect())
}
