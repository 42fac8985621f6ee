//! Leases are read, renewed and given back.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::policies::{TOKENS_NOW, TOKENS_WANTED, rows_allowed};
use super::{SqliteStore, fetch_page, length};
use crate::model::{LeaseKey, LeasedRow, ProcessorKind, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{failed, small};

pub(super) async fn read_leased_rows(store: &SqliteStore, lease: LeaseKey) -> Result<Vec<LeasedRow>, StoreError> {
    let reading = failed("read the rows of a lease");
    // One snapshot for the lease and its rows.
    let mut db = store.readers.begin().await.map_err(reading)?;
    let held: Option<(i64, bool, i64, i64, i64)> =
        sqlx::query_as("SELECT batch_key, retries, next_row, last_row, crashes FROM leases WHERE lease_id = ? AND token = ? AND expires_at > ?")
            .bind(lease.id)
            .bind(lease.token)
            .bind(store.now().0)
            .fetch_optional(&mut *db)
            .await
            .map_err(reading)?;
    let (key, retries, first, last, crashes) = held.ok_or(StoreError::LeaseLost)?;
    let rows = if retries {
        sqlx::query_as(
            "SELECT r.row_no, r.line, r.input, r.rejected, t.attempt FROM retries t JOIN rows r USING (batch_key, row_no)
             WHERE t.lease_id = ? ORDER BY t.row_no",
        )
        .bind(lease.id)
    } else {
        sqlx::query_as("SELECT row_no, line, input, rejected, ? FROM rows WHERE batch_key = ? AND row_no BETWEEN ? AND ? ORDER BY row_no")
            .bind(1 + crashes)
            .bind(key)
            .bind(first)
            .bind(last)
    }
    .fetch(&mut *db);
    let rows = fetch_page(rows, |row: &(i64, i64, String, Option<String>, i64)| row.2.len() + length(row.3.as_ref())).await.map_err(reading)?;
    let leased =
        |(row_no, line, input, rejected, attempt)| LeasedRow { row_no: small(row_no), line: small(line), input, attempt: small(attempt), rejected };
    Ok(rows.into_iter().map(leased).collect())
}

pub(super) async fn renew_leases(store: &SqliteStore, leases: &[LeaseKey], ttl: Duration) -> Result<Vec<LeaseKey>, StoreError> {
    let now = store.now();
    let mut db = store.begin().await?;
    let mut lost = Vec::new();
    for lease in leases {
        let renewed = sqlx::query("UPDATE leases SET expires_at = ? WHERE lease_id = ? AND token = ? AND expires_at > ?")
            .bind(now.after(ttl).0)
            .bind(lease.id)
            .bind(lease.token)
            .bind(now.0)
            .execute(&mut *db)
            .await
            .map_err(failed("renew a lease"))?;
        if renewed.rows_affected() == 0 {
            lost.push(*lease);
        }
    }
    db.commit().await.map_err(failed("commit renewed leases"))?;
    Ok(lost)
}

pub(super) async fn give_back_lease(store: &SqliteStore, lease: LeaseKey) -> Result<(), StoreError> {
    // Without a token it does not count as a crash when it is taken over.
    sqlx::query("UPDATE leases SET token = 0, worker = '', expires_at = 0 WHERE lease_id = ? AND token = ? AND expires_at > ?")
        .bind(lease.id)
        .bind(lease.token)
        .bind(store.now().0)
        .execute(&store.writer)
        .await
        .map_err(failed("give a lease back"))?;
    Ok(())
}

pub(super) async fn next_due(store: &SqliteStore, kind: Option<ProcessorKind>) -> Result<Option<Duration>, StoreError> {
    // What is beyond a rate is due when there is enough of it again.
    static NEXT: LazyLock<Arc<str>> = LazyLock::new(|| {
        let waits = "b.app = p.app AND p.op IN ('', b.op) AND b.kind = coalesce(?2, b.kind)";
        let open = format!("(w.app NOT IN (SELECT app FROM full_apps) AND {} IS NOT 0)", rows_allowed());
        format!(
            "WITH RECURSIVE retry_batches (batch_key) AS (
                SELECT min(batch_key) FROM retries WHERE lease_id IS NULL
                UNION ALL
                SELECT (SELECT min(r.batch_key) FROM retries r WHERE r.lease_id IS NULL AND r.batch_key > b.batch_key)
                FROM retry_batches b WHERE b.batch_key IS NOT NULL),
             full_apps AS (
                SELECT a.app FROM apps a WHERE a.running_max <= (
                    SELECT count(*) FROM leases l JOIN batches b USING (batch_key) WHERE b.app = a.app AND l.token <> 0 AND l.expires_at > ?1))
             SELECT min(at) FROM (
                SELECT min((SELECT min(r.due_at) FROM retries r WHERE r.batch_key = w.batch_key AND r.lease_id IS NULL)) AS at
                    FROM retry_batches JOIN batches w USING (batch_key) WHERE {open} AND w.kind = coalesce(?2, w.kind)
                UNION ALL SELECT min(l.expires_at) FROM leases l JOIN batches w USING (batch_key)
                    WHERE (l.expires_at > ?1 OR {open}) AND w.kind = coalesce(?2, w.kind)
                UNION ALL SELECT min(start_at) FROM batches WHERE deferred = 1 AND status = 'queued' AND kind = coalesce(?2, kind)
                UNION ALL SELECT min(?1 + ({TOKENS_WANTED} - {TOKENS_NOW} + p.rate_micros - 1) / p.rate_micros) FROM policies p
                    WHERE p.rate_micros IS NOT NULL AND NOT p.paused AND {TOKENS_NOW} < {TOKENS_WANTED} AND (
                        EXISTS (SELECT 1 FROM batches b WHERE b.step = 'rows' AND b.status IN ('queued', 'inprog') AND b.next_row <= b.row_count AND b.deferred = 0
                            AND b.kind IN ('batch', 'slow_query') AND {waits})
                        OR EXISTS (SELECT 1 FROM retry_batches JOIN batches b USING (batch_key) WHERE {waits})
                        OR EXISTS (SELECT 1 FROM leases l JOIN batches b USING (batch_key) WHERE l.expires_at <= ?1 AND {waits}))
                UNION ALL SELECT 0 FROM chains WHERE ready = 1 AND coalesce(?2, 'batch') = 'batch'
                UNION ALL SELECT min(coalesce(finish_expires_at, 0)) FROM batches WHERE step IN ('join', 'mark') AND kind = coalesce(?2, kind))"
        )
        .replace("NOW", "?1")
        .into()
    });
    // Made of constants and question marks only.
    let due: Option<i64> = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&NEXT)))
        .bind(store.now().0)
        .bind(kind.map(ProcessorKind::as_str))
        .fetch_one(&store.readers)
        .await
        .map_err(failed("look for what is due"))?;
    Ok(due.map(|at| Timestamp(at).since(store.now())))
}
