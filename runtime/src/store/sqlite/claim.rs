//! Leases are given.

use sqlx::SqliteConnection;

use super::candidates::{Work, find_candidate};
use super::{SqliteStore, new_token};
use crate::model::{BatchId, ClaimRequest, Lease, LeaseKey, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{count, failed, small};
use crate::store::sizing::{LeaseSizing, lease_rows};

/// From so many crashes on, the rows of a lease are leased one by one, to find the one that kills workers.
const SPLIT_CRASHES: i64 = 2;
/// What a row of unknown speed is charged.
const UNKNOWN_MICROS: i64 = 1_000;

pub(super) async fn claim_leases(store: &SqliteStore, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError> {
    let now = store.now();
    let mut db = store.begin().await?;
    let begun = begin_deferred(&mut db, now).await?;
    let mut leases = Vec::new();
    while leases.len() < request.leases_max as usize {
        let Some(candidate) = find_candidate(&mut db, request.kind, &request.apps_except, now).await? else { break };
        let rows_max = candidate.rows_allowed.map_or(request.rows_max, |allowed| request.rows_max.min(small(allowed)));
        let request = &ClaimRequest { rows_max, ..request.clone() };
        let (lease, charged) = match candidate.work {
            Work::Ended => (take_over(&mut db, request, now, candidate.work_id).await?, 0),
            Work::Retries => lease_retries(&mut db, request, now, candidate.work_id).await?,
            Work::Fresh => lease_fresh_rows(&mut db, request, now, candidate.work_id).await?,
        };
        candidate.charge(&mut db, charged, lease.rows, now).await?;
        leases.push(lease);
    }
    if begun || !leases.is_empty() {
        db.commit().await.map_err(failed("commit a claim"))?;
    }
    Ok(leases)
}

/// Batches whose start has come can be leased from now on. Whether there were some.
async fn begin_deferred(db: &mut SqliteConnection, now: Timestamp) -> Result<bool, StoreError> {
    let begun = sqlx::query("UPDATE batches SET deferred = 0 WHERE deferred = 1 AND status = 'queued' AND start_at <= ?")
        .bind(now.0)
        .execute(db)
        .await
        .map_err(failed("begin with deferred batches"))?;
    Ok(begun.rows_affected() > 0)
}

#[derive(sqlx::FromRow)]
struct EndedLease {
    lease_id: i64,
    batch_key: i64,
    batch_id: String,
    /// False when it was given back.
    held: bool,
    retries: bool,
    next_row: i64,
    last_row: i64,
    crashes: i64,
}

/// A lease that was given back, or whose owner went silent; its first rows, when it has more than this worker may get.
async fn take_over(db: &mut SqliteConnection, request: &ClaimRequest, now: Timestamp, lease_id: i64) -> Result<Lease, StoreError> {
    let taking_over = failed("take a lease over");
    let ended: EndedLease = sqlx::query_as(
        "SELECT l.lease_id, l.batch_key, b.batch_id, l.token <> 0 AS held, l.retries, l.next_row, l.last_row, l.crashes
         FROM leases l JOIN batches b USING (batch_key) WHERE l.lease_id = ?",
    )
    .bind(lease_id)
    .fetch_one(&mut *db)
    .await
    .map_err(taking_over)?;
    let crashes = ended.crashes + i64::from(ended.held);
    if ended.retries && ended.held {
        sqlx::query("UPDATE retries SET attempt = attempt + 1 WHERE lease_id = ?")
            .bind(ended.lease_id)
            .execute(&mut *db)
            .await
            .map_err(taking_over)?;
    }
    let rows_max = if crashes >= SPLIT_CRASHES { 1 } else { i64::from(request.rows_max.max(1)) };
    if let Some(rest) = find_rest(db, &ended, rows_max).await? {
        let (lease_id, token) = split_off(db, request, now, &ended, crashes, rest).await?;
        return lease(lease_id, token, &ended.batch_id, rows_max, crashes);
    }
    let token = new_token();
    sqlx::query("UPDATE leases SET token = ?, worker = ?, crashes = ?, expires_at = ? WHERE lease_id = ?")
        .bind(token)
        .bind(&request.worker)
        .bind(crashes)
        .bind(now.after(request.ttl).0)
        .bind(ended.lease_id)
        .execute(&mut *db)
        .await
        .map_err(taking_over)?;
    let rows = if ended.retries {
        sqlx::query_scalar("SELECT count(*) FROM retries WHERE lease_id = ?").bind(ended.lease_id).fetch_one(db).await.map_err(taking_over)?
    } else {
        ended.last_row - ended.next_row + 1
    };
    lease(ended.lease_id, token, &ended.batch_id, rows, crashes)
}

/// The first row beyond so many of a lease, if it has more.
async fn find_rest(db: &mut SqliteConnection, ended: &EndedLease, rows_max: i64) -> Result<Option<i64>, StoreError> {
    if !ended.retries {
        let rest = ended.next_row + rows_max;
        return Ok((rest <= ended.last_row).then_some(rest));
    }
    sqlx::query_scalar("SELECT row_no FROM retries WHERE lease_id = ? ORDER BY row_no LIMIT 1 OFFSET ?")
        .bind(ended.lease_id)
        .bind(rows_max)
        .fetch_optional(db)
        .await
        .map_err(failed("split a lease"))
}

/// Makes a lease of the rows before `rest`. The others stay behind in the old one, which is nobody's now and keeps its crashes.
async fn split_off(
    db: &mut SqliteConnection,
    request: &ClaimRequest,
    now: Timestamp,
    ended: &EndedLease,
    crashes: i64,
    rest: i64,
) -> Result<(i64, i64), StoreError> {
    let splitting = failed("split a lease");
    let (rows, next_row) = if ended.retries { ((0, 0), 0) } else { ((ended.next_row, rest - 1), rest) };
    let (lease_id, token) = insert_lease(db, request, now, ended.batch_key, ended.retries, rows, crashes, 0).await?;
    sqlx::query("UPDATE leases SET token = 0, worker = '', next_row = ?, crashes = ?, expires_at = 0 WHERE lease_id = ?")
        .bind(next_row)
        .bind(crashes)
        .bind(ended.lease_id)
        .execute(&mut *db)
        .await
        .map_err(splitting)?;
    if ended.retries {
        sqlx::query("UPDATE retries SET lease_id = ? WHERE lease_id = ? AND row_no < ?")
            .bind(lease_id)
            .bind(ended.lease_id)
            .bind(rest)
            .execute(db)
            .await
            .map_err(splitting)?;
    }
    Ok((lease_id, token))
}

/// Retries of a batch that are due, and what they are charged.
async fn lease_retries(db: &mut SqliteConnection, request: &ClaimRequest, now: Timestamp, key: i64) -> Result<(Lease, i64), StoreError> {
    let leasing = failed("lease retries");
    let (batch_id, row_micros, measured): (String, Option<i64>, bool) =
        sqlx::query_as("SELECT batch_id, row_micros, success + failed > 0 FROM batches WHERE batch_key = ?")
            .bind(key)
            .fetch_one(&mut *db)
            .await
            .map_err(leasing)?;
    let waiting: i64 =
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM retries WHERE batch_key = ? AND lease_id IS NULL AND due_at <= ? LIMIT ?)")
            .bind(key)
            .bind(now.0)
            .bind(i64::from(request.rows_max.saturating_mul(request.slots)))
            .fetch_one(&mut *db)
            .await
            .map_err(leasing)?;
    let rows = size(request, row_micros, measured, waiting);
    let charged = rows.saturating_mul(row_micros.unwrap_or(UNKNOWN_MICROS));
    let (lease_id, token) = insert_lease(db, request, now, key, true, (0, 0), 0, charged).await?;
    // A round may begin with this.
    sqlx::query("UPDATE batches SET status = 'inprog', started_at = coalesce(started_at, ?) WHERE batch_key = ? AND status = 'queued'")
        .bind(now.0)
        .bind(key)
        .execute(&mut *db)
        .await
        .map_err(leasing)?;
    sqlx::query(
        "UPDATE retries SET lease_id = ?1 WHERE batch_key = ?2 AND row_no IN
         (SELECT row_no FROM retries WHERE batch_key = ?2 AND lease_id IS NULL AND due_at <= ?3 ORDER BY due_at, row_no LIMIT ?4)",
    )
    .bind(lease_id)
    .bind(key)
    .bind(now.0)
    .bind(rows)
    .execute(&mut *db)
    .await
    .map_err(leasing)?;
    Ok((lease(lease_id, token, &batch_id, rows, 0)?, charged))
}

/// The next rows of a batch, and what they are charged.
async fn lease_fresh_rows(db: &mut SqliteConnection, request: &ClaimRequest, now: Timestamp, key: i64) -> Result<(Lease, i64), StoreError> {
    let leasing = failed("lease rows");
    let (batch_id, first, row_count, row_micros, measured): (String, i64, i64, Option<i64>, bool) =
        sqlx::query_as("SELECT batch_id, next_row, row_count, row_micros, success + failed > 0 FROM batches WHERE batch_key = ?")
            .bind(key)
            .fetch_one(&mut *db)
            .await
            .map_err(leasing)?;
    let rows = size(request, row_micros, measured, row_count - first + 1);
    sqlx::query("UPDATE batches SET next_row = ?, status = 'inprog', started_at = coalesce(started_at, ?) WHERE batch_key = ? AND next_row = ?")
        .bind(first + rows)
        .bind(now.0)
        .bind(key)
        .bind(first)
        .execute(&mut *db)
        .await
        .map_err(leasing)?;
    let charged = rows.saturating_mul(row_micros.unwrap_or(UNKNOWN_MICROS));
    let (lease_id, token) = insert_lease(db, request, now, key, false, (first, first + rows - 1), 0, charged).await?;
    Ok((lease(lease_id, token, &batch_id, rows, 0)?, charged))
}

fn size(request: &ClaimRequest, row_micros: Option<i64>, measured: bool, remaining: i64) -> i64 {
    let (slots, target, rows_max) = (request.slots, request.target, request.rows_max);
    i64::from(lease_rows(LeaseSizing { row_micros: row_micros.map(count), measured, remaining: count(remaining), slots, target, rows_max }))
}

#[expect(clippy::too_many_arguments, reason = "they are the columns of a lease")]
async fn insert_lease(
    db: &mut SqliteConnection,
    request: &ClaimRequest,
    now: Timestamp,
    key: i64,
    retries: bool,
    (first, last): (i64, i64),
    crashes: i64,
    charged: i64,
) -> Result<(i64, i64), StoreError> {
    let token = new_token();
    let insert = "INSERT INTO leases (batch_key, token, worker, retries, next_row, last_row, crashes, charged_micros, expires_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let inserted = sqlx::query(insert)
        .bind(key)
        .bind(token)
        .bind(&request.worker)
        .bind(retries)
        .bind(first)
        .bind(last)
        .bind(crashes)
        .bind(charged)
        .bind(now.after(request.ttl).0)
        .execute(db)
        .await
        .map_err(failed("write a lease"))?;
    Ok((inserted.last_insert_rowid(), token))
}

fn lease(id: i64, token: i64, batch_id: &str, rows: i64, crashes: i64) -> Result<Lease, StoreError> {
    let batch: BatchId = batch_id.parse().map_err(failed("read a batch's id"))?;
    Ok(Lease { key: LeaseKey { id, token }, batch, rows: small(rows), crashes: small(crashes) })
}
