//! Outcomes are appended, under the token of a lease that is still held. How is said in migrations/postgres/0002_functions.sql.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use super::connect::PgStore;
use super::text::{decode, encode};
use super::{micros, millis};
use crate::model::{BatchCounts, LeaseKey, RowResult, RowStatus, Verdict};
use crate::store::columns::{count, failed, signed};
use crate::store::rules::{SMOOTHING, check_verdicts, file_names, not_the_next_row, pieces};
use crate::store::{FILES_PER_BATCH_MAX, Recorded, StoreError};

/// What the function returns: rows, success, failed, and whether these were the last.
type Counted = (i32, i32, i32, bool);

/// The arguments of `rowmill.record_results`, as columns.
#[derive(Default)]
struct Columns<'a> {
    all: Vec<i32>,
    fuel: u64,
    rows: Vec<i32>,
    failed: Vec<bool>,
    attempts: Vec<i32>,
    fuels: Vec<i64>,
    outputs: Vec<Option<&'a str>>,
    messages: Vec<Option<String>>,
    logs: Vec<Option<Cow<'a, str>>>,
    again: Vec<i32>,
    again_attempts: Vec<i32>,
    again_millis: Vec<i64>,
    piece_rows: Vec<i32>,
    piece_nos: Vec<i32>,
    piece_files: Vec<i32>,
    pieces: Vec<Cow<'a, str>>,
}

impl<'a> Columns<'a> {
    fn of(results: &'a [RowResult], names: &[&str]) -> Columns<'a> {
        // Arrays are numbered from 1.
        let numbers: HashMap<&str, i32> = names.iter().copied().zip(1..).collect();
        let mut columns = Columns::default();
        for result in results {
            let row_no = int(result.row_no);
            columns.all.push(row_no);
            columns.fuel = columns.fuel.saturating_add(result.fuel);
            match &result.verdict {
                Verdict::Retry { after } => {
                    columns.again.push(row_no);
                    columns.again_attempts.push(int(result.attempt.saturating_add(1)));
                    columns.again_millis.push(millis(*after));
                }
                Verdict::Final { status, output, messages, .. } => {
                    columns.rows.push(row_no);
                    columns.failed.push(*status == RowStatus::Failed);
                    columns.attempts.push(int(result.attempt));
                    columns.fuels.push(signed(result.fuel));
                    columns.outputs.push(output.as_deref());
                    let json = || serde_json::to_string(messages).expect("messages of numbers and strings are always JSON");
                    columns.messages.push((!messages.is_empty()).then(json));
                    columns.logs.push(result.log.as_deref().map(encode));
                }
            }
            for (piece, piece_no) in pieces(result).iter().zip(0..) {
                columns.piece_rows.push(row_no);
                columns.piece_nos.push(piece_no);
                columns.piece_files.push(numbers[piece.file.as_str()]);
                columns.pieces.push(encode(&piece.text));
            }
        }
        columns
    }
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

pub(super) async fn record_results(store: &PgStore, lease: LeaseKey, results: &[RowResult], took: Duration) -> Result<Recorded, StoreError> {
    check_verdicts(results)?;
    let names = file_names(results);
    let columns = Columns::of(results, &names);
    let encoded: Vec<Cow<'_, str>> = names.iter().copied().map(encode).collect();
    let mut db = store.unit().await?;
    let recorded: Result<Vec<Counted>, sqlx::Error> = sqlx::query_as(
        "SELECT rows, successes, failures, ended
         FROM rowmill.record_results($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)",
    )
    .persistent(store.named())
    .bind(lease.id)
    .bind(lease.token)
    .bind(store.now())
    .bind(micros(took))
    .bind(signed(columns.fuel))
    .bind(columns.all)
    .bind(columns.rows)
    .bind(columns.failed)
    .bind(columns.attempts)
    .bind(columns.fuels)
    .bind(columns.outputs)
    .bind(columns.messages)
    .bind(columns.logs)
    .bind(columns.again)
    .bind(columns.again_attempts)
    .bind(columns.again_millis)
    .bind(encoded)
    .bind(columns.piece_rows)
    .bind(columns.piece_nos)
    .bind(columns.piece_files)
    .bind(columns.pieces)
    .bind(i32::try_from(FILES_PER_BATCH_MAX).unwrap_or(i32::MAX))
    .bind(SMOOTHING)
    .fetch_all(&mut *db)
    .await;
    match recorded {
        Ok(recorded) => {
            db.done().await?;
            let (rows, success, failures, last) = recorded[0];
            let of = |value: i32| count(value.into());
            Ok(Recorded { counts: BatchCounts { rows: of(rows), success: of(success), failed: of(failures), aborted: 0 }, last })
        }
        Err(error) => {
            let Some(refusal) = Refusal::of(&error) else { return Err(failed("record results")(error)) };
            db.undone().await;
            Err(match refusal {
                Refusal::Lost => StoreError::LeaseLost,
                Refusal::NotNext { row, wanted } => not_the_next_row(row, wanted),
                Refusal::TooManyFiles => StoreError::TooManyFiles { allowed: allowed_files(store, lease, &names).await? },
            })
        }
    }
}

/// Why the function refused, by its own codes.
enum Refusal {
    Lost,
    NotNext { row: String, wanted: Option<String> },
    TooManyFiles,
}

impl Refusal {
    fn of(error: &sqlx::Error) -> Option<Refusal> {
        let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
        Some(match error.code() {
            "RM001" => Refusal::Lost,
            "RM002" => {
                let (row, wanted) = error.detail().unwrap_or_default().split_once(' ')?;
                Refusal::NotNext { row: row.to_owned(), wanted: (!wanted.is_empty()).then(|| wanted.to_owned()) }
            }
            "RM003" => Refusal::TooManyFiles,
            _ => return None,
        })
    }
}

/// The names that the batch has, and those of this record that still fit.
async fn allowed_files(store: &PgStore, lease: LeaseKey, names: &[&str]) -> Result<Vec<String>, StoreError> {
    let mut db = store.unit().await?;
    let known: Vec<String> =
        sqlx::query_scalar("SELECT f.name FROM rowmill.leases l JOIN rowmill.output_files f USING (batch_key) WHERE l.lease_id = $1")
            .persistent(store.named())
            .bind(lease.id)
            .fetch_all(&mut *db)
            .await
            .map_err(failed("read the names of output files"))?;
    db.done().await?;
    let mut allowed: Vec<String> = known.into_iter().map(decode).collect();
    for name in names {
        if allowed.len() < FILES_PER_BATCH_MAX && !allowed.iter().any(|known| known == name) {
            allowed.push((*name).to_owned());
        }
    }
    Ok(allowed)
}
