//! Chained batches: their rows are made of the outputs of another.

use sqlx::SqliteConnection;

use super::SqliteStore;
use super::finish::abort;
use crate::model::{AfterCondition, BatchId, NewBatch, ProcessorKind};
use crate::store::columns::{failed, kind_of};
use crate::store::rules::{CHAIN_PAGE_BYTES, CHAIN_PAGE_ROWS, check_first};
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
    /// None when it is gone.
    first_status: Option<String>,
    first_ascends: Option<bool>,
    first_outcomes: Option<bool>,
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
            f.status AS first_status, f.lines_ascend AS first_ascends, f.parts & 4 <> 0 AS first_outcomes
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
        let Chain { after_batch: first, .. } = self;
        let reason = match self.first_status.as_deref() {
            None => format!("batch {first}, which it was to come after, is not there any more"),
            Some(_) if self.first_outcomes == Some(false) => format!("the outcomes of batch {first}, which it was to come after, were pruned"),
            Some(status) if self.after_condition == AfterCondition::Success.as_str() && status != "success" => {
                format!("batch {first} ended as {status}, and this one was to come after its success")
            }
            Some(_) => match self.make_rows(db).await? {
                Some(end) => return Ok(end),
                None => format!("no row of batch {first} succeeded, which this one was to come after"),
            },
        };
        abort(db, self.batch_key, Some(&reason)).await?;
        Ok(ChainEnd::Aborted)
    }

    /// None when there is no row at all.
    async fn make_rows(&self, db: &mut SqliteConnection) -> Result<Option<ChainEnd>, StoreError> {
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
        if !more && self.row_count + made == 0 {
            return Ok(None);
        }
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
        if more {
            return Ok(Some(ChainEnd::More));
        }
        sqlx::query("UPDATE batches SET status = 'queued' WHERE batch_key = ?").bind(self.batch_key).execute(&mut *db).await.map_err(making)?;
        Ok(Some(ChainEnd::Queued))
    }
}
