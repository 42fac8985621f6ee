//! Events of other processes, by NOTIFY. Without them, polling finds everything a little later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// Submissions of this process that are remembered until their notification comes, by app and kind.
const OWN_MAX: usize = 1_024;

/// What this process submits is told in it as soon as it is committed, some tenths of a millisecond before the notification comes by way of two more processes. That one is
/// then passed over, so that nobody looks twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Own(Arc<Mutex<HashMap<String, Awaited>>>);

/// Notifications of submissions of one kind and app.
#[derive(Debug, Default)]
struct Awaited {
    /// Submissions that were sent and not answered yet.
    sent: u32,
    /// Of these, so many were heard of.
    heard: u32,
    /// Notifications that come after the answer.
    passed: u32,
}

impl Own {
    /// Before a submission is sent.
    pub(super) fn send(&self, event: &StoreEvent) {
        let mut own = self.lock();
        if own.len() < OWN_MAX {
            own.entry(write(event)).or_default().sent += 1;
        }
    }

    /// When it is answered: whether its event is still to be told.
    pub(super) fn answered(&self, event: &StoreEvent, submitted: bool) -> bool {
        let mut own = self.lock();
        let key = write(event);
        let Some(awaited) = own.get_mut(&key) else { return submitted };
        awaited.sent = awaited.sent.saturating_sub(1);
        let untold = submitted && awaited.heard == 0;
        if untold {
            awaited.passed += 1;
        } else if submitted {
            awaited.heard -= 1;
        }
        awaited.heard = awaited.heard.min(awaited.sent);
        if awaited.sent == 0 && awaited.passed == 0 {
            own.remove(&key);
        }
        untold
    }

    /// Whether a notification is to be told.
    fn hear(&self, payload: &str) -> bool {
        let mut own = self.lock();
        let Some(awaited) = own.get_mut(payload) else { return true };
        if awaited.passed > 0 {
            awaited.passed -= 1;
            if awaited.sent == 0 && awaited.passed == 0 {
                own.remove(payload);
            }
            return false;
        }
        awaited.heard = (awaited.heard + 1).min(awaited.sent);
        true
    }

    /// Nothing is awaited any more: notifications were lost.
    fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens for ever; the task is aborted with the store. What was missed while there was no connection may be anything, so everybody looks.
pub(super) async fn listen(pool: PgPool, events: Events, own: Own) {
    let mut pause = RECONNECT_LEAST;
    loop {
        match follow(&pool, &events, &own, &mut pause).await {
            Ok(()) => tracing::info!("the connection for notifications ended"),
            Err(error) => tracing::warn!(%error, "cannot listen for notifications: work is found by polling until that is possible again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

async fn follow(pool: &PgPool, events: &Events, own: &Own, pause: &mut Duration) -> Result<(), sqlx::Error> {
    // A connection of its own: those of the pool are for statements.
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await?;
    *pause = RECONNECT_LEAST;
    own.forget();
    for kind in [ProcessorKind::Batch, ProcessorKind::SlowQuery] {
        events.tell(StoreEvent::Work(kind));
    }
    while let Some(notification) = listener.try_recv().await? {
        if let Some(event) = read(notification.payload())
            && own.hear(notification.payload())
        {
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
    fn what_was_submitted_here_is_told_once() {
        let event = StoreEvent::Submitted { app: "a".to_owned(), kind: ProcessorKind::SlowQuery };
        let (own, payload) = (Own::default(), write(&event));
        own.send(&event);
        assert!(own.answered(&event, true), "the answer comes first");
        assert!(!own.hear(&payload));
        assert!(own.hear(&payload), "this one is another process's");
        own.send(&event);
        assert!(own.hear(&payload), "the notification comes first");
        assert!(!own.answered(&event, true));
        own.send(&event);
        assert!(!own.answered(&event, false), "it was not submitted");
        assert!(own.hear(&payload));
        own.send(&event);
        own.send(&event);
        assert!(own.answered(&event, true) && own.answered(&event, true));
        assert!(!own.hear(&payload) && !own.hear(&payload) && own.hear(&payload));
        assert!(own.lock().is_empty());
    }

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
