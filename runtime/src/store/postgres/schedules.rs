//! Schedules: what is registered.

use uuid::Uuid;

use super::bytes;
use super::connect::PgStore;
use super::rows::check_inputs;
use super::text::{decode, encode};
use crate::model::{ComingTicks, NewRow, NewSchedule, Schedule, ScheduleKey, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{failed, partial_terms_json};
use crate::store::scheduled::{ScheduleRow, check_schedule, schedule_of};

/// What a [`ScheduleRow`] is made of. A macro, since statements are texts that stand in the program.
macro_rules! columns {
    () => {
        "s.app, s.name, s.schedule_id::text, s.op, s.kind, s.cron, s.zone, s.terms, s.row_count::bigint, s.missed, s.overlap, s.paused,
            s.token, s.next_at, s.last_at, s.last_batch::text, s.error"
    };
}

fn decoded(row: ScheduleRow) -> Result<Schedule, StoreError> {
    schedule_of(ScheduleRow {
        app: decode(row.app),
        name: decode(row.name),
        op: decode(row.op),
        cron: decode(row.cron),
        zone: decode(row.zone),
        error: row.error.map(decode),
        ..row
    })
}

pub(super) async fn read_clock(store: &PgStore) -> Result<Timestamp, StoreError> {
    let mut db = store.unit().await?;
    let now: i64 = sqlx::query_scalar("SELECT coalesce($1, rowmill.now_ms())")
        .persistent(store.named())
        .bind(store.now())
        .fetch_one(&mut *db)
        .await
        .map_err(failed("read the clock"))?;
    db.done().await?;
    Ok(Timestamp(now))
}

pub(super) async fn put_schedule(store: &PgStore, new: &NewSchedule, rows: &[NewRow]) -> Result<Schedule, StoreError> {
    let (batch, rows) = check_schedule(new, rows)?;
    check_inputs(&rows)?;
    let writing = failed("register a schedule");
    let mut db = store.begin().await?;
    let put: ScheduleRow = sqlx::query_as(concat!(
        "INSERT INTO rowmill.schedules AS s (app, name, schedule_id, op, kind, cron, zone, terms, context, row_count, missed, overlap,
            token, next_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, rowmill.new_token(), $13)
         ON CONFLICT (app, name) DO UPDATE SET op = excluded.op, kind = excluded.kind, cron = excluded.cron, zone = excluded.zone, terms = excluded.terms,
            context = excluded.context, row_count = excluded.row_count, missed = excluded.missed,
            overlap = excluded.overlap, token = excluded.token, error = NULL,
            next_at = CASE WHEN s.cron = excluded.cron AND s.zone = excluded.zone THEN s.next_at ELSE excluded.next_at END
         RETURNING ",
        columns!()
    ))
    .persistent(store.named())
    .bind(encode(&new.key.app))
    .bind(encode(&new.key.name))
    .bind(Uuid::now_v7())
    .bind(encode(&batch.op))
    .bind(new.kind.as_str())
    .bind(encode(&new.cron))
    .bind(encode(&new.zone))
    .bind(partial_terms_json(&new.terms))
    .bind(new.context.as_str())
    .bind(bytes(rows.len()))
    .bind(new.missed.as_str())
    .bind(new.overlap.as_str())
    .bind(new.next_at.0)
    .fetch_one(&mut *db)
    .await
    .map_err(writing)?;
    let schedule = decoded(put)?;
    sqlx::query("DELETE FROM rowmill.schedule_rows WHERE schedule_id = $1")
        .persistent(store.named())
        .bind(schedule.id)
        .execute(&mut *db)
        .await
        .map_err(writing)?;
    sqlx::query(
        "INSERT INTO rowmill.schedule_rows (schedule_id, row_no, line, input)
         SELECT $1, u.at, u.line, u.input FROM ROWS FROM (unnest($2::bigint[]), unnest($3::text[])) WITH ORDINALITY u (line, input, at)",
    )
    .persistent(store.named())
    .bind(schedule.id)
    .bind(rows.iter().map(|row| i64::from(row.line)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.input.as_str()).collect::<Vec<_>>())
    .execute(&mut *db)
    .await
    .map_err(writing)?;
    db.commit().await.map_err(failed("commit a schedule"))?;
    Ok(schedule)
}

pub(super) async fn read_schedule(store: &PgStore, key: &ScheduleKey) -> Result<Option<Schedule>, StoreError> {
    let mut db = store.unit().await?;
    let found: Option<ScheduleRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM rowmill.schedules s WHERE s.app = $1 AND s.name = $2"))
        .persistent(store.named())
        .bind(encode(&key.app))
        .bind(encode(&key.name))
        .fetch_optional(&mut *db)
        .await
        .map_err(failed("read a schedule"))?;
    db.done().await?;
    found.map(decoded).transpose()
}

pub(super) async fn list_schedules(store: &PgStore, app: Option<&str>, after: Option<&ScheduleKey>, limit: u32) -> Result<Vec<Schedule>, StoreError> {
    let (after_app, after_name) = after.map_or(("", ""), |key| (key.app.as_str(), key.name.as_str()));
    let mut db = store.unit().await?;
    let found: Vec<ScheduleRow> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM rowmill.schedules s WHERE ($1::text IS NULL OR s.app = $1) AND (s.app, s.name) > ($2, $3) ORDER BY s.app, s.name LIMIT $4"
    ))
    .persistent(store.named())
    .bind(app.map(encode))
    .bind(encode(after_app))
    .bind(encode(after_name))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("list schedules"))?;
    db.done().await?;
    found.into_iter().map(decoded).collect()
}

pub(super) async fn pause_schedule(store: &PgStore, key: &ScheduleKey) -> Result<bool, StoreError> {
    let mut db = store.unit().await?;
    let paused = sqlx::query("UPDATE rowmill.schedules SET paused = true, token = rowmill.new_token() WHERE app = $1 AND name = $2")
        .persistent(store.named())
        .bind(encode(&key.app))
        .bind(encode(&key.name))
        .execute(&mut *db)
        .await
        .map_err(failed("pause a schedule"))?;
    db.done().await?;
    Ok(paused.rows_affected() > 0)
}

pub(super) async fn resume_schedule(store: &PgStore, key: &ScheduleKey, next_at: Timestamp) -> Result<bool, StoreError> {
    let mut db = store.unit().await?;
    let resumed = sqlx::query(
        "UPDATE rowmill.schedules SET next_at = CASE WHEN paused THEN $1 ELSE next_at END, error = CASE WHEN paused THEN NULL ELSE error END,
            token = CASE WHEN paused THEN rowmill.new_token() ELSE token END, paused = false WHERE app = $2 AND name = $3",
    )
    .persistent(store.named())
    .bind(next_at.0)
    .bind(encode(&key.app))
    .bind(encode(&key.name))
    .execute(&mut *db)
    .await
    .map_err(failed("resume a schedule"))?;
    db.done().await?;
    Ok(resumed.rows_affected() > 0)
}

pub(super) async fn remove_schedule(store: &PgStore, key: &ScheduleKey) -> Result<bool, StoreError> {
    let removing = failed("remove a schedule");
    let mut db = store.begin().await?;
    let removed: Option<Uuid> = sqlx::query_scalar("DELETE FROM rowmill.schedules WHERE app = $1 AND name = $2 RETURNING schedule_id")
        .persistent(store.named())
        .bind(encode(&key.app))
        .bind(encode(&key.name))
        .fetch_optional(&mut *db)
        .await
        .map_err(removing)?;
    // A statement of its own, which sees the rows of a change that the one before had to wait for.
    sqlx::query("DELETE FROM rowmill.schedule_rows WHERE schedule_id = $1")
        .persistent(store.named())
        .bind(removed)
        .execute(&mut *db)
        .await
        .map_err(removing)?;
    db.commit().await.map_err(failed("commit the removal of a schedule"))?;
    Ok(removed.is_some())
}

/// A schedule, and the time at which it was looked at.
#[derive(sqlx::FromRow)]
struct ComingRow {
    now: i64,
    #[sqlx(flatten)]
    schedule: ScheduleRow,
}

pub(super) async fn coming_ticks(store: &PgStore, limit: u32) -> Result<Option<ComingTicks>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<ComingRow> = sqlx::query_as(concat!(
        "SELECT coalesce($1, rowmill.now_ms()) AS now, ",
        columns!(),
        " FROM rowmill.schedules s WHERE NOT s.paused ORDER BY s.next_at LIMIT $2"
    ))
    .persistent(store.named())
    .bind(store.now())
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("look for ticks"))?;
    db.done().await?;
    let Some(first) = found.first() else { return Ok(None) };
    let now = Timestamp(first.now);
    let schedules = found.into_iter().map(|row| decoded(row.schedule)).collect::<Result<_, _>>()?;
    Ok(Some(ComingTicks { now, schedules }))
}
