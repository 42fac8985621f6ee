//! A batch that has ended is run again, in a new round. What the rounds before came to stays.

use super::{SqliteStore, fetch_page, find_batch, length};
use crate::model::{BatchId, OutputFile, PastCursor, PastOutcome, PastRound, Retried, RetryRows};
use crate::store::columns::{PastOutcomeRow, PastRoundRow, count, failed, kind_of, small, status_of};
use crate::store::rules::{RetryRefusal, code_marks, cursor_of};
use crate::store::{StoreError, StoreEvent};

#[derive(sqlx::FromRow)]
struct EndedBatch {
    app: String,
    kind: String,
    status: String,
    step: String,
    round: i64,
    row_count: i64,
    next_row: i64,
    deferred: bool,
    success: i64,
    failed: i64,
    /// Its inputs and outcomes are there.
    whole: bool,
}

/// The failed rows that are to be run again: their codes are a JSON array, as they stand in messages.
const FAILED: &str = "batch_key = ?1 AND failed AND (?2 = '[]' OR EXISTS (SELECT 1 FROM json_each(?2) c WHERE instr(messages, c.value) > 0))";

pub(super) async fn retry_batch(store: &SqliteStore, id: BatchId, rows: &RetryRows) -> Result<Retried, StoreError> {
    let retrying = failed("retry a batch");
    let now = store.now();
    let codes = serde_json::to_string(&code_marks(&rows.codes)).expect("strings are always JSON");
    let mut db = store.begin().await?;
    let (key, _) = find_batch(&mut db, id).await?;
    let batch: EndedBatch =
        sqlx::query_as("SELECT app, kind, status, step, round, row_count, next_row, deferred, success, failed, pruning = 0 AND parts & 6 = 6 AS whole FROM batches WHERE batch_key = ?")
            .bind(key)
            .fetch_one(&mut *db)
            .await
            .map_err(retrying)?;
    let refusal = match (batch.kind.as_str(), batch.step.as_str(), batch.status.as_str()) {
        ("slow_query", ..) => Some(RetryRefusal::Kind),
        (_, "done", "aborted") if !rows.aborted => Some(RetryRefusal::Aborted),
        (_, "done", _) if !batch.whole => Some(RetryRefusal::Pruned),
        (_, "done", _) => None,
        _ => Some(RetryRefusal::Runs),
    };
    if let Some(refusal) = refusal {
        return Err(refusal.error(id, status_of(&batch.status), rows));
    }
    // What has not begun to be made waits for the end of the new round.
    let begun: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM chains WHERE first_key = ? AND begun = 1)")
        .bind(key)
        .fetch_one(&mut *db)
        .await
        .map_err(retrying)?;
    if begun {
        return Err(RetryRefusal::Chained.error(id, status_of(&batch.status), rows));
    }
    let kept = format!(
        "INSERT INTO past_outcomes (batch_key, row_no, round, attempt, fuel, output, messages, log)
         SELECT batch_key, row_no, ?3, attempt, fuel, output, messages, log FROM outcomes WHERE {FAILED}"
    );
    let again = format!("INSERT INTO retries (batch_key, row_no, attempt, due_at) SELECT batch_key, row_no, 1, ?3 FROM outcomes WHERE {FAILED}");
    let gone = format!("DELETE FROM outcomes WHERE {FAILED}");
    let mut moved = 0;
    for (statement, value) in [(kept, batch.round), (again, now.0), (gone, 0)] {
        // Made of constants and question marks only.
        let done = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(key).bind(&codes).bind(value).execute(&mut *db).await.map_err(retrying)?;
        moved = i64::try_from(done.rows_affected()).unwrap_or(i64::MAX);
    }
    let mut run = moved;
    if batch.status == "aborted" {
        // Those that a lease had taken. The others wait behind the cursor, as they did.
        sqlx::query(
            "INSERT INTO retries (batch_key, row_no, attempt, due_at)
             SELECT r.batch_key, r.row_no, 1, ?3 FROM rows r WHERE r.batch_key = ?1 AND r.row_no < ?2
                AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.batch_key = r.batch_key AND o.row_no = r.row_no)
             ON CONFLICT DO NOTHING",
        )
        .bind(key)
        .bind(batch.next_row)
        .bind(now.0)
        .execute(&mut *db)
        .await
        .map_err(retrying)?;
        run += batch.row_count - batch.success - batch.failed;
    }
    if run == 0 {
        return Err(RetryRefusal::Nothing.error(id, status_of(&batch.status), rows));
    }
    for keep in [
        "INSERT INTO past_rounds (batch_key, round, status, row_count, success, failed, abort_reason, mark_error, mark_calls, started_at, finished_at)
         SELECT batch_key, round, status, row_count, success, failed, abort_reason, mark_error, mark_calls, started_at, finished_at FROM batches WHERE batch_key = ?",
        "INSERT INTO past_files (batch_key, round, name, object, size_bytes)
         SELECT batch_key, round, name, object, size_bytes FROM output_files JOIN batches USING (batch_key) WHERE batch_key = ? AND object IS NOT NULL",
        "UPDATE chains SET ready = 0 WHERE first_key = ?",
        "UPDATE output_files SET object = NULL, size_bytes = NULL WHERE batch_key = ? AND object IS NOT NULL",
    ] {
        sqlx::query(keep).bind(key).execute(&mut *db).await.map_err(retrying)?;
    }
    let round: i64 = sqlx::query_scalar(
        "UPDATE batches SET status = 'queued', step = 'rows', round = round + 1, failed = failed - ?2,
            deadline_at = coalesce(?3, CASE WHEN deadline_at > ?4 THEN deadline_at END), abort_reason = NULL, mark_error = NULL, mark_calls = 0, started_at = NULL,
            finished_at = NULL, finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL, finish_attempt = 0
         WHERE batch_key = ?1 RETURNING round",
    )
    .bind(key)
    .bind(moved)
    .bind(rows.deadline_at.map(|at| at.0))
    .bind(now.0)
    .fetch_one(&mut *db)
    .await
    .map_err(retrying)?;
    db.commit().await.map_err(failed("commit a retry"))?;
    let (app, kind) = (batch.app, kind_of(&batch.kind));
    store.events.tell(if batch.deferred { StoreEvent::Work(kind) } else { StoreEvent::Submitted { app, kind } });
    Ok(Retried { round: small(round), rows: count(run) })
}

pub(super) async fn list_rounds(store: &SqliteStore, id: BatchId, after: u32, limit: u32) -> Result<Vec<PastRound>, StoreError> {
    let reading = failed("read the rounds of a batch");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let (key, _) = find_batch(&mut db, id).await?;
    let rows: Vec<PastRoundRow> = sqlx::query_as(
        "SELECT round, status, row_count, success, failed, abort_reason, mark_error, mark_calls, started_at, finished_at FROM past_rounds
         WHERE batch_key = ? AND round > ? ORDER BY round LIMIT ?",
    )
    .bind(key)
    .bind(i64::from(after))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(reading)?;
    let mut rounds = Vec::with_capacity(rows.len());
    for row in rows {
        let files: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT name, object, size_bytes FROM past_files WHERE batch_key = ? AND round = ? ORDER BY name")
                .bind(key)
                .bind(row.round)
                .fetch_all(&mut *db)
                .await
                .map_err(reading)?;
        rounds.push(row.past_round(files.into_iter().map(|(name, object, size)| OutputFile { name, object, size_bytes: count(size) }).collect()));
    }
    Ok(rounds)
}

pub(super) async fn read_past_outcomes(
    store: &SqliteStore,
    id: BatchId,
    after: Option<PastCursor>,
    limit: u32,
) -> Result<Vec<PastOutcome>, StoreError> {
    let reading = failed("read past outcomes");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let (key, _) = find_batch(&mut db, id).await?;
    let (row_no, round) = cursor_of(after);
    let rows = sqlx::query_as(
        "SELECT p.round, p.row_no, r.line, p.attempt, p.fuel, p.output, p.messages, p.log FROM past_outcomes p JOIN rows r USING (batch_key, row_no)
         WHERE p.batch_key = ?1 AND (p.row_no, p.round) > (?2, ?3) ORDER BY p.row_no, p.round LIMIT ?4",
    )
    .bind(key)
    .bind(row_no)
    .bind(round)
    .bind(i64::from(limit))
    .fetch(&mut *db);
    let weigh = |row: &PastOutcomeRow| length(row.output.as_ref()) + length(row.messages.as_ref()) + length(row.log.as_ref());
    let page = fetch_page(rows, weigh).await.map_err(reading)?;
    page.into_iter().map(PastOutcomeRow::past_outcome).collect()
}
