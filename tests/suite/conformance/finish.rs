//! Batches are finished: joined, then marked, then done.

use std::time::Duration;

use rowmill::model::{BatchId, BatchStatus, BatchStep, FinishLease, RowStatus};

use super::build::{MILLISECOND, SECOND, TTL, counts, outcome, query, row, rows, success};
use super::kit::{Kit, START, file, is_lost};

/// A batch that waits to be joined.
async fn to_be_joined(kit: &Kit) -> BatchId {
    let id = kit.submit(1).await;
    kit.run_rows().await;
    id
}

async fn step(kit: &Kit, id: BatchId) -> (BatchStep, BatchStatus) {
    let batch = kit.batch(id).await;
    (batch.step, batch.status)
}

pub async fn a_batch_is_joined_then_marked_then_done(kit: Kit) {
    let id = to_be_joined(&kit).await;
    assert_eq!(step(&kit, id).await, (BatchStep::Join, BatchStatus::Inprog));
    let join = kit.claim_finish().await;
    assert_eq!((join.batch, join.step, join.attempt), (id, BatchStep::Join, 1));
    assert_eq!(kit.batch(id).await.finished_at, None);
    kit.pass(SECOND);
    kit.store.record_files(&join, &[]).await.unwrap();
    assert_eq!(step(&kit, id).await, (BatchStep::Mark, BatchStatus::Success));
    assert_eq!(kit.batch(id).await.finished_at, Some(START.after(SECOND)));

    kit.pass(SECOND);
    let mark = kit.claim_finish().await;
    assert_eq!((mark.batch, mark.step, mark.attempt), (id, BatchStep::Mark, 1));
    kit.store.record_mark_done(&mark, None).await.unwrap();
    assert_eq!(step(&kit, id).await, (BatchStep::Done, BatchStatus::Success));
    let batch = kit.batch(id).await;
    assert_eq!((batch.finished_at, batch.mark_error), (Some(START.after(SECOND)), None));
    assert_eq!(kit.try_claim_finish().await, None);
}

pub async fn who_records_the_last_outcome_can_have_the_batch_to_finish(kit: Kit) {
    let id = kit.submit(3).await;
    let lease = kit.claim_rows(3).await;
    let rows = kit.read(&lease).await;
    assert_eq!(kit.record_to_finish(&lease, &[success(&rows[0])]).await.finish, None, "rows are left");
    assert_eq!(kit.try_claim_finish().await, None);
    let recorded = kit.record_to_finish(&lease, &[success(&rows[1]), success(&rows[2])]).await;
    let join = recorded.finish.unwrap();
    assert_eq!((recorded.last, join.batch, join.step, join.attempt), (true, id, BatchStep::Join, 1));
    assert_eq!(kit.try_claim_finish().await, None, "it is leased already");
    kit.store.record_files(&join, &[]).await.unwrap();
    assert_eq!(step(&kit, id).await, (BatchStep::Mark, BatchStatus::Success));
    let mark = kit.claim_finish().await;
    assert_eq!((mark.batch, mark.step, mark.attempt), (id, BatchStep::Mark, 1));
}

pub async fn a_finisher_that_goes_silent_is_replaced(kit: Kit) {
    let new = query();
    let id = new.id;
    kit.store.submit_batch(new, vec![row(0)]).await.unwrap();
    let lease = kit.claim_rows(1).await;
    let rows = kit.read(&lease).await;
    let mark = kit.record_to_finish(&lease, &[success(&rows[0])]).await.finish.unwrap();
    assert_eq!((mark.batch, mark.step, mark.attempt), (id, BatchStep::Mark, 1), "a query without files is final with its record");
    assert_eq!(kit.batch(id).await.status, BatchStatus::Success);
    kit.go_silent();
    let second = kit.claim_finish().await;
    assert_eq!((second.batch, second.step, second.attempt), (id, BatchStep::Mark, 2));
    is_lost(kit.store.record_mark_done(&mark, None).await);
    kit.store.record_mark_done(&second, None).await.unwrap();
    assert_eq!(kit.batch(id).await.step, BatchStep::Done);
}

pub async fn a_batch_with_rows_left_is_not_finished(kit: Kit) {
    kit.hold(1).await;
    kit.submit(2).await;
    assert_eq!(kit.try_claim_finish().await, None);
    let lease = kit.claim_rows(2).await;
    assert_eq!(kit.try_claim_finish().await, None);
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[success(&rows[0])]).await;
    assert_eq!(kit.try_claim_finish().await, None);
    kit.go_silent();
    assert_eq!(kit.try_claim_finish().await, None);
}

pub async fn one_worker_at_a_time_finishes_a_batch(kit: Kit) {
    let id = to_be_joined(&kit).await;
    let join = kit.claim_finish().await;
    assert_eq!(kit.try_claim_finish().await, None);
    kit.store.record_files(&join, &[]).await.unwrap();
    kit.claim_finish().await;
    assert_eq!(kit.try_claim_finish().await, None);
    assert_eq!(step(&kit, id).await, (BatchStep::Mark, BatchStatus::Success));
}

pub async fn several_batches_are_finished_side_by_side_the_oldest_first(kit: Kit) {
    let ids = [to_be_joined(&kit).await, to_be_joined(&kit).await, to_be_joined(&kit).await];
    let leases = [kit.claim_finish().await, kit.claim_finish().await, kit.claim_finish().await];
    assert_eq!(leases.map(|lease| lease.batch), ids);
    kit.store.record_files(&leases[2], &[]).await.unwrap();
    let mark = kit.claim_finish().await;
    assert_eq!((mark.batch, mark.step), (ids[2], BatchStep::Mark));
    assert_eq!(kit.try_claim_finish().await, None);
}

/// A record by this lease is refused, and changes nothing.
async fn opens_nothing(kit: &Kit, lease: &FinishLease) {
    let before = kit.view(lease.batch).await;
    is_lost(kit.store.renew_finish(lease, TTL * 100).await);
    is_lost(kit.store.record_files(lease, &[file("a.txt", "elsewhere")]).await);
    is_lost(kit.store.record_mark_done(lease, Some("elsewhere")).await);
    kit.store.give_back_finish(lease, Duration::ZERO).await.unwrap();
    assert_eq!(kit.view(lease.batch).await, before);
}

pub async fn a_finish_lease_that_ended_is_taken_over(kit: Kit) {
    let id = to_be_joined(&kit).await;
    for wanted in [BatchStep::Join, BatchStep::Mark] {
        let first = kit.claim_finish().await;
        kit.pass(TTL - MILLISECOND);
        assert_eq!(kit.try_claim_finish().await, None);
        kit.pass(MILLISECOND);
        let second = kit.claim_finish().await;
        assert_eq!((second.batch, second.step, second.attempt), (id, wanted, 2));
        opens_nothing(&kit, &first).await;
        assert_eq!(kit.try_claim_finish().await, None, "the old one gave the lease of the new one back");
        kit.go_silent();
        let third = kit.claim_finish().await;
        assert_eq!((third.step, third.attempt), (wanted, 3));
        match wanted {
            BatchStep::Join => kit.store.record_files(&third, &[]).await.unwrap(),
            _ => kit.store.record_mark_done(&third, None).await.unwrap(),
        }
        for old in [first, second, third] {
            opens_nothing(&kit, &old).await;
        }
    }
    assert_eq!(step(&kit, id).await, (BatchStep::Done, BatchStatus::Success));
}

pub async fn a_finish_lease_that_ended_records_nothing(kit: Kit) {
    let id = to_be_joined(&kit).await;
    let lease = kit.claim_finish().await;
    kit.go_silent();
    let before = kit.view(id).await;
    is_lost(kit.store.renew_finish(&lease, TTL).await);
    is_lost(kit.store.record_files(&lease, &[]).await);
    assert_eq!(kit.view(id).await, before);
    let lease = kit.claim_finish().await;
    kit.store.record_files(&lease, &[]).await.unwrap();
    let lease = kit.claim_finish().await;
    kit.go_silent();
    is_lost(kit.store.record_mark_done(&lease, None).await);
    assert_eq!(step(&kit, id).await.0, BatchStep::Mark);
}

/// Like a lease of rows: who comes back too late does not undo the count of its crash.
pub async fn a_lost_finish_lease_is_not_given_back(kit: Kit) {
    to_be_joined(&kit).await;
    let lease = kit.claim_finish().await;
    kit.go_silent();
    kit.store.give_back_finish(&lease, Duration::ZERO).await.unwrap();
    assert_eq!(kit.claim_finish().await.attempt, 2);
}

pub async fn a_finish_lease_that_is_renewed_lives_on(kit: Kit) {
    to_be_joined(&kit).await;
    let lease = kit.claim_finish().await;
    for _ in 0..4 {
        kit.pass(TTL - MILLISECOND);
        kit.store.renew_finish(&lease, TTL).await.unwrap();
    }
    kit.pass(TTL - MILLISECOND);
    assert_eq!(kit.try_claim_finish().await, None);
    kit.store.record_files(&lease, &[]).await.unwrap();
}

pub async fn a_finish_lease_given_back_is_no_attempt(kit: Kit) {
    to_be_joined(&kit).await;
    for _ in 0..3 {
        let lease = kit.claim_finish().await;
        assert_eq!(lease.attempt, 1);
        kit.store.give_back_finish(&lease, Duration::ZERO).await.unwrap();
        opens_nothing(&kit, &lease).await;
    }
    kit.claim_finish().await;
    kit.go_silent();
    let second = kit.claim_finish().await;
    assert_eq!(second.attempt, 2);
    kit.store.give_back_finish(&second, Duration::ZERO).await.unwrap();
    assert_eq!(kit.claim_finish().await.attempt, 2);
}

pub async fn a_finish_lease_given_back_for_later_waits_and_is_no_attempt(kit: Kit) {
    let id = to_be_joined(&kit).await;
    for _ in 0..3 {
        let lease = kit.claim_finish().await;
        assert_eq!((lease.batch, lease.attempt), (id, 1));
        kit.store.give_back_finish(&lease, SECOND).await.unwrap();
        opens_nothing(&kit, &lease).await;
        assert_eq!(kit.store.next_due(None).await.unwrap(), Some(SECOND));
        kit.pass(SECOND - MILLISECOND);
        assert_eq!(kit.try_claim_finish().await, None);
        kit.pass(MILLISECOND);
    }
    let lease = kit.claim_finish().await;
    kit.store.record_files(&lease, &[]).await.unwrap();
    assert_eq!(kit.claim_finish().await.step, BatchStep::Mark);
}

pub async fn a_lease_for_one_step_does_not_end_the_other(kit: Kit) {
    let id = to_be_joined(&kit).await;
    let join = kit.claim_finish().await;
    is_lost(kit.store.record_mark_done(&join, Some("not yet")).await);
    assert_eq!((kit.batch(id).await.mark_error, step(&kit, id).await.0), (None, BatchStep::Join));
    kit.store.record_files(&join, &[]).await.unwrap();
    let mark = kit.claim_finish().await;
    let before = kit.view(id).await;
    is_lost(kit.store.record_files(&mark, &[file("a.txt", "again")]).await);
    is_lost(kit.store.record_files(&join, &[]).await);
    assert_eq!(kit.view(id).await, before);
    kit.store.record_mark_done(&mark, None).await.unwrap();
}

pub async fn a_lease_of_one_batch_does_not_finish_another(kit: Kit) {
    let (first, second) = (to_be_joined(&kit).await, to_be_joined(&kit).await);
    let (of_first, of_second) = (kit.claim_finish().await, kit.claim_finish().await);
    opens_nothing(&kit, &FinishLease { batch: second, ..of_first }).await;
    opens_nothing(&kit, &FinishLease { batch: first, ..of_second }).await;
    kit.store.record_files(&of_first, &[]).await.unwrap();
    kit.store.record_files(&of_second, &[]).await.unwrap();
}

pub async fn a_batch_ends_as_the_worst_of_its_rows(kit: Kit) {
    let cases = [
        (&[RowStatus::Success, RowStatus::Success][..], false, BatchStatus::Success),
        (&[RowStatus::Success, RowStatus::Failed], false, BatchStatus::Failed),
        (&[RowStatus::Failed, RowStatus::Failed], false, BatchStatus::Failed),
        (&[RowStatus::Success], true, BatchStatus::Aborted),
        (&[RowStatus::Failed], true, BatchStatus::Aborted),
        (&[], true, BatchStatus::Aborted),
    ];
    for (statuses, abort, wanted) in cases {
        let id = kit.submit(2).await;
        let lease = kit.claim_rows(2).await;
        let rows = kit.read(&lease).await;
        kit.record(&lease, &rows.iter().zip(statuses).map(|(row, status)| outcome(row, *status)).collect::<Vec<_>>()).await;
        if abort {
            kit.abort(id).await;
        }
        kit.finish_all().await;
        let batch = kit.batch(id).await;
        assert_eq!((batch.status, batch.step), (wanted, BatchStep::Done), "{statuses:?}, {abort}");
        let counted = batch.counts.success + batch.counts.failed + batch.counts.aborted;
        assert_eq!((counted, batch.counts.rows), (2, 2));
        assert_eq!(batch.counts.success, statuses.iter().filter(|status| **status == RowStatus::Success).count() as u64);
    }
}

pub async fn the_error_of_mark_done_can_be_seen(kit: Kit) {
    let id = to_be_joined(&kit).await;
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();
    kit.store.record_mark_done(&kit.claim_finish().await, Some("the mail server is away")).await.unwrap();
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.mark_error.as_deref()), (BatchStatus::Success, Some("the mail server is away")));
}

pub async fn a_slow_query_is_finished_like_a_batch(kit: Kit) {
    let new = query();
    kit.store.submit_batch(new.clone(), vec![row(0)]).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(step(&kit, new.id).await, (BatchStep::Done, BatchStatus::Success));
    assert_eq!(kit.counts(new.id).await, counts(1, 1, 0, 0));
}

pub async fn a_finished_batch_stays_as_it_is(kit: Kit) {
    let id = to_be_joined(&kit).await;
    kit.finish_all().await;
    let before = kit.view(id).await;
    kit.submit(2).await;
    kit.store.append_rows(id, rows(1)).await.unwrap_err();
    kit.run_rows().await;
    kit.finish_all().await;
    kit.go_silent();
    assert_eq!(kit.try_claim_finish().await, None);
    kit.claim_nothing().await;
    assert_eq!(kit.view(id).await, before);
}
