//! Claims: who gets which rows.

use std::sync::Arc;

use rowmill::model::{BatchStatus, ClaimRequest, LeaseKey};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::build::{SECOND, by, request, success};
use super::kit::{Kit, START};
use super::random::Random;

pub async fn a_claim_takes_the_next_rows_in_order(kit: Kit) {
    let id = kit.submit(10).await;
    let mut found = Vec::new();
    for rows in [1, 4, 2, 3] {
        let lease = kit.claim_rows(rows).await;
        assert_eq!((lease.batch, lease.crashes), (id, 0));
        found.push(kit.row_numbers(&lease).await);
    }
    assert_eq!(found, [vec![1], vec![2, 3, 4, 5], vec![6, 7], vec![8, 9, 10]]);
    kit.claim_nothing().await;
}

pub async fn leased_rows_come_as_they_were_submitted(kit: Kit) {
    kit.submit_lines(&[7, 3, 9]).await;
    let rows = kit.read(&kit.claim_rows(3).await).await;
    let found: Vec<(u32, u32, &str, u32)> = rows.iter().map(|row| (row.row_no, row.line, row.input.as_str(), row.attempt)).collect();
    assert_eq!(found, [(1, 7, r#"{"line":7}"#, 1), (2, 3, r#"{"line":3}"#, 1), (3, 9, r#"{"line":9}"#, 1)]);
    assert!(rows.iter().all(|row| row.rejected.is_none()));
}

pub async fn many_claims_cover_every_row_exactly_once(kit: Kit) {
    let mut random = Random::new(7);
    let id = kit.submit(2_000).await;
    let mut found = Vec::new();
    loop {
        let wanted = ClaimRequest { leases_max: random.below(4), rows_max: 1 + random.below(40), slots: 1 + random.below(3), ..request() };
        let leases = kit.claim(&wanted).await;
        assert!(leases.len() <= wanted.leases_max as usize);
        if leases.is_empty() && wanted.leases_max > 0 {
            break;
        }
        for lease in leases {
            let rows = kit.row_numbers(&lease).await;
            assert!((1..=wanted.rows_max as usize).contains(&rows.len()) && lease.rows as usize == rows.len(), "{wanted:?}: {lease:?}, {rows:?}");
            found.extend(rows);
        }
    }
    assert_eq!(found, (1..=2_000).collect::<Vec<u32>>());
    assert_eq!(kit.status(id).await, BatchStatus::Inprog);
}

pub async fn claims_at_the_same_moment_never_overlap(kit: Kit) {
    const TASKS: usize = 8;
    kit.submit(300).await;
    kit.submit(300).await;
    let (kit, barrier) = (Arc::new(kit), Arc::new(Barrier::new(TASKS)));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (kit, barrier) = (Arc::clone(&kit), Arc::clone(&barrier));
        tasks.spawn(async move {
            let wanted = ClaimRequest { leases_max: 3, rows_max: 7, ..by(&format!("worker {task}")) };
            let mut found = Vec::new();
            barrier.wait().await;
            loop {
                let leases = kit.claim(&wanted).await;
                if leases.is_empty() {
                    return found;
                }
                for lease in leases {
                    found.extend(kit.row_numbers(&lease).await.into_iter().map(|row_no| (lease.batch, row_no)));
                }
            }
        });
    }
    let mut found = tasks.join_all().await.concat();
    found.sort();
    assert_eq!(found.len(), 600);
    found.dedup();
    assert_eq!(found.len(), 600, "a row was leased twice");
}

pub async fn a_claim_gives_no_more_leases_than_asked_for(kit: Kit) {
    kit.submit(10).await;
    assert_eq!(kit.claim(&ClaimRequest { leases_max: 0, ..request() }).await, []);
    let leases = kit.claim(&ClaimRequest { leases_max: 3, rows_max: 2, ..request() }).await;
    assert_eq!(leases.iter().map(|lease| lease.rows).collect::<Vec<_>>(), [2, 2, 2]);
    let mut keys: Vec<LeaseKey> = leases.iter().map(|lease| lease.key).collect();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    assert_eq!(kit.claim(&ClaimRequest { leases_max: 100, rows_max: 2, ..request() }).await.len(), 2);
}

pub async fn a_claim_of_no_rows_still_gives_one(kit: Kit) {
    kit.submit(2).await;
    let leases = kit.claim(&ClaimRequest { rows_max: 0, slots: 0, ..request() }).await;
    assert_eq!(leases.iter().map(|lease| lease.rows).collect::<Vec<_>>(), [1]);
}

pub async fn an_empty_store_has_nothing_to_claim(kit: Kit) {
    kit.claim_nothing().await;
    assert_eq!(kit.try_claim_finish().await, None);
}

pub async fn held_batches_are_not_claimed(kit: Kit) {
    let id = kit.hold(3).await;
    kit.claim_nothing().await;
    let other = kit.submit(1).await;
    assert_eq!(kit.claim_rows(1).await.batch, other);
    kit.claim_nothing().await;
    kit.store.release_batch(id).await.unwrap();
    assert_eq!(kit.claim_rows(3).await.batch, id);
}

pub async fn the_oldest_batch_is_claimed_first(kit: Kit) {
    let (held, first, second) = (kit.hold(1).await, kit.submit(3).await, kit.submit(3).await);
    kit.store.release_batch(held).await.unwrap();
    let leases = kit.claim(&ClaimRequest { leases_max: 10, rows_max: 2, ..request() }).await;
    let found: Vec<_> = leases.iter().map(|lease| (lease.batch, lease.rows)).collect();
    assert_eq!(found, [(held, 1), (first, 2), (first, 1), (second, 2), (second, 1)]);
}

pub async fn the_first_claim_starts_a_batch(kit: Kit) {
    let id = kit.submit(3).await;
    kit.pass(SECOND);
    let first = kit.claim_rows(1).await;
    kit.pass(SECOND);
    kit.claim_rows(1).await;
    kit.record_each(&first, success).await;
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.submitted_at, batch.started_at), (BatchStatus::Inprog, START, Some(START.after(SECOND))));
}
