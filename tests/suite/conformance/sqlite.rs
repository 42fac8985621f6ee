//! The embedded store: the suite, and what it promises beyond the trait since it has one process only.

use std::sync::Arc;

use async_trait::async_trait;
use rowmill::model::{BatchId, ClaimRequest, Clock, ProcessorKind, SystemClock};
use rowmill::store::{SqliteStore, Store, StoreError, StoreEvent};

use super::build::{TTL, failure, request, retry, rows, success};
use super::conformance;
use super::kit::{Harness, Kit, is_lost};
use super::quotas;
use super::scheduled::{schedule, submit};

/// A file in a directory of its own.
pub struct SqliteHarness(tempfile::TempDir);

#[async_trait]
impl Harness for SqliteHarness {
    fn schedules() -> u64 {
        200
    }

    async fn fresh() -> SqliteHarness {
        SqliteHarness(tempfile::tempdir().unwrap())
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(SqliteStore::open(&self.0.path().join("store.db"), clock).await?))
    }
}

conformance!(SqliteHarness);

#[tokio::test]
async fn apps_hold_no_more_than_the_operator_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db"), Arc::new(SystemClock)).await.unwrap();
    store.put_app(&quotas::given_before()).await.unwrap();
    quotas::bounded(&store.with_bounds(quotas::bounds())).await;
}

#[tokio::test]
async fn a_store_that_is_open_cannot_be_opened_by_another() {
    let kit = Kit::fresh::<SqliteHarness>().await;
    let id = kit.submit(1).await;
    let Err(StoreError::InUse { place }) = kit.open_again().await.map(|_| ()) else { panic!("it could be opened twice") };
    assert!(place.ends_with("store.db"), "{place}");
    kit.run_rows().await;
    let kit = kit.crash_and_reopen().await;
    kit.batch(id).await;
}

#[tokio::test]
async fn leases_of_a_dead_process_can_be_claimed_at_once() {
    let kit = Kit::fresh::<SqliteHarness>().await;
    kit.submit(5).await;
    let (recorded, given_back, unread) = (kit.claim_rows(3).await, kit.claim_rows(1).await, kit.claim_rows(1).await);
    kit.record(&recorded, &[success(&kit.read(&recorded).await[0])]).await;
    kit.store.give_back_lease(given_back.key).await.unwrap();

    let kit = kit.crash_and_reopen().await;
    is_lost(kit.store.read_leased_rows(recorded.key).await);
    is_lost(kit.try_record(&unread, &[]).await);
    let mut found = Vec::new();
    for lease in kit.claim(&ClaimRequest { leases_max: 9, ..request() }).await {
        found.push((kit.row_numbers(&lease).await, lease.crashes, kit.attempts(&lease).await[0]));
    }
    found.sort();
    assert_eq!(found, [(vec![2, 3], 1, 2), (vec![4], 0, 1), (vec![5], 1, 2)]);
    kit.claim_nothing().await;
}

#[tokio::test]
async fn a_retry_waits_for_its_time_in_the_next_process_too() {
    let kit = Kit::fresh::<SqliteHarness>().await;
    kit.submit(2).await;
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| retry(row, TTL)).await;
    let kit = kit.crash_and_reopen().await;
    let lease = kit.claim_rows(1).await;
    assert_eq!(kit.row_numbers(&lease).await, [2]);
    kit.claim_nothing().await;
    kit.pass(TTL);
    kit.record_each(&kit.claim_rows(1).await, failure).await;
}

#[tokio::test]
async fn a_batch_that_a_dead_process_was_finishing_can_be_claimed_at_once() {
    let kit = Kit::fresh::<SqliteHarness>().await;
    kit.submit(1).await;
    kit.run_rows().await;
    let old = kit.claim_finish().await;
    let kit = kit.crash_and_reopen().await;
    is_lost(kit.store.record_files(&old, &[]).await);
    let new = kit.claim_finish().await;
    assert_eq!((new.batch, new.step, new.attempt), (old.batch, old.step, 2));
    kit.finish_all().await;
    kit.store.record_files(&new, &[]).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_work_hears_of_a_tick() {
    let kit = Kit::fresh::<SqliteHarness>().await;
    let mut events = kit.store.events();
    let put = kit.store.put_schedule(&schedule("a"), &rows(1)).await.unwrap();
    kit.store.run_tick(&put.next_tick(), &submit(&put, BatchId::generate())).await.unwrap();
    assert_eq!(events.try_recv().unwrap(), StoreEvent::Submitted { app: "bank".to_owned(), kind: ProcessorKind::Batch });
}
