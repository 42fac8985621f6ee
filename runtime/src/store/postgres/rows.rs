//! Rows are written.

use std::borrow::Cow;

use sqlx::PgConnection;

use super::bytes;
use super::text::{INPUT_END, encode};
use crate::store::StoreError;
use crate::store::columns::{count, failed};
use crate::store::lines::{LinedRow, line_twice};

/// Rows of one statement, at most, and their bytes. Arrays need no protocol of their own, as COPY does.
const ROWS_PER_INSERT: usize = 10_000;
const BYTES_PER_INSERT: usize = 8 << 20;

pub(super) fn check_inputs(rows: &[LinedRow]) -> Result<(), StoreError> {
    match rows.iter().position(|row| row.input.as_str().contains(INPUT_END)) {
        Some(wrong) => Err(StoreError::Invalid(format!("the input of row {} of this request is no JSON: it holds a control character", wrong + 1))),
        None => Ok(()),
    }
}

pub(super) fn input_bytes_max(rows: &[LinedRow]) -> i32 {
    rows.iter().map(|row| row.input.as_str().len()).max().map_or(0, bytes)
}

/// Keeps the order of lines, of the rows after this one.
pub(super) async fn sort_lines(db: &mut PgConnection, named: bool, key: i64, after: i64, total: i64) -> Result<(), StoreError> {
    let sorted = sqlx::query(
        "INSERT INTO rowmill.line_order SELECT batch_key, line, row_no FROM rowmill.rows WHERE batch_key = $1 AND row_no > $2
         ON CONFLICT DO NOTHING",
    )
    .persistent(named)
    .bind(key)
    .bind(after)
    .execute(&mut *db)
    .await
    .map_err(failed("sort lines"))?;
    if sorted.rows_affected() == count(total - after) {
        return Ok(());
    }
    let twice: Option<i64> = sqlx::query_scalar(
        "SELECT r.line FROM rowmill.rows r LEFT JOIN rowmill.line_order l USING (batch_key, line, row_no)
         WHERE r.batch_key = $1 AND r.row_no > $2 AND l.row_no IS NULL ORDER BY r.row_no LIMIT 1",
    )
    .persistent(named)
    .bind(key)
    .bind(after)
    .fetch_optional(db)
    .await
    .map_err(failed("find a line that comes twice"))?;
    Err(line_twice(twice.unwrap_or_default()))
}

/// Writes rows behind so many.
pub(super) async fn insert_all(db: &mut PgConnection, named: bool, key: i64, row_count: usize, mut rows: &[LinedRow]) -> Result<(), StoreError> {
    let mut row_no = i32::try_from(row_count).unwrap_or(i32::MAX);
    while !rows.is_empty() {
        let (chunk, rest) = rows.split_at(chunk_rows(rows));
        let columns = Columns::of(chunk);
        sqlx::query(
            "INSERT INTO rowmill.rows (batch_key, line, row_no, input, rejected)
             SELECT $1, u.line, $2 + u.at::int, u.input, u.rejected FROM ROWS FROM (unnest($3::bigint[]), unnest($4::text[]), unnest($5::text[]))
             WITH ORDINALITY u (line, input, rejected, at)",
        )
        .persistent(named)
        .bind(key)
        .bind(row_no)
        .bind(columns.lines)
        .bind(columns.inputs)
        .bind(columns.rejected)
        .execute(&mut *db)
        .await
        .map_err(failed("write rows"))?;
        row_no += i32::try_from(chunk.len()).unwrap_or(i32::MAX);
        rows = rest;
    }
    Ok(())
}

/// Rows as columns.
pub(super) struct Columns<'a> {
    pub lines: Vec<i64>,
    pub inputs: Vec<&'a str>,
    /// Empty when none was rejected, as nearly always.
    pub rejected: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Columns<'a> {
    pub fn of(rows: &'a [LinedRow]) -> Columns<'a> {
        let any_rejected = rows.iter().any(|row| row.rejected.is_some());
        Columns {
            lines: rows.iter().map(|row| row.line.into()).collect(),
            inputs: rows.iter().map(|row| row.input.as_str()).collect(),
            rejected: if any_rejected { rows.iter().map(|row| row.rejected.as_deref().map(encode)).collect() } else { Vec::new() },
        }
    }
}

/// Rows for the next statement: one at least, if there is one.
pub(super) fn chunk_rows(rows: &[LinedRow]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&LinedRow| {
        bytes += row.input.as_str().len();
        bytes <= BYTES_PER_INSERT
    };
    rows.iter().take(ROWS_PER_INSERT).take_while(fits).count().max(1).min(rows.len())
}
