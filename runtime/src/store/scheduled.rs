//! Schedules, the same in every database: what may be stored, how it stands in columns, and the batch that is made of it.

use uuid::Uuid;

use super::StoreError;
use super::columns::{failed, kind_of, partial_terms_of, small};
use super::lines::{LinedRow, number_lines};
use super::rules::{check_name, check_submit};
use crate::model::{
    BatchId, JsonText, Line, Missed, NewBatch, NewRow, NewSchedule, Overlap, SCHEDULE_BYTES_MAX, SCHEDULE_ROWS_MAX, Schedule, Terms, TickAction,
    TickKey, Timestamp, canonical_op,
};

/// Stands where the digest of a request does: the id of a tick's batch is made from the tick, so one that is there is the same.
const REQUEST: &str = "tick";

/// What every batch of a schedule has in common.
#[derive(sqlx::FromRow)]
pub(super) struct Request {
    pub schedule_id: String,
    pub op: String,
    pub kind: String,
    pub context: String,
    /// The batch of an earlier tick has not ended, and this one does not run beside it.
    pub earlier_runs: bool,
}

impl Request {
    pub fn batch(self, app: &str, id: BatchId, (processor_version, processor_digest): (u32, &str), terms: Terms) -> NewBatch {
        NewBatch {
            id,
            app: app.to_owned(),
            op: self.op,
            kind: kind_of(&self.kind),
            terms,
            processor_version,
            processor_digest: processor_digest.to_owned(),
            context: JsonText::trusted(self.context),
            hold: false,
            after: None,
            group: None,
            request_digest: Some(REQUEST.to_owned()),
            as_found: None,
        }
    }
}

/// The rows of a schedule as a query returns them: line, input.
pub(super) fn rows_of(rows: Vec<(i64, String)>) -> Vec<NewRow> {
    rows.into_iter().map(|(line, input)| NewRow::new(small(line), JsonText::trusted(input))).collect()
}

/// A batch as a schedule would submit it, which is looked at when the schedule is registered: a tick has nobody to complain to.
pub(super) fn check_schedule(new: &NewSchedule, rows: &[NewRow]) -> Result<(NewBatch, Vec<LinedRow>), StoreError> {
    check_name("a schedule", &new.key.name)?;
    let bytes: usize = rows.iter().map(|row| row.input.as_str().len()).sum();
    let wrong = if rows.len() > SCHEDULE_ROWS_MAX {
        format!("a schedule has at most {SCHEDULE_ROWS_MAX} rows; this one would have {}", rows.len())
    } else if bytes > SCHEDULE_BYTES_MAX {
        format!("the inputs of a schedule have at most {SCHEDULE_BYTES_MAX} bytes together; these have {bytes}")
    } else if let Some((row, at, reason)) = rows.iter().zip(1..).find_map(|(row, at)| Some((row, at, row.rejected.as_ref()?))) {
        match row.line {
            Line::Given(line) => format!("the row of line {line} would fail each time: {reason}"),
            Line::Next => format!("row {at} of the schedule would fail each time: {reason}"),
        }
    } else {
        let batch = NewBatch {
            id: BatchId::generate(),
            app: new.key.app.clone(),
            op: canonical_op(&new.op),
            kind: new.kind,
            terms: new.terms.clone().complete(None, None),
            processor_version: 1,
            processor_digest: String::new(),
            context: new.context.clone(),
            hold: false,
            after: None,
            group: None,
            request_digest: None,
            as_found: None,
        };
        check_submit(&batch, rows)?;
        return Ok((batch, number_lines(rows.to_vec(), 0)?));
    };
    Err(StoreError::Invalid(wrong))
}

/// The next tick that an action gives.
pub(super) fn next_of(tick: &TickKey, action: &TickAction) -> Result<Timestamp, StoreError> {
    let (at, next) = match action {
        TickAction::Submit { at, next_at, .. } | TickAction::Fail { at, next_at, .. } => (*at, *next_at),
        TickAction::Drop { next_at } => (tick.next_at, *next_at),
        TickAction::Stop { .. } => return Ok(tick.next_at),
    };
    if tick.next_at <= at && at < next {
        return Ok(next);
    }
    let TickKey { schedule, next_at, .. } = tick;
    let (name, at, next, expected) = (&schedule.name, at.0, next.0, next_at.0);
    Err(StoreError::Invalid(format!("ticks go forward, but schedule {name:?} was to go from {expected} by {at} to {next}")))
}

/// A schedule as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct ScheduleRow {
    pub app: String,
    pub name: String,
    pub schedule_id: String,
    pub op: String,
    pub kind: String,
    pub cron: String,
    pub zone: String,
    pub terms: Option<String>,
    pub row_count: i64,
    pub missed: String,
    pub overlap: String,
    pub paused: bool,
    pub token: i64,
    pub next_at: i64,
    pub last_at: Option<i64>,
    pub last_batch: Option<String>,
    pub error: Option<String>,
}

pub(super) fn schedule_of(row: ScheduleRow) -> Result<Schedule, StoreError> {
    let reading = failed("read a schedule");
    Ok(Schedule {
        id: Uuid::parse_str(&row.schedule_id).map_err(reading)?,
        last_batch: row.last_batch.map(|id| id.parse()).transpose().map_err(reading)?,
        app: row.app,
        name: row.name,
        op: row.op,
        kind: kind_of(&row.kind),
        cron: row.cron,
        zone: row.zone,
        terms: partial_terms_of(row.terms.as_deref())?,
        rows: small(row.row_count),
        missed: missed_of(&row.missed),
        overlap: if row.overlap == Overlap::Skip.as_str() { Overlap::Skip } else { Overlap::Allow },
        paused: row.paused,
        next_at: Timestamp(row.next_at),
        last_at: row.last_at.map(Timestamp),
        error: row.error,
        token: row.token,
    })
}

fn missed_of(text: &str) -> Missed {
    match text {
        "skip" => Missed::Skip,
        "once" => Missed::Once,
        "all" => Missed::All,
        other => unreachable!("the constraint missed_is_known let '{other}' through"),
    }
}
