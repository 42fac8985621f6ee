//! Versions go, and code that no version has any more.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::connect::PgStore;
use super::millis;
use super::text::{decode, encode};
use super::versions::{begin, end, is_active};
use crate::model::canonical_op;
use crate::store::columns::{count, failed};
use crate::store::versions::REMOVAL_TIME;
use crate::store::{StoreError, VersionError};

/// What is submitted while a version is removed is over within this time, or the version stays.
const SUBMITS_END: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// In three steps, so that no batch is left without its code, and no submission waits. From the first on no new transaction submits with it. Those that were open then are waited for. What they left
/// decides, in the third.
pub(super) async fn remove_processor(store: &PgStore, app: &str, op: &str, version: u32) -> Result<Vec<String>, StoreError> {
    let op = canonical_op(op);
    let mut db = begin(store).await?;
    let closed = close_in(&mut db, store, app, &op, version).await;
    end(db, closed).await?;
    let over = wait_for_submissions(store, app, &op, version).await?;
    let mut db = begin(store).await?;
    let batches = count_batches(&mut db, store, app, &op, version).await?;
    let refused =
        if batches > 0 { Some(VersionError::InUse { version, batches }) } else { (!over).then_some(VersionError::BeingSubmitted { version }) };
    match refused {
        Some(refused) => {
            let opened = open_in(&mut db, store, app, &op, version).await;
            end(db, opened).await?;
            Err(refused.into())
        }
        None => {
            let codes = take_codes(&mut db, store, app, &op, version).await;
            end(db, codes).await
        }
    }
}

async fn close_in(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, version: u32) -> Result<(), StoreError> {
    if is_active(db, store, app, op, version).await? {
        return Err(VersionError::Active { version }.into());
    }
    let batches = count_batches(db, store, app, op, version).await?;
    if batches > 0 {
        return Err(VersionError::InUse { version, batches }.into());
    }
    // One whose remover died here is removed again.
    let closed = sqlx::query(
        "UPDATE rowmill.processors SET removed_at = coalesce(removed_at, $4, rowmill.now_ms()), removed_by = coalesce(removed_by, pg_current_xact_id())
         WHERE app = $1 AND op = $2 AND version = $3",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(op))
    .bind(i64::from(version))
    .bind(store.now())
    .execute(db)
    .await
    .map_err(failed("remove a version"))?;
    match closed.rows_affected() {
        0 => Err(VersionError::Missing { app: app.to_owned(), op: op.to_owned(), version }.into()),
        _ => Ok(()),
    }
}

async fn count_batches(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, version: u32) -> Result<u64, StoreError> {
    let batches: i64 =
        sqlx::query_scalar("SELECT count(*) FROM rowmill.batches WHERE app = $1 AND op = $2 AND processor_version = $3 AND step <> 'done'")
            .persistent(store.named())
            .bind(encode(app))
            .bind(encode(op))
            .bind(i64::from(version))
            .fetch_one(db)
            .await
            .map_err(failed("count the batches of a version"))?;
    Ok(count(batches))
}

/// Whether no transaction is open any more that is older than the removal.
async fn wait_for_submissions(store: &PgStore, app: &str, op: &str, version: u32) -> Result<bool, StoreError> {
    let until = Instant::now() + SUBMITS_END;
    loop {
        let mut db = store.unit().await?;
        let over: Vec<(bool,)> = sqlx::query_as(
            "SELECT coalesce(pg_snapshot_xmin(pg_current_snapshot()) > removed_by, true) FROM rowmill.processors WHERE app = $1 AND op = $2 AND version = $3",
        )
        .persistent(store.named())
        .bind(encode(app))
        .bind(encode(op))
        .bind(i64::from(version))
        .fetch_all(&mut *db)
        .await
        .map_err(failed("look for transactions that are open"))?;
        db.done().await?;
        if over.first().is_none_or(|(over,)| *over) {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn open_in(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, version: u32) -> Result<(), StoreError> {
    sqlx::query("UPDATE rowmill.processors SET removed_at = NULL, removed_by = NULL WHERE app = $1 AND op = $2 AND version = $3")
        .persistent(store.named())
        .bind(encode(app))
        .bind(encode(op))
        .bind(i64::from(version))
        .execute(db)
        .await
        .map_err(failed("take the removal of a version back"))?;
    Ok(())
}

/// The code that the caller is to remove: that of this version, when no other has it, and what others did not come to.
async fn take_codes(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, version: u32) -> Result<Vec<String>, StoreError> {
    let taking = failed("take over the removal of code");
    let left: Vec<(String,)> = sqlx::query_as(
        "UPDATE rowmill.code_removals SET until_at = coalesce($1, rowmill.now_ms()) + $2 WHERE until_at <= coalesce($1, rowmill.now_ms()) RETURNING digest",
    )
    .persistent(store.named())
    .bind(store.now())
    .bind(millis(REMOVAL_TIME))
    .fetch_all(&mut *db)
    .await
    .map_err(taking)?;
    let own: Vec<(String,)> = sqlx::query_as(
        "INSERT INTO rowmill.code_removals (digest, until_at)
         SELECT p.digest, coalesce($4, rowmill.now_ms()) + $5 FROM rowmill.processors p WHERE p.app = $1 AND p.op = $2 AND p.version = $3
            AND NOT EXISTS (SELECT FROM rowmill.processors o WHERE o.digest = p.digest AND o.removed_at IS NULL)
         ON CONFLICT (digest) DO NOTHING RETURNING digest",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(op))
    .bind(i64::from(version))
    .bind(store.now())
    .bind(millis(REMOVAL_TIME))
    .fetch_all(db)
    .await
    .map_err(taking)?;
    Ok(left.into_iter().chain(own).map(|(digest,)| decode(digest)).collect())
}

pub(super) async fn forget_code(store: &PgStore, digest: &str) -> Result<(), StoreError> {
    let mut db = begin(store).await?;
    let forgotten = forget_in(&mut db, store, digest).await;
    end(db, forgotten).await
}

pub(super) async fn forget_in(db: &mut PgConnection, store: &PgStore, digest: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM rowmill.code_removals WHERE digest = $1")
        .persistent(store.named())
        .bind(encode(digest))
        .execute(db)
        .await
        .map_err(failed("forget removed code"))?;
    Ok(())
}
