//! Apps and their processors.

use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{App, PartialTerms, ProcessorKind, ProcessorVersion};
use crate::store::StoreError;
use crate::store::columns::{AppRow, OpRow, ProcessorRow, app_of, failed, limits_json, op_of, processor_of, quota_json};
use crate::store::rules::{check_app, check_name};

pub(super) fn decoded(app: App) -> App {
    App { name: decode(app.name), ..app }
}

fn decoded_version(version: ProcessorVersion) -> ProcessorVersion {
    ProcessorVersion { app: decode(version.app), op: decode(version.op), digest: decode(version.digest), ..version }
}

pub(super) async fn put_app(store: &PgStore, app: &App) -> Result<(), StoreError> {
    check_app(app, &store.bounds)?;
    let mut db = store.unit().await?;
    sqlx::query(
        "INSERT INTO rowmill.apps (app, weight, running_max, limits, quota) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (app) DO UPDATE SET weight = excluded.weight, running_max = excluded.running_max, limits = excluded.limits,
            quota = excluded.quota",
    )
    .persistent(store.named())
    .bind(encode(&app.name))
    .bind(i32::try_from(app.weight).unwrap_or(i32::MAX))
    .bind(app.running_max.map(|max| i32::try_from(max).unwrap_or(i32::MAX)))
    .bind(limits_json(app))
    .bind(quota_json(app))
    .execute(&mut *db)
    .await
    .map_err(failed("register an app"))?;
    db.done().await
}

pub(super) async fn read_app(store: &PgStore, name: &str) -> Result<Option<App>, StoreError> {
    let mut db = store.unit().await?;
    let found: Option<AppRow> = sqlx::query_as("SELECT app, weight::bigint, running_max::bigint, limits, quota FROM rowmill.apps WHERE app = $1")
        .persistent(store.named())
        .bind(encode(name))
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("read an app"))?;
    db.done().await?;
    Ok(found.map(app_of).transpose()?.map(decoded))
}

pub(super) async fn list_apps(store: &PgStore) -> Result<Vec<App>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<AppRow> = sqlx::query_as("SELECT app, weight::bigint, running_max::bigint, limits, quota FROM rowmill.apps ORDER BY app")
        .persistent(store.named())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("list apps"))?;
    db.done().await?;
    found.into_iter().map(|row| app_of(row).map(decoded)).collect()
}

pub(super) async fn put_processor(store: &PgStore, app: &str, op: &str, kind: ProcessorKind, digest: &str) -> Result<ProcessorVersion, StoreError> {
    check_name("an app", app)?;
    check_name("an operation", op)?;
    let registering = failed("register a processor");
    let op = op.to_lowercase();
    let mut db = store.begin().await?;
    // One after the other, so that versions are counted without a gap.
    sqlx::query("SELECT pg_advisory_xact_lock(7881403276)").persistent(store.named()).execute(&mut *db).await.map_err(registering)?;
    sqlx::query(
        "INSERT INTO rowmill.processors (app, op, version, kind, digest, created_at)
         SELECT $1, $2, 1 + coalesce(max(p.version), 0), $3, $4, coalesce($5, rowmill.now_ms()) FROM rowmill.processors p WHERE p.app = $1 AND p.op = $2
         HAVING $4 IS DISTINCT FROM (SELECT n.digest FROM rowmill.processors n WHERE n.app = $1 AND n.op = $2 ORDER BY n.version DESC LIMIT 1)",
    ).persistent(store.named())
    .bind(encode(app))
    .bind(encode(&op))
    .bind(kind.as_str())
    .bind(encode(digest))
    .bind(store.now())
    .execute(&mut *db)
    .await
    .map_err(registering)?;
    let newest: ProcessorRow = sqlx::query_as(
        "SELECT app, op, version::bigint, kind, digest, created_at FROM rowmill.processors WHERE app = $1 AND op = $2 ORDER BY version DESC LIMIT 1",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(&op))
    .fetch_one(&mut *db)
    .await
    .map_err(registering)?;
    db.commit().await.map_err(failed("commit a processor"))?;
    Ok(decoded_version(processor_of(newest)))
}

pub(super) async fn find_op(store: &PgStore, app: &str, op: &str) -> Result<Option<(ProcessorVersion, PartialTerms)>, StoreError> {
    let mut db = store.unit().await?;
    let found: Option<OpRow> = sqlx::query_as(
        "SELECT p.version::bigint, p.kind, p.digest, p.created_at,
            (SELECT o.terms FROM rowmill.policies o WHERE o.app = $1 AND o.op = $2), (SELECT a.terms FROM rowmill.policies a WHERE a.app = $1 AND a.op = '')
         FROM rowmill.processors p WHERE p.app = $1 AND p.op = $2 ORDER BY p.version DESC LIMIT 1",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(&op.to_lowercase()))
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("look up a processor"))?;
    db.done().await?;
    let found = found.map(|row| op_of(app, op, row)).transpose()?;
    Ok(found.map(|(version, terms)| (ProcessorVersion { digest: decode(version.digest), ..version }, terms)))
}

pub(super) async fn list_processors(store: &PgStore, app: Option<&str>) -> Result<Vec<ProcessorVersion>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<ProcessorRow> = sqlx::query_as(
        "SELECT app, op, version::bigint, kind, digest, created_at FROM rowmill.processors WHERE $1 IS NULL OR app = $1 ORDER BY app, op, version",
    )
    .persistent(store.named())
    .bind(app.map(encode))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("list processors"))?;
    db.done().await?;
    Ok(found.into_iter().map(processor_of).map(decoded_version).collect())
}
