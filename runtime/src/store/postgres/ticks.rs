//! Ticks: a schedule moves on, and its batch comes in, in one transaction.

use super::connect::{PgStore, refuse};
use super::submit::submit_batch_in;
use super::text::{decode, encode};
use crate::model::{TickAction, TickEnd, TickKey};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::scheduled::{Request, next_of, rows_of};

pub(super) async fn run_tick(store: &PgStore, tick: &TickKey, action: &TickAction) -> Result<TickEnd, StoreError> {
    let next_at = next_of(tick, action)?;
    let taking = failed("take up a tick");
    let (key, named) = (&tick.schedule, store.named());
    let mut db = store.begin().await?;
    // Who comes second waits here for the first, and then finds that the schedule has moved on.
    let found: Option<Request> = sqlx::query_as(
        "SELECT s.schedule_id::text, s.op, s.kind, s.context, s.overlap = 'skip' AND EXISTS (SELECT FROM rowmill.batches b
            WHERE b.batch_id = s.last_batch AND b.finished_at IS NULL) AS earlier_runs
         FROM rowmill.schedules s WHERE s.app = $1 AND s.name = $2 AND s.token = $3 AND s.next_at = $4 AND NOT s.paused FOR NO KEY UPDATE",
    )
    .persistent(named)
    .bind(encode(&key.app))
    .bind(encode(&key.name))
    .bind(tick.token)
    .bind(tick.next_at.0)
    .fetch_optional(&mut *db)
    .await
    .map_err(taking)?;
    let Some(request) = found else {
        db.rollback().await.map_err(taking)?;
        return Ok(TickEnd::Gone);
    };
    let (mut last_at, mut last_batch, mut error, mut stops) = (None, None, None, false);
    let end = match action {
        TickAction::Submit { at, batch, processor_version, processor_digest, terms, .. } => {
            last_at = Some(at.0);
            if request.earlier_runs {
                TickEnd::EarlierRuns
            } else {
                let rows: Vec<(i64, String)> =
                    sqlx::query_as("SELECT line, input FROM rowmill.schedule_rows WHERE schedule_id = $1::uuid ORDER BY row_no")
                        .persistent(named)
                        .bind(&request.schedule_id)
                        .fetch_all(&mut *db)
                        .await
                        .map_err(taking)?;
                let request = Request { op: decode(request.op), ..request };
                let new = request.batch(&key.app, *batch, (*processor_version, processor_digest), terms.clone());
                if let Err(error) = submit_batch_in(&mut db, named, store.now(), &store.bounds, new, rows_of(rows)).await {
                    return refuse(db, error).await;
                }
                last_batch = Some(batch.uuid());
                TickEnd::Submitted
            }
        }
        TickAction::Fail { at, error: why, .. } => {
            (last_at, error) = (Some(at.0), Some(encode(why)));
            TickEnd::Moved
        }
        TickAction::Drop { .. } => TickEnd::Moved,
        TickAction::Stop { error: why } => {
            (error, stops) = (Some(encode(why)), true);
            TickEnd::Moved
        }
    };
    sqlx::query(
        "UPDATE rowmill.schedules SET next_at = $1, last_at = coalesce($2, last_at), last_batch = coalesce($3, last_batch), error = $4,
            paused = $5, token = CASE WHEN $5 THEN rowmill.new_token() ELSE token END
         WHERE app = $6 AND name = $7",
    )
    .persistent(named)
    .bind(next_at.0)
    .bind(last_at)
    .bind(last_batch)
    .bind(error)
    .bind(stops)
    .bind(encode(&key.app))
    .bind(encode(&key.name))
    .execute(&mut *db)
    .await
    .map_err(taking)?;
    db.commit().await.map_err(failed("commit a tick"))?;
    Ok(end)
}
