//! The evidence of the database: triggers that write down every change (audit.sql), and what they wrote of one batch.

use rowmill::model::{After, AfterCondition, BatchId};
use serde::Deserialize;
use sqlx::PgConnection;

use super::plan::BatchPlan;

/// Puts the triggers into a database that has Rowmill's schema.
pub async fn install(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("audit.sql")).execute(db).await?;
    Ok(())
}

/// A change of a row, with the whole row before and after.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Change {
    pub seq: i64,
    pub xid: i64,
    /// The role of the process that made it.
    pub who: String,
    /// When its transaction began, and when it was made. Milliseconds, by the database's clock.
    pub began: i64,
    pub at: i64,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// A change of a row that is only ever inserted.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Appended {
    pub seq: i64,
    pub xid: i64,
    pub began: i64,
    pub who: String,
    pub op: String,
    pub row_no: i32,
    pub detail: String,
    /// What is kept of an outcome when its row is run again.
    pub kept: Option<String>,
}

/// A row of `batches`.
#[derive(Clone, Debug, Deserialize)]
pub struct BatchState {
    pub kind: String,
    pub status: String,
    pub step: String,
    pub round: u32,
    pub row_count: i64,
    pub success: i64,
    pub failed: i64,
    pub start_at: Option<i64>,
    pub started_at: Option<i64>,
    pub deadline_at: Option<i64>,
    pub failures_max: Option<i64>,
    pub failures_percent: Option<i64>,
    pub abort_reason: Option<String>,
    pub mark_error: Option<String>,
    pub mark_calls: i64,
    pub finished_at: Option<i64>,
    pub finish_token: Option<i64>,
    pub finish_expires_at: Option<i64>,
    pub finish_attempt: i64,
}

/// A row of `leases`.
#[derive(Clone, Debug, Deserialize)]
pub struct LeaseState {
    pub lease_id: i64,
    pub token: i64,
    pub retries: bool,
    pub next_row: i64,
    pub last_row: i64,
    pub crashes: i64,
    pub expires_at: i64,
}

/// A row of `output_files`.
#[derive(Clone, Debug, Deserialize)]
pub struct FileState {
    pub object: Option<String>,
}

/// A change with its states read.
#[derive(Clone, Debug)]
pub struct Step<T> {
    pub change: Change,
    pub before: Option<T>,
    pub after: Option<T>,
}

impl<T: for<'a> Deserialize<'a>> Step<T> {
    fn read(change: Change) -> anyhow::Result<Step<T>> {
        let state = |text: &Option<String>| text.as_deref().map(serde_json::from_str).transpose();
        Ok(Step { before: state(&change.before)?, after: state(&change.after)?, change })
    }
}

/// Everything that the database tells of one batch.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What the database calls the batch.
    pub key: i64,
    pub batches: Vec<Step<BatchState>>,
    pub leases: Vec<Step<LeaseState>>,
    pub files: Vec<Step<FileState>>,
    pub outcomes: Vec<Appended>,
    /// Outcomes that were kept when their rows were run again.
    pub past: Vec<Appended>,
    /// Changes of rows that were submitted.
    pub rows_changed: Vec<Appended>,
    /// The batch as it is now, as a text like those of changes.
    pub batch_now: Option<String>,
    /// Outcomes as they are now, as in `detail`.
    pub outcomes_now: Vec<(i32, String)>,
    /// Past outcomes as they are now, as in `detail`.
    pub past_now: Vec<(i32, String)>,
    /// Rows: number, line, input, why it was rejected.
    pub rows_now: Vec<(i32, i64, String, Option<String>)>,
}

/// Reads it. None for a batch that never was.
pub async fn read(db: &mut PgConnection, id: BatchId) -> anyhow::Result<Option<Evidence>> {
    let there = sqlx::query_scalar("SELECT batch_key FROM rowmill.batches WHERE batch_id = $1::uuid").bind(id.to_string());
    let mut key: Option<i64> = there.fetch_optional(&mut *db).await?;
    if key.is_none() {
        // It was discarded, or lost.
        let once = "SELECT batch_key FROM audit.changes WHERE source = 'batches' AND before IS NULL AND after::json->>'batch_id' = $1";
        key = sqlx::query_scalar(once).bind(id.to_string()).fetch_optional(&mut *db).await?;
    }
    let Some(key) = key else { return Ok(None) };
    let now =
        "SELECT o.row_no, o.failed::text || ' ' || o.attempt || ' ' || audit.digest(o) FROM rowmill.outcomes o WHERE batch_key = $1 ORDER BY row_no";
    let past_now = "SELECT o.row_no, o.round || ' ' || audit.kept(o.attempt, o.fuel, o.output, o.messages, o.log) FROM rowmill.past_outcomes o WHERE batch_key = $1 ORDER BY row_no, round";
    let rows_now = "SELECT row_no, line, input, rejected FROM rowmill.rows WHERE batch_key = $1 ORDER BY row_no";
    Ok(Some(Evidence {
        key,
        batches: steps(db, "batches", key).await?,
        leases: steps(db, "leases", key).await?,
        files: steps(db, "output_files", key).await?,
        outcomes: appended(db, "outcomes", key).await?,
        past: appended(db, "past_outcomes", key).await?,
        rows_changed: appended(db, "rows", key).await?,
        batch_now: sqlx::query_scalar("SELECT to_json(b)::text FROM rowmill.batches b WHERE batch_key = $1")
            .bind(key)
            .fetch_optional(&mut *db)
            .await?,
        outcomes_now: sqlx::query_as(now).bind(key).fetch_all(&mut *db).await?,
        past_now: sqlx::query_as(past_now).bind(key).fetch_all(&mut *db).await?,
        rows_now: sqlx::query_as(rows_now).bind(key).fetch_all(&mut *db).await?,
    }))
}

async fn steps<T: for<'a> Deserialize<'a>>(db: &mut PgConnection, source: &str, key: i64) -> anyhow::Result<Vec<Step<T>>> {
    let changes: Vec<Change> =
        sqlx::query_as("SELECT seq, xid, who, began, at, before, after FROM audit.changes WHERE batch_key = $1 AND source = $2 ORDER BY seq")
            .bind(key)
            .bind(source)
            .fetch_all(db)
            .await?;
    changes.into_iter().map(Step::read).collect()
}

async fn appended(db: &mut PgConnection, source: &str, key: i64) -> Result<Vec<Appended>, sqlx::Error> {
    sqlx::query_as("SELECT seq, xid, began, who, op, row_no, detail, kept FROM audit.appended WHERE batch_key = $1 AND source = $2 ORDER BY seq")
        .bind(key)
        .bind(source)
        .fetch_all(db)
        .await
}

impl Step<BatchState> {
    /// The round that ended with this change, which is a retry of the batch.
    pub fn ended_round(&self) -> Option<u32> {
        let (before, after) = (self.before.as_ref()?, self.after.as_ref()?);
        (after.round == before.round + 1).then_some(before.round)
    }
}

impl Evidence {
    /// The plan of a batch that came after this one in its first round, and why that was aborted, if it had to be.
    pub fn next_of(&self, plan: &BatchPlan, after: After) -> (BatchPlan, Option<String>) {
        let first = after.batch;
        let first_retry = self.batches.iter().find(|step| step.ended_round().is_some()).map_or(i64::MAX, |step| step.change.seq);
        let end = self.batches.iter().filter_map(|step| step.after.as_ref()).find(|batch| batch.step == "mark").map(|batch| batch.status.as_str());
        let succeeded = self.outcomes.iter().filter(|entry| entry.op == "INSERT" && entry.seq < first_retry && entry.detail.starts_with("false"));
        let succeeded: Vec<usize> = succeeded.filter_map(|entry| usize::try_from(entry.row_no).ok()).collect();
        match end {
            Some(status) if after.condition == AfterCondition::Success && status != "success" => {
                (plan.chained(&[]), Some(format!("batch {first} ended as {status}, and this one was to come after its success")))
            }
            Some(_) if succeeded.is_empty() => {
                (plan.chained(&[]), Some(format!("no row of batch {first} succeeded, which this one was to come after")))
            }
            _ => (plan.chained(&succeeded), None),
        }
    }
}
