//! What operators say about the work of apps and their operations.

use sqlx::PgConnection;

use super::apps::lock_app;
use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{Isolation, Policy, ProcessorKind, canonical_op};
use crate::store::StoreError;
use crate::store::columns::{PolicyRow, failed, partial_keep_json, partial_terms_json, policy_of, signed};
use crate::store::rules::{check_policy, check_policy_names};

/// Workers look at once whether there is something that they may do now.
const TELL: &str = "SELECT pg_notify('rowmill', 'work ' || kind) FROM unnest($1::text[]) kind";

pub(super) async fn put_policy(store: &PgStore, policy: &Policy) -> Result<(), StoreError> {
    check_policy(policy)?;
    let mut db = store.begin().await?;
    lock_app(&mut db, store.named(), &policy.app).await?;
    put_in(&mut db, store, policy).await?;
    db.commit().await.map_err(failed("commit a policy"))
}

pub(super) async fn change_policy(store: &PgStore, from: &Policy, to: &Policy) -> Result<bool, StoreError> {
    check_policy(to)?;
    let mut db = store.begin().await?;
    lock_app(&mut db, store.named(), &to.app).await?;
    // The row lock keeps a removal of the policy, which does not lock the app, behind this transaction.
    let stored: Vec<PolicyRow> = sqlx::query_as(
        "SELECT app, op, paused, rate_micros, burst, terms, keep, isolation FROM rowmill.policies WHERE app = $1 AND op = $2 FOR NO KEY UPDATE",
    )
    .persistent(store.named())
    .bind(encode(&to.app))
    .bind(encode(&canonical_op(to.op.as_deref().unwrap_or_default())))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read a policy"))?;
    let stored = stored.into_iter().next().map(decoded_policy).transpose()?.unwrap_or_else(|| Policy::of(&to.app, to.op.as_deref()));
    let changes = stored == *from;
    if changes {
        put_in(&mut db, store, to).await?;
    }
    db.commit().await.map_err(failed("commit a policy"))?;
    Ok(changes)
}

async fn put_in(db: &mut PgConnection, store: &PgStore, policy: &Policy) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rowmill.policies AS p (app, op, paused, rate_micros, burst, terms, tokens, refilled_at, keep, isolation)
         VALUES ($1, $2, $3, $4, $5, $6, $5 * 1000000000, CASE WHEN $4 IS NOT NULL THEN coalesce($7, rowmill.now_ms()) END, $8, $9)
         ON CONFLICT (app, op) DO UPDATE SET paused = excluded.paused, rate_micros = excluded.rate_micros, burst = excluded.burst, terms = excluded.terms, keep = excluded.keep, isolation = excluded.isolation,
            refilled_at = excluded.refilled_at, tokens = CASE WHEN p.rate_micros IS NULL OR excluded.rate_micros IS NULL THEN excluded.tokens
                ELSE least(excluded.tokens, rowmill.tokens_now(p.rate_micros, p.burst, p.tokens, p.refilled_at, excluded.refilled_at)) END",
    )
    .persistent(store.named())
    .bind(encode(&policy.app))
    .bind(encode(&canonical_op(policy.op.as_deref().unwrap_or_default())))
    .bind(policy.paused)
    .bind(policy.rate.map(|rate| signed(rate.micros)))
    .bind(policy.rate.map(|rate| i64::from(rate.burst)))
    .bind(partial_terms_json(&policy.terms))
    .bind(store.now())
    .bind(partial_keep_json(&policy.keep))
    .bind(policy.isolation.map(Isolation::as_str))
    .execute(&mut *db)
    .await
    .map_err(failed("set a policy"))?;
    tell(db, store.named()).await
}

pub(super) async fn set_paused(store: &PgStore, app: &str, op: Option<&str>, paused: bool) -> Result<(), StoreError> {
    check_policy_names(app, op)?;
    let mut db = store.begin().await?;
    lock_app(&mut db, store.named(), app).await?;
    sqlx::query("INSERT INTO rowmill.policies (app, op, paused) VALUES ($1, $2, $3) ON CONFLICT (app, op) DO UPDATE SET paused = excluded.paused")
        .persistent(store.named())
        .bind(encode(app))
        .bind(encode(&canonical_op(op.unwrap_or_default())))
        .bind(paused)
        .execute(&mut *db)
        .await
        .map_err(failed("pause an app or an operation"))?;
    tell(&mut db, store.named()).await?;
    db.commit().await.map_err(failed("commit a pause"))
}

pub(super) async fn list_policies(store: &PgStore) -> Result<Vec<Policy>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<PolicyRow> =
        sqlx::query_as("SELECT app, op, paused, rate_micros, burst, terms, keep, isolation FROM rowmill.policies ORDER BY app, op")
            .persistent(store.named())
            .fetch_all(&mut *db)
            .await
            .map_err(failed("list policies"))?;
    db.done().await?;
    found.into_iter().map(decoded_policy).collect()
}

fn decoded_policy(row: PolicyRow) -> Result<Policy, StoreError> {
    policy_of(row).map(|policy| Policy { app: decode(policy.app), op: policy.op.map(decode), ..policy })
}

pub(super) async fn remove_policy(store: &PgStore, app: &str, op: Option<&str>) -> Result<bool, StoreError> {
    let mut db = store.begin().await?;
    let removed = sqlx::query("DELETE FROM rowmill.policies WHERE app = $1 AND op = $2")
        .persistent(store.named())
        .bind(encode(app))
        .bind(encode(&canonical_op(op.unwrap_or_default())))
        .execute(&mut *db)
        .await
        .map_err(failed("remove a policy"))?;
    tell(&mut db, store.named()).await?;
    db.commit().await.map_err(failed("commit the end of a policy"))?;
    Ok(removed.rows_affected() > 0)
}

async fn tell(db: &mut PgConnection, named: bool) -> Result<(), StoreError> {
    let kinds = [ProcessorKind::Batch, ProcessorKind::SlowQuery].map(ProcessorKind::as_str);
    sqlx::query(TELL).persistent(named).bind(kinds).execute(db).await.map_err(failed("tell workers of a policy"))?;
    Ok(())
}
