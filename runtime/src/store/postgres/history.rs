//! What happened to batches is read. How it is written down, and what a position is, is said in migrations/postgres/0021_events.sql.

use super::connect::PgStore;
use super::text::decode;
use crate::model::{EventPage, EventPosition, EventsOf};
use crate::store::StoreError;
use crate::store::columns::{failed, signed};
use crate::store::history::{EventRow, page_of};

pub(super) async fn read_events(store: &PgStore, of: &EventsOf, after: EventPosition, limit: u32) -> Result<EventPage, StoreError> {
    let reading = failed("read events");
    let mut db = store.unit().await?;
    let rows: Vec<EventRow> = match of {
        EventsOf::Batch(id) => {
            let key: Vec<i64> = sqlx::query_scalar("SELECT batch_key FROM rowmill.batches WHERE batch_id = $1")
                .persistent(store.named())
                .bind(id.uuid())
                .fetch_all(&mut *db)
                .await
                .map_err(failed("look up a batch"))?;
            let Some(key) = key.into_iter().next() else {
                db.done().await?;
                return Err(StoreError::NotFound(*id));
            };
            // Whoever sees an event of a batch sees those before it: these need not wait for other transactions.
            sqlx::query_as(
                "SELECT e.xid::text::bigint AS transaction, e.event_no, b.batch_id::text, b.app, b.op, e.seq::bigint, e.at, e.kind, e.status, e.row_count::bigint,
                    e.success::bigint, e.failed::bigint, e.line, e.failures::bigint, e.note
                 FROM rowmill.batch_events e JOIN rowmill.batches b USING (batch_key)
                 WHERE e.batch_key = $1 AND (e.xid, e.event_no) > ($2::text::xid8, $3) ORDER BY e.seq LIMIT $4",
            )
            .persistent(store.named())
            .bind(key)
        }
        EventsOf::App(_) | EventsOf::All => sqlx::query_as(
            "SELECT e.xid::text::bigint AS transaction, e.event_no, b.batch_id::text, b.app, b.op, e.seq::bigint, e.at, e.kind, e.status, e.row_count::bigint,
                e.success::bigint, e.failed::bigint, e.line, e.failures::bigint, e.note
             FROM (SELECT * FROM rowmill.batch_events e
                WHERE (e.xid, e.event_no) > ($2::text::xid8, $3) AND e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND $1 IS NULL
                ORDER BY e.xid, e.event_no LIMIT $4) e
             CROSS JOIN LATERAL (SELECT * FROM rowmill.batches b WHERE b.batch_key = e.batch_key LIMIT 1) b ORDER BY e.xid, e.event_no",
        )
        .persistent(store.named())
        .bind(None::<i64>),
    }
    .bind(signed(after.transaction).to_string())
    .bind(signed(after.number))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(reading)?;
    db.done().await?;
    let rows = rows.into_iter().map(|row| EventRow { app: decode(row.app), op: decode(row.op), note: row.note.map(decode), ..row }).collect();
    page_of(of, after, rows)
}
