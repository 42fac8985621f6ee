//! What operators say about the work of apps and their operations: pauses, rates, and the terms of batches.

use std::time::Duration;

use rowmill::model::{BatchId, ClaimRequest, FailureLimit, Lease, NewBatch, PartialTerms, Policy, ProcessorKind, Rate};

use super::build::{MILLISECOND, SECOND, batch, request, retry, rows, success, version};
use super::kit::{Kit, is_invalid};

async fn submit(kit: &Kit, op: &str, count: u32) -> BatchId {
    let new = NewBatch { op: op.to_owned(), ..batch() };
    let id = new.id;
    kit.store.submit_batch(new, rows(count)).await.unwrap();
    id
}

/// So many rows per second, and as many at once.
fn rate(rows: u64, burst: u32) -> Option<Rate> {
    Some(Rate { micros: rows * 1_000_000, burst })
}

async fn limit(kit: &Kit, op: Option<&str>, rate: Option<Rate>) {
    kit.store.put_policy(&Policy { rate, ..Policy::of("bank", op) }).await.unwrap();
}

/// All that can be leased at this moment, as rows.
async fn lease_all(kit: &Kit) -> u32 {
    let mut all = 0;
    loop {
        let leases = kit.claim(&ClaimRequest { rows_max: 1_000, leases_max: 4, ..request() }).await;
        if leases.is_empty() {
            return all;
        }
        all += leases.iter().map(|lease| lease.rows).sum::<u32>();
    }
}

async fn op_of(kit: &Kit, lease: &Lease) -> String {
    kit.batch(lease.batch).await.op
}

pub async fn a_policy_comes_back_as_it_was_set(kit: Kit) {
    let terms = PartialTerms {
        priority: Some(-3),
        attempts_max: Some(9),
        backoff: Some(SECOND),
        backoff_max: Some(SECOND * 7),
        retry_codes: Some(vec!["a \0 code".to_owned()]),
        failures_max: Some(FailureLimit::Rows(5)),
    };
    let of_op = Policy { paused: true, rate: rate(7, 3), terms: terms.clone(), ..Policy::of("bank", Some("Post")) };
    let of_app = Policy { rate: rate(1_000_000, 1_000_000), ..Policy::of("bank", None) };
    let other = Policy::of("a ' \\ shop", Some("prüfe"));
    for policy in [&of_op, &of_app, &other] {
        kit.store.put_policy(policy).await.unwrap();
    }
    let shouted = Policy { op: Some("POST".to_owned()), ..of_op.clone() };
    kit.store.put_policy(&shouted).await.unwrap();
    assert_eq!(of_op.op.as_deref(), Some("post"));
    assert_eq!(kit.store.list_policies().await.unwrap(), [other, of_app.clone(), of_op.clone()]);
    // Instead of what was said before.
    kit.store.put_policy(&Policy::of("bank", Some("post"))).await.unwrap();
    kit.store.set_paused("bank", Some("POST"), true).await.unwrap();
    assert_eq!(kit.store.list_policies().await.unwrap()[2], Policy { paused: true, ..Policy::of("bank", Some("post")) });
    assert!(kit.store.remove_policy("bank", Some("Post")).await.unwrap());
    assert!(!kit.store.remove_policy("bank", Some("post")).await.unwrap());
    assert_eq!(kit.store.list_policies().await.unwrap()[1..], [of_app]);
}

pub async fn a_policy_that_cannot_be_is_refused(kit: Kit) {
    let plain = || Policy::of("bank", None);
    let wrong = [
        Policy { rate: rate(0, 1), ..plain() },
        Policy { rate: rate(1_000_001, 1), ..plain() },
        Policy { rate: rate(1, 0), ..plain() },
        Policy { rate: rate(1, 1_000_001), ..plain() },
        Policy { op: Some(String::new()), ..plain() },
        Policy { app: "a".repeat(256), ..plain() },
        Policy { op: Some("o".repeat(256)), ..plain() },
        Policy { terms: PartialTerms { attempts_max: Some(0), ..PartialTerms::default() }, ..plain() },
        Policy { terms: PartialTerms { retry_codes: Some(vec![String::new(); 101]), ..PartialTerms::default() }, ..plain() },
    ];
    for policy in wrong {
        is_invalid(kit.store.put_policy(&policy).await);
    }
    is_invalid(kit.store.set_paused("bank", Some(""), true).await);
    assert_eq!(kit.store.list_policies().await.unwrap(), []);
}

pub async fn the_terms_of_an_operation_go_before_those_of_its_app(kit: Kit) {
    kit.store.put_processor(&version("bank", "post", ProcessorKind::Batch, "one")).await.unwrap();
    let terms = async |op: &str| kit.store.find_op("bank", op, ProcessorKind::Batch).await.unwrap().map(|found| found.terms);
    assert_eq!(terms("Post").await, Some(PartialTerms::default()));
    let of_app = PartialTerms { attempts_max: Some(7), priority: Some(1), ..PartialTerms::default() };
    let of_op = PartialTerms { attempts_max: Some(5), ..PartialTerms::default() };
    kit.store.put_policy(&Policy { terms: of_app, ..Policy::of("bank", None) }).await.unwrap();
    kit.store.put_policy(&Policy { terms: of_op.clone(), ..Policy::of("bank", Some("post")) }).await.unwrap();
    kit.store.put_policy(&Policy { terms: PartialTerms { backoff: Some(SECOND), ..of_op }, ..Policy::of("shop", None) }).await.unwrap();
    assert_eq!(terms("post").await, Some(PartialTerms { attempts_max: Some(5), priority: Some(1), ..PartialTerms::default() }));
    assert_eq!(terms("other").await, None);
}

pub async fn what_is_paused_is_not_leased(kit: Kit) {
    let (post, mail) = (submit(&kit, "post", 2).await, submit(&kit, "mail", 2).await);
    kit.store.set_paused("bank", Some("POST"), true).await.unwrap();
    let lease = kit.claim_rows(2).await;
    assert_eq!(lease.batch, mail);
    kit.claim_nothing().await;
    kit.store.set_paused("bank", None, true).await.unwrap();
    submit(&kit, "mail", 1).await;
    kit.claim_nothing().await;
    // What was leased before is recorded.
    kit.record_each(&lease, success).await;
    kit.store.set_paused("bank", Some("post"), false).await.unwrap();
    kit.claim_nothing().await;
    kit.store.set_paused("bank", None, false).await.unwrap();
    assert_eq!(kit.claim_rows(2).await.batch, post);
}

pub async fn retries_and_leases_that_ended_wait_while_they_are_paused(kit: Kit) {
    submit(&kit, "post", 4).await;
    let (first, second) = (kit.claim_rows(1).await, kit.claim_rows(1).await);
    kit.record_each(&first, |row| retry(row, Duration::ZERO)).await;
    kit.store.give_back_lease(second.key).await.unwrap();
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(Duration::ZERO));
    kit.store.set_paused("bank", Some("post"), true).await.unwrap();
    kit.claim_nothing().await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
    kit.store.set_paused("bank", Some("post"), false).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
}

pub async fn a_paused_batch_can_be_aborted_and_finished(kit: Kit) {
    let id = submit(&kit, "post", 2).await;
    kit.store.set_paused("bank", None, true).await.unwrap();
    assert!(kit.store.abort_batch(id, None).await.unwrap().changed);
    kit.finish_all().await;
    assert!(kit.batch(id).await.finished_at.is_some());
}

pub async fn no_more_rows_are_leased_than_the_rate_allows(kit: Kit) {
    limit(&kit, Some("post"), rate(100, 10)).await;
    submit(&kit, "post", 100_000).await;
    // The burst, and then as time passes.
    assert_eq!(lease_all(&kit).await, 10);
    let mut leased = 0;
    for _ in 0..1_000 {
        kit.pass(MILLISECOND * 10);
        leased += lease_all(&kit).await;
    }
    assert_eq!(leased, 1_000);
    // What was not used is not saved up beyond the burst.
    kit.pass(SECOND * 3_600);
    assert_eq!(lease_all(&kit).await, 10);
}

pub async fn rates_of_an_operation_and_of_its_app_hold_both(kit: Kit) {
    limit(&kit, None, rate(100, 100)).await;
    limit(&kit, Some("mail"), rate(10, 10)).await;
    submit(&kit, "mail", 1_000).await;
    assert_eq!(lease_all(&kit).await, 10);
    submit(&kit, "post", 1_000).await;
    assert_eq!(lease_all(&kit).await, 90);
    kit.pass(SECOND);
    assert_eq!(lease_all(&kit).await, 100);
    // Others have nothing to do with it.
    let new = NewBatch { app: "shop".to_owned(), op: "mail".to_owned(), ..batch() };
    kit.store.submit_batch(new, rows(50)).await.unwrap();
    assert_eq!(lease_all(&kit).await, 50);
}

pub async fn rates_may_be_slower_than_a_row_per_second(kit: Kit) {
    let thirty_per_minute = Rate { micros: 500_000, burst: 1 };
    limit(&kit, None, Some(thirty_per_minute)).await;
    submit(&kit, "post", 100).await;
    assert_eq!(lease_all(&kit).await, 1);
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(SECOND * 2));
    kit.pass(SECOND * 2 - MILLISECOND);
    assert_eq!(lease_all(&kit).await, 0);
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(MILLISECOND));
    kit.pass(MILLISECOND);
    assert_eq!(lease_all(&kit).await, 1);
}

/// Nobody waits for it: a worker that is to end when nothing is left to do ends.
pub async fn a_rate_that_nothing_waits_for_is_not_due(kit: Kit) {
    limit(&kit, Some("post"), Some(Rate { micros: 277, burst: 1 })).await;
    submit(&kit, "post", 1).await;
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| retry(row, SECOND)).await;
    // An hour from now, whenever the retry is due.
    let due = kit.store.next_due(None).await.unwrap().unwrap();
    assert!((SECOND * 3_600..SECOND * 3_620).contains(&due), "{due:?}");
    kit.pass(due);
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
    submit(&kit, "post", 1).await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(due));
    assert_eq!(kit.store.next_due(Some(ProcessorKind::SlowQuery)).await.unwrap(), None);
}

/// Small leases would cost more than they run.
pub async fn what_is_beyond_a_rate_is_due_when_there_is_work_of_a_tenth_of_a_second(kit: Kit) {
    limit(&kit, None, rate(1_000, 500)).await;
    submit(&kit, "post", 10_000).await;
    assert_eq!(lease_all(&kit).await, 500);
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(MILLISECOND * 100));
    kit.pass(MILLISECOND * 99);
    assert_eq!(lease_all(&kit).await, 0);
    kit.pass(MILLISECOND);
    assert_eq!(lease_all(&kit).await, 100);
}

pub async fn retries_and_takeovers_count_for_the_rate(kit: Kit) {
    limit(&kit, None, rate(10, 10)).await;
    submit(&kit, "post", 30).await;
    let lease = kit.claim_rows(10).await;
    let read = kit.read(&lease).await;
    kit.record(&lease, &read[..5].iter().map(|row| retry(row, Duration::ZERO)).collect::<Vec<_>>()).await;
    kit.go_silent();
    // The five that are left of the lease, and the five to be tried again.
    assert_eq!(lease_all(&kit).await, 10);
    kit.pass(MILLISECOND * 300);
    assert_eq!(lease_all(&kit).await, 3);
}

pub async fn a_lease_that_ended_is_taken_over_in_parts_where_the_rate_allows_no_more(kit: Kit) {
    submit(&kit, "post", 20).await;
    kit.claim_rows(20).await;
    limit(&kit, None, rate(10, 5)).await;
    kit.go_silent();
    assert_eq!(lease_all(&kit).await, 5);
    kit.pass(MILLISECOND * 500);
    assert_eq!(lease_all(&kit).await, 5);
}

pub async fn a_rate_that_is_taken_back_holds_nothing_up(kit: Kit) {
    limit(&kit, None, rate(1, 1)).await;
    submit(&kit, "post", 10).await;
    assert_eq!(lease_all(&kit).await, 1);
    // One that is changed goes on with what there was.
    limit(&kit, None, rate(5, 5)).await;
    assert_eq!(lease_all(&kit).await, 0);
    kit.pass(SECOND);
    assert_eq!(lease_all(&kit).await, 5);
    kit.store.remove_policy("bank", None).await.unwrap();
    assert_eq!(lease_all(&kit).await, 4);
}

/// The count is exact, since claims take turns.
pub async fn claims_at_the_same_moment_share_a_rate(kit: Kit) {
    limit(&kit, None, rate(1_000, 1_000)).await;
    submit(&kit, "post", 100_000).await;
    let claims = (0..8).map(|_| {
        let store = std::sync::Arc::clone(&kit.store);
        tokio::spawn(async move {
            let mut leased = 0;
            loop {
                let leases = store.claim_leases(&ClaimRequest { rows_max: 37, leases_max: 3, ..request() }).await.unwrap();
                if leases.is_empty() {
                    return leased;
                }
                leased += leases.iter().map(|lease| lease.rows).sum::<u32>();
            }
        })
    });
    let mut leased = 0;
    for claim in claims.collect::<Vec<_>>() {
        leased += claim.await.unwrap();
    }
    assert!((901..=1_000).contains(&leased), "{leased} rows");
}

/// What cannot be leased does not keep what can from being found.
pub async fn other_operations_of_an_app_go_on(kit: Kit) {
    for op in ["a", "b", "c", "d"] {
        submit(&kit, op, 1).await;
    }
    kit.store.set_paused("bank", Some("a"), true).await.unwrap();
    limit(&kit, Some("c"), rate(1, 1)).await;
    submit(&kit, "c", 5).await;
    let mut leased = Vec::new();
    while let [lease] = kit.claim(&ClaimRequest { rows_max: 1, ..request() }).await[..] {
        leased.push(op_of(&kit, &lease).await);
    }
    assert_eq!(leased, ["b", "c", "d"]);
}

pub async fn a_policy_changes_from_what_it_was(kit: Kit) {
    let (nothing, rate) = (Policy::of("bank", Some("post")), Some("5/s".parse::<Rate>().unwrap()));
    let stored = async || kit.store.list_policies().await.unwrap();
    let limited = Policy { rate, ..nothing.clone() };
    assert!(kit.store.change_policy(&nothing, &limited).await.unwrap());
    assert!(!kit.store.change_policy(&nothing, &Policy { paused: true, ..nothing.clone() }).await.unwrap(), "there is another by now");
    assert_eq!(stored().await, std::slice::from_ref(&limited));
    // A command that read it before the pause takes nothing back.
    kit.store.set_paused("bank", Some("POST"), true).await.unwrap();
    let terms = PartialTerms { attempts_max: Some(3), ..PartialTerms::default() };
    assert!(!kit.store.change_policy(&limited, &Policy { terms: terms.clone(), ..limited.clone() }).await.unwrap());
    let paused = Policy { paused: true, ..limited };
    let changed = Policy { terms, ..paused.clone() };
    assert!(kit.store.change_policy(&paused, &changed).await.unwrap());
    assert_eq!(stored().await, std::slice::from_ref(&changed));
    assert!(kit.store.remove_policy("bank", Some("post")).await.unwrap());
    assert!(!kit.store.change_policy(&changed, &paused).await.unwrap(), "it was removed");
    // An app has a policy of its own, and a name may have any letters.
    for (app, op) in [("größe '%_", Some("op")), ("bank", None)] {
        let (from, to) = (Policy::of(app, op), Policy { paused: true, ..Policy::of(app, op) });
        assert!(kit.store.change_policy(&from, &to).await.unwrap());
        assert!(kit.store.change_policy(&to, &from).await.unwrap());
    }
}
