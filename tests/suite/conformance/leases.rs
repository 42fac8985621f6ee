//! Rows come in, are leased and recorded.

use std::time::Duration;

use rowmill::model::{BatchStatus, JsonText, NewRow, RowResult, RowStatus, Verdict};
use rowmill::store::StoreError;

use super::support::{Fresh, TTL, new_batch, result, rows};

pub async fn a_batch_needs_rows_unless_it_is_held(fresh: Fresh) {
    assert!(matches!(fresh.store.submit_batch(new_batch(false), vec![]).await, Err(StoreError::Invalid(_))));
    assert!(matches!(fresh.store.submit_batch(new_batch(false), rows([1, 0])).await, Err(StoreError::Invalid(_))));
    let held = new_batch(true);
    let id = held.id;
    fresh.store.submit_batch(held.clone(), vec![]).await.unwrap();
    assert!(matches!(fresh.store.submit_batch(held, vec![]).await, Err(StoreError::Invalid(_))));
    assert!(matches!(fresh.store.release_batch(id).await, Err(StoreError::Invalid(_))));
    assert_eq!(fresh.store.read_batch(id).await.unwrap().op, "op");
    fresh.store.discard_batch(id).await.unwrap();
    assert!(matches!(fresh.store.read_batch(id).await, Err(StoreError::NotFound(_))));
}

pub async fn appended_rows_are_run_only_after_the_release(fresh: Fresh) {
    let held = new_batch(true);
    let id = held.id;
    fresh.store.submit_batch(held, rows([1])).await.unwrap();
    assert_eq!(fresh.store.append_rows(id, rows([2, 3])).await.unwrap(), 3);
    assert!(fresh.claim(1, 10).await.is_empty());
    assert_eq!(fresh.store.release_batch(id).await.unwrap(), 3);
    assert_eq!(fresh.store.release_batch(id).await.unwrap(), 3);
    assert!(matches!(fresh.store.append_rows(id, rows([4])).await, Err(StoreError::WrongStatus { .. })));
    assert_eq!(fresh.claim_one(10).await.rows, 3);
    assert!(matches!(fresh.store.release_batch(id).await, Err(StoreError::WrongStatus { status: BatchStatus::Inprog, .. })));
}

pub async fn claims_cover_every_row_once(fresh: Fresh) {
    fresh.submit(250).await;
    let mut seen = Vec::new();
    while let Some(lease) = fresh.claim(1, 7).await.pop() {
        seen.extend(fresh.store.read_leased_rows(lease.key).await.unwrap().into_iter().map(|row| row.row_no));
    }
    assert_eq!(seen, (1..=250).collect::<Vec<_>>());
}

pub async fn a_claim_never_gives_more_leases_than_were_asked_for(fresh: Fresh) {
    fresh.submit(100).await;
    assert_eq!(fresh.claim(3, 5).await.iter().map(|lease| lease.rows).collect::<Vec<_>>(), [5, 5, 5]);
}

pub async fn a_stale_lease_cannot_record(fresh: Fresh) {
    let id = fresh.submit(1).await;
    let lease = fresh.claim_one(1).await;
    fresh.clock.advance(TTL);
    let stale = fresh.store.record_results(lease.key, &[result(1, 1, RowStatus::Success)], Duration::ZERO).await;
    assert!(matches!(stale, Err(StoreError::LeaseLost)));
    assert_eq!(fresh.store.renew_leases(&[lease.key], TTL).await.unwrap(), [lease.key]);
    assert_eq!(fresh.store.read_batch(id).await.unwrap().counts.success, 0);
}

pub async fn a_lease_that_was_taken_over_opens_nothing_to_its_old_owner(fresh: Fresh) {
    fresh.submit(2).await;
    let old = fresh.claim_one(2).await;
    fresh.clock.advance(TTL);
    let new = fresh.claim_one(2).await;
    assert_eq!((new.key.id, new.rows, new.crashes), (old.key.id, 2, 1));
    assert_ne!(new.key.token, old.key.token);
    assert!(matches!(fresh.store.read_leased_rows(old.key).await, Err(StoreError::LeaseLost)));
    let late = fresh.store.record_results(old.key, &[result(1, 1, RowStatus::Failed)], Duration::ZERO).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)));
    fresh.store.give_back_lease(old.key).await.unwrap();
    let rows = fresh.store.read_leased_rows(new.key).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.attempt).collect::<Vec<_>>(), [2, 2]);
    assert!(fresh.record_all(&new).await.last);
}

pub async fn rows_of_a_lease_that_was_given_back_are_at_their_first_attempt(fresh: Fresh) {
    fresh.submit(3).await;
    let lease = fresh.claim_one(3).await;
    fresh.store.record_results(lease.key, &[result(1, 1, RowStatus::Success)], Duration::ZERO).await.unwrap();
    fresh.store.give_back_lease(lease.key).await.unwrap();
    let again = fresh.claim_one(3).await;
    let rows = fresh.store.read_leased_rows(again.key).await.unwrap();
    assert_eq!(rows.iter().map(|row| (row.row_no, row.attempt)).collect::<Vec<_>>(), [(2, 1), (3, 1)]);
}

pub async fn after_two_crashes_rows_are_leased_one_by_one(fresh: Fresh) {
    fresh.submit(3).await;
    for _ in 0..2 {
        assert_eq!(fresh.claim_one(3).await.rows, 3);
        fresh.clock.advance(TTL);
    }
    let alone = fresh.claim(5, 3).await;
    assert_eq!(alone.iter().map(|lease| (lease.rows, lease.crashes)).collect::<Vec<_>>(), [(1, 2), (1, 2), (1, 2)]);
    for lease in &alone {
        fresh.record_all(lease).await;
    }
    assert!(fresh.claim(5, 3).await.is_empty());
}

pub async fn results_must_be_the_next_rows_of_the_lease(fresh: Fresh) {
    let id = fresh.submit(3).await;
    let lease = fresh.claim_one(3).await;
    for wrong in [vec![2], vec![1, 3], vec![1, 1], vec![1, 2, 3, 4]] {
        let results: Vec<RowResult> = wrong.iter().map(|&row_no| result(row_no, 1, RowStatus::Success)).collect();
        assert!(fresh.store.record_results(lease.key, &results, Duration::ZERO).await.is_err(), "{wrong:?}");
        assert_eq!(fresh.store.read_batch(id).await.unwrap().counts.success, 0);
    }
    assert!(fresh.record_all(&lease).await.last);
}

pub async fn a_retry_waits_until_it_is_due_and_counts_its_attempt(fresh: Fresh) {
    fresh.submit(2).await;
    let lease = fresh.claim_one(2).await;
    let retry = RowResult { verdict: Verdict::Retry { after: Duration::from_secs(5) }, ..result(1, 1, RowStatus::Failed) };
    let recorded = fresh.store.record_results(lease.key, &[retry, result(2, 1, RowStatus::Success)], Duration::ZERO).await.unwrap();
    assert!(!recorded.last);
    assert!(fresh.claim(1, 9).await.is_empty());
    assert_eq!(fresh.store.next_due().await.unwrap(), Some(Duration::from_secs(5)));
    fresh.clock.advance(Duration::from_secs(5));
    let again = fresh.claim_one(9).await;
    let rows = fresh.store.read_leased_rows(again.key).await.unwrap();
    assert_eq!(rows.iter().map(|row| (row.row_no, row.attempt)).collect::<Vec<_>>(), [(1, 2)]);
    assert!(fresh.record_all(&again).await.last);
}

pub async fn large_rows_are_read_in_parts(fresh: Fresh) {
    let batch = new_batch(false);
    let large = |line| NewRow { line, input: JsonText::trusted(format!("\"{}\"", "x".repeat(1 << 20))), rejected: None };
    fresh.store.submit_batch(batch, (1..=12).map(large).collect()).await.unwrap();
    let lease = fresh.claim_one(12).await;
    let mut read = 0;
    while read < 12 {
        let rows = fresh.store.read_leased_rows(lease.key).await.unwrap();
        assert!(!rows.is_empty() && rows.len() < 12);
        read += rows.len();
        fresh.record_all(&lease).await;
    }
}
