//! A batch that has ended is run again, in a new round (migrations/postgres/0012_rounds.sql). What the rounds before came to stays.

use uuid::Uuid;

use super::connect::PgStore;
use super::text::decode;
use super::{PAGE_BYTES_MAX, refused};
use crate::model::{AbortReason, BatchId, OutputFile, PastCursor, PastOutcome, PastRound, Retried, RetryRows};
use crate::store::columns::{PastOutcomeRow, PastRoundRow, count, failed, small, status_of};
use crate::store::rules::{RetryRefusal, WAITS_MAX, code_marks, cursor_of, lapses};
use crate::store::{Store, StoreError};

/// The answer of a retry: why not, the reason of the abort that would come again, the status, the round, rows, and the
/// batches that wait again.
type RetriedRow = (Option<String>, Option<String>, String, Option<i32>, Option<i64>, Option<Vec<Uuid>>);

pub(super) async fn retry_batch(store: &PgStore, id: BatchId, rows: &RetryRows) -> Result<Retried, StoreError> {
    let mut db = store.unit().await?;
    let found: Result<Vec<RetriedRow>, sqlx::Error> =
        sqlx::query_as("SELECT refusal, reason, status, round, rows, waits FROM rowmill.retry_batch($1, $2, $3, $4, $5, $6)")
            .persistent(store.named())
            .bind(id.uuid())
            .bind(code_marks(&rows.codes))
            .bind(rows.aborted)
            .bind(rows.deadline_at.map(|at| at.0))
            .bind(store.now())
            .bind(i32::try_from(WAITS_MAX).unwrap_or(i32::MAX))
            .fetch_all(&mut *db)
            .await;
    let found = match found {
        Ok(found) => found,
        Err(error) if matches!(refused(&error), Some(("RM005", _))) => {
            db.undone().await;
            let status = store.read_batch(id).await?.status;
            return Err(RetryRefusal::Chained.error(id, status, rows));
        }
        Err(error) => return Err(failed("retry a batch")(error)),
    };
    db.done().await?;
    let (refusal, reason, status, round, run, waits) = found.into_iter().next().ok_or(StoreError::NotFound(id))?;
    match (refusal.as_deref().map(RetryRefusal::of), reason) {
        (Some(_), Some(reason)) => Err(lapses(id, &AbortReason::of_stored(decode(reason)))),
        (Some(refusal), None) => Err(refusal.error(id, status_of(&status), rows)),
        (None, _) => Ok(Retried {
            round: small(round.unwrap_or_default()),
            rows: count(run.unwrap_or_default()),
            waits: waits.unwrap_or_default().into_iter().map(Into::into).collect(),
        }),
    }
}

pub(super) async fn list_rounds(store: &PgStore, id: BatchId, after: u32, limit: u32) -> Result<Vec<PastRound>, StoreError> {
    let mut db = store.unit().await?;
    let key = find_key(&mut db, store.named(), id).await?;
    let rows: Vec<(PastRoundRow, FileColumns)> = sqlx::query_as::<_, RoundRow>(
        "SELECT p.round::bigint, p.status, p.row_count::bigint, p.success::bigint, p.failed::bigint, p.abort_reason, p.mark_error, p.mark_calls::bigint, p.started_at, p.finished_at,
            f.names, f.objects, f.sizes
         FROM rowmill.past_rounds p CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(name ORDER BY name), '{}') AS names, coalesce(array_agg(object ORDER BY name), '{}') AS objects,
                coalesce(array_agg(size_bytes ORDER BY name), '{}') AS sizes
            FROM rowmill.past_files f WHERE f.batch_key = p.batch_key AND f.round = p.round) f
         WHERE p.batch_key = $1 AND p.round > $2 ORDER BY p.round LIMIT $3",
    )
    .persistent(store.named())
    .bind(key)
    .bind(i64::from(after))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read the rounds of a batch"))?
    .into_iter()
    .map(|row| (row.round, row.files))
    .collect();
    db.done().await?;
    let rounds = rows.into_iter().map(|(row, files)| {
        let row = PastRoundRow { abort_reason: row.abort_reason.map(decode), mark_error: row.mark_error.map(decode), ..row };
        row.past_round(files.files())
    });
    Ok(rounds.collect())
}

#[derive(sqlx::FromRow)]
struct RoundRow {
    #[sqlx(flatten)]
    round: PastRoundRow,
    #[sqlx(flatten)]
    files: FileColumns,
}

#[derive(sqlx::FromRow)]
struct FileColumns {
    names: Vec<String>,
    objects: Vec<String>,
    sizes: Vec<i64>,
}

impl FileColumns {
    fn files(self) -> Vec<OutputFile> {
        let files = self.names.into_iter().zip(self.objects).zip(self.sizes);
        files.map(|((name, object), size)| OutputFile { name: decode(name), object: decode(object), size_bytes: count(size) }).collect()
    }
}

pub(super) async fn read_past_outcomes(store: &PgStore, id: BatchId, after: Option<PastCursor>, limit: u32) -> Result<Vec<PastOutcome>, StoreError> {
    let mut db = store.unit().await?;
    let key = find_key(&mut db, store.named(), id).await?;
    let (row_no, round) = cursor_of(after);
    // The sum of the outcomes before each bounds the page: one at least.
    let rows: Vec<PastOutcomeRow> = sqlx::query_as(
        "SELECT p.* FROM (
            SELECT a.*, sum(bytes) OVER (ORDER BY row_no, round) - bytes AS bytes_before FROM (
                SELECT p.round::bigint, p.row_no::bigint, w.line, p.attempt::bigint, p.fuel, p.output, p.messages, p.log,
                    coalesce(octet_length(p.output), 0) + coalesce(octet_length(p.messages), 0) + coalesce(octet_length(p.log), 0) AS bytes
                FROM rowmill.past_outcomes p
                CROSS JOIN LATERAL (SELECT w.line FROM rowmill.rows w WHERE w.batch_key = $1 AND w.row_no = p.row_no LIMIT 1) w
                WHERE p.batch_key = $1 AND (p.row_no, p.round) > ($2, $3) ORDER BY p.row_no, p.round LIMIT $4) a) p
         WHERE p.bytes_before < $5 ORDER BY p.row_no, p.round",
    )
    .persistent(store.named())
    .bind(key)
    .bind(row_no)
    .bind(round)
    .bind(i64::from(limit))
    .bind(PAGE_BYTES_MAX)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read past outcomes"))?;
    db.done().await?;
    rows.into_iter().map(|row| PastOutcomeRow { log: row.log.map(decode), ..row }.past_outcome()).collect()
}

async fn find_key(db: &mut sqlx::PgConnection, named: bool, id: BatchId) -> Result<i64, StoreError> {
    let found: Vec<i64> = sqlx::query_scalar("SELECT batch_key FROM rowmill.batches WHERE batch_id = $1")
        .persistent(named)
        .bind(id.uuid())
        .fetch_all(db)
        .await
        .map_err(failed("look up a batch"))?;
    found.into_iter().next().ok_or(StoreError::NotFound(id))
}
