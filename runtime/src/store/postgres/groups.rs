//! Groups of batches.

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
    let sealed = sqlx::query("UPDATE rowmill.groups SET sealed_at = coalesce(sealed_at, $1, rowmill.now_ms()) WHERE app = $2 AND name = $3")
        .persistent(store.named())
        .bind(store.now())
        .bind(encode(app))
        .bind(encode(name))
        .execute(&mut *db)
        .await
        .map_err(failed("seal a group"))?;
    db.done().await?;
    Ok(sealed.rows_affected() == 1)
}

pub(super) async fn list_groups(store: &PgStore, app: &str, from: &str, limit: u32) -> Result<Vec<Group>, StoreError> {
    let mut db = store.unit().await?;
    // One statement: it tells of one moment.
    let rows: Vec<GroupRow> = sqlx::query_as(
        "SELECT g.app, g.name, g.created_at, g.sealed_at,
            EXISTS (SELECT FROM rowmill.batches b WHERE b.app = g.app AND b.group_name = g.name AND b.step <> 'done') AS open, m.*
         FROM rowmill.groups g CROSS JOIN LATERAL (
            SELECT count(*) AS batches, count(*) FILTER (WHERE b.status = 'success') AS successes, count(*) FILTER (WHERE b.status = 'failed') AS failures,
                count(*) FILTER (WHERE b.status = 'aborted') AS aborts, coalesce(sum(b.row_count), 0)::bigint AS row_count,
                coalesce(sum(b.success), 0)::bigint AS success, coalesce(sum(b.failed), 0)::bigint AS failed,
                coalesce(sum(CASE WHEN b.status = 'aborted' THEN b.row_count - b.success - b.failed END), 0)::bigint AS aborted
            FROM rowmill.batches b WHERE b.app = g.app AND b.group_name = g.name) m
         WHERE g.app = $1 AND g.name >= $2 ORDER BY g.name LIMIT $3",
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
