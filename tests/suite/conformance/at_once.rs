//! Slow queries that are submitted by who has a slot for them. A store may lease them with their submission, or leave them to the next claim.

use rowmill::model::{
    App, BatchStatus, ClaimRequest, ClaimedWork, EventKind, EventPosition, EventsOf, NewBatch, NewRow, Policy, ProcessorKind, RowResult, Terms,
};
use rowmill::store::LeaseOwner;

use super::build::{SECOND, TTL, batch, query, request, row, success};
use super::kit::{Kit, START, is_lost};

fn owner() -> LeaseOwner<'static> {
    LeaseOwner { worker: "worker", ttl: TTL }
}

fn slow() -> ClaimRequest {
    ClaimRequest { kind: Some(ProcessorKind::SlowQuery), ..request() }
}

async fn submit(kit: &Kit, new: &NewBatch, row: NewRow) -> Option<ClaimedWork> {
    kit.store.submit_to_run(new.clone(), row, owner()).await.unwrap()
}

/// The lease of a query, whether it came with the submission or not.
async fn lease(kit: &Kit, new: &NewBatch, row: NewRow) -> ClaimedWork {
    let work = match submit(kit, new, row).await {
        Some(work) => work,
        None => kit.store.claim_work(&slow()).await.unwrap().remove(0),
    };
    assert_eq!((work.lease.batch, work.lease.rows), (new.id, 1));
    work
}

async fn record(kit: &Kit, work: &ClaimedWork, result: fn(&rowmill::model::LeasedRow) -> RowResult) {
    let rows = kit.store.read_leased_rows(work.lease.key).await.unwrap();
    kit.store.record_results(work.lease.key, &[result(&rows[0])], SECOND).await.unwrap();
}

pub async fn a_query_that_comes_with_a_lease_is_as_if_it_had_been_claimed(kit: Kit) {
    kit.store.put_app(&App { weight: 3, ..App::named("bank") }).await.unwrap();
    let new = NewBatch { op: "Post".to_owned(), terms: Terms { priority: 7, attempts_max: 3, ..Terms::default() }, ..query() };
    let work = lease(&kit, &new, row(0)).await;
    let known = kit.batch(new.id).await;
    assert_eq!((known.status, known.submitted_at, known.started_at), (BatchStatus::Inprog, START, Some(START)));
    if let Some((batch, app)) = &work.batch {
        assert_eq!(format!("{batch:?}"), format!("{known:?}"));
        assert_eq!(app, &kit.store.read_app("bank").await.unwrap());
    }
    if let Some(rows) = &work.rows {
        assert_eq!(rows, &kit.store.read_leased_rows(work.lease.key).await.unwrap());
    }
    assert!(kit.store.claim_work(&slow()).await.unwrap().is_empty());
    record(&kit, &work, success).await;
    assert_eq!(kit.counts(new.id).await.success, 1);
    let events = kit.store.read_events(&EventsOf::Batch(new.id), EventPosition::default(), 10).await.unwrap().events;
    let [submitted, started, ..] = &events[..] else { panic!("{events:?}") };
    assert!(matches!((&submitted.kind, submitted.status), (EventKind::Submitted, BatchStatus::Queued)), "{submitted:?}");
    assert!(matches!((&started.kind, started.status), (EventKind::Started, BatchStatus::Inprog)), "{started:?}");
}

pub async fn a_query_whose_worker_dies_is_taken_over_however_it_was_leased(kit: Kit) {
    let new = query();
    let lost = lease(&kit, &new, row(0)).await;
    kit.pass(TTL);
    let work = kit.store.claim_work(&slow()).await.unwrap().remove(0);
    assert_eq!((work.lease.batch, work.lease.crashes), (new.id, 1));
    let rows = kit.store.read_leased_rows(work.lease.key).await.unwrap();
    is_lost(kit.store.record_results(lost.lease.key, &[success(&rows[0])], SECOND).await);
    record(&kit, &work, success).await;
}

pub async fn a_query_does_not_come_before_one_that_waits(kit: Kit) {
    let (first, second) = (query(), NewBatch { app: "shop".to_owned(), ..query() });
    kit.store.submit_batch(first.clone(), vec![row(0)]).await.unwrap();
    assert!(submit(&kit, &second, row(0)).await.is_none());
    let claimed = kit.store.claim_work(&ClaimRequest { leases_max: 2, ..slow() }).await.unwrap();
    assert_eq!(claimed.iter().map(|work| work.lease.batch).collect::<Vec<_>>(), [first.id, second.id]);
    // One whose worker died waits, too.
    kit.pass(TTL);
    assert!(submit(&kit, &query(), row(0)).await.is_none());
}

pub async fn what_claims_count_for_is_left_to_them(kit: Kit) {
    let of = |app: &str| NewBatch { app: app.to_owned(), ..query() };
    let later = Terms { start_at: Some(START.after(SECOND)), ..Terms::default() };
    let news = [of("full"), of("paused"), NewBatch { op: "stopped".to_owned(), ..query() }, of("slow"), NewBatch { terms: later, ..query() }];
    for new in &news {
        let kit = kit.another().await;
        kit.store.put_app(&App { running_max: Some(1), ..App::named("full") }).await.unwrap();
        kit.store.set_paused("paused", None, true).await.unwrap();
        kit.store.set_paused("bank", Some("stopped"), true).await.unwrap();
        kit.store.put_policy(&Policy { rate: Some("1/s".parse().unwrap()), ..Policy::of("slow", None) }).await.unwrap();
        assert!(submit(&kit, new, row(0)).await.is_none(), "{new:?}");
        assert_eq!(kit.status(new.id).await, BatchStatus::Queued);
    }
    assert!(submit(&kit, &batch(), row(1)).await.is_none());
}

pub async fn a_query_that_is_asked_for_again_is_leased_once(kit: Kit) {
    let new = NewBatch { request_digest: Some("request".to_owned()), ..query() };
    let work = lease(&kit, &new, row(0)).await;
    assert!(submit(&kit, &new, row(0)).await.is_none());
    assert!(kit.store.claim_work(&slow()).await.unwrap().is_empty());
    record(&kit, &work, success).await;
}
