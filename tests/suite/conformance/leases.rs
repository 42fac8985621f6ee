//! Leases: they are read, renewed, given back, and end by the clock.

use std::time::Duration;

use rowmill::model::{BatchStatus, ClaimRequest, LeaseKey, LeasedRow};

use super::build::{MIB, MILLISECOND, SECOND, TTL, by, counts, json_of, request, row_with, success};
use super::kit::{Kit, is_lost};

pub async fn large_rows_come_in_parts(kit: Kit) {
    kit.submit_rows((1..=12).map(|line| row_with(line, json_of(MIB))).collect()).await;
    let lease = kit.claim_rows(12).await;
    let mut found: Vec<LeasedRow> = Vec::new();
    while found.len() < 12 {
        let part = kit.read(&lease).await;
        assert!(!part.is_empty() && part.len() < 12, "{} MiB at once", part.len());
        assert_eq!(kit.read(&lease).await, part, "what is not recorded is read again");
        let results: Vec<_> = part.iter().map(success).collect();
        found.extend(part);
        kit.record(&lease, &results).await;
    }
    assert_eq!(found.iter().map(|row| row.row_no).collect::<Vec<_>>(), (1..=12).collect::<Vec<u32>>());
    assert!(found.iter().all(|row| row.input.len() == MIB));
}

pub async fn a_row_of_any_size_comes_alone_at_least(kit: Kit) {
    kit.submit_rows(vec![row_with(1, json_of(9 * MIB)), row_with(2, json_of(2))]).await;
    let lease = kit.claim_rows(2).await;
    let part = kit.read(&lease).await;
    assert_eq!(part[0].input.len(), 9 * MIB);
}

pub async fn only_rows_without_an_outcome_are_read(kit: Kit) {
    kit.submit(5).await;
    let lease = kit.claim_rows(5).await;
    for left in [vec![1, 2, 3, 4, 5], vec![3, 4, 5], vec![5]] {
        let rows = kit.read(&lease).await;
        assert_eq!(rows.iter().map(|row| row.row_no).collect::<Vec<_>>(), left);
        kit.record(&lease, &rows.iter().take(2).map(success).collect::<Vec<_>>()).await;
    }
    is_lost(kit.store.read_leased_rows(lease.key).await);
}

pub async fn a_key_that_was_never_given_opens_nothing(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    let mut given_back = lease.key;
    let (own, before) = (lease.key, kit.view(id).await);
    for round in 0..2 {
        for key in [
            LeaseKey { token: own.token.wrapping_add(1), ..own },
            LeaseKey { token: 0, ..own },
            LeaseKey { id: own.id.wrapping_add(1), ..own },
            LeaseKey { id: i64::MAX, token: i64::MAX },
        ] {
            is_lost(kit.store.read_leased_rows(key).await);
            is_lost(kit.store.record_results(key, &[success(&rows[0])], MILLISECOND).await);
            assert_eq!(kit.store.renew_leases(&[key], TTL).await.unwrap(), [key]);
            kit.store.give_back_lease(key).await.unwrap();
        }
        assert_eq!(kit.view(id).await, before);
        // Again when the lease is nobody's.
        if round == 0 {
            kit.store.give_back_lease(given_back).await.unwrap();
            given_back.token = 0;
        }
    }
    kit.claim_rows(2).await;
}

pub async fn a_lease_lives_until_its_time_and_no_longer(kit: Kit) {
    kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    kit.pass(TTL - MILLISECOND);
    kit.claim_nothing().await;
    kit.record(&lease, &[success(&rows[0])]).await;
    kit.pass(MILLISECOND);
    is_lost(kit.store.read_leased_rows(lease.key).await);
    is_lost(kit.try_record(&lease, &[success(&rows[1])]).await);
    assert_eq!(kit.store.renew_leases(&[lease.key], TTL).await.unwrap(), [lease.key]);
    kit.claim_rows(1).await;
}

pub async fn a_lease_that_is_renewed_lives_on(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    for _ in 0..5 {
        kit.pass(TTL - MILLISECOND);
        assert_eq!(kit.store.renew_leases(&[lease.key], TTL).await.unwrap(), []);
    }
    kit.pass(TTL - MILLISECOND);
    kit.claim_nothing().await;
    assert!(kit.record_each(&lease, success).await.last);
}

pub async fn a_renewal_counts_from_now(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    kit.store.renew_leases(&[lease.key], SECOND).await.unwrap();
    kit.pass(SECOND);
    assert_eq!(kit.claim_rows(1).await.crashes, 1);
}

pub async fn a_renewal_names_the_leases_that_were_lost(kit: Kit) {
    let aborted = kit.submit(1).await;
    let of_aborted = kit.claim_rows(1).await.key;
    kit.submit(6).await;
    let short = kit.claim(&ClaimRequest { rows_max: 1, ttl: SECOND, ..request() }).await[0].key;
    let (kept, given_back, ended, also_kept) =
        (kit.claim_rows(1).await, kit.claim_rows(1).await.key, kit.claim_rows(1).await, kit.claim_rows(1).await);
    kit.abort(aborted).await;
    kit.store.give_back_lease(given_back).await.unwrap();
    kit.record_each(&ended, success).await;
    kit.pass(SECOND);

    let keys = [of_aborted, short, kept.key, given_back, ended.key, also_kept.key];
    let mut lost = kit.store.renew_leases(&keys, TTL).await.unwrap();
    let mut wanted = vec![of_aborted, short, given_back, ended.key];
    for keys in [&mut lost, &mut wanted] {
        keys.sort_by_key(|key| (key.id, key.token));
    }
    assert_eq!(lost, wanted);
    kit.pass(TTL - MILLISECOND);
    kit.record_each(&kept, success).await;
    kit.record_each(&also_kept, success).await;
    assert_eq!(kit.store.renew_leases(&[], TTL).await.unwrap(), []);
}

pub async fn a_lease_given_back_can_be_claimed_at_once_and_counts_no_crash(kit: Kit) {
    kit.submit(4).await;
    let lease = kit.claim_rows(4).await;
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[success(&rows[0])]).await;
    kit.store.give_back_lease(lease.key).await.unwrap();
    is_lost(kit.try_record(&lease, &[success(&rows[1])]).await);
    is_lost(kit.store.read_leased_rows(lease.key).await);
    for _ in 0..5 {
        let lease = kit.claim_rows(3).await;
        assert_eq!((kit.row_numbers(&lease).await, kit.attempts(&lease).await, lease.crashes), (vec![2, 3, 4], vec![1, 1, 1], 0));
        kit.store.give_back_lease(lease.key).await.unwrap();
    }
    let lease = kit.claim_rows(3).await;
    assert!(kit.record_each(&lease, success).await.last);
}

pub async fn a_lease_given_back_keeps_the_crashes_it_had(kit: Kit) {
    kit.submit(2).await;
    kit.claim_rows(2).await;
    kit.go_silent();
    let lease = kit.claim_rows(2).await;
    kit.store.give_back_lease(lease.key).await.unwrap();
    let lease = kit.claim_rows(2).await;
    assert_eq!((lease.crashes, kit.attempts(&lease).await), (1, vec![2, 2]));
}

/// A worker that comes back too late must not undo the count of its crash.
pub async fn a_lost_lease_is_not_given_back(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    kit.go_silent();
    kit.store.give_back_lease(lease.key).await.unwrap();
    let next = kit.claim_rows(1).await;
    assert_eq!(next.crashes, 1);
    kit.store.give_back_lease(lease.key).await.unwrap();
    kit.claim_nothing().await;
    assert!(kit.record_each(&next, success).await.last);
    kit.store.give_back_lease(next.key).await.unwrap();
    kit.claim_nothing().await;
}

pub async fn leases_that_ended_are_claimed_before_fresh_rows(kit: Kit) {
    let (first, second) = (kit.submit(2).await, kit.submit(6).await);
    kit.claim_rows(2).await;
    let taken = kit.claim_rows(2).await;
    kit.store.give_back_lease(taken.key).await.unwrap();
    kit.go_silent();
    let leases = kit.claim(&ClaimRequest { leases_max: 9, rows_max: 2, ..request() }).await;
    let mut found = Vec::new();
    for lease in &leases {
        found.push((lease.batch == first, kit.row_numbers(lease).await, lease.crashes));
    }
    found[..2].sort();
    assert_eq!(found, [(false, vec![1, 2], 0), (true, vec![1, 2], 1), (false, vec![3, 4], 0), (false, vec![5, 6], 0)]);
    assert_eq!(kit.status(second).await, BatchStatus::Inprog);
}

pub async fn a_lease_is_no_larger_than_asked_for_whoever_held_it_before(kit: Kit) {
    let id = kit.submit(10).await;
    let large = kit.claim_rows(10).await;
    kit.store.give_back_lease(large.key).await.unwrap();
    let first = kit.claim_rows(4).await;
    assert_eq!(kit.row_numbers(&first).await, [1, 2, 3, 4]);
    // What was left of it is as good as given back: it has no crash of its own.
    let second = kit.claim_rows(4).await;
    assert_eq!((kit.row_numbers(&second).await, second.crashes), (vec![5, 6, 7, 8], 0));
    let third = kit.claim_rows(2).await;
    for lease in [second, third, first] {
        kit.record_each(&lease, success).await;
    }
    assert_eq!(kit.counts(id).await, counts(10, 10, 0, 0));
}

pub async fn a_worker_without_a_name_holds_its_leases_like_any_other(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim(&by("")).await[0];
    kit.claim_nothing().await;
    kit.go_silent();
    is_lost(kit.store.read_leased_rows(lease.key).await);
    assert_eq!(kit.claim(&by("")).await[0].crashes, 1);
}

pub async fn a_lease_may_live_as_long_as_time_goes(kit: Kit) {
    kit.submit(1).await;
    let lease = kit.claim(&ClaimRequest { ttl: Duration::MAX, ..request() }).await[0];
    assert_eq!(kit.store.renew_leases(&[lease.key], Duration::MAX).await.unwrap(), []);
    kit.pass(SECOND * 1_000_000_000);
    kit.claim_nothing().await;
    assert!(kit.record_each(&lease, success).await.last);
}
