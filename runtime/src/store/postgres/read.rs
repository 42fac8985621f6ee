//! Batches, results and pieces are read.

use uuid::Uuid;

use super::connect::PgStore;
use super::text::{decode, split_pieces};
use super::{PAGE_BYTES_MAX, PgConnection};
use crate::model::{Batch, BatchId, JsonText, MarkCall, OutputFile, RecordedOutcome, Timestamp};
use crate::store::columns::{
    MarkCallRow, PrunedRow, ResultRow, TermsRow, after_of, count, counts, failed, kind_of, open_append_of, small, status_of, step_of, worded,
};
use crate::store::pruned::{Opened, ensure_outcomes};
use crate::store::{ResultCursor, RowPieces, StoreError};

#[derive(sqlx::FromRow)]
pub(super) struct BatchRow {
    app: String,
    op: String,
    kind: String,
    processor_version: i64,
    processor_digest: String,
    pub(super) context: String,
    #[sqlx(flatten)]
    terms: TermsRow,
    after_batch: Option<Uuid>,
    after_condition: Option<String>,
    group_name: Option<String>,
    status: String,
    step: String,
    round: i32,
    row_count: i32,
    success: i32,
    failed: i32,
    fuel: i64,
    abort_reason: Option<String>,
    mark_error: Option<String>,
    mark_calls: i32,
    mark_due_at: Option<i64>,
    submitted_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    file_names: Vec<String>,
    file_objects: Vec<String>,
    file_sizes: Vec<i64>,
    // Claims leave these out: no batch that is claimed is held.
    #[sqlx(default)]
    open_rows: Option<i64>,
    #[sqlx(default)]
    open_until: Option<i64>,
    #[sqlx(flatten)]
    pruned: PrunedRow,
}

pub(super) async fn read_batch(store: &PgStore, id: BatchId) -> Result<Batch, StoreError> {
    let mut db = store.unit().await?;
    // One statement, so that the files are those of this state.
    let row: Option<BatchRow> = sqlx::query_as(
        "SELECT b.app, b.op, b.kind, b.priority::bigint, b.processor_version, b.processor_digest, b.context, b.attempts_max, b.retry_rule, b.start_at, b.deadline_at,
            b.failures_max, b.failures_percent, b.after_batch, b.after_condition, b.group_name, b.status, b.step, b.round, b.row_count, b.success, b.failed, b.fuel, b.abort_reason, b.mark_error, b.mark_calls,
            CASE WHEN b.step = 'mark' AND b.finish_token IS NULL THEN b.finish_expires_at END AS mark_due_at, b.submitted_at, b.started_at, b.finished_at, f.file_names, f.file_objects, f.file_sizes,
            b.files_pruned_at, b.inputs_pruned_at, b.outcomes_pruned_at, (a.row_count - b.row_count)::bigint AS open_rows, a.expires_at AS open_until
         FROM rowmill.batches b LEFT JOIN rowmill.open_appends a USING (batch_key) CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(name ORDER BY name), '{}') AS file_names, coalesce(array_agg(object ORDER BY name), '{}') AS file_objects,
                coalesce(array_agg(size_bytes ORDER BY name), '{}') AS file_sizes
            FROM rowmill.output_files o WHERE o.batch_key = b.batch_key AND o.object IS NOT NULL AND b.files_pruned_at IS NULL) f
         WHERE b.batch_id = $1",
    ).persistent(store.named())
    .bind(id.uuid())
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("read a batch"))?;
    db.done().await?;
    row.ok_or(StoreError::NotFound(id))?.batch(id)
}

impl BatchRow {
    pub(super) fn batch(self, id: BatchId) -> Result<Batch, StoreError> {
        let status = status_of(&self.status);
        let files = self.file_names.into_iter().zip(self.file_objects).zip(self.file_sizes);
        Ok(Batch {
            id,
            app: decode(self.app),
            op: decode(self.op),
            kind: kind_of(&self.kind),
            processor_version: small(self.processor_version),
            processor_digest: decode(self.processor_digest),
            context: JsonText::trusted(self.context),
            terms: self.terms.terms()?,
            after: after_of(self.after_batch.map(Into::into), self.after_condition.as_deref()),
            group: self.group_name.map(decode),
            status,
            step: step_of(&self.step),
            round: small(self.round),
            counts: counts(status, self.row_count.into(), self.success.into(), self.failed.into()),
            fuel: count(self.fuel),
            abort_reason: self.abort_reason.map(decode).map(worded),
            mark_error: self.mark_error.map(decode),
            mark_calls: small(self.mark_calls),
            mark_due_at: self.mark_due_at.map(Timestamp),
            submitted_at: Timestamp(self.submitted_at),
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            files: files.map(|((name, object), size)| OutputFile { name: decode(name), object: decode(object), size_bytes: count(size) }).collect(),
            pruned: self.pruned.parts(),
            open_append: open_append_of(self.open_rows, self.open_until),
        })
    }
}

async fn open_results(db: &mut PgConnection, named: bool, id: BatchId) -> Result<Opened, StoreError> {
    let select = "SELECT batch_key, status, lines_ascend, inputs_pruned_at IS NULL, outcomes_pruned_at FROM rowmill.batches WHERE batch_id = $1";
    let found: Option<(i64, String, bool, bool, Option<i64>)> =
        sqlx::query_as(select).persistent(named).bind(id.uuid()).fetch_optional(db).await.map_err(failed("look up a batch"))?;
    let (key, status, ascend, with_inputs, pruned_at) = found.ok_or(StoreError::NotFound(id))?;
    ensure_outcomes(id, pruned_at)?;
    Ok(Opened { key, status: status_of(&status), ascend, with_inputs })
}

pub(super) async fn read_results(store: &PgStore, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RecordedOutcome>, StoreError> {
    let mut db = store.unit().await?;
    // The status first: what is read after it is as new or newer, and nothing changes after an abort.
    let Opened { key, status, ascend, with_inputs } = open_results(&mut db, store.named(), id).await?;
    // The sum of the rows before each bounds the page: one row at least. The rows of a page are named before anything is joined to them, and what is joined is looked
    // up row by row (LATERAL … LIMIT 1), so that no plan goes through the rest of the batch for a page, whatever the database thinks of its tables.
    let select = if ascend {
        // Rows are numbered densely.
        "SELECT p.* FROM (
            SELECT a.*, sum(bytes) OVER (ORDER BY row_no) - bytes AS bytes_before FROM (
                SELECT r.row_no::bigint, r.line, r.input, r.rejected, o.failed, o.attempt::bigint, o.fuel, o.output, o.messages, o.log,
                    octet_length(r.input) + coalesce(octet_length(r.rejected), 0) + coalesce(octet_length(o.output), 0) + coalesce(octet_length(o.messages), 0) + coalesce(octet_length(o.log), 0) AS bytes
                FROM rowmill.rows r LEFT JOIN LATERAL (SELECT * FROM rowmill.outcomes o WHERE o.batch_key = $1 AND o.row_no = r.row_no LIMIT 1) o ON true
                WHERE r.batch_key = $1 AND r.row_no > $3 AND r.row_no <= $3 + $4 AND $2 IS NOT NULL
                    AND r.row_no <= (SELECT b.row_count FROM rowmill.batches b WHERE b.batch_key = $1)) a) p
         WHERE p.bytes_before < $5 ORDER BY p.row_no"
    } else {
        "SELECT p.* FROM (
            SELECT a.*, sum(bytes) OVER (ORDER BY line, row_no) - bytes AS bytes_before FROM (
                SELECT r.row_no::bigint, r.line, r.input, r.rejected, o.failed, o.attempt::bigint, o.fuel, o.output, o.messages, o.log,
                    octet_length(r.input) + coalesce(octet_length(r.rejected), 0) + coalesce(octet_length(o.output), 0) + coalesce(octet_length(o.messages), 0) + coalesce(octet_length(o.log), 0) AS bytes
                FROM rowmill.next_lines($1, $2, $3, $4, false) l
                CROSS JOIN LATERAL (SELECT * FROM rowmill.rows r WHERE r.batch_key = $1 AND r.row_no = l.row_no LIMIT 1) r
                LEFT JOIN LATERAL (SELECT * FROM rowmill.outcomes o WHERE o.batch_key = $1 AND o.row_no = l.row_no LIMIT 1) o ON true
                WHERE r.row_no <= (SELECT b.row_count FROM rowmill.batches b WHERE b.batch_key = $1)) a) p
         WHERE p.bytes_before < $5 ORDER BY p.line, p.row_no"
    };
    let (line, row_no) = position(after);
    let rows: Vec<ResultRow> = sqlx::query_as(select)
        .persistent(store.named())
        .bind(key)
        .bind(line)
        .bind(row_no)
        .bind(i64::from(limit))
        .bind(PAGE_BYTES_MAX)
        .fetch_all(&mut *db)
        .await
        .map_err(failed("read results"))?;
    db.done().await?;
    rows.into_iter()
        .map(|row| ResultRow { log: row.log.map(decode), rejected: row.rejected.map(decode), ..row }.recorded(status, with_inputs))
        .collect()
}

/// Where to go on; before the first row when there is no cursor, since rows are numbered from 1 and lines are not negative.
fn position(after: Option<ResultCursor>) -> (i64, i64) {
    after.map_or((-1, 0), |cursor| (i64::from(cursor.line), i64::from(cursor.row_no)))
}

pub(super) async fn list_file_names(store: &PgStore, id: BatchId) -> Result<Vec<String>, StoreError> {
    let mut db = store.unit().await?;
    let names: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT f.name FROM rowmill.batches b LEFT JOIN LATERAL (SELECT * FROM rowmill.output_files f WHERE f.batch_key = b.batch_key) f ON true
         WHERE b.batch_id = $1 ORDER BY f.file_no",
    )
    .persistent(store.named())
    .bind(id.uuid())
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read the names of output files"))?;
    db.done().await?;
    if names.is_empty() { Err(StoreError::NotFound(id)) } else { Ok(names.into_iter().flatten().map(decode).collect()) }
}

pub(super) async fn read_pieces(store: &PgStore, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RowPieces>, StoreError> {
    let mut db = store.unit().await?;
    let Opened { key, ascend, .. } = open_results(&mut db, store.named(), id).await?;
    let (line, row_no) = position(after);
    let page = if ascend {
        sqlx::query_as("SELECT NULL::bigint[], row_nos, files, pieces FROM rowmill.read_pieces($1, $2, $3, $4)").persistent(store.named()).bind(key)
    } else {
        // The sum of the rows before each bounds the page: one row at least.
        sqlx::query_as(
            "SELECT array_agg(p.line), array_agg(p.row_no), string_agg(p.piece_files, ' '), string_agg(p.pieces, E'\\x1a3') FROM (
                SELECT l.line, l.row_no, o.piece_files, o.pieces,
                    sum(octet_length(o.pieces)) OVER (ORDER BY l.line, l.row_no) - octet_length(o.pieces) AS bytes_before
                FROM rowmill.next_lines($1, $5, $2, $3, true) l
                CROSS JOIN LATERAL (SELECT * FROM rowmill.outcomes o WHERE o.batch_key = $1 AND o.row_no = l.row_no LIMIT 1) o
                ORDER BY l.line, l.row_no) p
             WHERE p.bytes_before < $4",
        )
        .persistent(store.named())
        .bind(key)
    };
    let page = page.bind(row_no).bind(i64::from(limit)).bind(PAGE_BYTES_MAX);
    let page = if ascend { page } else { page.bind(line) };
    let page: Option<PiecesPage> = page.fetch_optional(&mut *db).await.map_err(failed("read pieces of output files"))?;
    db.done().await?;
    let Some((lines, Some(row_nos), Some(files), Some(pieces))) = page else { return Ok(Vec::new()) };
    let lines = lines.unwrap_or_else(|| vec![0; row_nos.len()]);
    let rows = lines.into_iter().zip(row_nos).zip(split_pieces(&files, &pieces));
    Ok(rows.map(|((line, row_no), pieces)| RowPieces { at: ResultCursor { line: small(line), row_no: small(row_no) }, pieces }).collect())
}

/// Lines (none where rows are in their order), rows, and their files and pieces behind each other.
type PiecesPage = (Option<Vec<i64>>, Option<Vec<i32>>, Option<String>, Option<String>);

pub(super) async fn count_dropped_logs(store: &PgStore, id: BatchId) -> Result<u64, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<i64> = sqlx::query_scalar("SELECT logs_dropped FROM rowmill.batches WHERE batch_id = $1")
        .persistent(store.named())
        .bind(id.uuid())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("count dropped logs"))?;
    db.done().await?;
    found.first().map(|dropped| count(*dropped)).ok_or(StoreError::NotFound(id))
}

pub(super) async fn read_mark_calls(store: &PgStore, id: BatchId, round: u32, after: u32, limit: u32) -> Result<Vec<MarkCall>, StoreError> {
    let mut db = store.unit().await?;
    let Opened { key, .. } = open_results(&mut db, store.named(), id).await?;
    // The sum of the calls before each bounds the page: one call at least.
    let rows: Vec<MarkCallRow> = sqlx::query_as(
        "SELECT c.call, c.ended_at, c.error, c.log, c.log_dropped FROM (
            SELECT m.call::bigint, m.ended_at, m.error, m.log, m.log_dropped, sum(m.bytes) OVER (ORDER BY m.call) - m.bytes AS bytes_before FROM (
                SELECT *, coalesce(octet_length(error), 0) + coalesce(octet_length(log), 0) AS bytes
                FROM rowmill.mark_calls WHERE batch_key = $1 AND round = $2 AND call > $3 ORDER BY call LIMIT $4) m) c
         WHERE c.bytes_before < $5 ORDER BY c.call",
    )
    .persistent(store.named())
    .bind(key)
    .bind(i64::from(round))
    .bind(i64::from(after))
    .bind(i64::from(limit))
    .bind(PAGE_BYTES_MAX)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read calls of mark-done"))?;
    db.done().await?;
    let decoded = |row: MarkCallRow| MarkCallRow { error: row.error.map(decode), log: row.log.map(decode), ..row };
    Ok(rows.into_iter().map(decoded).map(MarkCallRow::mark_call).collect())
}
