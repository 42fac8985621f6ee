//! Leases are given, read, renewed and given back.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::{SqliteStore, count, failed, fetch_page, length, new_token, small};
use crate::model::{BatchId, ClaimRequest, Lease, LeaseKey, LeasedRow, Timestamp};
use crate::store::StoreError;
use crate::store::sizing::{LeaseSizing, lease_rows};

/// From so many crashes on, the rows of a lease are leased one by one, to find the one that kills workers.
const SPLIT_CRASHES: i64 = 2;

pub(super) async fn claim_leases(store: &SqliteStore, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError> {
    let now = store.now();
    let mut db = store.begin().await?;
    let mut leases = Vec::new();
    while leases.len() < request.leases_max as usize {
        let lease = match take_over(&mut db, request, now).await? {
            Some(lease) => Some(lease),
            None => match lease_retries(&mut db, request, now).await? {
                Some(lease) => Some(lease),
                None => lease_fresh_rows(&mut db, request, now).await?,
            },
        };
        match lease {
            Some(lease) => leases.push(lease),
            None => break,
        }
    }
    if !leases.is_empty() {
        db.commit().await.map_err(failed("commit a claim"))?;
    }
    Ok(leases)
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
async fn take_over(db: &mut SqliteConnection, request: &ClaimRequest, now: Timestamp) -> Result<Option<Lease>, StoreError> {
    let taking_over = failed("take a lease over");
    let ended: Option<EndedLease> = sqlx::query_as(
        "SELECT l.lease_id, l.batch_key, b.batch_id, l.token <> 0 AS held, l.retries, l.next_row, l.last_row, l.crashes
         FROM leases l JOIN batches b USING (batch_key) WHERE l.expires_at <= ? ORDER BY l.expires_at, l.lease_id LIMIT 1",
    )
    .bind(now.0)
    .fetch_optional(&mut *db)
    .await
    .map_err(taking_over)?;
    let Some(ended) = ended else { return Ok(None) };
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
        return lease(lease_id, token, &ended.batch_id, rows_max, crashes).map(Some);
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
    lease(ended.lease_id, token, &ended.batch_id, rows, crashes).map(Some)
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
    let (lease_id, token) = insert_lease(db, request, now, ended.batch_key, ended.retries, rows, crashes).await?;
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

/// Retries that are due, of one batch.
async fn lease_retries(db: &mut SqliteConnection, request: &ClaimRequest, now: Timestamp) -> Result<Option<Lease>, StoreError> {
    let leasing = failed("lease retries");
    let due: Option<(i64, String, Option<i64>)> = sqlx::query_as(
        "SELECT r.batch_key, b.batch_id, b.row_micros FROM retries r JOIN batches b USING (batch_key)
         WHERE r.lease_id IS NULL AND r.due_at <= ? ORDER BY r.due_at LIMIT 1",
    )
    .bind(now.0)
    .fetch_optional(&mut *db)
    .await
    .map_err(leasing)?;
    let Some((key, batch_id, row_micros)) = due else { return Ok(None) };
    let waiting: i64 =
        sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM retries WHERE batch_key = ? AND lease_id IS NULL AND due_at <= ? LIMIT ?)")
            .bind(key)
            .bind(now.0)
            .bind(i64::from(request.rows_max.saturating_mul(request.slots)))
            .fetch_one(&mut *db)
            .await
            .map_err(leasing)?;
    let rows = size(request, row_micros, waiting);
    let (lease_id, token) = insert_lease(db, request, now, key, true, (0, 0), 0).await?;
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
    lease(lease_id, token, &batch_id, rows, 0).map(Some)
}

/// The next rows of the oldest batch that has some.
async fn lease_fresh_rows(db: &mut SqliteConnection, request: &ClaimRequest, now: Timestamp) -> Result<Option<Lease>, StoreError> {
    let leasing = failed("lease rows");
    let batch: Option<(i64, String, i64, i64, Option<i64>)> = sqlx::query_as(
        "SELECT batch_key, batch_id, next_row, row_count, row_micros FROM batches
         WHERE step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count ORDER BY batch_key LIMIT 1",
    )
    .fetch_optional(&mut *db)
    .await
    .map_err(leasing)?;
    let Some((key, batch_id, first, row_count, row_micros)) = batch else { return Ok(None) };
    let rows = size(request, row_micros, row_count - first + 1);
    sqlx::query("UPDATE batches SET next_row = ?, status = 'inprog', started_at = coalesce(started_at, ?) WHERE batch_key = ? AND next_row = ?")
        .bind(first + rows)
        .bind(now.0)
        .bind(key)
        .bind(first)
        .execute(&mut *db)
        .await
        .map_err(leasing)?;
    let (lease_id, token) = insert_lease(db, request, now, key, false, (first, first + rows - 1), 0).await?;
    lease(lease_id, token, &batch_id, rows, 0).map(Some)
}

fn size(request: &ClaimRequest, row_micros: Option<i64>, remaining: i64) -> i64 {
    let (slots, target, rows_max) = (request.slots, request.target, request.rows_max);
    i64::from(lease_rows(LeaseSizing { row_micros: row_micros.map(count), remaining: count(remaining), slots, target, rows_max }))
}

async fn insert_lease(
    db: &mut SqliteConnection,
    request: &ClaimRequest,
    now: Timestamp,
    key: i64,
    retries: bool,
    (first, last): (i64, i64),
    crashes: i64,
) -> Result<(i64, i64), StoreError> {
    let token = new_token();
    let insert = "INSERT INTO leases (batch_key, token, worker, retries, next_row, last_row, crashes, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let inserted = sqlx::query(insert)
        .bind(key)
        .bind(token)
        .bind(&request.worker)
        .bind(retries)
        .bind(first)
        .bind(last)
        .bind(crashes)
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

pub(super) async fn next_due(store: &SqliteStore) -> Result<Option<Duration>, StoreError> {
    let due: Option<i64> = sqlx::query_scalar(
        "SELECT min(at) FROM (SELECT min(due_at) AS at FROM retries WHERE lease_id IS NULL
         UNION ALL SELECT min(expires_at) FROM leases
         UNION ALL SELECT min(coalesce(finish_expires_at, 0)) FROM batches WHERE step IN ('join', 'mark'))",
    )
    .fetch_one(&store.readers)
    .await
    .map_err(failed("look for what is due"))?;
    Ok(due.map(|at| Timestamp(at).since(store.now())))
}
