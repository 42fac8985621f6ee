//! Apps.

use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::model::{App, Grants};
use crate::store::StoreError;
use crate::store::columns::{AppRow, app_of, failed, grants_json, limits_json, quota_json};
use crate::store::rules::{check_app, check_grants, is_same_but_for_grants};

pub(super) async fn put_app(store: &SqliteStore, app: &App) -> Result<(), StoreError> {
    check_app(app, &store.bounds)?;
    let mut db = store.begin().await?;
    put_in(&mut db, app).await?;
    db.commit().await.map_err(failed("commit an app"))
}

pub(super) async fn change_app(store: &SqliteStore, from: &App, to: &App) -> Result<bool, StoreError> {
    check_app(to, &store.bounds)?;
    let mut db = store.begin().await?;
    let stored: Option<AppRow> = sqlx::query_as("SELECT app, weight, running_max, limits, quota, grants FROM apps WHERE app = ?")
        .bind(&to.name)
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("read an app"))?;
    let stored = stored.map(app_of).transpose()?.unwrap_or_else(|| App::named(&to.name));
    if !is_same_but_for_grants(&stored, from) {
        return Ok(false);
    }
    put_in(&mut db, to).await?;
    db.commit().await.map_err(failed("commit an app"))?;
    Ok(true)
}

async fn put_in(db: &mut SqliteConnection, app: &App) -> Result<(), StoreError> {
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
    .execute(db)
    .await
    .map_err(failed("register an app"))?;
    Ok(())
}

pub(super) async fn set_grants(store: &SqliteStore, app: &str, from: &Grants, to: &Grants) -> Result<bool, StoreError> {
    check_grants(app, to)?;
    let granting = failed("change the grants of an app");
    let mut db = store.begin().await?;
    sqlx::query("INSERT INTO apps (app) VALUES (?) ON CONFLICT (app) DO NOTHING").bind(app).execute(&mut *db).await.map_err(granting)?;
    let changed = sqlx::query("UPDATE apps SET grants = ?3 WHERE app = ?1 AND grants IS ?2")
        .bind(app)
        .bind(grants_json(from))
        .bind(grants_json(to))
        .execute(&mut *db)
        .await
        .map_err(granting)?;
    db.commit().await.map_err(failed("commit grants"))?;
    Ok(changed.rows_affected() == 1)
}

pub(super) async fn read_app(store: &SqliteStore, name: &str) -> Result<Option<App>, StoreError> {
    let found: Option<AppRow> = sqlx::query_as("SELECT app, weight, running_max, limits, quota, grants FROM apps WHERE app = ?")
        .bind(name)
        .fetch_optional(&store.readers)
        .await
        .map_err(failed("read an app"))?;
    found.map(app_of).transpose()
}

pub(super) async fn list_apps(store: &SqliteStore) -> Result<Vec<App>, StoreError> {
    let found: Vec<AppRow> = sqlx::query_as("SELECT app, weight, running_max, limits, quota, grants FROM apps ORDER BY app")
        .fetch_all(&store.readers)
        .await
        .map_err(failed("list apps"))?;
    found.into_iter().map(app_of).collect()
}
