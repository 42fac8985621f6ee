//! A claim that takes its time while the batch goes further: the lease that it makes comes before that, or is none.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{BatchId, BatchStep, ClaimRequest, RetryRows};
use rowmill::store::{PgConnection, PgStore, Store};
use sqlx::Connection;

use super::super::build::{MILLISECOND, TTL, batch, request, retry, rows};
use super::migrated;
use super::races::{connect, until_locked};

/// What the claim finds.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// A lease whose owner went silent, with more rows than it asks for.
    LeaseThatEnded,
    RetriesThatAreDue,
}

/// How the batch goes further behind its abort.
#[derive(Clone, Copy, Debug)]
enum Further {
    Removed,
    RunAgain,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_held_up_leaves_no_lease_behind() {
    for waiting in [Waiting::LeaseThatEnded, Waiting::RetriesThatAreDue] {
        for further in [Further::Removed, Further::RunAgain] {
            held_up(waiting, further).await;
        }
    }
}

async fn held_up(waiting: Waiting, further: Further) {
    let database = migrated();
    let store = connect(&database).await;
    let id = submit(&store, waiting).await;
    // Where a claim writes down what its app had, behind the lease.
    let mut gate = PgConnection::connect(&database.url()).await.unwrap();
    let mut closed = gate.begin().await.unwrap();
    sqlx::query("SELECT FROM rowmill.apps FOR UPDATE").execute(&mut *closed).await.unwrap();
    let claiming = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim_leases(&ClaimRequest { rows_max: 3, ..request() }).await.unwrap() }
    });
    until_locked(&mut closed, 1).await;
    let going = tokio::spawn({
        let store = Arc::clone(&store);
        async move { go(&store, id, further).await }
    });
    until_locked(&mut closed, 2).await;
    closed.rollback().await.unwrap();
    assert_eq!(claiming.await.unwrap().len(), 1, "{waiting:?}");
    going.await.unwrap();
    let left = database.sql("SELECT count(*) FROM rowmill.leases").unwrap();
    assert_eq!(left.trim(), "0", "{waiting:?}, {further:?}: leases are left");
    if let Further::RunAgain = further {
        let again = store.claim_leases(&ClaimRequest { leases_max: 10, ..request() }).await.unwrap();
        assert_eq!(again.iter().map(|lease| lease.rows).sum::<u32>(), 10, "{waiting:?}: each row once");
    }
}

/// A batch of ten rows.
async fn submit(store: &PgStore, waiting: Waiting) -> BatchId {
    let new = batch();
    let id = new.id;
    store.submit_batch(new, rows(10)).await.unwrap();
    match waiting {
        Waiting::LeaseThatEnded => {
            store.claim_leases(&ClaimRequest { ttl: MILLISECOND, ..request() }).await.unwrap();
            tokio::time::sleep(5 * MILLISECOND).await;
        }
        Waiting::RetriesThatAreDue => {
            let [lease] = store.claim_leases(&request()).await.unwrap()[..] else { panic!("there are rows") };
            let results: Vec<_> = store.read_leased_rows(lease.key).await.unwrap().iter().map(|row| retry(row, Duration::ZERO)).collect();
            store.record_results(lease.key, &results, MILLISECOND).await.unwrap();
        }
    }
    id
}

async fn go(store: &PgStore, id: BatchId, further: Further) {
    assert!(store.abort_batch(id, None).await.unwrap().changed);
    while let Some(lease) = store.claim_finish("finisher", None, TTL).await.unwrap() {
        match lease.step {
            BatchStep::Join => store.record_files(&lease, &[]).await.unwrap(),
            _ => store.record_mark_done(&lease, None).await.unwrap(),
        }
    }
    match further {
        Further::Removed => {
            store.begin_removal(id, TTL).await.unwrap();
            while store.prune_rows(id, 100, TTL).await.unwrap().left {}
        }
        Further::RunAgain => {
            let retried = store.retry_batch(id, &RetryRows { aborted: true, ..RetryRows::default() }).await.unwrap();
            assert_eq!(retried.rows, 10);
        }
    }
}
