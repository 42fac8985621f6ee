//! Schedules: what is registered.

use uuid::Uuid;

use super::{SqliteStore, new_token};
use crate::model::{ComingTicks, NewRow, NewSchedule, Schedule, ScheduleKey, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{failed, partial_terms_json};
use crate::store::scheduled::{ScheduleRow, check_schedule, schedule_of};

/// What a [`ScheduleRow`] is made of. A macro, since statements are texts that stand in the program.
macro_rules! columns {
    () => {
        "app, name, schedule_id, op, kind, cron, zone, terms, row_count, missed, overlap, paused, token, next_at, last_at, last_batch, error"
    };
}

pub(super) async fn put_schedule(store: &SqliteStore, new: &NewSchedule, rows: &[NewRow]) -> Result<Schedule, StoreError> {
    let (batch, rows) = check_schedule(new, rows)?;
    let writing = failed("register a schedule");
    let mut db = store.begin().await?;
    let put: ScheduleRow = sqlx::query_as(concat!(
        "INSERT INTO schedules (app, name, schedule_id, op, kind, cron, zone, terms, context, row_count, missed, overlap, token, next_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (app, name) DO UPDATE SET op = excluded.op, kind = excluded.kind, cron = excluded.cron, zone = excluded.zone, terms = excluded.terms,
            context = excluded.context, row_count = excluded.row_count, missed = excluded.missed,
            overlap = excluded.overlap, token = excluded.token, error = NULL,
            next_at = CASE WHEN cron = excluded.cron AND zone = excluded.zone THEN next_at ELSE excluded.next_at END
         RETURNING ",
        columns!()
    ))
    .bind(&new.key.app)
    .bind(&new.key.name)
    .bind(Uuid::now_v7().to_string())
    .bind(batch.op)
    .bind(new.kind.as_str())
    .bind(&new.cron)
    .bind(&new.zone)
    .bind(partial_terms_json(&new.terms))
    .bind(new.context.as_str())
    .bind(i64::try_from(rows.len()).unwrap_or(i64::MAX))
    .bind(new.missed.as_str())
    .bind(new.overlap.as_str())
    .bind(new_token())
    .bind(new.next_at.0)
    .fetch_one(&mut *db)
    .await
    .map_err(writing)?;
    let schedule = schedule_of(put)?;
    sqlx::query("DELETE FROM schedule_rows WHERE schedule_id = ?").bind(schedule.id.to_string()).execute(&mut *db).await.map_err(writing)?;
    for (row, row_no) in rows.iter().zip(1_i64..) {
        sqlx::query("INSERT INTO schedule_rows (schedule_id, row_no, line, input) VALUES (?, ?, ?, ?)")
            .bind(schedule.id.to_string())
            .bind(row_no)
            .bind(i64::from(row.line))
            .bind(row.input.as_str())
            .execute(&mut *db)
            .await
            .map_err(writing)?;
    }
    db.commit().await.map_err(failed("commit a schedule"))?;
    Ok(schedule)
}

pub(super) async fn read_schedule(store: &SqliteStore, key: &ScheduleKey) -> Result<Option<Schedule>, StoreError> {
    let found: Option<ScheduleRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM schedules WHERE app = ? AND name = ?"))
        .bind(&key.app)
        .bind(&key.name)
        .fetch_optional(&store.readers)
        .await
        .map_err(failed("read a schedule"))?;
    found.map(schedule_of).transpose()
}

pub(super) async fn list_schedules(
    store: &SqliteStore,
    app: Option<&str>,
    after: Option<&ScheduleKey>,
    limit: u32,
) -> Result<Vec<Schedule>, StoreError> {
    let (after_app, after_name) = after.map_or(("", ""), |key| (key.app.as_str(), key.name.as_str()));
    let found: Vec<ScheduleRow> = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM schedules WHERE app = coalesce(?, app) AND (app, name) > (?, ?) ORDER BY app, name LIMIT ?"
    ))
    .bind(app)
    .bind(after_app)
    .bind(after_name)
    .bind(limit)
    .fetch_all(&store.readers)
    .await
    .map_err(failed("list schedules"))?;
    found.into_iter().map(schedule_of).collect()
}

pub(super) async fn pause_schedule(store: &SqliteStore, key: &ScheduleKey) -> Result<bool, StoreError> {
    let paused = sqlx::query("UPDATE schedules SET paused = 1, token = ? WHERE app = ? AND name = ?")
        .bind(new_token())
        .bind(&key.app)
        .bind(&key.name)
        .execute(&store.writer)
        .await
        .map_err(failed("pause a schedule"))?;
    Ok(paused.rows_affected() > 0)
}

pub(super) async fn resume_schedule(store: &SqliteStore, key: &ScheduleKey, next_at: Timestamp) -> Result<bool, StoreError> {
    let resumed = sqlx::query(
        "UPDATE schedules SET next_at = CASE WHEN paused THEN ?1 ELSE next_at END, error = CASE WHEN paused THEN NULL ELSE error END,
            token = CASE WHEN paused THEN ?2 ELSE token END, paused = 0 WHERE app = ?3 AND name = ?4",
    )
    .bind(next_at.0)
    .bind(new_token())
    .bind(&key.app)
    .bind(&key.name)
    .execute(&store.writer)
    .await
    .map_err(failed("resume a schedule"))?;
    Ok(resumed.rows_affected() > 0)
}

pub(super) async fn remove_schedule(store: &SqliteStore, key: &ScheduleKey) -> Result<bool, StoreError> {
    let removing = failed("remove a schedule");
    let mut db = store.begin().await?;
    sqlx::query("DELETE FROM schedule_rows WHERE schedule_id = (SELECT schedule_id FROM schedules WHERE app = ? AND name = ?)")
        .bind(&key.app)
        .bind(&key.name)
        .execute(&mut *db)
        .await
        .map_err(removing)?;
    let removed =
        sqlx::query("DELETE FROM schedules WHERE app = ? AND name = ?").bind(&key.app).bind(&key.name).execute(&mut *db).await.map_err(removing)?;
    db.commit().await.map_err(failed("commit the removal of a schedule"))?;
    Ok(removed.rows_affected() > 0)
}

pub(super) async fn coming_ticks(store: &SqliteStore, limit: u32) -> Result<Option<ComingTicks>, StoreError> {
    let now = store.now();
    let found: Vec<ScheduleRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM schedules WHERE NOT paused ORDER BY next_at LIMIT ?"))
        .bind(limit)
        .fetch_all(&store.readers)
        .await
        .map_err(failed("look for ticks"))?;
    let schedules: Vec<Schedule> = found.into_iter().map(schedule_of).collect::<Result<_, _>>()?;
    Ok((!schedules.is_empty()).then_some(ComingTicks { now, schedules }))
}
