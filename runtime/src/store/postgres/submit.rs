//! Batches and rows come in.

use sqlx::PgConnection;

use super::apps::decoded;
use super::chains::{chain, find_first};
use super::connect::{PgStore, refuse};
use super::groups::enter_group;
use super::listen::{CHANNEL, write};
use super::millis;
use super::quota::{not_admitted, quota_columns};
use super::rows::{Columns, check_inputs, chunk_rows, input_bytes_max, insert_all, sort_lines};
use super::text::encode;
use crate::model::{AppBounds, BatchStatus, ClaimedWork, Lease, LeaseKey, LeasedRow, NewBatch, NewRow, ProcessorKind, Timestamp, canonical_op};
use crate::store::columns::{AppRow, app_of, failed, failure_limit, retry_json, signed};
use crate::store::lines::{LinedRow, number_lines};
use crate::store::quota::longest_input;
use crate::store::rules::{check_submit, count_rows, submission, was_submitted};
use crate::store::versions::out_of_date;
use crate::store::{LeaseOwner, StoreError};

pub(super) async fn submit_batch(store: &PgStore, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
    submit(store, &batch, &check(&batch, rows)?, None).await.map(drop)
}

/// A slow query, leased at once to its owner where that may be.
pub(super) async fn submit_to_run(store: &PgStore, batch: NewBatch, row: NewRow, owner: LeaseOwner<'_>) -> Result<Option<ClaimedWork>, StoreError> {
    let waits = batch.kind != ProcessorKind::SlowQuery || batch.terms.start_at.is_some();
    let mut rows = check(&batch, vec![row])?;
    let leased = submit(store, &batch, &rows, (!waits).then_some(owner)).await?;
    leased.zip(rows.pop()).map(|(leased, row)| leased.work(batch, row)).transpose()
}

async fn submit(store: &PgStore, batch: &NewBatch, rows: &[LinedRow], owner: Option<LeaseOwner<'_>>) -> Result<Option<Leased>, StoreError> {
    let new = New::of(batch, rows)?;
    // Nearly always it is one statement, and so a transaction of its own.
    if new.rest.is_empty() && new.lines_ascend && batch.after.is_none() && batch.group.is_none() {
        let mut leased = None;
        let submit = async {
            let mut db = store.unit().await?;
            match new.insert(&mut db, store.named(), store.now(), &store.bounds, owner).await {
                Ok(written) => {
                    db.done().await?;
                    let was_written = written.is_some();
                    leased = written.and_then(Written::leased);
                    Ok(was_written && leased.is_none())
                }
                Err(error) => {
                    db.undone().await;
                    Err(error)
                }
            }
        };
        store.tell_own(submission(batch), submit).await?;
        return Ok(leased);
    }
    let mut db = store.begin().await?;
    if let Err(error) = new.write(&mut db, store.named(), store.now(), &store.bounds).await {
        return refuse(db, error).await;
    }
    db.commit().await.map_err(failed("commit a submitted batch"))?;
    Ok(None)
}

/// In a transaction that is there already. Statements have names only where the connection is known to keep them: a caller's own may be a pooler's.
pub(super) async fn submit_batch_in(
    db: &mut PgConnection,
    named: bool,
    now: Option<i64>,
    bounds: &AppBounds,
    batch: NewBatch,
    rows: Vec<NewRow>,
) -> Result<(), StoreError> {
    New::of(&batch, &check(&batch, rows)?)?.write(db, named, now, bounds).await
}

/// Checks what is to be submitted, and gives each row its line: no other transaction knows of the batch yet.
pub(super) fn check(batch: &NewBatch, rows: Vec<NewRow>) -> Result<Vec<LinedRow>, StoreError> {
    check_submit(batch, &rows)?;
    let rows = number_lines(rows, 0)?;
    check_inputs(&rows)?;
    Ok(rows)
}

/// A batch that comes in.
struct New<'a> {
    batch: &'a NewBatch,
    row_count: i64,
    line_last: i64,
    lines_ascend: bool,
    input_bytes_max: i32,
    longest_input: Option<&'a LinedRow>,
    /// Rows that go in with the batch, and those that follow.
    first: &'a [LinedRow],
    rest: &'a [LinedRow],
}

impl<'a> New<'a> {
    fn of(batch: &'a NewBatch, rows: &'a [LinedRow]) -> Result<New<'a>, StoreError> {
        let (row_count, line_last, lines_ascend) = count_rows(0, -1, rows, i64::from(i32::MAX))?;
        let (first, rest) = rows.split_at(chunk_rows(rows));
        Ok(New { batch, row_count, line_last, lines_ascend, input_bytes_max: input_bytes_max(rows), longest_input: longest_input(rows), first, rest })
    }

    async fn write(&self, db: &mut PgConnection, named: bool, now: Option<i64>, bounds: &AppBounds) -> Result<(), StoreError> {
        if (self.batch.after.is_some() || self.batch.group.is_some()) && self.is_there(db, named).await? {
            return Ok(());
        }
        enter_group(db, named, now, self.batch).await?;
        let first = find_first(db, named, self.batch).await?;
        let Some(Written { batch_key: key, .. }) = self.insert(db, named, now, bounds, None).await? else { return Ok(()) };
        if let Some(first) = first {
            chain(db, named, key, &first).await?;
        }
        insert_all(db, named, key, self.first.len(), self.rest).await?;
        if !self.lines_ascend {
            sort_lines(db, named, key, 0, self.row_count).await?;
        }
        Ok(())
    }

    /// Whether it was submitted before.
    async fn is_there(&self, db: &mut PgConnection, named: bool) -> Result<bool, StoreError> {
        let NewBatch { id, request_digest, .. } = self.batch;
        let known: Option<Option<String>> = sqlx::query_scalar("SELECT request_digest FROM rowmill.batches WHERE batch_id = $1")
            .persistent(named)
            .bind(id.uuid())
            .fetch_optional(db)
            .await
            .map_err(failed("look up a batch"))?;
        match known {
            Some(known) => was_submitted(*id, known.as_deref(), request_digest.as_deref()).map(|()| true),
            None => Ok(false),
        }
    }

    /// The batch and its first rows, and tells everybody when that commits, unless its owner gets the lease at once. None when it was submitted before.
    async fn insert(
        &self,
        db: &mut PgConnection,
        named: bool,
        now: Option<i64>,
        bounds: &AppBounds,
        owner: Option<LeaseOwner<'_>>,
    ) -> Result<Option<Written>, StoreError> {
        let NewBatch { id, app, op, kind, terms, processor_version, processor_digest, context, hold, after, group, request_digest, as_found } =
            self.batch;
        let (failures_max, failures_percent) = failure_limit(terms);
        let columns = Columns::of(self.first);
        let event = submission(self.batch).as_ref().map(write);
        let written: Vec<Written> = sqlx::query_as(
            "WITH moment AS MATERIALIZED (
                SELECT coalesce($16, rowmill.now_ms()) AS at,
                    CASE WHEN $34::text IS NULL THEN false ELSE rowmill.may_lease_at_once($2, $3, coalesce($16, rowmill.now_ms())) END AS leases),
             batch AS (
                INSERT INTO rowmill.batches (batch_id, app, op, kind, priority, processor_version, processor_digest, context, attempts_max, status, fresh,
                    row_count, line_last, lines_ascend, input_bytes_max, submitted_at, request_digest, retry_rule, start_at, deferred, deadline_at,
                    failures_max, failures_percent, after_batch, after_condition, group_name, row_micros, next_row, started_at, progress_at, event_seq)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN m.leases THEN 'inprog' ELSE $10 END, $11 AND NOT m.leases, $12, $13, $14, $15, m.at, $22,
                    $23, $24, $24 IS NOT NULL, $25, $26, $27, $28, $29, $33,
                    (SELECT p.row_micros FROM rowmill.processors p WHERE p.app = $2 AND p.op = $3 AND p.version = $6),
                    CASE WHEN m.leases THEN 2 ELSE 1 END, CASE WHEN m.leases THEN m.at END, CASE WHEN m.leases THEN m.at END, CASE WHEN m.leases THEN 2 ELSE 1 END
                FROM moment m
                WHERE NOT EXISTS (SELECT FROM rowmill.processors p WHERE p.app = $2 AND p.op = $3 AND p.version = $6 AND p.removed_at IS NOT NULL)
                    AND ($36::bool IS NULL OR (
                        $6 IS NOT DISTINCT FROM (SELECT s.version::bigint FROM rowmill.activations s WHERE s.app = $2 AND s.op = $3 AND s.kind = $4
                            AND s.undone_at IS NULL ORDER BY s.activation_no DESC LIMIT 1)
                        AND $37 IS NOT DISTINCT FROM (SELECT o.terms FROM rowmill.policies o WHERE o.app = $2 AND o.op = $3)
                        AND $38 IS NOT DISTINCT FROM (SELECT o.terms FROM rowmill.policies o WHERE o.app = $2 AND o.op = '')))
                ON CONFLICT (batch_id) DO NOTHING RETURNING batch_key),
             written AS (
                INSERT INTO rowmill.rows (batch_key, line, row_no, input, rejected)
                SELECT batch.batch_key, u.line, u.at, u.input, u.rejected FROM batch, ROWS FROM (unnest($17::bigint[]), unnest($18::text[]), unnest($19::text[]))
                WITH ORDINALITY u (line, input, rejected, at)),
             leased AS (
                -- What it takes is charged when it is recorded: it took nothing from anybody who waited.
                INSERT INTO rowmill.leases (batch_key, app, kind, token, worker, retries, next_row, last_row, crashes, charged_micros, expires_at)
                SELECT batch.batch_key, $2, $4, rowmill.new_token(), $34, false, 1, 1, 0, 0, rowmill.later(m.at, $35) FROM batch, moment m WHERE m.leases
                RETURNING lease_id, token)
             SELECT batch.batch_key, m.at, l.lease_id, l.token, $2 AS app, coalesce(a.weight, 1)::bigint AS weight, a.running_max::bigint AS running_max, a.limits,
                a.quota, a.grants, a.app IS NOT NULL AS is_registered, CASE WHEN $20::text IS NOT NULL AND l.lease_id IS NULL THEN pg_notify($21, $20) END,
                rowmill.admit_rows($2, batch.batch_key, $12, $12, $30, $31, $32)
             FROM batch CROSS JOIN moment m LEFT JOIN leased l ON true LEFT JOIN rowmill.apps a ON m.leases AND a.app = $2",
        )
        .persistent(named)
        .bind(id.uuid())
        .bind(encode(app))
        .bind(encode(&canonical_op(op)))
        .bind(kind.as_str())
        .bind(terms.priority)
        .bind(i64::from(*processor_version))
        .bind(encode(processor_digest))
        .bind(context.as_str())
        .bind(i64::from(terms.attempts_max))
        .bind(if *hold || after.is_some() { BatchStatus::Wait } else { BatchStatus::Queued }.as_str())
        .bind(!hold && after.is_none() && terms.start_at.is_none())
        .bind(i32::try_from(self.row_count).unwrap_or(i32::MAX))
        .bind(self.line_last)
        .bind(self.lines_ascend)
        .bind(self.input_bytes_max)
        .bind(now)
        .bind(columns.lines)
        .bind(columns.inputs)
        .bind(columns.rejected)
        .bind(event)
        .bind(CHANNEL)
        .bind(request_digest.as_deref())
        .bind(retry_json(terms))
        .bind(terms.start_at.map(|at| at.0))
        .bind(terms.deadline_at.map(|at| at.0))
        .bind(failures_max)
        .bind(failures_percent.map(i64::from))
        .bind(after.map(|after| after.batch.uuid()))
        .bind(after.map(|after| after.condition.as_str()))
        .bind(signed(self.longest_input.map_or(0, |row| row.input.as_str().len() as u64)))
        .bind(quota_columns(&bounds.quota))
        .bind(quota_columns(&bounds.quota_max))
        .bind(group.as_deref().map(encode))
        .bind(owner.map(|owner| owner.worker))
        .bind(owner.map(|owner| millis(owner.ttl)))
        .bind(as_found.is_some().then_some(true))
        .bind(as_found.as_ref().and_then(|stamp| stamp.of_op.as_deref()))
        .bind(as_found.as_ref().and_then(|stamp| stamp.of_app.as_deref()))
        .fetch_all(&mut *db)
        .await
        .map_err(|error| not_admitted("submit a batch", app, self.longest_input, error))?;
        if let Some(written) = written.into_iter().next() {
            return Ok(Some(written));
        }
        // It is there, and whoever wrote it has committed: the insert waited for that. Or its operation was changed.
        let known: Vec<Option<String>> = sqlx::query_scalar("SELECT request_digest FROM rowmill.batches WHERE batch_id = $1")
            .persistent(named)
            .bind(id.uuid())
            .fetch_all(db)
            .await
            .map_err(failed("look up a batch"))?;
        let known = known.into_iter().next().ok_or_else(|| out_of_date(self.batch))?;
        was_submitted(*id, known.as_deref(), request_digest.as_deref()).map(|()| None)
    }
}

/// A batch that was written.
#[derive(sqlx::FromRow)]
struct Written {
    batch_key: i64,
    at: i64,
    lease_id: Option<i64>,
    token: Option<i64>,
    #[sqlx(flatten)]
    app: AppRow,
    is_registered: bool,
}

impl Written {
    fn leased(self) -> Option<Leased> {
        let key = LeaseKey { id: self.lease_id?, token: self.token? };
        Some(Leased { key, at: Timestamp(self.at), app: self.is_registered.then_some(self.app) })
    }
}

/// A slow query that was leased with its submission.
struct Leased {
    key: LeaseKey,
    at: Timestamp,
    app: Option<AppRow>,
}

impl Leased {
    fn work(self, batch: NewBatch, LinedRow { line, input, rejected }: LinedRow) -> Result<ClaimedWork, StoreError> {
        let lease = Lease { key: self.key, batch: batch.id, rows: 1, crashes: 0 };
        let app = self.app.map(app_of).transpose()?.map(decoded);
        let row = LeasedRow { row_no: 1, line, input: input.into_string(), attempt: 1, rejected };
        Ok(ClaimedWork { lease, batch: Some((batch.begin(1, self.at), app)), rows: Some(vec![row]) })
    }
}
