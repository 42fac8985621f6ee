//! Outcomes are appended, under the token of a lease that is still held.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::quota::{Fitted, fit_into_quota};
use super::{ROWS_PER_INSERT, SqliteStore, new_token};
use crate::model::{AbortReason, BatchId, BatchStatus, FinishLease, LeaseKey, Piece, ProcessorKind, RowResult, RowStatus, Timestamp, Verdict};
use crate::store::columns::{count, counts, failed, kind_of, quota_of, signed, small, step_of};
use crate::store::rules::{SMOOTHING, check_verdicts, file_names, not_the_next_row, pieces};
use crate::store::{FILES_PER_BATCH_MAX, LeaseOwner, Recorded, StoreError, StoreEvent};

/// A lease that is held: its batch, whether it is of retries, its next and last row; what its batch has logged and written, and what the app was given.
type HeldRow = (i64, bool, i64, i64, i64, i64, Option<String>);

pub(super) async fn record_results(
    store: &SqliteStore,
    lease: LeaseKey,
    results: &[RowResult],
    took: Duration,
    finisher: Option<LeaseOwner<'_>>,
) -> Result<Recorded, StoreError> {
    check_verdicts(results)?;
    let now = store.now();
    let mut db = store.begin().await?;
    let held: Option<HeldRow> = sqlx::query_as(
        "SELECT l.batch_key, l.retries, l.next_row, l.last_row, b.log_bytes, b.file_bytes, a.quota
         FROM leases l JOIN batches b USING (batch_key) LEFT JOIN apps a USING (app) WHERE l.lease_id = ? AND l.token = ? AND l.expires_at > ?",
    )
    .bind(lease.id)
    .bind(lease.token)
    .bind(now.0)
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("look up a lease"))?;
    let (key, retries, first, last, log_bytes, file_bytes, quota) = held.ok_or(StoreError::LeaseLost)?;
    if retries {
        ensure_next_retries(&mut db, lease, results).await?;
    } else {
        ensure_next_rows(results, first..=last)?;
    }
    let files = FileNumbers::assign(&mut db, key, results).await?;
    let fitted = fit_into_quota(&store.bounds.quota_of(&quota_of(quota)?), log_bytes, file_bytes, results)?;
    insert_outcomes(&mut db, key, results, &files, &fitted.logs.dropped).await?;
    if !results.is_empty() {
        super::usage::add(&mut db, key, results, took, now).await?;
    }
    if retries {
        record_retried(&mut db, key, lease, results, took, now).await?;
    } else {
        move_mark(&mut db, lease, first + row_count(results), last, took).await?;
        for (row_no, attempt, due_at) in again(results, now) {
            sqlx::query("INSERT INTO retries (batch_key, row_no, attempt, due_at) VALUES (?, ?, ?, ?)")
                .bind(key)
                .bind(row_no)
                .bind(attempt)
                .bind(due_at)
                .execute(&mut *db)
                .await
                .map_err(failed("write a retry"))?;
        }
    }
    let (recorded, events) = count_outcomes(&mut db, key, results, &fitted, took, now, finisher).await?;
    db.commit().await.map_err(failed("commit results"))?;
    for event in events {
        store.events.tell(event);
    }
    Ok(recorded)
}

fn again(results: &[RowResult], now: Timestamp) -> impl Iterator<Item = (i64, i64, i64)> {
    results.iter().filter_map(move |result| match result.verdict {
        Verdict::Retry { after } => Some((i64::from(result.row_no), i64::from(result.attempt) + 1, now.after(after).0)),
        Verdict::Final { .. } => None,
    })
}

/// How many results there are, as rows are numbered.
fn row_count(results: &[RowResult]) -> i64 {
    i64::try_from(results.len()).unwrap_or(i64::MAX)
}

/// Results are those of the lease's next rows, in order.
fn ensure_next_rows(results: &[RowResult], next: impl IntoIterator<Item = i64>) -> Result<(), StoreError> {
    let mut next = next.into_iter();
    for result in results {
        let wanted = next.next();
        if wanted != Some(i64::from(result.row_no)) {
            return Err(not_the_next_row(result.row_no, wanted));
        }
    }
    Ok(())
}

async fn ensure_next_retries(db: &mut SqliteConnection, lease: LeaseKey, results: &[RowResult]) -> Result<(), StoreError> {
    let next: Vec<i64> = sqlx::query_scalar("SELECT row_no FROM retries WHERE lease_id = ? ORDER BY row_no LIMIT ?")
        .bind(lease.id)
        .bind(row_count(results))
        .fetch_all(db)
        .await
        .map_err(failed("look up the rows of a lease"))?;
    ensure_next_rows(results, next)
}

/// Moves a range lease forward; it goes when its last row is recorded.
async fn move_mark(db: &mut SqliteConnection, lease: LeaseKey, next: i64, last: i64, took: Duration) -> Result<(), StoreError> {
    if next > last {
        return end_lease(db, lease, took).await;
    }
    sqlx::query("UPDATE leases SET next_row = ?, took_micros = took_micros + ? WHERE lease_id = ?")
        .bind(next)
        .bind(micros(took))
        .bind(lease.id)
        .execute(db)
        .await
        .map_err(failed("move a lease"))?;
    Ok(())
}

/// Takes recorded rows out of a lease of retries, or plans their next attempt.
async fn record_retried(
    db: &mut SqliteConnection,
    key: i64,
    lease: LeaseKey,
    results: &[RowResult],
    took: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let recording = failed("record retried rows");
    for result in results {
        let hit = match result.verdict {
            Verdict::Final { .. } => sqlx::query("DELETE FROM retries WHERE lease_id = ? AND batch_key = ? AND row_no = ?"),
            Verdict::Retry { after } => {
                sqlx::query("UPDATE retries SET lease_id = NULL, attempt = ?, due_at = ? WHERE lease_id = ? AND batch_key = ? AND row_no = ?")
                    .bind(i64::from(result.attempt) + 1)
                    .bind(now.after(after).0)
            }
        }
        .bind(lease.id)
        .bind(key)
        .bind(i64::from(result.row_no))
        .execute(&mut *db)
        .await
        .map_err(recording)?;
        if hit.rows_affected() != 1 {
            return Err(StoreError::Invalid(format!("row {} is not one of the lease's", result.row_no)));
        }
    }
    let left: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM retries WHERE lease_id = ?)").bind(lease.id).fetch_one(&mut *db).await.map_err(recording)?;
    if !left {
        return end_lease(db, lease, took).await;
    }
    sqlx::query("UPDATE leases SET took_micros = took_micros + ? WHERE lease_id = ?")
        .bind(micros(took))
        .bind(lease.id)
        .execute(db)
        .await
        .map_err(recording)?;
    Ok(())
}

/// Ends a lease. Its app is charged for what it took, and not for what was expected.
async fn end_lease(db: &mut SqliteConnection, lease: LeaseKey, took: Duration) -> Result<(), StoreError> {
    let ending = failed("end a lease");
    sqlx::query(
        "UPDATE apps SET served_micros = served_micros + (l.took_micros + ?2 - l.charged_micros) / weight
         FROM leases l JOIN batches b USING (batch_key) WHERE l.lease_id = ?1 AND apps.app = b.app",
    )
    .bind(lease.id)
    .bind(micros(took))
    .execute(&mut *db)
    .await
    .map_err(ending)?;
    sqlx::query("DELETE FROM leases WHERE lease_id = ?").bind(lease.id).execute(db).await.map_err(ending)?;
    Ok(())
}

fn micros(took: Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}

/// Moves the batch's counts in the same transaction, and finds out whether this was its last outcome. A slow query without files is final then.
async fn count_outcomes(
    db: &mut SqliteConnection,
    key: i64,
    results: &[RowResult],
    fitted: &Fitted,
    took: Duration,
    now: Timestamp,
    finisher: Option<LeaseOwner<'_>>,
) -> Result<(Recorded, Vec<StoreEvent>), StoreError> {
    let ended = |wanted: RowStatus| {
        let hits = results.iter().filter(|result| matches!(result.verdict, Verdict::Final { status, .. } if status == wanted)).count();
        i64::try_from(hits).unwrap_or(i64::MAX)
    };
    let (success, failures) = (ended(RowStatus::Success), ended(RowStatus::Failed));
    let failed_row = results.iter().find(|result| matches!(result.verdict, Verdict::Final { status: RowStatus::Failed, .. }));
    let fuel: u64 = results.iter().map(|result| result.fuel).sum();
    let row_micros = (!results.is_empty()).then(|| (micros(took) / row_count(results)).max(1));
    let counted: CountedRow = sqlx::query_as(
        "UPDATE batches SET success = success + ?2, failed = failed + ?3, fuel = fuel + ?4, failed_row = coalesce(?12, failed_row),
            log_bytes = log_bytes + ?13, logs_dropped = logs_dropped + ?14, file_bytes = file_bytes + ?15,
            row_micros = CASE WHEN success + failed = 0 THEN coalesce(?5, row_micros)
                ELSE coalesce((row_micros * (?6 - 1) + ?5) / ?6, ?5, row_micros) END,
            step = CASE WHEN success + failed + ?2 + ?3 < row_count THEN step WHEN kind = 'slow_query' AND ?7 THEN 'mark' ELSE 'join' END,
            status = CASE WHEN success + failed + ?2 + ?3 < row_count OR kind <> 'slow_query' OR NOT ?7 THEN status
                WHEN failed + ?3 > 0 THEN 'failed' ELSE 'success' END,
            finished_at = CASE WHEN success + failed + ?2 + ?3 = row_count AND kind = 'slow_query' AND ?7 THEN ?8 END,
            finish_token = CASE WHEN success + failed + ?2 + ?3 = row_count THEN ?9 END,
            finish_worker = CASE WHEN success + failed + ?2 + ?3 = row_count THEN ?10 END,
            finish_expires_at = CASE WHEN success + failed + ?2 + ?3 = row_count THEN ?11 END,
            finish_attempt = CASE WHEN success + failed + ?2 + ?3 = row_count AND ?9 IS NOT NULL THEN 1 ELSE 0 END
         WHERE batch_key = ?1 AND status = 'inprog' AND step = 'rows'
         RETURNING batch_id, kind, row_count, success, failed, step, round, finish_token, failures_max, failures_percent",
    )
    .bind(key)
    .bind(success)
    .bind(failures)
    .bind(signed(fuel))
    .bind(row_micros)
    .bind(SMOOTHING)
    .bind(file_names(results).is_empty())
    .bind(now.0)
    .bind(finisher.map(|_| new_token()))
    .bind(finisher.map(|finisher| finisher.worker))
    .bind(finisher.map(|finisher| now.after(finisher.ttl).0))
    .bind(failed_row.map(|result| i64::from(result.row_no)))
    .bind(signed(fitted.logs.kept_bytes))
    .bind(signed(fitted.logs.dropped.len() as u64))
    .bind(signed(fitted.file_bytes))
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("count results"))?
    .ok_or(StoreError::LeaseLost)?;
    let batch: BatchId = counted.batch_id.parse().map_err(failed("read a batch's id"))?;
    let (step, kind) = (counted.step.as_str(), kind_of(&counted.kind));
    if step == "join" {
        note_speed(db, key).await?;
    }
    let too_many = counted.too_many_failures().filter(|_| step == "rows");
    if let Some(reason) = &too_many {
        super::finish::abort(db, key, Some(reason)).await?;
    }
    let finish = counted.finish_token.map(|token| FinishLease { batch, step: step_of(step), token, attempt: 1 });
    let events = match (step, kind) {
        ("rows", kind) if too_many.is_some() => vec![StoreEvent::Aborted(batch), StoreEvent::Work(kind)],
        ("rows", _) => Vec::new(),
        ("mark", ProcessorKind::SlowQuery) => vec![StoreEvent::Final(batch)],
        (_, kind) if finish.is_none() => vec![StoreEvent::Work(kind)],
        _ => Vec::new(),
    };
    let now = if too_many.is_some() { BatchStatus::Aborted } else { BatchStatus::Inprog };
    let counts = counts(now, counted.row_count, counted.success, counted.failed);
    Ok((Recorded { round: small(counted.round), counts, aborted: too_many.is_some(), last: step != "rows", finish }, events))
}

/// What counting outcomes left of a batch.
#[derive(sqlx::FromRow)]
struct CountedRow {
    batch_id: String,
    kind: String,
    row_count: i64,
    success: i64,
    failed: i64,
    step: String,
    round: i64,
    finish_token: Option<i64>,
    failures_max: Option<i64>,
    failures_percent: Option<i64>,
}

impl CountedRow {
    /// Why the batch is aborted for its failures, if it is.
    fn too_many_failures(&self) -> Option<AbortReason> {
        let (failed, rows) = (count(self.failed), count(self.row_count));
        match (self.failures_max.map(count), self.failures_percent.map(count)) {
            (Some(limit), _) if failed > limit => Some(AbortReason::RowsFailed { failed, limit }),
            (None, Some(limit)) if failed * 100 > limit * rows => Some(AbortReason::PartFailed { failed, rows, limit }),
            _ => None,
        }
    }
}

/// The next batch begins with the speed of this one, which is seldom another.
async fn note_speed(db: &mut SqliteConnection, key: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE processors SET row_micros = b.row_micros FROM batches b
         WHERE b.batch_key = ? AND b.kind = 'batch' AND processors.app = b.app AND processors.op = b.op AND processors.version = b.processor_version
            AND (processors.row_micros IS NULL OR processors.row_micros NOT BETWEEN b.row_micros - b.row_micros / 4 AND b.row_micros + b.row_micros / 4)",
    )
    .bind(key)
    .execute(db)
    .await
    .map_err(failed("note the speed of a processor"))?;
    Ok(())
}

/// The numbers by which pieces name their files.
struct FileNumbers(HashMap<String, i64>);

impl FileNumbers {
    /// Reads the batch's file names and adds those that the results bring.
    async fn assign(db: &mut SqliteConnection, key: i64, results: &[RowResult]) -> Result<FileNumbers, StoreError> {
        let mut numbers = HashMap::new();
        let names = file_names(results);
        if names.is_empty() {
            return Ok(FileNumbers(numbers));
        }
        let known: Vec<(String, i64)> = sqlx::query_as("SELECT name, file_no FROM output_files WHERE batch_key = ?")
            .bind(key)
            .fetch_all(&mut *db)
            .await
            .map_err(failed("read the names of output files"))?;
        numbers.extend(known);
        let mut surplus = false;
        for name in names {
            if numbers.contains_key(name) {
                continue;
            }
            if numbers.len() >= FILES_PER_BATCH_MAX {
                surplus = true;
                continue;
            }
            let number = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
            sqlx::query("INSERT INTO output_files (batch_key, file_no, name) VALUES (?, ?, ?)")
                .bind(key)
                .bind(number)
                .bind(name)
                .execute(&mut *db)
                .await
                .map_err(failed("name an output file"))?;
            numbers.insert(name.to_owned(), number);
        }
        if surplus {
            return Err(StoreError::TooManyFiles { allowed: numbers.into_keys().collect() });
        }
        Ok(FileNumbers(numbers))
    }

    /// The pieces of a row as JSON.
    fn encode<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) -> Option<String> {
        let numbered: Vec<(i64, &str)> = pieces.map(|piece| (self.0[&piece.file], piece.text.as_str())).collect();
        if numbered.is_empty() {
            return None;
        }
        Some(serde_json::to_string(&numbered).expect("numbers and strings are always JSON"))
    }
}

/// Those in `dropped`, positions in order, without their log.
async fn insert_outcomes(
    db: &mut SqliteConnection,
    key: i64,
    results: &[RowResult],
    files: &FileNumbers,
    dropped: &[usize],
) -> Result<(), StoreError> {
    static FULL: LazyLock<Arc<str>> = LazyLock::new(|| insert_outcomes_sql(ROWS_PER_INSERT).into());
    let finals: Vec<(usize, &RowResult)> = results.iter().enumerate().filter(|(_, result)| matches!(result.verdict, Verdict::Final { .. })).collect();
    for chunk in finals.chunks(ROWS_PER_INSERT) {
        let full = chunk.len() == ROWS_PER_INSERT;
        // Made of constants and question marks only.
        let sql = if full { AssertSqlSafe(FULL.clone()) } else { AssertSqlSafe(insert_outcomes_sql(chunk.len()).into()) };
        let mut insert = sqlx::query(sql).persistent(full);
        for (at, result) in chunk {
            let Verdict::Final { status, output, messages, .. } = &result.verdict else { continue };
            let messages = (!messages.is_empty()).then(|| serde_json::to_string(messages).expect("messages of numbers and strings are always JSON"));
            insert = insert
                .bind(key)
                .bind(i64::from(result.row_no))
                .bind(*status == RowStatus::Failed)
                .bind(i64::from(result.attempt))
                .bind(signed(result.fuel))
                .bind(output.as_deref())
                .bind(messages)
                .bind(files.encode(pieces(result)))
                .bind(result.log.as_deref().filter(|_| dropped.binary_search(at).is_err()));
        }
        insert.execute(&mut *db).await.map_err(failed("append outcomes"))?;
    }
    Ok(())
}

fn insert_outcomes_sql(rows: usize) -> String {
    format!(
        "INSERT INTO outcomes (batch_key, row_no, failed, attempt, fuel, output, messages, pieces, log) VALUES {}",
        vec!["(?,?,?,?,?,?,?,?,?)"; rows].join(",")
    )
}
