//! Apps and their processors.

use super::SqliteStore;
use crate::model::{App, PartialTerms, ProcessorKind, ProcessorVersion};
use crate::store::StoreError;
use crate::store::columns::{AppRow, OpRow, ProcessorRow, app_of, failed, limits_json, op_of, processor_of, quota_json};
use crate::store::rules::{check_app, check_name};

pub(super) async fn put_app(store: &SqliteStore, app: &App) -> Result<(), StoreError> {
    check_app(app, &store.bounds)?;
    sqlx::query(
        "INSERT INTO apps (app, weight, running_max, limits, quota) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (app) DO UPDATE SET weight = excluded.weight, running_max = excluded.running_max, limits = excluded.limits,
            quota = excluded.quota",
    )
    .bind(&app.name)
    .bind(app.weight)
    .bind(app.running_max)
    .bind(limits_json(app))
    .bind(quota_json(app))
    .execute(&store.writer)
    .await
    .map_err(failed("register an app"))?;
    Ok(())
}

pub(super) async fn read_app(store: &SqliteStore, name: &str) -> Result<Option<App>, StoreError> {
    let found: Option<AppRow> = sqlx::query_as("SELECT app, weight, running_max, limits, quota FROM apps WHERE app = ?")
        .bind(name)
        .fetch_optional(&store.readers)
        .await
        .map_err(failed("read an app"))?;
    found.map(app_of).transpose()
}

pub(super) async fn list_apps(store: &SqliteStore) -> Result<Vec<App>, StoreError> {
    let found: Vec<AppRow> = sqlx::query_as("SELECT app, weight, running_max, limits, quota FROM apps ORDER BY app")
        .fetch_all(&store.readers)
        .await
        .map_err(failed("list apps"))?;
    found.into_iter().map(app_of).collect()
}

pub(super) async fn put_processor(
    store: &SqliteStore,
    app: &str,
    op: &str,
    kind: ProcessorKind,
    digest: &str,
) -> Result<ProcessorVersion, StoreError> {
    check_name("an app", app)?;
    check_name("an operation", op)?;
    let registering = failed("register a processor");
    let op = op.to_lowercase();
    let mut db = store.begin().await?;
    sqlx::query(
        "INSERT INTO processors (app, op, version, kind, digest, created_at)
         SELECT ?1, ?2, 1 + coalesce(max(version), 0), ?3, ?4, ?5 FROM processors WHERE app = ?1 AND op = ?2
         HAVING NOT EXISTS (SELECT 1 FROM processors p WHERE p.app = ?1 AND p.op = ?2 AND p.digest = ?4
            AND p.version = (SELECT max(version) FROM processors n WHERE n.app = ?1 AND n.op = ?2))",
    )
    .bind(app)
    .bind(&op)
    .bind(kind.as_str())
    .bind(digest)
    .bind(store.now().0)
    .execute(&mut *db)
    .await
    .map_err(registering)?;
    let newest: ProcessorRow =
        sqlx::query_as("SELECT app, op, version, kind, digest, created_at FROM processors WHERE app = ? AND op = ? ORDER BY version DESC LIMIT 1")
            .bind(app)
            .bind(&op)
            .fetch_one(&mut *db)
            .await
            .map_err(registering)?;
    db.commit().await.map_err(failed("commit a processor"))?;
    Ok(processor_of(newest))
}

pub(super) async fn find_op(store: &SqliteStore, app: &str, op: &str) -> Result<Option<(ProcessorVersion, PartialTerms)>, StoreError> {
    let found: Option<OpRow> = sqlx::query_as(
        "SELECT p.version, p.kind, p.digest, p.created_at,
            (SELECT o.terms FROM policies o WHERE o.app = ?1 AND o.op = ?2), (SELECT a.terms FROM policies a WHERE a.app = ?1 AND a.op = '')
         FROM processors p WHERE p.app = ?1 AND p.op = ?2 ORDER BY p.version DESC LIMIT 1",
    )
    .bind(app)
    .bind(op.to_lowercase())
    .fetch_optional(&store.readers)
    .await
    .map_err(failed("look up a processor"))?;
    found.map(|row| op_of(app, op, row)).transpose()
}

pub(super) async fn list_processors(store: &SqliteStore, app: Option<&str>) -> Result<Vec<ProcessorVersion>, StoreError> {
    let found: Vec<ProcessorRow> =
        sqlx::query_as("SELECT app, op, version, kind, digest, created_at FROM processors WHERE app = coalesce(?, app) ORDER BY app, op, version")
            .bind(app)
            .fetch_all(&store.readers)
            .await
            .map_err(failed("list processors"))?;
    Ok(found.into_iter().map(processor_of).collect())
}
