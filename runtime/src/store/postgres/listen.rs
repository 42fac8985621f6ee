//! Events of other processes, by NOTIFY. Without them, polling finds everything a little later.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;

use super::text::{decode, encode};
use crate::model::ProcessorKind;
use crate::store::StoreEvent;
use crate::store::events::Events;

pub(super) const CHANNEL: &str = "rowmill";
const RECONNECT_LEAST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Listens for ever; the task is aborted with the store. What was missed while there was no connection may be anything, so everybody looks.
pub(super) async fn listen(pool: PgPool, events: Events) {
    let mut pause = RECONNECT_LEAST;
    loop {
        match follow(&pool, &events, &mut pause).await {
            Ok(()) => tracing::info!("the connection for notifications ended"),
            Err(error) => tracing::warn!(%error, "cannot listen for notifications: work is found by polling until that is possible again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

async fn follow(pool: &PgPool, events: &Events, pause: &mut Duration) -> Result<(), sqlx::Error> {
    // A connection of its own: those of the pool are for statements.
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await?;
    *pause = RECONNECT_LEAST;
    for kind in [ProcessorKind::Batch, ProcessorKind::SlowQuery] {
        events.tell(StoreEvent::Work(kind));
    }
    while let Some(notification) = listener.try_recv().await? {
        if let Some(event) = read(notification.payload()) {
            events.tell(event);
        }
    }
    Ok(())
}

/// What an event is called on the channel.
pub(super) fn write(event: &StoreEvent) -> String {
    match event {
        StoreEvent::Submitted { app, kind } => format!("{} {}", kind.as_str(), encode(app)),
        StoreEvent::Work(kind) => format!("work {}", kind.as_str()),
        StoreEvent::Aborted(id) => format!("aborted {id}"),
        StoreEvent::Final(id) => format!("final {id}"),
    }
}

fn read(payload: &str) -> Option<StoreEvent> {
    let (what, whose) = payload.split_once(' ')?;
    Some(match what {
        "work" if whose == ProcessorKind::SlowQuery.as_str() => StoreEvent::Work(ProcessorKind::SlowQuery),
        "work" => StoreEvent::Work(ProcessorKind::Batch),
        "batch" => StoreEvent::Submitted { app: decode(whose.to_owned()), kind: ProcessorKind::Batch },
        "slow_query" => StoreEvent::Submitted { app: decode(whose.to_owned()), kind: ProcessorKind::SlowQuery },
        "aborted" => StoreEvent::Aborted(whose.parse().ok()?),
        "final" => StoreEvent::Final(whose.parse().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BatchId;

    #[test]
    fn every_event_comes_through_the_channel() {
        let id = BatchId::generate();
        let kinds = [ProcessorKind::Batch, ProcessorKind::SlowQuery].map(StoreEvent::Work);
        let submitted = [ProcessorKind::Batch, ProcessorKind::SlowQuery].map(|kind| StoreEvent::Submitted { app: "a\0 b".to_owned(), kind });
        for event in kinds.into_iter().chain(submitted).chain([StoreEvent::Aborted(id), StoreEvent::Final(id)]) {
            assert_eq!(read(&write(&event)), Some(event));
        }
        assert_eq!(read("what is this"), None);
    }
}
