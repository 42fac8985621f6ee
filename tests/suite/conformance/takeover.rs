//! Workers die: their leases are taken over, and what they do later changes nothing.

use rowmill::model::{ClaimRequest, Lease, RowResult};

use super::build::{MILLISECOND, TTL, by, counts, failure, request, success};
use super::kit::{Kit, is_lost};

pub async fn a_stale_lease_cannot_record(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let results: Vec<RowResult> = kit.read(&lease).await.iter().map(success).collect();
    kit.go_silent();
    let before = kit.view(id).await;
    is_lost(kit.try_record(&lease, &results).await);
    is_lost(kit.try_record(&lease, &results[..1]).await);
    is_lost(kit.try_record(&lease, &[]).await);
    assert_eq!(kit.view(id).await, before);
}

pub async fn the_old_key_of_a_lease_that_was_taken_over_opens_nothing(kit: Kit) {
    let id = kit.submit(3).await;
    let old = kit.claim_rows(3).await;
    let rows = kit.read(&old).await;
    kit.go_silent();
    let new = kit.claim_rows(3).await;
    assert_ne!(old.key, new.key);
    let before = kit.view(id).await;
    is_lost(kit.store.read_leased_rows(old.key).await);
    is_lost(kit.try_record(&old, &[failure(&rows[0])]).await);
    assert_eq!(kit.store.renew_leases(&[old.key, new.key], TTL).await.unwrap(), [old.key]);
    kit.store.give_back_lease(old.key).await.unwrap();
    assert_eq!(kit.view(id).await, before);

    kit.claim_nothing().await;
    let recorded = kit.record_each(&new, success).await;
    assert_eq!((recorded.counts, recorded.last), (counts(3, 3, 0, 0), true));
    is_lost(kit.try_record(&old, &[failure(&rows[0])]).await);
}

pub async fn a_takeover_counts_a_crash_and_an_attempt(kit: Kit) {
    kit.submit(1).await;
    for crashes in 0..6 {
        let lease = kit.claim(&by(&format!("worker {crashes}"))).await[0];
        assert_eq!((lease.crashes, kit.attempts(&lease).await), (crashes, vec![crashes + 1]));
        kit.go_silent();
    }
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, success).await;
    assert_eq!(kit.results(lease.batch).await[0].attempts, 7);
}

pub async fn a_takeover_holds_only_what_was_not_recorded(kit: Kit) {
    let id = kit.submit(5).await;
    let old = kit.claim_rows(5).await;
    let rows = kit.read(&old).await;
    kit.record(&old, &[success(&rows[0]), failure(&rows[1])]).await;
    kit.go_silent();
    let new = kit.claim_rows(3).await;
    assert_eq!((kit.row_numbers(&new).await, kit.attempts(&new).await), (vec![3, 4, 5], vec![2, 2, 2]));
    let recorded = kit.record_each(&new, success).await;
    assert_eq!((recorded.counts, recorded.last), (counts(5, 4, 1, 0), true));
    assert_eq!(kit.results(id).await.iter().map(|row| row.attempts).collect::<Vec<_>>(), [1, 1, 2, 2, 2]);
}

/// All leases that there are, one row each, with their crashes.
async fn claim_single_rows(kit: &Kit, count: u32) -> Vec<(u32, u32, Lease)> {
    let mut found = Vec::new();
    for _ in 0..count {
        let lease = kit.claim(&request()).await[0];
        assert_eq!(lease.rows, 1);
        found.push((kit.row_numbers(&lease).await[0], lease.crashes, lease));
    }
    kit.claim_nothing().await;
    found.sort_by_key(|(row_no, ..)| *row_no);
    found
}

pub async fn after_two_crashes_the_rows_of_a_lease_are_leased_one_by_one(kit: Kit) {
    kit.submit(5).await;
    kit.claim_rows(5).await;
    kit.go_silent();
    assert_eq!(kit.claim_rows(5).await.crashes, 1);
    kit.go_silent();
    let found = claim_single_rows(&kit, 5).await;
    assert_eq!(found.iter().map(|(row_no, crashes, _)| (*row_no, *crashes)).collect::<Vec<_>>(), [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2)]);
    for (row_no, _, lease) in found {
        assert_eq!(kit.attempts(&lease).await, [3]);
        assert_eq!(kit.record_each(&lease, success).await.last, row_no == 5);
    }
}

/// Alone it shows who it is: the crashes of the others stay where they are.
pub async fn the_row_that_kills_workers_is_found(kit: Kit) {
    const KILLER: u32 = 3;
    let id = kit.submit(6).await;
    let mut killed = 0;
    loop {
        let [lease] = kit.claim(&request()).await[..] else { break };
        let rows = kit.read(&lease).await;
        if let Some(at) = rows.iter().position(|row| row.row_no == KILLER) {
            if lease.rows == 1 && lease.crashes == 4 {
                kit.record_each(&lease, failure).await;
                continue;
            }
            // It records what it ran before it dies.
            kit.record(&lease, &rows[..at].iter().map(success).collect::<Vec<_>>()).await;
            killed += 1;
            kit.go_silent();
        } else {
            kit.record_each(&lease, success).await;
        }
    }
    assert_eq!((killed, kit.counts(id).await), (4, counts(6, 5, 1, 0)));
    let attempts: Vec<u32> = kit.results(id).await.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [1, 1, 5, 3, 3, 3]);
}

pub async fn a_lease_that_was_split_can_be_given_back(kit: Kit) {
    kit.submit(3).await;
    for _ in 0..2 {
        kit.claim_rows(3).await;
        kit.go_silent();
    }
    for _ in 0..2 {
        let found = claim_single_rows(&kit, 3).await;
        assert!(found.iter().all(|(_, crashes, _)| *crashes == 2), "{found:?}");
        for (.., lease) in found {
            kit.store.give_back_lease(lease.key).await.unwrap();
        }
    }
    let found = claim_single_rows(&kit, 3).await;
    kit.go_silent();
    assert_eq!(found.len(), 3);
    let found = claim_single_rows(&kit, 3).await;
    assert!(found.iter().all(|(_, crashes, _)| *crashes == 3), "{found:?}");
}

pub async fn one_claim_takes_over_as_many_leases_as_it_asks_for(kit: Kit) {
    kit.submit(9).await;
    for _ in 0..3 {
        kit.claim_rows(3).await;
    }
    kit.go_silent();
    let two = kit.claim(&ClaimRequest { leases_max: 2, ..request() }).await;
    let rest = kit.claim(&ClaimRequest { leases_max: 9, ..request() }).await;
    assert_eq!((two.len(), rest.len()), (2, 1));
    let mut rows = Vec::new();
    for lease in two.iter().chain(&rest) {
        assert_eq!(lease.crashes, 1);
        rows.push(kit.row_numbers(lease).await);
    }
    rows.sort();
    assert_eq!(rows, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
}

/// Between the end of a lease and its takeover there is no owner: the old one cannot come back.
pub async fn a_lease_that_ended_does_not_revive(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    kit.go_silent();
    for _ in 0..3 {
        assert_eq!(kit.store.renew_leases(&[lease.key], TTL * 100).await.unwrap(), [lease.key]);
        is_lost(kit.store.read_leased_rows(lease.key).await);
        kit.pass(MILLISECOND);
    }
    assert_eq!(kit.claim_rows(1).await.crashes, 1);
}
