//! Failed rows of an app.

use sqlx::SqliteConnection;

use super::{PAGE_BYTES_MAX, SqliteStore, length};
use crate::model::{BatchStatus, FailedPage, FailedPosition, FailedRow, FailedRows, canonical_op};
use crate::store::StoreError;
use crate::store::columns::{ResultRow, count, failed, small};
use crate::store::rules::{FAILED_LOOKS, code_marks, failed_from};

/// A batch of which a row ever failed.
#[derive(sqlx::FromRow)]
struct FailedBatch {
    batch_key: i64,
    batch_id: String,
    op: String,
    round: i64,
    with_inputs: bool,
    /// Rows of it may be among those that are looked for.
    wanted: bool,
}

/// A failed row that was looked at.
#[derive(sqlx::FromRow)]
struct LookedRow {
    #[sqlx(flatten)]
    row: ResultRow,
    wanted: bool,
}

pub(super) async fn list_failed(store: &SqliteStore, of: &FailedRows, after: Option<FailedPosition>, limit: u32) -> Result<FailedPage, StoreError> {
    let listing = failed("list failed rows");
    let (key, row_no) = failed_from(after);
    let codes = serde_json::to_string(&code_marks(&of.codes)).expect("strings are always JSON");
    let mut looks = FAILED_LOOKS;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut db = store.readers.begin().await.map_err(listing)?;
    let batches: Vec<FailedBatch> = sqlx::query_as(
        "SELECT batch_key, batch_id, op, round, inputs_pruned_at IS NULL AS with_inputs,
            failed > 0 AND outcomes_pruned_at IS NULL AND (?2 IS NULL OR op = ?2) AND (?3 IS NULL OR failure_at > ?3 - 1000) AS wanted
         FROM batches WHERE app = ?1 AND failure_at IS NOT NULL AND batch_key <= ?4 ORDER BY batch_key DESC LIMIT ?5",
    )
    .bind(&of.app)
    .bind(of.op.as_ref().map(|op| canonical_op(op)))
    .bind(of.since.map(|since| since.0))
    .bind(key)
    .bind(looks + 1)
    .fetch_all(&mut *db)
    .await
    .map_err(listing)?;
    for batch in batches {
        if looks <= 0 {
            return Ok(FailedPage { rows, next: Some(FailedPosition { batch: count(batch.batch_key), row_no: 0 }) });
        }
        looks -= 1;
        if !batch.wanted {
            continue;
        }
        let from = if batch.batch_key == key { row_no } else { 0 };
        let mut last = from;
        loop {
            let found = look(&mut db, batch.batch_key, last, &codes, looks.clamp(1, PAGE_ROWS)).await?;
            if found.is_empty() {
                break;
            }
            for LookedRow { row, wanted } in found {
                looks -= 1;
                last = row.row_no;
                let position = FailedPosition { batch: count(batch.batch_key), row_no: small(row.row_no) };
                if wanted {
                    bytes += row.input.len() + length(row.output.as_ref()) + length(row.messages.as_ref()) + length(row.log.as_ref());
                    rows.push(FailedRow {
                        position,
                        batch: batch.batch_id.parse().map_err(failed("read a batch's id"))?,
                        op: batch.op.clone(),
                        round: small(batch.round),
                        row: row.recorded(BatchStatus::Failed, batch.with_inputs)?,
                    });
                }
                if rows.len() >= limit as usize || looks <= 0 || bytes >= PAGE_BYTES_MAX {
                    return Ok(FailedPage { rows, next: Some(position) });
                }
            }
        }
    }
    Ok(FailedPage { rows, next: None })
}

/// Rows that are looked at in one statement: those that are not wanted come without their texts, the others may be large.
const PAGE_ROWS: i64 = 100;

async fn look(db: &mut SqliteConnection, key: i64, after: i64, codes: &str, limit: i64) -> Result<Vec<LookedRow>, StoreError> {
    sqlx::query_as(
        "SELECT l.row_no, l.wanted, r.line, iif(l.wanted, r.input, '') AS input, l.failed, l.attempt, l.fuel, iif(l.wanted, l.output, NULL) AS output,
            iif(l.wanted, l.messages, NULL) AS messages, iif(l.wanted, l.log, NULL) AS log, iif(l.wanted, r.rejected, NULL) AS rejected
         FROM (SELECT *, ?3 = '[]' OR EXISTS (SELECT 1 FROM json_each(?3) c WHERE instr(messages, c.value) > 0) AS wanted
            FROM outcomes WHERE batch_key = ?1 AND failed = 1 AND row_no > ?2 ORDER BY row_no LIMIT ?4) l
         JOIN rows r ON r.batch_key = ?1 AND r.row_no = l.row_no ORDER BY l.row_no",
    )
    .bind(key)
    .bind(after)
    .bind(codes)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(failed("list failed rows"))
}
