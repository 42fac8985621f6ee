//! Outcomes are appended, under the token of a lease that is still held. How is said in migrations/postgres/0005_records.sql.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::connect::PgStore;
use super::text::{FIRST_FILE, PIECE_END, decode, encode};
use super::{bytes, micros, millis, refused};
use crate::model::{BatchStatus, FinishLease, LeaseKey, Meter, Piece, RowResult, RowStatus, Verdict};
use crate::store::columns::{counts, failed, signed, small, step_of};
use crate::store::quota::fit_logs;
use crate::store::rules::{SMOOTHING, check_verdicts, file_names, not_the_next_row, pieces};
use crate::store::{FILES_PER_BATCH_MAX, LeaseOwner, Recorded, StoreError};

/// What the function returns: rows, success, failed, whether these were the last, the batch and its step then, the token to finish it, and whether it
/// was aborted for its failures.
type Counted = (i32, i32, i32, bool, Uuid, String, Option<i64>, bool, i32);

/// How often logs are made to fit into what is left while others use that up; then they are dropped.
const LOG_TRIES: u32 = 3;

/// The arguments of `rowmill.record_results`, as columns.
#[derive(Default)]
struct Columns<'a> {
    all: Vec<i32>,
    fuel: u64,
    /// None when all results are final.
    rows: Option<Vec<i32>>,
    failed: Vec<bool>,
    attempt: i32,
    /// Empty when all have the same.
    attempts: Vec<i32>,
    fuels: Vec<i64>,
    outputs: Vec<Option<&'a str>>,
    messages: Vec<Option<String>>,
    logs: Vec<Option<Cow<'a, str>>>,
    again: Vec<i32>,
    again_attempts: Vec<i32>,
    again_millis: Vec<i64>,
    piece_files: Vec<Option<String>>,
    pieces: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Columns<'a> {
    fn of(results: &'a [RowResult], names: &[&str]) -> Columns<'a> {
        let marks: BTreeMap<&str, char> = names.iter().copied().zip(FIRST_FILE..).collect();
        let is_final = |result: &&RowResult| matches!(result.verdict, Verdict::Final { .. });
        let finals = results.iter().filter(is_final);
        let attempt = finals.clone().next().map_or(1, |result| result.attempt);
        let mut columns = Columns {
            all: results.iter().map(|result| int(result.row_no)).collect(),
            fuel: results.iter().fold(0, |sum, result| sum.saturating_add(result.fuel)),
            rows: (!results.iter().all(|result| is_final(&result))).then(|| finals.clone().map(|result| int(result.row_no)).collect()),
            attempt: int(attempt),
            attempts: if finals.clone().all(|result| result.attempt == attempt) {
                Vec::new()
            } else {
                finals.clone().map(|result| int(result.attempt)).collect()
            },
            fuels: finals.map(|result| signed(result.fuel)).collect(),
            ..Columns::default()
        };
        for result in results {
            match &result.verdict {
                Verdict::Retry { after } => {
                    columns.again.push(int(result.row_no));
                    columns.again_attempts.push(int(result.attempt.saturating_add(1)));
                    columns.again_millis.push(millis(*after));
                }
                Verdict::Final { status, output, messages, .. } => {
                    columns.failed.push(*status == RowStatus::Failed);
                    columns.outputs.push(output.as_deref());
                    let json = || serde_json::to_string(messages).expect("messages of numbers and strings are always JSON");
                    columns.messages.push((!messages.is_empty()).then(json));
                    columns.logs.push(result.log.as_deref().map(encode));
                    let files: String = pieces(result).map(|piece| marks[piece.file.as_str()]).collect();
                    columns.piece_files.push((!files.is_empty()).then_some(files));
                    columns.pieces.push(join_pieces(pieces(result)));
                }
            }
        }
        // What is not there for any row is not sent.
        clear_if_none(&mut columns.messages);
        clear_if_none(&mut columns.logs);
        clear_if_none(&mut columns.piece_files);
        clear_if_none(&mut columns.pieces);
        columns
    }
}

impl Columns<'_> {
    /// Leaves out the logs of these results.
    fn drop_logs(&mut self, results: &[RowResult], dropped: &[usize]) {
        if dropped.is_empty() {
            return;
        }
        let finals = results.iter().enumerate().filter(|(_, result)| matches!(result.verdict, Verdict::Final { .. }));
        for ((at, _), log) in finals.zip(&mut self.logs) {
            if dropped.binary_search(&at).is_ok() {
                *log = None;
            }
        }
        clear_if_none(&mut self.logs);
    }
}

fn clear_if_none<T>(column: &mut Vec<Option<T>>) {
    if column.iter().all(Option::is_none) {
        column.clear();
    }
}

/// The pieces of a row as one text; [`super::text::split_pieces`] takes it apart.
fn join_pieces<'a>(mut pieces: impl Iterator<Item = &'a Piece>) -> Option<Cow<'a, str>> {
    let mut joined = encode(&pieces.next()?.text);
    for piece in pieces {
        let joined = joined.to_mut();
        joined.push_str(PIECE_END);
        joined.push_str(&encode(&piece.text));
    }
    Some(joined)
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

pub(super) async fn record_results(
    store: &PgStore,
    lease: LeaseKey,
    results: &[RowResult],
    took: Duration,
    finisher: Option<LeaseOwner<'_>>,
) -> Result<Recorded, StoreError> {
    check_verdicts(results)?;
    let mut left = u64::MAX;
    for _ in 0..LOG_TRIES {
        match record_with_logs(store, lease, results, took, finisher, left).await? {
            Tried::Recorded(recorded) => return Ok(recorded),
            // What is left becomes less when other records use it.
            Tried::LogsTooLarge { left: found } => left = found.min(left),
        }
    }
    match record_with_logs(store, lease, results, took, finisher, 0).await? {
        Tried::Recorded(recorded) => Ok(recorded),
        Tried::LogsTooLarge { .. } => unreachable!("no logs are recorded"),
    }
}

enum Tried {
    Recorded(Recorded),
    LogsTooLarge { left: u64 },
}

/// Records with those logs that fit into so many bytes.
async fn record_with_logs(
    store: &PgStore,
    lease: LeaseKey,
    results: &[RowResult],
    took: Duration,
    finisher: Option<LeaseOwner<'_>>,
    log_bytes_left: u64,
) -> Result<Tried, StoreError> {
    let names = file_names(results);
    let mut columns = Columns::of(results, &names);
    let logs = fit_logs(results, log_bytes_left);
    columns.drop_logs(results, &logs.dropped);
    let (meter, histogram) = Meter::of(results, 0);
    let sums = [meter.fuel, meter.retries, meter.retry_fuel, meter.input_bytes, meter.output_bytes, meter.fuel_max].map(signed).to_vec();
    let codes = (!meter.codes.is_empty()).then(|| serde_json::to_string(&meter.codes).expect("texts and numbers are always JSON"));
    let (buckets, bucket_rows): (Vec<i32>, Vec<i64>) = histogram.0.iter().map(|(bucket, rows)| (i32::from(*bucket), signed(*rows))).unzip();
    let (quota, most) = (&store.bounds.quota, &store.bounds.quota_max);
    let bounds = [quota.batch_log_bytes, most.batch_log_bytes, quota.batch_file_bytes, most.batch_file_bytes].map(signed).to_vec();
    let encoded: Vec<Cow<'_, str>> = names.iter().copied().map(encode).collect();
    let piece_bytes_max = columns.pieces.iter().flatten().map(|pieces| pieces.len()).max().map_or(0, bytes);
    let mut db = store.unit().await?;
    let recorded: Result<Vec<Counted>, sqlx::Error> = sqlx::query_as(
        "SELECT rows, successes, failures, ended, batch, next_step, finisher_token, stopped, batch_round
         FROM rowmill.record_results($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
            $26, $27, $28, $29, $30, $31, $32, $33)",
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
    .bind(columns.attempt)
    .bind(columns.attempts)
    .bind(columns.fuels)
    .bind(columns.outputs)
    .bind(columns.messages)
    .bind(columns.logs)
    .bind(columns.again)
    .bind(columns.again_attempts)
    .bind(columns.again_millis)
    .bind(encoded)
    .bind(columns.piece_files)
    .bind(columns.pieces)
    .bind(piece_bytes_max)
    .bind(i32::try_from(FILES_PER_BATCH_MAX).unwrap_or(i32::MAX))
    .bind(SMOOTHING)
    .bind(finisher.map(|finisher| finisher.worker))
    .bind(finisher.map(|finisher| millis(finisher.ttl)))
    .bind(signed(logs.kept_bytes))
    .bind(signed(logs.dropped.len() as u64))
    .bind(signed(meter.file_bytes))
    .bind(bounds)
    .bind(sums)
    .bind(codes)
    .bind(buckets)
    .bind(bucket_rows)
    .fetch_all(&mut *db)
    .await;
    match recorded {
        Ok(recorded) => {
            db.done().await?;
            let (rows, success, failures, last, batch, step, token, aborted, round) = recorded.into_iter().next().ok_or(StoreError::LeaseLost)?;
            let finish = token.map(|token| FinishLease { batch: batch.into(), step: step_of(&step), token, attempt: 1 });
            let status = if aborted { BatchStatus::Aborted } else { BatchStatus::Inprog };
            Ok(Tried::Recorded(Recorded {
                round: small(round),
                counts: counts(status, rows.into(), success.into(), failures.into()),
                aborted,
                last,
                finish,
            }))
        }
        Err(error) => {
            let Some(refusal) = Refusal::of(&error) else { return Err(failed("record results")(error)) };
            db.undone().await;
            Err(match refusal {
                Refusal::Lost => StoreError::LeaseLost,
                Refusal::NotNext { row, wanted } => not_the_next_row(row, wanted),
                Refusal::TooManyFiles => StoreError::TooManyFiles { allowed: allowed_files(store, lease, &names).await? },
                Refusal::LogsTooLarge { left } => return Ok(Tried::LogsTooLarge { left }),
                Refusal::FilesTooLarge { left, limit } => StoreError::FilesTooLarge { left, limit },
            })
        }
    }
}

/// Why the function refused, by its own codes.
enum Refusal {
    Lost,
    NotNext { row: String, wanted: Option<String> },
    TooManyFiles,
    LogsTooLarge { left: u64 },
    FilesTooLarge { left: u64, limit: u64 },
}

impl Refusal {
    fn of(error: &sqlx::Error) -> Option<Refusal> {
        let (code, detail) = refused(error)?;
        Some(match code {
            "RM001" => Refusal::Lost,
            "RM002" => {
                let (row, wanted) = detail.split_once(' ')?;
                Refusal::NotNext { row: row.to_owned(), wanted: (!wanted.is_empty()).then(|| wanted.to_owned()) }
            }
            "RM003" => Refusal::TooManyFiles,
            "RM007" => Refusal::LogsTooLarge { left: detail.parse().ok()? },
            "RM008" => {
                let (left, limit) = detail.split_once(' ')?;
                Refusal::FilesTooLarge { left: left.parse().ok()?, limit: limit.parse().ok()? }
            }
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
