//! Failed rows of an app. How they are looked for is said in migrations/postgres/0051_failed_rows.sql.

use sqlx::FromRow;
use uuid::Uuid;

use super::PAGE_BYTES_MAX;
use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{BatchStatus, FailedPage, FailedPosition, FailedRow, FailedRows, canonical_op};
use crate::store::StoreError;
use crate::store::columns::{ResultRow, count, failed, small};
use crate::store::rules::{FAILED_LOOKS, code_marks, failed_from};

#[derive(FromRow)]
struct FoundRow {
    batch_key: i64,
    /// None for the place to go on from.
    batch_id: Option<Uuid>,
    op: Option<String>,
    round: Option<i32>,
    with_inputs: bool,
    #[sqlx(flatten)]
    row: ResultRow,
}

pub(super) async fn list_failed(store: &PgStore, of: &FailedRows, after: Option<FailedPosition>, limit: u32) -> Result<FailedPage, StoreError> {
    let (key, row_no) = failed_from(after);
    let mut db = store.unit().await?;
    let select = "SELECT f.*, r.rejected FROM rowmill.list_failed($1, $2, $3, $4, $5, $6, $7, $8, $9) WITH ORDINALITY f
        LEFT JOIN LATERAL (SELECT r.rejected FROM rowmill.rows r WHERE r.batch_key = f.batch_key AND r.row_no = f.row_no LIMIT 1) r ON true
        ORDER BY f.ordinality";
    let found: Vec<FoundRow> = sqlx::query_as(select)
        .persistent(store.named())
        .bind(encode(&of.app))
        .bind(of.op.as_ref().map(|op| encode(&canonical_op(op)).into_owned()))
        .bind(code_marks(&of.codes))
        .bind(of.since.map(|since| since.0))
        .bind(key)
        .bind(i32::try_from(row_no).unwrap_or(i32::MAX))
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .bind(i32::try_from(FAILED_LOOKS).unwrap_or(i32::MAX))
        .bind(PAGE_BYTES_MAX)
        .fetch_all(&mut *db)
        .await
        .map_err(failed("list failed rows"))?;
    db.done().await?;
    let mut page = FailedPage { rows: Vec::new(), next: None };
    for FoundRow { batch_key, batch_id, op, round, with_inputs, row } in found {
        let position = FailedPosition { batch: count(batch_key), row_no: small(row.row_no) };
        let Some(batch) = batch_id else {
            page.next = Some(position);
            break;
        };
        let row = ResultRow { log: row.log.map(decode), rejected: row.rejected.map(decode), ..row }.recorded(BatchStatus::Failed, with_inputs)?;
        page.rows.push(FailedRow { position, batch: batch.into(), op: decode(op.unwrap_or_default()), round: small(round.unwrap_or(1)), row });
    }
    Ok(page)
}
