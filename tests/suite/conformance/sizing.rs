//! How many rows a lease takes, as far as workers can rely on it.

use std::time::Duration;

use rowmill::model::{ClaimRequest, Lease, NewBatch, ProcessorKind, RowResult};

use super::build::{batch, request, rows, success, version as new_version};
use super::kit::Kit;

/// A worker with ten slots that wants leases of 250 ms.
fn ten_slots() -> ClaimRequest {
    ClaimRequest { leases_max: 10, rows_max: 1_000, slots: 10, ..request() }
}

async fn record_at(kit: &Kit, lease: &Lease, per_row: Duration) {
    let results: Vec<RowResult> = kit.read(lease).await.iter().map(success).collect();
    kit.store.record_results(lease.key, &results, per_row * lease.rows).await.unwrap();
}

fn sizes(leases: &[Lease]) -> Vec<u32> {
    leases.iter().map(|lease| lease.rows).collect()
}

/// How the first leases of a large batch come out after one was recorded at this speed.
async fn sizes_after(kit: &Kit, per_row: Duration) -> Vec<u32> {
    kit.submit(20_000).await;
    let first = kit.claim(&ClaimRequest { leases_max: 1, ..ten_slots() }).await;
    record_at(kit, &first[0], per_row).await;
    sizes(&kit.claim(&ten_slots()).await)
}

pub async fn the_first_leases_of_a_batch_are_small(kit: Kit) {
    kit.submit(20_000).await;
    for lease in kit.claim(&ten_slots()).await {
        assert!(lease.rows <= 100, "{} rows before the speed of one is known", lease.rows);
    }
}

pub async fn fast_rows_make_leases_as_large_as_allowed(kit: Kit) {
    assert_eq!(sizes_after(&kit, Duration::from_micros(5)).await, [1_000; 10]);
}

pub async fn slow_rows_make_small_leases(kit: Kit) {
    assert_eq!(sizes_after(&kit, Duration::from_millis(50)).await, [5; 10]);
}

pub async fn rows_slower_than_the_target_come_one_by_one(kit: Kit) {
    assert_eq!(sizes_after(&kit, Duration::from_secs(3)).await, [1; 10]);
}

pub async fn rows_that_become_slower_make_smaller_leases(kit: Kit) {
    kit.submit(20_000).await;
    let mut before = u32::MAX;
    for per_row in [500, 1_000, 2_000, 4_000, 8_000].map(Duration::from_micros) {
        for lease in kit.claim(&ClaimRequest { leases_max: 2, ..ten_slots() }).await {
            record_at(&kit, &lease, per_row).await;
        }
        let lease = kit.claim(&ClaimRequest { leases_max: 1, ..ten_slots() }).await[0];
        assert!(lease.rows < before, "{} rows of {per_row:?}, after {before}", lease.rows);
        before = lease.rows;
    }
}

pub async fn a_few_rows_of_unknown_speed_spread_over_all_slots(kit: Kit) {
    kit.submit(10).await;
    assert_eq!(sizes(&kit.claim(&ten_slots()).await), [1; 10]);
}

pub async fn the_last_rows_of_a_batch_spread_over_all_slots(kit: Kit) {
    kit.submit(1_100).await;
    let first = kit.claim(&ClaimRequest { rows_max: 100, leases_max: 1, slots: 1, ..ten_slots() }).await;
    record_at(&kit, &first[0], Duration::from_micros(250)).await;
    let sizes = sizes(&kit.claim(&ten_slots()).await);
    assert_eq!((sizes.len(), sizes[0]), (10, 100));
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
}

pub async fn a_worker_with_larger_targets_gets_larger_leases(kit: Kit) {
    kit.submit(20_000).await;
    let first = kit.claim(&ClaimRequest { leases_max: 1, ..ten_slots() }).await;
    record_at(&kit, &first[0], Duration::from_millis(1)).await;
    for (target, rows) in [(10, 10), (100, 100), (500, 500), (60_000, 1_000)] {
        let leases = kit.claim(&ClaimRequest { leases_max: 1, target: Duration::from_millis(target), ..ten_slots() }).await;
        assert_eq!(sizes(&leases), [rows]);
    }
}

pub async fn a_record_of_nothing_says_nothing_about_speed(kit: Kit) {
    kit.submit(20_000).await;
    let first = kit.claim(&ClaimRequest { leases_max: 1, ..ten_slots() }).await;
    record_at(&kit, &first[0], Duration::from_millis(1)).await;
    let leases = kit.claim(&ClaimRequest { leases_max: 2, ..ten_slots() }).await;
    for _ in 0..5 {
        kit.store.record_results(leases[0].key, &[], Duration::from_secs(100)).await.unwrap();
    }
    assert_eq!(sizes(&leases), sizes(&kit.claim(&ClaimRequest { leases_max: 2, ..ten_slots() }).await));
}

/// Registers the processor, and runs a batch at this speed.
async fn run_batch(kit: &Kit, digest: &str, per_row: Duration) -> u32 {
    let version = kit.store.put_processor(&new_version("bank", "post", ProcessorKind::Batch, digest)).await.unwrap().version;
    let before = NewBatch { processor_version: version, ..batch() };
    kit.store.submit_batch(before, rows(10)).await.unwrap();
    for lease in kit.claim(&ten_slots()).await {
        record_at(kit, &lease, per_row).await;
    }
    version
}

/// How the first leases of the next batch come out.
async fn next_sizes(kit: &Kit, processor_version: u32, count: u32) -> Vec<u32> {
    let next = NewBatch { processor_version, ..batch() };
    let id = next.id;
    kit.store.submit_batch(next, rows(count)).await.unwrap();
    let leases = kit.claim(&ten_slots()).await;
    kit.abort(id).await;
    sizes(&leases)
}

pub async fn a_batch_begins_with_the_speed_of_the_one_before(kit: Kit) {
    let version = run_batch(&kit, "quick", Duration::from_micros(20)).await;
    assert_eq!(next_sizes(&kit, version, 80).await, [80], "not crumbled");
    assert_eq!(next_sizes(&kit, version, 20_000).await, [100; 10], "not large before its own speed is known");
    run_batch(&kit, "quick", Duration::from_secs(1)).await;
    assert_eq!(next_sizes(&kit, version, 80).await, [1; 10]);
    // Its own speed counts at once, whatever was expected.
    let next = NewBatch { processor_version: version, ..batch() };
    kit.store.submit_batch(next, rows(20_000)).await.unwrap();
    let first = kit.claim(&ClaimRequest { leases_max: 1, ..ten_slots() }).await;
    record_at(&kit, &first[0], Duration::from_micros(5)).await;
    assert_eq!(sizes(&kit.claim(&ten_slots()).await), [1_000; 10]);
}

pub async fn the_speed_of_another_version_says_nothing(kit: Kit) {
    run_batch(&kit, "quick", Duration::from_micros(20)).await;
    let other = kit.store.put_processor(&new_version("bank", "post", ProcessorKind::Batch, "slow")).await.unwrap().version;
    assert_eq!(next_sizes(&kit, other, 80).await[0], 8, "spread over all slots");
}
