//! Ticks: a schedule moves on, and its batch comes in, in one transaction.

use super::submit::insert_batch;
use super::{SqliteStore, new_token};
use crate::model::{TickAction, TickEnd, TickKey};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::rules::submission;
use crate::store::scheduled::{Request, next_of, rows_of};

pub(super) async fn run_tick(store: &SqliteStore, tick: &TickKey, action: &TickAction) -> Result<TickEnd, StoreError> {
    let next_at = next_of(tick, action)?;
    let taking = failed("take up a tick");
    let key = &tick.schedule;
    let mut db = store.begin().await?;
    let request: Option<Request> = sqlx::query_as(
        "SELECT schedule_id, op, kind, context, overlap = 'skip' AND EXISTS (SELECT 1 FROM batches b
            WHERE b.batch_id = s.last_batch AND b.finished_at IS NULL) AS earlier_runs
         FROM schedules s WHERE app = ? AND name = ? AND token = ? AND next_at = ? AND NOT paused",
    )
    .bind(&key.app)
    .bind(&key.name)
    .bind(tick.token)
    .bind(tick.next_at.0)
    .fetch_optional(&mut *db)
    .await
    .map_err(taking)?;
    let Some(request) = request else { return Ok(TickEnd::Gone) };
    let (mut last_at, mut last_batch, mut error, mut stops) = (None, None, None, false);
    let mut submitted = None;
    let end = match action {
        TickAction::Submit { at, batch, processor_version, processor_digest, terms, .. } => {
            last_at = Some(at.0);
            if request.earlier_runs {
                TickEnd::EarlierRuns
            } else {
                let rows: Vec<(i64, String)> = sqlx::query_as("SELECT line, input FROM schedule_rows WHERE schedule_id = ? ORDER BY row_no")
                    .bind(&request.schedule_id)
                    .fetch_all(&mut *db)
                    .await
                    .map_err(taking)?;
                let new = request.batch(&key.app, *batch, (*processor_version, processor_digest), terms.clone());
                submitted = submission(&new);
                insert_batch(&mut db, store.now(), &store.bounds, new, rows_of(rows)).await?;
                last_batch = Some(batch.to_string());
                TickEnd::Submitted
            }
        }
        TickAction::Fail { at, error: why, .. } => {
            (last_at, error) = (Some(at.0), Some(why));
            TickEnd::Moved
        }
        TickAction::Drop { .. } => TickEnd::Moved,
        TickAction::Stop { error: why } => {
            (error, stops) = (Some(why), true);
            TickEnd::Moved
        }
    };
    sqlx::query(
        "UPDATE schedules SET next_at = ?1, last_at = coalesce(?2, last_at), last_batch = coalesce(?3, last_batch), error = ?4,
            paused = ?5, token = CASE WHEN ?5 THEN ?6 ELSE token END
         WHERE app = ?7 AND name = ?8",
    )
    .bind(next_at.0)
    .bind(last_at)
    .bind(last_batch)
    .bind(error)
    .bind(stops)
    .bind(new_token())
    .bind(&key.app)
    .bind(&key.name)
    .execute(&mut *db)
    .await
    .map_err(taking)?;
    db.commit().await.map_err(failed("commit a tick"))?;
    if let Some(event) = submitted {
        store.events.tell(event);
    }
    Ok(end)
}
