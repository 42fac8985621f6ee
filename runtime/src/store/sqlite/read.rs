//! Batches, results and pieces are read, beside the writer.

use sqlx::SqliteConnection;

use super::{SqliteStore, fetch_page, find_batch, length};
use crate::model::{Batch, BatchId, JsonText, MarkCall, OutputFile, RecordedOutcome, Timestamp};
use crate::store::columns::{
    MarkCallRow, PrunedRow, ResultRow, TermsRow, after_of, count, counts, failed, kind_of, open_append_of, small, status_of, step_of, worded,
};
use crate::store::pruned::{Opened, ensure_outcomes};
use crate::store::{ResultCursor, RowPieces, StoreError};

#[derive(sqlx::FromRow)]
struct BatchRow {
    batch_key: i64,
    app: String,
    op: String,
    kind: String,
    processor_version: i64,
    processor_digest: String,
    context: String,
    #[sqlx(flatten)]
    terms: TermsRow,
    after_batch: Option<String>,
    after_condition: Option<String>,
    group_name: Option<String>,
    status: String,
    step: String,
    round: i64,
    row_count: i64,
    success: i64,
    failed: i64,
    fuel: i64,
    abort_reason: Option<String>,
    mark_error: Option<String>,
    mark_calls: i64,
    mark_due_at: Option<i64>,
    submitted_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    open_rows: Option<i64>,
    open_until: Option<i64>,
    #[sqlx(flatten)]
    pruned: PrunedRow,
}

pub(super) async fn read_batch(store: &SqliteStore, id: BatchId) -> Result<Batch, StoreError> {
    let reading = failed("read a batch");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let row: BatchRow = sqlx::query_as(
        "SELECT batch_key, app, op, kind, priority, processor_version, processor_digest, context, attempts_max, retry_rule, start_at, deadline_at, failures_max,
            failures_percent, after_batch, after_condition, group_name, status, step, round, row_count, success, failed, fuel, abort_reason, mark_error, mark_calls,
            CASE WHEN step = 'mark' AND finish_token IS NULL THEN finish_expires_at END AS mark_due_at, submitted_at, started_at, finished_at,
            files_pruned_at, inputs_pruned_at, outcomes_pruned_at,
            (SELECT o.row_count - batches.row_count FROM open_appends o WHERE o.batch_key = batches.batch_key) AS open_rows,
            (SELECT o.expires_at FROM open_appends o WHERE o.batch_key = batches.batch_key) AS open_until
         FROM batches WHERE batch_id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *db)
    .await
    .map_err(reading)?
    .ok_or(StoreError::NotFound(id))?;
    let files: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT name, object, size_bytes FROM output_files WHERE batch_key = ? AND object IS NOT NULL AND ? IS NULL ORDER BY name")
            .bind(row.batch_key)
            .bind(row.pruned.files_pruned_at)
            .fetch_all(&mut *db)
            .await
            .map_err(reading)?;
    let status = status_of(&row.status);
    Ok(Batch {
        id,
        app: row.app,
        op: row.op,
        kind: kind_of(&row.kind),
        processor_version: small(row.processor_version),
        processor_digest: row.processor_digest,
        context: JsonText::trusted(row.context),
        terms: row.terms.terms()?,
        after: after_of(row.after_batch.map(|id| id.parse()).transpose().map_err(failed("read a batch's id"))?, row.after_condition.as_deref()),
        group: row.group_name,
        status,
        step: step_of(&row.step),
        round: small(row.round),
        counts: counts(status, row.row_count, row.success, row.failed),
        fuel: count(row.fuel),
        abort_reason: row.abort_reason.map(worded),
        mark_error: row.mark_error,
        mark_calls: small(row.mark_calls),
        mark_due_at: row.mark_due_at.map(Timestamp),
        submitted_at: Timestamp(row.submitted_at),
        started_at: row.started_at.map(Timestamp),
        finished_at: row.finished_at.map(Timestamp),
        files: files.into_iter().map(|(name, object, size)| OutputFile { name, object, size_bytes: count(size) }).collect(),
        pruned: row.pruned.parts(),
        open_append: open_append_of(row.open_rows, row.open_until),
    })
}

async fn open_results(db: &mut SqliteConnection, id: BatchId) -> Result<Opened, StoreError> {
    let (key, status) = find_batch(db, id).await?;
    let select = "SELECT lines_ascend, inputs_pruned_at IS NULL, outcomes_pruned_at FROM batches WHERE batch_key = ?";
    let (ascend, with_inputs, pruned_at): (bool, bool, Option<i64>) =
        sqlx::query_as(select).bind(key).fetch_one(db).await.map_err(failed("look up a batch"))?;
    ensure_outcomes(id, pruned_at)?;
    Ok(Opened { key, status, ascend, with_inputs })
}

fn weight(row: &ResultRow) -> usize {
    row.input.len() + length(row.rejected.as_ref()) + length(row.output.as_ref()) + length(row.messages.as_ref()) + length(row.log.as_ref())
}

pub(super) async fn read_results(
    store: &SqliteStore,
    id: BatchId,
    after: Option<ResultCursor>,
    limit: u32,
) -> Result<Vec<RecordedOutcome>, StoreError> {
    let reading = failed("read results");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let Opened { key, status, ascend, with_inputs } = open_results(&mut db, id).await?;
    let select = if ascend {
        "SELECT r.row_no, r.line, r.input, r.rejected, o.failed, o.attempt, o.fuel, o.output, o.messages, o.log
         FROM rows r LEFT JOIN outcomes o USING (batch_key, row_no) WHERE r.batch_key = ?1 AND r.row_no > ?3
            AND r.row_no <= (SELECT row_count FROM batches WHERE batch_key = ?1) ORDER BY r.row_no LIMIT ?4"
    } else {
        "SELECT r.row_no, r.line, r.input, r.rejected, o.failed, o.attempt, o.fuel, o.output, o.messages, o.log
         FROM line_order l JOIN rows r USING (batch_key, row_no) LEFT JOIN outcomes o USING (batch_key, row_no)
         WHERE l.batch_key = ?1 AND (l.line, l.row_no) > (?2, ?3) AND l.row_no <= (SELECT row_count FROM batches WHERE batch_key = ?1)
         ORDER BY l.line, l.row_no LIMIT ?4"
    };
    let (line, row_no) = position(after);
    let rows = sqlx::query_as(select).bind(key).bind(line).bind(row_no).bind(i64::from(limit)).fetch(&mut *db);
    let rows = fetch_page(rows, weight).await.map_err(reading)?;
    rows.into_iter().map(|row: ResultRow| row.recorded(status, with_inputs)).collect()
}

/// Where to go on; before the first row when there is no cursor, since lines and rows are not negative.
fn position(after: Option<ResultCursor>) -> (i64, i64) {
    after.map_or((-1, -1), |cursor| (i64::from(cursor.line), i64::from(cursor.row_no)))
}

pub(super) async fn list_file_names(store: &SqliteStore, id: BatchId) -> Result<Vec<String>, StoreError> {
    let reading = failed("read the names of output files");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let (key, _) = find_batch(&mut db, id).await?;
    sqlx::query_scalar("SELECT name FROM output_files WHERE batch_key = ? ORDER BY file_no").bind(key).fetch_all(&mut *db).await.map_err(reading)
}

pub(super) async fn read_pieces(store: &SqliteStore, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RowPieces>, StoreError> {
    let reading = failed("read pieces of output files");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let Opened { key, ascend, .. } = open_results(&mut db, id).await?;
    let select = if ascend {
        "SELECT 0 AS line, row_no, pieces FROM outcomes
         WHERE batch_key = ?1 AND row_no > ?3 AND pieces IS NOT NULL ORDER BY row_no LIMIT ?4"
    } else {
        "SELECT l.line, l.row_no, o.pieces FROM line_order l JOIN outcomes o USING (batch_key, row_no)
         WHERE l.batch_key = ?1 AND (l.line, l.row_no) > (?2, ?3) AND o.pieces IS NOT NULL ORDER BY l.line, l.row_no LIMIT ?4"
    };
    let (line, row_no) = position(after);
    let rows = sqlx::query_as(select).bind(key).bind(line).bind(row_no).bind(i64::from(limit)).fetch(&mut *db);
    let rows = fetch_page(rows, |(_, _, pieces): &(i64, i64, String)| pieces.len()).await.map_err(reading)?;
    rows.into_iter()
        .map(|(line, row_no, pieces)| {
            let pieces = serde_json::from_str(&pieces).map_err(failed("read pieces of output files"))?;
            Ok(RowPieces { at: ResultCursor { line: small(line), row_no: small(row_no) }, pieces })
        })
        .collect()
}

pub(super) async fn count_dropped_logs(store: &SqliteStore, id: BatchId) -> Result<u64, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT logs_dropped FROM batches WHERE batch_id = ?")
        .bind(id.to_string())
        .fetch_optional(&store.readers)
        .await
        .map_err(failed("count dropped logs"))?;
    found.map(count).ok_or(StoreError::NotFound(id))
}

pub(super) async fn read_mark_calls(store: &SqliteStore, id: BatchId, round: u32, after: u32, limit: u32) -> Result<Vec<MarkCall>, StoreError> {
    let reading = failed("read calls of mark-done");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let Opened { key, .. } = open_results(&mut db, id).await?;
    let rows = sqlx::query_as(
        "SELECT call, ended_at, error, log, log_dropped FROM mark_calls WHERE batch_key = ? AND round = ? AND call > ? ORDER BY call LIMIT ?",
    )
    .bind(key)
    .bind(i64::from(round))
    .bind(i64::from(after))
    .bind(i64::from(limit))
    .fetch(&mut *db);
    let weigh = |row: &MarkCallRow| length(row.error.as_ref()) + length(row.log.as_ref());
    Ok(fetch_page(rows, weigh).await.map_err(reading)?.into_iter().map(MarkCallRow::mark_call).collect())
}
