//! Leases are read, renewed and given back.

use std::time::Duration;

use super::connect::PgStore;
use super::text::{INPUT_END, decode};
use super::{PAGE_BYTES_MAX, millis};
use crate::model::{LeaseKey, LeasedRow, ProcessorKind};
use crate::store::StoreError;
use crate::store::columns::{count, failed, small};

/// The rows of a lease, as `rowmill.read_leased_rows` gives them: they cost the database and the connection less than as many rows.
#[derive(sqlx::FromRow)]
pub(super) struct LeasedColumns {
    first_row: Option<i32>,
    row_nos: Option<Vec<i32>>,
    lines: Option<Vec<i64>>,
    inputs: Option<String>,
    rejected: Option<Vec<Option<String>>>,
    attempt: Option<i32>,
    attempts: Option<Vec<i32>>,
}

impl LeasedColumns {
    pub(super) fn rows(self) -> Vec<LeasedRow> {
        let LeasedColumns { first_row, row_nos, lines, inputs, rejected, attempt, attempts } = self;
        let (lines, inputs) = (lines.unwrap_or_default(), inputs.unwrap_or_default());
        let (row_nos, attempts) = (row_nos.unwrap_or_default(), attempts.unwrap_or_default());
        let (first_row, attempt) = (first_row.unwrap_or_default(), attempt.unwrap_or_default());
        let mut rejected = rejected.unwrap_or_default().into_iter();
        let rows = lines.into_iter().zip(inputs.split(INPUT_END)).zip(0..);
        rows.map(|((line, input), at)| LeasedRow {
            row_no: small(row_nos.get(at).copied().unwrap_or(first_row + i32::try_from(at).unwrap_or(i32::MAX))),
            line: small(line),
            input: input.to_owned(),
            attempt: small(attempts.get(at).copied().unwrap_or(attempt)),
            rejected: rejected.next().flatten().map(decode),
        })
        .collect()
    }
}

pub(super) async fn read_leased_rows(store: &PgStore, lease: LeaseKey) -> Result<Vec<LeasedRow>, StoreError> {
    let mut db = store.unit().await?;
    let columns: Option<LeasedColumns> = sqlx::query_as("SELECT * FROM rowmill.read_leased_rows($1, $2, $3, $4)")
        .persistent(store.named())
        .bind(lease.id)
        .bind(lease.token)
        .bind(store.now())
        .bind(PAGE_BYTES_MAX)
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("read the rows of a lease"))?;
    db.done().await?;
    Ok(columns.ok_or(StoreError::LeaseLost)?.rows())
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
    let due: Option<i64> = sqlx::query_scalar("SELECT rowmill.next_due($2, $1)")
        .persistent(store.named())
        .bind(store.now())
        .bind(kind.map(ProcessorKind::as_str))
        .fetch_one(&mut *db)
        .await
        .map_err(failed("look for what is due"))?;
    db.done().await?;
    Ok(due.map(|millis| Duration::from_millis(count(millis))))
}
