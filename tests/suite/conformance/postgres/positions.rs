//! Positions of events hold whatever the order in which transactions commit.

use std::time::{Duration, Instant};

use rowmill::model::{BatchEvent, EventKind, EventPosition, EventsOf, Pooler};
use rowmill::store::{PgConnection, PgSettings, PgStore, Store};
use sqlx::Connection;

use super::super::build::{batch, held, rows};
use super::migrated;

/// So many, once they are there: any transaction that runs in the server may hold the last ones back.
async fn read(store: &PgStore, after: EventPosition, wanted: usize) -> Vec<BatchEvent> {
    let began = Instant::now();
    loop {
        let events = store.read_events(&EventsOf::All, after, 100).await.unwrap().events;
        if events.len() >= wanted {
            return events;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "only {events:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_commits_late_is_not_passed_over() {
    let database = migrated();
    let store = PgStore::connect(&PgSettings { url: database.url(), connections: 3, pooler: Pooler::None }).await.unwrap();
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let mut late = connection.begin().await.unwrap();
    let (first, second) = (batch(), batch());
    store.submit_batch_in(&mut late, first.clone(), rows(1)).await.unwrap();
    store.submit_batch(second.clone(), rows(1)).await.unwrap();
    let before = store.read_events(&EventsOf::All, EventPosition::default(), 100).await.unwrap();
    assert_eq!(before.events, [], "the second is there, and nobody may go on behind it");
    let of_second = store.read_events(&EventsOf::Batch(second.id), EventPosition::default(), 9).await.unwrap().events;
    assert_eq!(of_second.len(), 1, "but for those who look at nothing else");
    late.commit().await.unwrap();
    let told: Vec<_> = read(&store, before.next, 2).await.into_iter().map(|event| event.batch).collect();
    assert_eq!(told, [first.id, second.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_older_than_the_event_before_does_not_come_before_it() {
    let database = migrated();
    let store = PgStore::connect(&PgSettings { url: database.url(), connections: 3, pooler: Pooler::None }).await.unwrap();
    let new = held();
    store.submit_batch(new.clone(), rows(1)).await.unwrap();
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    let mut older = connection.begin().await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *older).await.unwrap();
    store.release_batch(new.id).await.unwrap();
    sqlx::query("UPDATE rowmill.batches SET status = 'aborted', step = 'join', fresh = false WHERE batch_id = $1::uuid")
        .bind(new.id.to_string())
        .execute(&mut *older)
        .await
        .unwrap();
    let first = read(&store, EventPosition::default(), 1).await;
    assert_eq!(first.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Submitted], "the release is younger than what runs");
    older.commit().await.unwrap();
    let rest = read(&store, first[0].position, 2).await;
    assert_eq!(rest.iter().map(|event| (event.kind, event.seq)).collect::<Vec<_>>(), [(EventKind::Released, 2), (EventKind::Aborted, 3)]);
}
