//! What happened to batches is read. How it is written down is said in migrations/sqlite/0021_events.sql.

use super::{SqliteStore, find_batch};
use crate::model::{EventPage, EventPosition, EventsOf};
use crate::store::StoreError;
use crate::store::columns::{failed, signed};
use crate::store::history::page_of;

pub(super) async fn read_events(store: &SqliteStore, of: &EventsOf, after: EventPosition, limit: u32) -> Result<EventPage, StoreError> {
    let reading = failed("read events");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let select = if let EventsOf::Batch(id) = of {
        let (key, _) = find_batch(&mut db, *id).await?;
        sqlx::query_as(
            "SELECT 0 AS \"transaction\", e.event_no, b.batch_id, b.app, b.op, e.seq, e.at, e.kind, e.status, e.row_count, e.success, e.failed, e.line, e.failures, e.note
             FROM batch_events e JOIN batches b USING (batch_key) WHERE e.batch_key = ?1 AND e.event_no > ?2 ORDER BY e.seq LIMIT ?3",
        )
        .bind(Some(key))
    } else {
        sqlx::query_as(
            "SELECT 0 AS \"transaction\", e.event_no, b.batch_id, b.app, b.op, e.seq, e.at, e.kind, e.status, e.row_count, e.success, e.failed, e.line, e.failures, e.note
             FROM batch_events e JOIN batches b USING (batch_key) WHERE ?1 IS NULL AND e.event_no > ?2 ORDER BY e.event_no LIMIT ?3",
        )
        .bind(None::<i64>)
    };
    let rows = select.bind(signed(after.number)).bind(i64::from(limit)).fetch_all(&mut *db).await.map_err(reading)?;
    page_of(of, after, rows)
}
