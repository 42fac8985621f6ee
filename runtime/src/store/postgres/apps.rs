//! Apps.

use sqlx::PgConnection;

use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{App, Grants};
use crate::store::StoreError;
use crate::store::columns::{AppRow, app_of, failed, grants_json, limits_json, quota_json};
use crate::store::rules::{check_app, check_grants, is_same_but_for_grants};

pub(super) fn decoded(app: App) -> App {
    App { name: decode(app.name), ..app }
}

pub(super) async fn put_app(store: &PgStore, app: &App) -> Result<(), StoreError> {
    check_app(app, &store.bounds)?;
    let mut db = store.begin().await?;
    lock_app(&mut db, store.named(), &app.name).await?;
    put_in(&mut db, store, app).await?;
    db.commit().await.map_err(failed("commit an app"))
}

pub(super) async fn change_app(store: &PgStore, from: &App, to: &App) -> Result<bool, StoreError> {
    check_app(to, &store.bounds)?;
    let mut db = store.begin().await?;
    lock_app(&mut db, store.named(), &to.name).await?;
    let stored: Vec<AppRow> =
        sqlx::query_as("SELECT app, weight::bigint, running_max::bigint, limits, quota, grants FROM rowmill.apps WHERE app = $1")
            .persistent(store.named())
            .bind(encode(&to.name))
            .fetch_all(&mut *db)
            .await
            .map_err(failed("read an app"))?;
    let stored = stored.into_iter().next().map(app_of).transpose()?.map_or_else(|| App::named(&to.name), decoded);
    let changes = is_same_but_for_grants(&stored, from);
    if changes {
        put_in(&mut db, store, to).await?;
    }
    db.commit().await.map_err(failed("commit an app"))?;
    Ok(changes)
}

async fn put_in(db: &mut PgConnection, store: &PgStore, app: &App) -> Result<(), StoreError> {
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
    .execute(db)
    .await
    .map_err(failed("register an app"))?;
    Ok(())
}

/// Waits until no query of an app comes in that is leased at once, and lets none come in before this transaction's end: from then on it counts what is set here.
pub(super) async fn lock_app(db: &mut PgConnection, named: bool, app: &str) -> Result<(), StoreError> {
    sqlx::query("SELECT rowmill.lock_app($1)").persistent(named).bind(encode(app)).execute(db).await.map_err(failed("lock an app"))?;
    Ok(())
}

pub(super) async fn set_grants(store: &PgStore, app: &str, from: &Grants, to: &Grants) -> Result<bool, StoreError> {
    check_grants(app, to)?;
    let granting = failed("change the grants of an app");
    let mut db = store.begin().await?;
    sqlx::query("INSERT INTO rowmill.apps (app) VALUES ($1) ON CONFLICT (app) DO NOTHING")
        .persistent(store.named())
        .bind(encode(app))
        .execute(&mut *db)
        .await
        .map_err(granting)?;
    let changed = sqlx::query("UPDATE rowmill.apps SET grants = $3 WHERE app = $1 AND grants IS NOT DISTINCT FROM $2")
        .persistent(store.named())
        .bind(encode(app))
        .bind(grants_json(from))
        .bind(grants_json(to))
        .execute(&mut *db)
        .await
        .map_err(granting)?;
    db.commit().await.map_err(failed("commit grants"))?;
    Ok(changed.rows_affected() == 1)
}

pub(super) async fn read_app(store: &PgStore, name: &str) -> Result<Option<App>, StoreError> {
    let mut db = store.unit().await?;
    let found: Option<AppRow> =
        sqlx::query_as("SELECT app, weight::bigint, running_max::bigint, limits, quota, grants FROM rowmill.apps WHERE app = $1")
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
    let found: Vec<AppRow> = sqlx::query_as("SELECT app, weight::bigint, running_max::bigint, limits, quota, grants FROM rowmill.apps ORDER BY app")
        .persistent(store.named())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("list apps"))?;
    db.done().await?;
    found.into_iter().map(|row| app_of(row).map(decoded)).collect()
}
