//! Chained batches: their rows are made of the outputs of another.

use sqlx::SqliteConnection;

use super::SqliteStore;
use super::finish::abort;
use crate::model::{AbortReason, AfterCondition, BatchId, NewBatch, ProcessorKind, Timestamp};
use crate::store::columns::{failed, kind_of, status_of};
use crate::store::rules::{CHAIN_PAGE_BYTES, CHAIN_PAGE_ROWS, WAITS_MAX, check_first};
use crate::store::{ChainEnd, ChainStep, StoreError, StoreEvent};

/// What a chained batch comes after.
pub(super) struct First {
    key: i64,
    ended: bool,
}

/// Looks for the batch that a new one is to come after.
pub(super) async fn find_first(db: &mut SqliteConnection, new: &NewBatch) -> Result<Option<First>, StoreError> {
    let Some(after) = new.after else { return Ok(None) };
    let found: Option<(i64, String, bool)> =
        sqlx::query_as("SELECT batch_key, kind, step IN ('mark', 'done') FROM batches WHERE batch_id = ? AND app = ?")
            .bind(after.batch.to_string())
            .bind(&new.app)
            .fetch_optional(db)
            .await
            .map_err(failed("look up the batch that another comes after"))?;
    check_first(after.batch, &new.app, found.as_ref().map(|(_, kind, _)| kind_of(kind)))?;
    Ok(found.map(|(key, _, ended)| First { key, ended }))
}

/// The new batch waits for it.
pub(super) async fn chain(db: &mut SqliteConnection, key: i64, first: &First) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO chains (batch_key, first_key, ready) VALUES (?, ?, ?)")
        .bind(key)
        .bind(first.key)
        .bind(first.ended)
        .execute(db)
        .await
        .map_err(failed("chain a batch"))?;
    Ok(())
}

/// What comes after a batch that has ended, or is gone, can be made.
pub(super) async fn make_ready(db: &mut SqliteConnection, first_key: i64) -> Result<bool, StoreError> {
    let ready = sqlx::query("UPDATE chains SET ready = 1 WHERE first_key = ?")
        .bind(first_key)
        .execute(db)
        .await
        .map_err(failed("let chained batches be made"))?;
    Ok(ready.rows_affected() > 0)
}

#[derive(sqlx::FromRow)]
struct Chain {
    batch_key: i64,
    first_key: i64,
    line: i64,
    row_no: i64,
    batch_id: String,
    app: String,
    status: String,
    deferred: bool,
    row_count: i64,
    after_batch: String,
    after_condition: String,
    first_ascends: Option<bool>,
}

/// The batch that a chained batch comes after (its predecessor), as far as it decides whether that can be made.
#[derive(sqlx::FromRow)]
struct Predecessor {
    status: String,
    success: i64,
    has_outcomes: bool,
}

/// Returns why a batch that comes after this predecessor cannot be made; none if it can. The predecessor has ended.
pub(super) async fn why_lapsed(
    db: &mut SqliteConnection,
    first_key: Option<i64>,
    first: &str,
    condition: &str,
) -> Result<Option<AbortReason>, StoreError> {
    let batch: BatchId = first.parse().map_err(failed("read a batch's id"))?;
    let found: Option<Predecessor> = sqlx::query_as("SELECT status, success, parts & 4 <> 0 AS has_outcomes FROM batches WHERE batch_key = ?")
        .bind(first_key)
        .fetch_optional(db)
        .await
        .map_err(failed("look up the batch that another comes after"))?;
    let Some(Predecessor { status, success, has_outcomes }) = found else {
        return Ok(Some(AbortReason::PredecessorRemoved { batch }));
    };
    Ok(if !has_outcomes {
        Some(AbortReason::PredecessorPruned { batch })
    } else if condition == AfterCondition::Success.as_str() && status != "success" {
        Some(AbortReason::PredecessorEnded { batch, status: status_of(&status) })
    } else if success == 0 {
        Some(AbortReason::PredecessorWithoutOutputs { batch })
    } else {
        None
    })
}

/// A row of the first batch, and the bytes of its output if it succeeded.
type Looked = (i64, i64, Option<i64>);

pub(super) async fn advance_chain(store: &SqliteStore) -> Result<Option<ChainStep>, StoreError> {
    let making = failed("make rows of a chained batch");
    // Nearly always there is none, which needs no writer.
    let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM chains WHERE ready = 1)").fetch_one(&store.readers).await.map_err(making)?;
    if !any {
        return Ok(None);
    }
    let mut db = store.begin().await?;
    let chain: Option<Chain> = sqlx::query_as(
        "SELECT c.batch_key, c.first_key, c.line, c.row_no, b.batch_id, b.app, b.status, b.deferred, b.row_count, b.after_batch, b.after_condition,
            f.lines_ascend AS first_ascends
         FROM chains c JOIN batches b USING (batch_key) LEFT JOIN batches f ON f.batch_key = c.first_key
         WHERE c.ready = 1 ORDER BY c.taken, c.batch_key LIMIT 1",
    )
    .fetch_optional(&mut *db)
    .await
    .map_err(making)?;
    let Some(chain) = chain else { return Ok(None) };
    let batch: BatchId = chain.batch_id.parse().map_err(failed("read a batch's id"))?;
    let (kind, key) = (ProcessorKind::Batch, chain.batch_key);
    let end = if chain.status == "wait" { chain.step(&mut db).await? } else { ChainEnd::Gone };
    if end != ChainEnd::More {
        sqlx::query("DELETE FROM chains WHERE batch_key = ?").bind(key).execute(&mut *db).await.map_err(making)?;
    }
    db.commit().await.map_err(failed("commit rows of a chained batch"))?;
    match end {
        ChainEnd::Queued if chain.deferred => store.events.tell(StoreEvent::Work(kind)),
        ChainEnd::Queued => store.events.tell(StoreEvent::Submitted { app: chain.app, kind }),
        ChainEnd::Aborted => {
            store.events.tell(StoreEvent::Aborted(batch));
            store.events.tell(StoreEvent::Work(kind));
        }
        ChainEnd::More | ChainEnd::Gone => {}
    }
    Ok(Some(ChainStep { batch: Some(batch), kind, end }))
}

impl Chain {
    async fn step(&self, db: &mut SqliteConnection) -> Result<ChainEnd, StoreError> {
        let reason = why_lapsed(db, Some(self.first_key), &self.after_batch, &self.after_condition).await?;
        let (end, chain_end) = match reason {
            Some(reason) => {
                abort(db, self.batch_key, Some(&reason)).await?;
                (ChainEnd::Aborted, "lapsed")
            }
            None if self.make_rows(db).await? => return Ok(ChainEnd::More),
            None => (ChainEnd::Queued, "made"),
        };
        sqlx::query("UPDATE batches SET chain_end = ?2, status = CASE ?2 WHEN 'made' THEN 'queued' ELSE status END WHERE batch_key = ?1")
            .bind(self.batch_key)
            .bind(chain_end)
            .execute(db)
            .await
            .map_err(failed("end a chain"))?;
        Ok(end)
    }

    /// Makes the next rows. Returns true if more are to be made.
    async fn make_rows(&self, db: &mut SqliteConnection) -> Result<bool, StoreError> {
        let making = failed("make rows of a chained batch");
        let ascends = self.first_ascends.unwrap_or(true);
        let (from, order) = if ascends {
            ("rows l WHERE l.batch_key = ?1 AND l.row_no > ?3 AND ?2 IS NOT NULL", "l.row_no")
        } else {
            ("line_order l WHERE l.batch_key = ?1 AND (l.line, l.row_no) > (?2, ?3)", "l.line, l.row_no")
        };
        // Lengths first: a page of large outputs is shorter.
        let look = format!(
            "SELECT l.line, l.row_no, (SELECT coalesce(length(CAST(o.output AS BLOB)), 4) FROM outcomes o
                WHERE o.batch_key = l.batch_key AND o.row_no = l.row_no AND NOT o.failed)
             FROM {from} ORDER BY {order} LIMIT ?4"
        );
        // Made of constants and question marks only.
        let seen: Vec<Looked> = sqlx::query_as(sqlx::AssertSqlSafe(look))
            .bind(self.first_key)
            .bind(self.line)
            .bind(self.row_no)
            .bind(CHAIN_PAGE_ROWS)
            .fetch_all(&mut *db)
            .await
            .map_err(making)?;
        let (mut bytes, mut made, mut looked) = (0, 0, 0);
        for (_, _, length) in &seen {
            if bytes >= CHAIN_PAGE_BYTES {
                break;
            }
            bytes += length.unwrap_or(0);
            made += i64::from(length.is_some());
            looked += 1;
        }
        let more = looked < seen.len() || i64::try_from(seen.len()).unwrap_or(i64::MAX) == CHAIN_PAGE_ROWS;
        if let Some((line, row_no, _)) = seen[..looked].last() {
            let write = format!(
                "INSERT INTO rows (batch_key, row_no, line, input)
                 SELECT ?4, ?5 + row_number() OVER (ORDER BY {order}), l.line, coalesce(o.output, 'null')
                 FROM (SELECT l.line, l.row_no FROM {from} ORDER BY {order} LIMIT ?6) l
                 JOIN outcomes o ON o.batch_key = ?1 AND o.row_no = l.row_no AND NOT o.failed"
            );
            sqlx::query(sqlx::AssertSqlSafe(write))
                .bind(self.first_key)
                .bind(self.line)
                .bind(self.row_no)
                .bind(self.batch_key)
                .bind(self.row_count)
                .bind(i64::try_from(looked).unwrap_or(i64::MAX))
                .execute(&mut *db)
                .await
                .map_err(making)?;
            sqlx::query("UPDATE chains SET begun = 1, line = ?, row_no = ?, taken = taken + ? WHERE batch_key = ?")
                .bind(line)
                .bind(row_no)
                .bind(i64::try_from(looked).unwrap_or(i64::MAX))
                .bind(self.batch_key)
                .execute(&mut *db)
                .await
                .map_err(making)?;
            sqlx::query("UPDATE batches SET row_count = row_count + ?, line_last = ? WHERE batch_key = ?")
                .bind(made)
                .bind(line)
                .bind(self.batch_key)
                .execute(&mut *db)
                .await
                .map_err(making)?;
        }
        Ok(more)
    }
}

/// Lets a chained batch that was aborted before it had all of its rows wait for its predecessor again, in a new round. The
/// rows that it had are removed: none of them ran, and they are of an older round of the predecessor. Returns the round.
pub(super) async fn wait_again(
    db: &mut SqliteConnection,
    key: i64,
    first: &First,
    deadline_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let waiting = failed("let a chained batch wait again");
    sqlx::query(
        "INSERT INTO past_rounds (batch_key, round, status, row_count, success, failed, abort_reason, mark_error, mark_calls, started_at, finished_at)
         SELECT batch_key, round, status, row_count, success, failed, abort_reason, mark_error, mark_calls, started_at, coalesce(finished_at, ?2)
         FROM batches WHERE batch_key = ?1",
    )
    .bind(key)
    .bind(now.0)
    .execute(&mut *db)
    .await
    .map_err(waiting)?;
    for removal in ["DELETE FROM rows WHERE batch_key = ?", "DELETE FROM chains WHERE batch_key = ?"] {
        sqlx::query(removal).bind(key).execute(&mut *db).await.map_err(waiting)?;
    }
    chain(db, key, first).await?;
    sqlx::query_scalar(
        "UPDATE batches SET status = 'wait', step = 'rows', round = round + 1, chain_end = NULL, row_count = 0, line_last = -1,
            deadline_at = coalesce(?2, CASE WHEN deadline_at > ?3 THEN deadline_at END), abort_reason = NULL, mark_error = NULL, mark_calls = 0,
            started_at = NULL, finished_at = NULL, finish_token = NULL, finish_worker = NULL, finish_expires_at = NULL, finish_attempt = 0
         WHERE batch_key = ?1 RETURNING round",
    )
    .bind(key)
    .bind(deadline_at.map(|at| at.0))
    .bind(now.0)
    .fetch_one(db)
    .await
    .map_err(waiting)
}

/// Lets the batches that were aborted because of this batch wait for it again, and so on for those behind them. Returns
/// their ids.
pub(super) async fn wait_behind(db: &mut SqliteConnection, key: i64, id: BatchId, now: Timestamp) -> Result<Vec<BatchId>, StoreError> {
    let looking = failed("look up batches that come after another");
    let mut firsts = vec![(key, id)];
    let mut at = 0;
    while let Some((first_key, first)) = firsts.get(at).copied() {
        at += 1;
        sqlx::query("UPDATE chains SET ready = 0 WHERE first_key = ? AND begun = 0").bind(first_key).execute(&mut *db).await.map_err(looking)?;
        // A batch of which parts were pruned cannot run again.
        let lapsed: Vec<(i64, String)> = sqlx::query_as(
            "SELECT batch_key, batch_id FROM batches WHERE after_batch = ? AND chain_end = 'lapsed' AND pruning = 0 AND parts & 6 = 6 ORDER BY batch_key",
        )
        .bind(first.to_string())
        .fetch_all(&mut *db)
        .await
        .map_err(looking)?;
        for (key, id) in lapsed {
            if firsts.len() > WAITS_MAX {
                return Ok(firsts.into_iter().skip(1).map(|(_, id)| id).collect());
            }
            wait_again(db, key, &First { key: first_key, ended: false }, None, now).await?;
            firsts.push((key, id.parse().map_err(failed("read a batch's id"))?));
        }
    }
    Ok(firsts.into_iter().skip(1).map(|(_, id)| id).collect())
}

/// Lets a chained batch wait for its predecessor again, where a retry wants that: [`wait_again`], or why it would be aborted
/// at once.
pub(super) async fn retry_chained(
    db: &mut SqliteConnection,
    key: i64,
    deadline_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Result<(i64, bool), AbortReason>, StoreError> {
    let (after, condition, first): (String, String, Option<i64>) = sqlx::query_as(
        "SELECT b.after_batch, b.after_condition, f.batch_key FROM batches b LEFT JOIN batches f ON f.batch_id = b.after_batch WHERE b.batch_key = ?",
    )
    .bind(key)
    .fetch_one(&mut *db)
    .await
    .map_err(failed("look up a chained batch"))?;
    let ended: Option<bool> = sqlx::query_scalar("SELECT step IN ('mark', 'done') FROM batches WHERE batch_key = ?")
        .bind(first)
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("look up the batch that another comes after"))?;
    let ended = ended.unwrap_or(true);
    if ended && let Some(reason) = why_lapsed(db, first, &after, &condition).await? {
        return Ok(Err(reason));
    }
    let first = First { key: first.unwrap_or_default(), ended };
    Ok(Ok((wait_again(db, key, &first, deadline_at, now).await?, ended)))
}
