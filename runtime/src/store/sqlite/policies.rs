//! What operators say about the work of apps and their operations.

use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::model::{Isolation, Policy, ProcessorKind, canonical_op};
use crate::store::columns::{PolicyRow, failed, partial_keep_json, partial_terms_json, policy_of, signed};
use crate::store::rules::{check_policy, check_policy_names};
use crate::store::{StoreError, StoreEvent};

pub(super) async fn put_policy(store: &SqliteStore, policy: &Policy) -> Result<(), StoreError> {
    check_policy(policy)?;
    let mut db = store.begin().await?;
    put_in(&mut db, store, policy).await?;
    db.commit().await.map_err(failed("commit a policy"))?;
    tell(store);
    Ok(())
}

pub(super) async fn change_policy(store: &SqliteStore, from: &Policy, to: &Policy) -> Result<bool, StoreError> {
    check_policy(to)?;
    let mut db = store.begin().await?;
    let stored: Option<PolicyRow> =
        sqlx::query_as("SELECT app, op, paused, rate_micros, burst, terms, keep, isolation FROM policies WHERE app = ? AND op = ?")
            .bind(&to.app)
            .bind(canonical_op(to.op.as_deref().unwrap_or_default()))
            .fetch_optional(&mut *db)
            .await
            .map_err(failed("read a policy"))?;
    let stored = stored.map(policy_of).transpose()?.unwrap_or_else(|| Policy::of(&to.app, to.op.as_deref()));
    if stored != *from {
        return Ok(false);
    }
    put_in(&mut db, store, to).await?;
    db.commit().await.map_err(failed("commit a policy"))?;
    tell(store);
    Ok(true)
}

async fn put_in(db: &mut SqliteConnection, store: &SqliteStore, policy: &Policy) -> Result<(), StoreError> {
    let put = format!(
        "INSERT INTO policies AS p (app, op, paused, rate_micros, burst, terms, tokens, refilled_at, keep, isolation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5 * 1000000000, CASE WHEN ?4 IS NOT NULL THEN ?7 END, ?8, ?9)
         ON CONFLICT (app, op) DO UPDATE SET paused = excluded.paused, rate_micros = excluded.rate_micros, burst = excluded.burst, terms = excluded.terms, keep = excluded.keep, isolation = excluded.isolation,
            refilled_at = excluded.refilled_at,
            tokens = CASE WHEN p.rate_micros IS NULL THEN excluded.tokens ELSE min(excluded.tokens, {TOKENS_NOW}) END"
    )
    .replace("NOW", "?7");
    // Made of constants and question marks only.
    sqlx::query(sqlx::AssertSqlSafe(put))
        .bind(&policy.app)
        .bind(canonical_op(policy.op.as_deref().unwrap_or_default()))
        .bind(policy.paused)
        .bind(policy.rate.map(|rate| signed(rate.micros)))
        .bind(policy.rate.map(|rate| i64::from(rate.burst)))
        .bind(partial_terms_json(&policy.terms))
        .bind(store.now().0)
        .bind(partial_keep_json(&policy.keep))
        .bind(policy.isolation.map(Isolation::as_str))
        .execute(db)
        .await
        .map_err(failed("set a policy"))?;
    Ok(())
}

pub(super) async fn set_paused(store: &SqliteStore, app: &str, op: Option<&str>, paused: bool) -> Result<(), StoreError> {
    check_policy_names(app, op)?;
    sqlx::query("INSERT INTO policies (app, op, paused) VALUES (?, ?, ?) ON CONFLICT (app, op) DO UPDATE SET paused = excluded.paused")
        .bind(app)
        .bind(canonical_op(op.unwrap_or_default()))
        .bind(paused)
        .execute(&store.writer)
        .await
        .map_err(failed("pause an app or an operation"))?;
    tell(store);
    Ok(())
}

pub(super) async fn list_policies(store: &SqliteStore) -> Result<Vec<Policy>, StoreError> {
    let found: Vec<PolicyRow> = sqlx::query_as("SELECT app, op, paused, rate_micros, burst, terms, keep, isolation FROM policies ORDER BY app, op")
        .fetch_all(&store.readers)
        .await
        .map_err(failed("list policies"))?;
    found.into_iter().map(policy_of).collect()
}

pub(super) async fn remove_policy(store: &SqliteStore, app: &str, op: Option<&str>) -> Result<bool, StoreError> {
    let removed = sqlx::query("DELETE FROM policies WHERE app = ? AND op = ?")
        .bind(app)
        .bind(canonical_op(op.unwrap_or_default()))
        .execute(&store.writer)
        .await
        .map_err(failed("remove a policy"))?;
    tell(store);
    Ok(removed.rows_affected() > 0)
}

/// Workers look at once whether there is something that they may do now.
fn tell(store: &SqliteStore) {
    for kind in [ProcessorKind::Batch, ProcessorKind::SlowQuery] {
        store.events.tell(StoreEvent::Work(kind));
    }
}

/// What there is of the rate of a policy `p` at `NOW`, in billionths of rows: no more than its burst.
pub(super) const TOKENS_NOW: &str =
    "min(p.burst * 1000000000, p.tokens + p.rate_micros * min(max(NOW - p.refilled_at, 0), p.burst * 1000000000 / p.rate_micros + 1))";
/// What there must be for a lease: work of a tenth of a second, since smaller leases would cost more than they run.
pub(super) const TOKENS_WANTED: &str = "max(min(p.rate_micros / 10000000, p.burst), 1) * 1000000000";

/// How many rows of `w.app` and `w.op` may be leased at `NOW`: 0 when they are paused or have used up a rate, NULL for any number.
pub(super) fn rows_allowed() -> String {
    format!(
        "(SELECT min(CASE WHEN p.paused THEN 0 WHEN {TOKENS_NOW} < {TOKENS_WANTED} THEN 0 ELSE {TOKENS_NOW} / 1000000000 END) FROM policies p
          WHERE p.app = w.app AND p.op IN ('', w.op) AND (p.paused OR p.rate_micros IS NOT NULL))"
    )
}
