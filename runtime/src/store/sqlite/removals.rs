//! Versions go, and code that no version has any more.

use sqlx::SqliteConnection;

use super::SqliteStore;
use super::versions::is_active;
use crate::model::canonical_op;
use crate::store::columns::{count, failed};
use crate::store::versions::REMOVAL_TIME;
use crate::store::{StoreError, VersionError};

pub(super) async fn remove_processor(store: &SqliteStore, app: &str, op: &str, version: u32) -> Result<Vec<String>, StoreError> {
    let removing = failed("remove a version");
    let op = canonical_op(op);
    let mut db = store.begin().await?;
    if is_active(&mut db, app, &op, version).await? {
        return Err(VersionError::Active { version }.into());
    }
    // Nothing is submitted meanwhile: there is one writer.
    let batches: i64 = sqlx::query_scalar("SELECT count(*) FROM batches WHERE app = ? AND op = ? AND processor_version = ? AND step <> 'done'")
        .bind(app)
        .bind(&op)
        .bind(version)
        .fetch_one(&mut *db)
        .await
        .map_err(removing)?;
    if batches > 0 {
        return Err(VersionError::InUse { version, batches: count(batches) }.into());
    }
    let now = store.now().0;
    let until = now.saturating_add(i64::try_from(REMOVAL_TIME.as_millis()).unwrap_or(i64::MAX));
    let removed: Option<String> =
        sqlx::query_scalar("UPDATE processors SET removed_at = coalesce(removed_at, ?) WHERE app = ? AND op = ? AND version = ? RETURNING digest")
            .bind(now)
            .bind(app)
            .bind(&op)
            .bind(version)
            .fetch_optional(&mut *db)
            .await
            .map_err(removing)?;
    let digest = removed.ok_or_else(|| VersionError::Missing { app: app.to_owned(), op: op.clone(), version })?;
    // What others did not come to, and the code of this version when no other has it.
    let mut codes: Vec<String> = sqlx::query_scalar("UPDATE code_removals SET until_at = ?1 WHERE until_at <= ?2 RETURNING digest")
        .bind(until)
        .bind(now)
        .fetch_all(&mut *db)
        .await
        .map_err(removing)?;
    let own: Option<String> = sqlx::query_scalar(
        "INSERT INTO code_removals (digest, until_at) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM processors WHERE digest = ?1 AND removed_at IS NULL)
         ON CONFLICT (digest) DO NOTHING RETURNING digest",
    )
    .bind(&digest)
    .bind(until)
    .fetch_optional(&mut *db)
    .await
    .map_err(removing)?;
    db.commit().await.map_err(failed("commit the removal of a version"))?;
    codes.extend(own);
    Ok(codes)
}

pub(super) async fn forget_code(store: &SqliteStore, digest: &str) -> Result<(), StoreError> {
    let mut db = store.begin().await?;
    forget_in(&mut db, digest).await?;
    db.commit().await.map_err(failed("commit that code is removed"))
}

pub(super) async fn forget_in(db: &mut SqliteConnection, digest: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM code_removals WHERE digest = ?").bind(digest).execute(db).await.map_err(failed("forget removed code"))?;
    Ok(())
}
