//! Events of batches as they stand in columns, the same in every database.

use super::StoreError;
use super::columns::{count, failed, small, status_of, worded};
use crate::model::{BatchCounts, BatchEvent, BatchId, BatchStatus, EventKind, EventPage, EventPosition, EventsOf, Timestamp};

/// An event as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct EventRow {
    pub transaction: i64,
    pub event_no: i64,
    pub batch_id: String,
    pub app: String,
    pub op: String,
    pub seq: i64,
    pub at: i64,
    pub kind: String,
    pub status: String,
    pub row_count: i64,
    pub success: i64,
    pub failed: i64,
    pub line: Option<i64>,
    pub failures: Option<i64>,
    pub note: Option<String>,
}

impl EventRow {
    fn position(&self) -> EventPosition {
        EventPosition { transaction: count(self.transaction), number: count(self.event_no) }
    }

    fn event(self) -> Result<BatchEvent, StoreError> {
        let position = self.position();
        let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == self.kind);
        let kind = kind.unwrap_or_else(|| unreachable!("the constraint kind_is_known let '{}' through", self.kind));
        let status = status_of(&self.status);
        let (rows, success, failures) = (count(self.row_count), count(self.success), count(self.failed));
        let aborted = if status == BatchStatus::Aborted { rows - success - failures } else { 0 };
        let (messages, reason) = match (kind, self.note) {
            (EventKind::RowFailed, Some(json)) => (serde_json::from_str(&json).map_err(failed("read messages"))?, None),
            (EventKind::Aborted, note) => (Vec::new(), note.map(worded)),
            (_, note) => (Vec::new(), note),
        };
        let batch: BatchId = self.batch_id.parse().map_err(failed("read a batch's id"))?;
        Ok(BatchEvent {
            position,
            batch,
            app: self.app,
            op: self.op,
            seq: small(self.seq),
            at: Timestamp(self.at),
            kind,
            status,
            counts: BatchCounts { rows, success, failed: failures, aborted },
            line: self.line.map(small),
            failures: self.failures.map(count),
            messages,
            reason,
        })
    }
}

/// A page of what was read behind a position: of other apps nothing is in it, and it goes on behind them.
pub(super) fn page_of(of: &EventsOf, after: EventPosition, rows: Vec<EventRow>) -> Result<EventPage, StoreError> {
    let next = rows.last().map_or(after, EventRow::position);
    let wanted = |row: &EventRow| !matches!(of, EventsOf::App(app) if *app != row.app);
    Ok(EventPage { events: rows.into_iter().filter(wanted).map(EventRow::event).collect::<Result<_, _>>()?, next })
}
