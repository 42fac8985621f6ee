//! Groups of batches. Triggers end them: migrations/sqlite/0050_groups.sql.

use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::model::{Group, NewBatch, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{GroupRow, failed};
use crate::store::rules::group_is_sealed;

/// A new batch comes into its group.
pub(super) async fn enter_group(db: &mut SqliteConnection, now: Timestamp, batch: &NewBatch) -> Result<(), StoreError> {
    let Some(name) = &batch.group else { return Ok(()) };
    let entering = failed("look up a group");
    sqlx::query("INSERT INTO groups (app, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(&batch.app)
        .bind(name)
        .bind(now.0)
        .execute(&mut *db)
        .await
        .map_err(entering)?;
    let open: bool = sqlx::query_scalar("SELECT sealed_at IS NULL FROM groups WHERE app = ? AND name = ?")
        .bind(&batch.app)
        .bind(name)
        .fetch_one(db)
        .await
        .map_err(entering)?;
    if open { Ok(()) } else { Err(group_is_sealed(&batch.app, name)) }
}

pub(super) async fn seal_group(store: &SqliteStore, app: &str, name: &str) -> Result<bool, StoreError> {
    let sealed = sqlx::query("UPDATE groups SET sealed_at = coalesce(sealed_at, ?) WHERE app = ? AND name = ?")
        .bind(store.now().0)
        .bind(app)
        .bind(name)
        .execute(&store.writer)
        .await
        .map_err(failed("seal a group"))?;
    Ok(sealed.rows_affected() == 1)
}

pub(super) async fn list_groups(store: &SqliteStore, app: &str, from: &str, limit: u32) -> Result<Vec<Group>, StoreError> {
    let rows: Vec<GroupRow> = sqlx::query_as(
        "SELECT g.app, g.name, g.created_at, g.sealed_at, g.ended_at, count(b.batch_key) AS batches, count(*) FILTER (WHERE b.step <> 'done') AS open,
            count(*) FILTER (WHERE b.step = 'done' AND b.status = 'success') AS successes, count(*) FILTER (WHERE b.step = 'done' AND b.status = 'failed') AS failures,
            coalesce(sum(b.row_count), 0) AS row_count, coalesce(sum(b.success), 0) AS success, coalesce(sum(b.failed), 0) AS failed,
            coalesce(sum(CASE WHEN b.status = 'aborted' THEN b.row_count - b.success - b.failed END), 0) AS aborted
         FROM (SELECT * FROM groups WHERE app = ?1 AND name >= ?2 ORDER BY name LIMIT ?3) g
         LEFT JOIN batches b ON b.app = g.app AND b.group_name = g.name AND b.group_name IS NOT NULL
         GROUP BY g.app, g.name ORDER BY g.name",
    )
    .bind(app)
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(&store.readers)
    .await
    .map_err(failed("read groups"))?;
    Ok(rows.into_iter().map(GroupRow::group).collect())
}
