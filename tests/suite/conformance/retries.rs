//! Rows that are to be run again.

use std::time::Duration;

use rowmill::model::{BatchStatus, BatchStep, ClaimRequest, Lease, LeasedRow, RowResult, RowStatus};

use super::build::{MILLISECOND, SECOND, TTL, counts, failure, outcome, query, request, retry, row, success};
use super::kit::{Kit, is_invalid, is_lost};

/// A batch whose rows all wait for a retry, due in a second.
async fn all_to_be_retried(kit: &Kit, rows: u32) -> rowmill::model::BatchId {
    let id = kit.submit(rows).await;
    let lease = kit.claim_rows(rows).await;
    let recorded = kit.record_each(&lease, |row| retry(row, SECOND)).await;
    assert_eq!((recorded.counts, recorded.last), (counts(u64::from(rows), 0, 0, 0), false));
    id
}

pub async fn a_retry_is_claimed_when_it_is_due_and_not_before(kit: Kit) {
    all_to_be_retried(&kit, 1).await;
    kit.claim_nothing().await;
    kit.pass(SECOND - MILLISECOND);
    kit.claim_nothing().await;
    kit.pass(MILLISECOND);
    let lease = kit.claim_rows(1).await;
    assert_eq!((kit.row_numbers(&lease).await, lease.crashes), (vec![1], 0));
    kit.claim_nothing().await;
}

pub async fn each_retry_is_another_attempt(kit: Kit) {
    let id = kit.submit(1).await;
    for attempt in 1..=5 {
        let lease = kit.claim_rows(1).await;
        assert_eq!(kit.attempts(&lease).await, [attempt]);
        let wait = SECOND * attempt;
        kit.record_each(&lease, |row| retry(row, wait)).await;
        kit.pass(wait - MILLISECOND);
        kit.claim_nothing().await;
        kit.pass(MILLISECOND);
    }
    let lease = kit.claim_rows(1).await;
    assert!(kit.record_each(&lease, success).await.last);
    assert_eq!(kit.results(id).await[0].attempts, 6);
}

pub async fn a_batch_does_not_end_while_a_retry_waits(kit: Kit) {
    let id = kit.submit(3).await;
    let lease = kit.claim_rows(3).await;
    let recorded = kit.record_each(&lease, |row| if row.row_no == 2 { retry(row, SECOND) } else { success(row) }).await;
    assert_eq!((recorded.counts, recorded.last), (counts(3, 2, 0, 0), false));
    is_lost(kit.store.read_leased_rows(lease.key).await);
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.step, kit.try_claim_finish().await), (BatchStatus::Inprog, BatchStep::Rows, None));
    assert_eq!(kit.statuses(id).await, [Some(RowStatus::Success), None, Some(RowStatus::Success)]);
    kit.pass(SECOND);
    let recorded = {
        let lease = kit.claim_rows(1).await;
        kit.record_each(&lease, failure).await
    };
    assert_eq!((recorded.counts, recorded.last), (counts(3, 2, 1, 0), true));
}

pub async fn a_leased_row_carries_its_input_when_it_is_retried(kit: Kit) {
    kit.submit_lines(&[30, 10, 20]).await;
    let lease = kit.claim_rows(3).await;
    let first = kit.read(&lease).await;
    kit.record_each(&lease, |row| retry(row, Duration::ZERO)).await;
    let again = kit.read(&kit.claim_rows(3).await).await;
    assert_eq!(again, first.into_iter().map(|row| LeasedRow { attempt: 2, ..row }).collect::<Vec<_>>());
}

pub async fn retries_of_one_lease_may_come_due_at_different_times(kit: Kit) {
    kit.submit(4).await;
    let lease = kit.claim_rows(4).await;
    kit.record_each(&lease, |row| retry(row, SECOND * (5 - row.row_no))).await;
    for row_no in [4, 3, 2, 1] {
        kit.claim_nothing().await;
        kit.pass(SECOND);
        let lease = kit.claim_rows(1).await;
        assert_eq!(kit.row_numbers(&lease).await, [row_no]);
        kit.record_each(&lease, success).await;
    }
}

pub async fn a_lease_of_retries_is_no_larger_than_asked_for(kit: Kit) {
    all_to_be_retried(&kit, 7).await;
    kit.pass(SECOND);
    let leases = kit.claim(&ClaimRequest { leases_max: 9, rows_max: 3, ..request() }).await;
    let mut rows = Vec::new();
    for lease in &leases {
        rows.push(kit.row_numbers(lease).await);
    }
    assert_eq!(rows, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
}

pub async fn a_few_retries_spread_over_all_slots(kit: Kit) {
    kit.submit(4).await;
    let lease = kit.claim_rows(4).await;
    let results: Vec<RowResult> = kit.read(&lease).await.iter().map(|row| retry(row, SECOND)).collect();
    kit.store.record_results(lease.key, &results, SECOND * 4).await.unwrap();
    kit.pass(SECOND);
    let leases = kit.claim(&ClaimRequest { leases_max: 4, slots: 4, ..request() }).await;
    assert_eq!(leases.iter().map(|lease| lease.rows).collect::<Vec<_>>(), [1; 4]);
}

pub async fn retries_that_are_due_come_before_fresh_rows(kit: Kit) {
    let (first, second) = (kit.submit(2).await, kit.submit(4).await);
    kit.claim_rows(2).await;
    let lease = kit.claim_rows(2).await;
    kit.record_each(&lease, |row| retry(row, SECOND)).await;
    let third = kit.submit(1).await;
    kit.pass(SECOND);
    let leases = kit.claim(&ClaimRequest { leases_max: 9, ..request() }).await;
    let mut found = Vec::new();
    for lease in &leases {
        found.push((lease.batch, kit.row_numbers(lease).await, kit.attempts(lease).await[0]));
    }
    assert_eq!(found, [(second, vec![1, 2], 2), (second, vec![3, 4], 1), (third, vec![1], 1)]);
    assert_eq!(kit.status(first).await, BatchStatus::Inprog);
}

pub async fn retries_of_several_batches_never_share_a_lease(kit: Kit) {
    let ids = [all_to_be_retried(&kit, 2).await, all_to_be_retried(&kit, 3).await, all_to_be_retried(&kit, 1).await];
    kit.pass(SECOND);
    let mut leases = kit.claim(&ClaimRequest { leases_max: 9, ..request() }).await;
    leases.sort_by_key(|lease| ids.iter().position(|id| *id == lease.batch));
    assert_eq!(leases.iter().map(|lease| (lease.batch, lease.rows)).collect::<Vec<_>>(), [(ids[0], 2), (ids[1], 3), (ids[2], 1)]);
    for lease in leases {
        assert!(kit.record_each(&lease, success).await.last);
    }
}

pub async fn retries_are_recorded_in_parts(kit: Kit) {
    let id = all_to_be_retried(&kit, 4).await;
    kit.pass(SECOND);
    let lease = kit.claim_rows(4).await;
    let rows = kit.read(&lease).await;
    assert_eq!(kit.record(&lease, &[success(&rows[0]), retry(&rows[1], SECOND)]).await.counts, counts(4, 1, 0, 0));
    assert_eq!(kit.read(&lease).await, rows[2..]);
    kit.record_each(&lease, failure).await;
    is_lost(kit.store.read_leased_rows(lease.key).await);
    kit.pass(SECOND);
    let lease = kit.claim_rows(1).await;
    assert_eq!((kit.row_numbers(&lease).await, kit.attempts(&lease).await), (vec![2], vec![3]));
    let recorded = kit.record_each(&lease, success).await;
    assert_eq!((recorded.counts, recorded.last), (counts(4, 2, 2, 0), true));
    assert_eq!(kit.results(id).await.iter().map(|row| row.attempts).collect::<Vec<_>>(), [2, 3, 2, 2]);
}

pub async fn a_lease_of_retries_records_its_next_rows_and_no_others(kit: Kit) {
    let id = kit.submit(7).await;
    let lease = kit.claim_rows(7).await;
    // Rows 2, 4, 5 and 7 are retried, 7 later than the others.
    let verdict = |row: &LeasedRow| match row.row_no {
        2 | 4 | 5 => retry(row, SECOND),
        7 => retry(row, SECOND * 2),
        _ => success(row),
    };
    kit.record_each(&lease, verdict).await;
    kit.pass(SECOND);
    let lease = kit.claim_rows(3).await;
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[success(&rows[0])]).await;
    let before = kit.view(id).await;
    for wrong in [&[2][..], &[5], &[5, 4], &[4, 4], &[4, 5, 5], &[2, 4, 5], &[4, 5, 7], &[7], &[3], &[1], &[8], &[0], &[4, 7]] {
        for make in [success, failure, |row: &LeasedRow| retry(row, SECOND)] {
            let results: Vec<RowResult> = wrong.iter().map(|row_no| RowResult { row_no: *row_no, ..make(&rows[1]) }).collect();
            is_invalid(kit.try_record(&lease, &results).await);
        }
    }
    is_invalid(kit.try_record(&lease, &[outcome(&rows[1], RowStatus::Aborted)]).await);
    assert_eq!((kit.view(id).await, kit.row_numbers(&lease).await), (before, vec![4, 5]));
    kit.record_each(&lease, success).await;
    kit.pass(SECOND);
    let lease = kit.claim_rows(1).await;
    assert!(kit.record_each(&lease, success).await.last);
}

pub async fn a_crash_while_a_retry_runs_is_an_attempt(kit: Kit) {
    let id = all_to_be_retried(&kit, 2).await;
    kit.pass(SECOND);
    let old = kit.claim_rows(2).await;
    let rows = kit.read(&old).await;
    kit.record(&old, &[success(&rows[0])]).await;
    kit.go_silent();
    is_lost(kit.try_record(&old, &[success(&rows[1])]).await);
    let new = kit.claim_rows(1).await;
    assert_eq!((kit.row_numbers(&new).await, kit.attempts(&new).await, new.crashes), (vec![2], vec![3], 1));
    is_lost(kit.try_record(&old, &[success(&rows[1])]).await);
    assert_eq!(kit.store.renew_leases(&[old.key], TTL).await.unwrap(), [old.key]);
    // And it may ask for one more.
    kit.record_each(&new, |row| retry(row, SECOND)).await;
    kit.pass(SECOND);
    let lease = kit.claim_rows(1).await;
    assert_eq!(kit.attempts(&lease).await, [4]);
    assert!(kit.record_each(&lease, success).await.last);
    assert_eq!(kit.results(id).await.iter().map(|row| row.attempts).collect::<Vec<_>>(), [2, 4]);
}

pub async fn a_retry_given_back_is_the_same_attempt(kit: Kit) {
    all_to_be_retried(&kit, 3).await;
    kit.pass(SECOND);
    for _ in 0..3 {
        let lease = kit.claim_rows(3).await;
        assert_eq!((kit.attempts(&lease).await, lease.crashes), (vec![2; 3], 0));
        kit.store.give_back_lease(lease.key).await.unwrap();
        is_lost(kit.store.read_leased_rows(lease.key).await);
    }
    // By someone who wants fewer.
    let found = [kit.claim_rows(2).await, kit.claim_rows(1).await];
    assert_eq!((kit.row_numbers(&found[0]).await, kit.row_numbers(&found[1]).await), (vec![1, 2], vec![3]));
}

pub async fn after_two_crashes_retries_are_leased_one_by_one(kit: Kit) {
    all_to_be_retried(&kit, 4).await;
    kit.pass(SECOND);
    for crashes in 0..2 {
        assert_eq!(kit.claim_rows(4).await.crashes, crashes);
        kit.go_silent();
    }
    let mut found = Vec::new();
    for _ in 0..4 {
        let lease = kit.claim(&request()).await[0];
        assert_eq!((lease.rows, lease.crashes, kit.attempts(&lease).await), (1, 2, vec![4]));
        found.push((kit.row_numbers(&lease).await[0], lease));
    }
    kit.claim_nothing().await;
    found.sort_by_key(|(row_no, _)| *row_no);
    for (row_no, lease) in found {
        assert_eq!(kit.record_each(&lease, success).await.last, row_no == 4);
    }
}

pub async fn the_retries_of_an_aborted_batch_vanish(kit: Kit) {
    let id = all_to_be_retried(&kit, 4).await;
    let other = all_to_be_retried(&kit, 1).await;
    kit.pass(SECOND);
    let leases = kit.claim(&ClaimRequest { leases_max: 9, rows_max: 2, ..request() }).await;
    let (of_aborted, of_other): (Vec<Lease>, Vec<Lease>) = leases.iter().partition(|lease| lease.batch == id);
    assert_eq!((of_aborted.len(), of_other.len()), (2, 1));
    let rows = kit.read(&of_aborted[0]).await;
    kit.abort(id).await;
    is_lost(kit.try_record(&of_aborted[0], &[success(&rows[0])]).await);
    is_lost(kit.store.read_leased_rows(of_aborted[1].key).await);
    kit.go_silent();
    assert_eq!(kit.claim_rows(1).await.batch, other);
    kit.claim_nothing().await;
    assert_eq!(kit.counts(id).await, counts(4, 0, 0, 4));
}

pub async fn a_slow_query_is_retried_like_a_row(kit: Kit) {
    let new = query();
    kit.store.submit_batch(new.clone(), vec![row(0)]).await.unwrap();
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| retry(row, SECOND)).await;
    kit.pass(SECOND);
    let lease = kit.claim_rows(1).await;
    assert_eq!((lease.batch, kit.attempts(&lease).await), (new.id, vec![2]));
    assert!(kit.record_each(&lease, success).await.last);
}
