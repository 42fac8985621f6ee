//! What submitters say about how a batch is run: when it starts and ends, how many rows may fail, and what comes first.

use std::time::Duration;

use rowmill::model::{BatchId, BatchStatus, BatchStep, FailureLimit, NewBatch, ProcessorKind, RowStatus, Terms};
use rowmill::store::Overdue;

use super::build::{MILLISECOND, SECOND, TTL, batch, counts, failure, held, query, request, retry, row, rows, success};
use super::kit::{Kit, START, is_invalid, is_lost, is_missing, is_wrong_status};

async fn submit(kit: &Kit, count: u32, terms: Terms) -> BatchId {
    let new = NewBatch { terms, ..batch() };
    let id = new.id;
    kit.store.submit_batch(new, rows(count)).await.unwrap();
    id
}

fn starting(after: Duration) -> Terms {
    Terms { start_at: Some(START.after(after)), ..Terms::default() }
}

fn ending(after: Duration) -> Terms {
    Terms { deadline_at: Some(START.after(after)), ..Terms::default() }
}

fn failing(limit: FailureLimit) -> Terms {
    Terms { failures_max: Some(limit), ..Terms::default() }
}

pub async fn a_batch_is_not_claimed_before_its_start(kit: Kit) {
    let id = submit(&kit, 3, starting(SECOND)).await;
    kit.claim_nothing().await;
    assert_eq!(kit.batch(id).await.status, BatchStatus::Queued);
    kit.pass(SECOND - MILLISECOND);
    kit.claim_nothing().await;
    // Others do not wait for it.
    let other = submit(&kit, 1, Terms { priority: -1, ..Terms::default() }).await;
    assert_eq!(kit.claim_rows(1).await.batch, other);
    kit.pass(MILLISECOND);
    let lease = kit.claim_rows(3).await;
    assert_eq!(lease.batch, id);
    assert_eq!(kit.batch(id).await.started_at, Some(START.after(SECOND)));
    kit.record_each(&lease, success).await;
}

pub async fn a_start_that_has_passed_holds_nothing_up(kit: Kit) {
    kit.pass(SECOND);
    let id = submit(&kit, 1, starting(SECOND)).await;
    assert_eq!(kit.claim_rows(1).await.batch, id);
}

pub async fn a_start_is_due_at_its_time(kit: Kit) {
    submit(&kit, 1, starting(SECOND * 9)).await;
    submit(&kit, 1, starting(SECOND * 5)).await;
    let new = NewBatch { terms: starting(SECOND * 3), ..query() };
    kit.store.submit_batch(new, vec![row(0)]).await.unwrap();
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(SECOND * 3));
    assert_eq!(kit.store.next_due(Some(ProcessorKind::Batch)).await.unwrap(), Some(SECOND * 5));
    kit.pass(SECOND * 6);
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(Duration::ZERO));
}

pub async fn a_held_batch_waits_for_its_release_and_its_start(kit: Kit) {
    let submit = async || {
        let new = NewBatch { terms: starting(SECOND), ..held() };
        kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
        new.id
    };
    let (early, late) = (submit().await, submit().await);
    kit.store.release_batch(early).await.unwrap();
    kit.claim_nothing().await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(SECOND));
    kit.pass(SECOND);
    assert_eq!(kit.claim_rows(2).await.batch, early);
    kit.claim_nothing().await;
    kit.store.release_batch(late).await.unwrap();
    assert_eq!(kit.claim_rows(2).await.batch, late);
}

pub async fn a_batch_that_is_aborted_before_its_start_never_starts(kit: Kit) {
    let id = submit(&kit, 2, starting(SECOND)).await;
    assert!(kit.store.abort_batch(id, None).await.unwrap().changed);
    kit.finish_all().await;
    kit.pass(SECOND);
    kit.claim_nothing().await;
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
    assert_eq!((kit.batch(id).await.step, kit.batch(id).await.counts), (BatchStep::Done, counts(2, 0, 0, 2)));
}

pub async fn a_batch_cannot_start_after_its_deadline(kit: Kit) {
    let terms = Terms { start_at: Some(START.after(SECOND)), ..ending(SECOND) };
    is_invalid(kit.store.submit_batch(NewBatch { terms, ..batch() }, rows(1)).await);
}

pub async fn the_rows_that_have_not_ended_by_the_deadline_are_aborted(kit: Kit) {
    let id = submit(&kit, 10, ending(SECOND)).await;
    let held = NewBatch { terms: ending(SECOND), ..held() };
    kit.store.submit_batch(held.clone(), Vec::new()).await.unwrap();
    let (first, second) = (kit.claim_rows(3).await, kit.claim_rows(3).await);
    kit.record_each(&first, success).await;
    kit.pass(SECOND - MILLISECOND);
    assert_eq!(kit.store.abort_overdue().await.unwrap(), Overdue { aborted: Vec::new(), next: Some(MILLISECOND) });
    let later = submit(&kit, 1, ending(SECOND * 5)).await;
    kit.pass(MILLISECOND);
    let mut overdue = kit.store.abort_overdue().await.unwrap();
    overdue.aborted.sort_by_key(|aborted| *aborted != id);
    assert_eq!(overdue, Overdue { aborted: vec![id, held.id], next: Some(SECOND * 4) });
    is_lost(kit.try_record(&second, &[]).await);
    kit.finish_all().await;
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.counts), (BatchStatus::Aborted, counts(10, 3, 0, 7)));
    assert_eq!(batch.abort_reason.as_deref(), Some("its deadline has passed"));
    assert_eq!(kit.batch(later).await.status, BatchStatus::Queued);
}

pub async fn a_batch_with_all_its_outcomes_has_no_deadline(kit: Kit) {
    let id = submit(&kit, 1, ending(SECOND)).await;
    kit.run_rows().await;
    assert_eq!(kit.store.abort_overdue().await.unwrap(), Overdue { aborted: Vec::new(), next: None });
    kit.pass(SECOND * 2);
    assert_eq!(kit.store.abort_overdue().await.unwrap(), Overdue { aborted: Vec::new(), next: None });
    kit.finish_all().await;
    assert_eq!(kit.batch(id).await.status, BatchStatus::Success);
}

pub async fn more_failures_than_may_be_abort_the_batch(kit: Kit) {
    let cases = [
        (FailureLimit::Rows(2), "3 rows failed; the limit is 2"),
        (FailureLimit::Percent(20), "3 of 10 rows failed; the limit is 20%"),
        (FailureLimit::Percent(29), "3 of 10 rows failed; the limit is 29%"),
    ];
    for (limit, reason) in cases {
        let id = submit(&kit, 10, failing(limit)).await;
        let (first, second) = (kit.claim_rows(3).await, kit.claim_rows(2).await);
        let both = kit.read(&first).await;
        assert!(!kit.record(&first, &[failure(&both[0]), failure(&both[1])]).await.aborted);
        let last = kit.record(&first, &[failure(&both[2])]).await;
        assert!(last.aborted && !last.last && last.finish.is_none());
        assert_eq!(last.counts, counts(10, 0, 3, 7));
        is_lost(kit.try_record(&second, &[]).await);
        kit.claim_nothing().await;
        kit.finish_all().await;
        let batch = kit.batch(id).await;
        assert_eq!((batch.status, batch.abort_reason.as_deref()), (BatchStatus::Aborted, Some(reason)));
        assert_eq!(kit.statuses(id).await[2..4], [Some(RowStatus::Failed), Some(RowStatus::Aborted)]);
    }
}

/// Rows that have run keep their outcomes: so a record that brings several failures may go beyond the limit.
pub async fn a_record_that_goes_beyond_the_limit_of_failures_is_kept_whole_and_the_reason_says_so(kit: Kit) {
    let cases = [(FailureLimit::Rows(2), "5 rows failed; the limit is 2"), (FailureLimit::Percent(20), "5 of 10 rows failed; the limit is 20%")];
    for (limit, reason) in cases {
        let id = submit(&kit, 10, failing(limit)).await;
        let lease = kit.claim_rows(5).await;
        assert!(kit.record_each(&lease, failure).await.aborted);
        let batch = kit.batch(id).await;
        assert_eq!((batch.counts, batch.abort_reason.as_deref()), (counts(10, 0, 5, 5), Some(reason)));
        kit.finish_all().await;
    }
}

pub async fn as_many_failures_as_may_be_change_nothing(kit: Kit) {
    for limit in [FailureLimit::Rows(3), FailureLimit::Percent(30)] {
        let id = submit(&kit, 10, failing(limit)).await;
        let first = kit.claim_rows(3).await;
        assert!(!kit.record_each(&first, failure).await.aborted);
        kit.run_rows().await;
        kit.finish_all().await;
        assert_eq!(kit.batch(id).await.counts, counts(10, 7, 3, 0));
    }
}

/// There is nothing left that could be spared.
pub async fn a_batch_whose_last_rows_fail_has_ended_and_is_not_aborted(kit: Kit) {
    let id = submit(&kit, 3, failing(FailureLimit::Rows(0))).await;
    let lease = kit.claim_rows(3).await;
    let recorded = kit.record_each(&lease, failure).await;
    assert!(recorded.last && !recorded.aborted);
    kit.finish_all().await;
    assert_eq!((kit.batch(id).await.status, kit.batch(id).await.abort_reason), (BatchStatus::Failed, None));
}

pub async fn a_retry_is_no_failure(kit: Kit) {
    let id = submit(&kit, 2, failing(FailureLimit::Rows(0))).await;
    let lease = kit.claim_rows(2).await;
    let read = kit.read(&lease).await;
    assert!(!kit.record(&lease, &[retry(&read[0], Duration::ZERO), success(&read[1])]).await.aborted);
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(kit.batch(id).await.counts, counts(2, 2, 0, 0));
}

pub async fn a_priority_can_be_changed_while_rows_wait(kit: Kit) {
    let (first, second) = (submit(&kit, 2, Terms::default()).await, submit(&kit, 1, Terms::default()).await);
    kit.store.set_priority(second, 3).await.unwrap();
    assert_eq!(kit.batch(second).await.terms.priority, 3);
    assert_eq!(kit.claim(&request()).await[0].batch, second);
    // Also of a batch that has begun, and of one that is held.
    let running = kit.claim_rows(1).await;
    assert_eq!(running.batch, first);
    let third = submit(&kit, 1, Terms { priority: 1, ..Terms::default() }).await;
    kit.store.set_priority(first, 2).await.unwrap();
    assert_eq!(kit.claim_rows(1).await.batch, first);
    assert_eq!(kit.claim_rows(1).await.batch, third);
    let held = kit.hold(1).await;
    kit.store.set_priority(held, -7).await.unwrap();
    assert_eq!(kit.batch(held).await.terms.priority, -7);
}

pub async fn the_priority_of_a_batch_that_has_its_outcomes_stays(kit: Kit) {
    let id = submit(&kit, 1, Terms::default()).await;
    kit.run_rows().await;
    is_wrong_status(kit.store.set_priority(id, 1).await, (id, BatchStatus::Inprog));
    kit.finish_all().await;
    is_wrong_status(kit.store.set_priority(id, 1).await, (id, BatchStatus::Success));
    assert_eq!(kit.batch(id).await.terms.priority, 0);
    let unknown = BatchId::generate();
    is_missing(kit.store.set_priority(unknown, 1).await, unknown);
}

/// Whoever holds its rows does not hinder it.
pub async fn a_deadline_passes_while_rows_are_leased_and_retried(kit: Kit) {
    let id = submit(&kit, 2, ending(TTL * 2)).await;
    let lease = kit.claim_rows(2).await;
    let read = kit.read(&lease).await;
    kit.record(&lease, &[retry(&read[0], TTL * 9)]).await;
    kit.pass(TTL * 2);
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, [id]);
    kit.finish_all().await;
    assert_eq!(kit.batch(id).await.counts, counts(2, 0, 0, 2));
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
}
