//! Leases are read, renewed and given back.

use std::time::Duration;

use super::connect::PgStore;
use super::text::decode;
use super::{PAGE_BYTES_MAX, millis};
use crate::model::{LeaseKey, LeasedRow, ProcessorKind};
use crate::store::StoreError;
use crate::store::columns::{count, failed, small};

/// The rows of a lease, as arrays: they cost the database and the connection less than as many rows.
type Columns = (Option<Vec<i32>>, Option<Vec<i64>>, Option<Vec<String>>, Option<Vec<Option<String>>>, Option<Vec<i32>>);

pub(super) async fn read_leased_rows(store: &PgStore, lease: LeaseKey) -> Result<Vec<LeasedRow>, StoreError> {
    let mut db = store.unit().await?;
    // The sum of the rows before each bounds the page: one row at least.
    let columns: Option<Columns> = sqlx::query_as(
        "SELECT r.* FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key) CROSS JOIN LATERAL (
            SELECT array_agg(p.row_no ORDER BY p.row_no), array_agg(p.line ORDER BY p.row_no), array_agg(p.input ORDER BY p.row_no),
                CASE WHEN count(p.rejected) > 0 THEN array_agg(p.rejected ORDER BY p.row_no) END, array_agg(p.attempt ORDER BY p.row_no)
            FROM (
                SELECT a.*, sum(octet_length(a.input)) OVER (ORDER BY a.row_no) - octet_length(a.input) AS bytes_before FROM (
                    SELECT w.row_no, w.line, w.input, w.rejected, 1 + l.crashes AS attempt FROM rowmill.rows w
                    WHERE NOT l.retries AND w.batch_key = l.batch_key AND w.row_no BETWEEN l.next_row AND l.last_row
                    UNION ALL
                    SELECT w.row_no, w.line, w.input, w.rejected, t.attempt FROM rowmill.retries t JOIN rowmill.rows w USING (batch_key, row_no)
                    WHERE l.retries AND t.lease_id = l.lease_id) a) p
            WHERE p.bytes_before < $4) r
         WHERE l.lease_id = $1 AND l.token = $2 AND l.expires_at > coalesce($3, rowmill.now_ms()) AND b.step = 'rows'",
    )
    .persistent(store.named())
    .bind(lease.id)
    .bind(lease.token)
    .bind(store.now())
    .bind(PAGE_BYTES_MAX)
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("read the rows of a lease"))?;
    db.done().await?;
    let (row_nos, lines, inputs, rejected, attempts) = columns.ok_or(StoreError::LeaseLost)?;
    let rows = row_nos.unwrap_or_default().into_iter().zip(lines.unwrap_or_default()).zip(inputs.unwrap_or_default());
    let mut rejected = rejected.unwrap_or_default().into_iter();
    Ok(rows
        .zip(attempts.unwrap_or_default())
        .map(|(((row_no, line), input), attempt)| LeasedRow {
            row_no: small(row_no),
            line: small(line),
            input,
            attempt: small(attempt),
            rejected: rejected.next().flatten().map(decode),
        })
        .collect())
}

pub(super) async fn renew_leases(store: &PgStore, leases: &[LeaseKey], ttl: Duration) -> Result<Vec<LeaseKey>, StoreError> {
    let (ids, tokens): (Vec<i64>, Vec<i64>) = leases.iter().map(|lease| (lease.id, lease.token)).unzip();
    let mut db = store.unit().await?;
    let lives: Vec<(i64, i64)> = sqlx::query_as(
        "UPDATE rowmill.leases l SET expires_at = rowmill.later(coalesce($3, rowmill.now_ms()), $4)
         FROM unnest($1::bigint[], $2::bigint[]) k (lease_id, token), rowmill.batches b
         WHERE l.lease_id = k.lease_id AND l.token = k.token AND l.expires_at > coalesce($3, rowmill.now_ms())
            AND b.batch_key = l.batch_key AND b.step = 'rows'
         RETURNING l.lease_id, l.token",
    )
    .persistent(store.named())
    .bind(ids)
    .bind(tokens)
    .bind(store.now())
    .bind(millis(ttl))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("renew leases"))?;
    db.done().await?;
    Ok(leases.iter().filter(|lease| !lives.contains(&(lease.id, lease.token))).copied().collect())
}

pub(super) async fn give_back_lease(store: &PgStore, lease: LeaseKey) -> Result<(), StoreError> {
    // Without a token it does not count as a crash when it is taken over.
    let mut db = store.unit().await?;
    sqlx::query(
        "WITH given AS (
            UPDATE rowmill.leases SET token = 0, worker = '', expires_at = 0
            WHERE lease_id = $1 AND token = $2 AND expires_at > coalesce($3, rowmill.now_ms()) RETURNING kind)
         SELECT pg_notify('rowmill', 'work ' || kind) FROM given",
    )
    .persistent(store.named())
    .bind(lease.id)
    .bind(lease.token)
    .bind(store.now())
    .execute(&mut *db)
    .await
    .map_err(failed("give a lease back"))?;
    db.done().await
}

pub(super) async fn next_due(store: &PgStore, kind: Option<ProcessorKind>) -> Result<Option<Duration>, StoreError> {
    let mut db = store.unit().await?;
    let due: Option<i64> = sqlx::query_scalar(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1, rowmill.now_ms()) AS at),
         full_apps AS MATERIALIZED (SELECT unnest(rowmill.full_apps(at)) AS app FROM moment)
         SELECT CASE WHEN min(d.at) IS NOT NULL THEN greatest(min(d.at) - (SELECT at FROM moment), 0) END FROM (
            (SELECT r.due_at AS at FROM rowmill.retries r JOIN rowmill.batches b USING (batch_key)
             WHERE r.lease_id IS NULL AND b.step = 'rows' AND ($2 IS NULL OR r.kind = $2) AND r.app NOT IN (SELECT app FROM full_apps)
             ORDER BY r.due_at LIMIT 1)
            UNION ALL
            (SELECT l.expires_at FROM rowmill.leases l JOIN rowmill.batches b USING (batch_key)
             WHERE b.step = 'rows' AND ($2 IS NULL OR l.kind = $2)
                AND (l.expires_at > (SELECT at FROM moment) OR l.app NOT IN (SELECT app FROM full_apps))
             ORDER BY l.expires_at LIMIT 1)
            UNION ALL
            SELECT min(coalesce(b.finish_expires_at, 0)) FROM rowmill.batches b WHERE b.step IN ('join', 'mark') AND ($2 IS NULL OR b.kind = $2)) d",
    )
    .persistent(store.named())
    .bind(store.now())
    .bind(kind.map(ProcessorKind::as_str))
    .fetch_one(&mut *db)
    .await
    .map_err(failed("look for what is due"))?;
    db.done().await?;
    Ok(due.map(|millis| Duration::from_millis(count(millis))))
}
