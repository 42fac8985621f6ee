//! Batches are aborted.

use std::sync::Arc;

use rowmill::model::{BatchStatus, BatchStep, RowStatus};
use rowmill::store::Aborted;
use tokio::sync::Barrier;

use super::build::{SECOND, TTL, counts, failure, retry, success};
use super::kit::{Kit, START, is_lost};
use super::stages::{Stage, every_stage};

pub async fn a_batch_is_aborted_at_every_stage_before_its_last_outcome(kit: Kit) {
    for Stage { name, id, step, status } in every_stage(&kit).await {
        if step != BatchStep::Rows {
            continue;
        }
        let done = if name == "to be retried" { 2 } else { 0 };
        let aborted = kit.store.abort_batch(id, Some(format!("{name}, no more"))).await.unwrap();
        let wanted = counts(3, done, 0, 3 - done);
        assert_eq!(aborted, Aborted { status: BatchStatus::Aborted, counts: wanted, changed: true }, "{name}, {status:?}");
        let batch = kit.batch(id).await;
        assert_eq!((batch.status, batch.step, batch.counts), (BatchStatus::Aborted, BatchStep::Join, wanted), "{name}");
        assert_eq!((batch.abort_reason, batch.finished_at), (Some(format!("{name}, no more")), None));
    }
    kit.claim_nothing().await;
    kit.go_silent();
    kit.claim_nothing().await;
}

/// With its last outcome a batch is as good as final, though its files are not joined yet.
pub async fn a_batch_with_all_its_outcomes_is_not_changed_by_an_abort(kit: Kit) {
    for Stage { name, id, step, status } in every_stage(&kit).await {
        if step == BatchStep::Rows {
            continue;
        }
        let (before, batch) = (kit.view(id).await, kit.batch(id).await);
        let aborted = kit.store.abort_batch(id, Some("too late".to_owned())).await.unwrap();
        assert_eq!(aborted, Aborted { status, counts: batch.counts, changed: false }, "{name}");
        assert_eq!(kit.view(id).await, before, "{name}");
    }
}

pub async fn the_first_reason_of_an_abort_stays(kit: Kit) {
    let (with, without) = (kit.submit(1).await, kit.submit(1).await);
    kit.store.abort_batch(with, Some("first".to_owned())).await.unwrap();
    kit.store.abort_batch(without, None).await.unwrap();
    for id in [with, without] {
        assert!(!kit.store.abort_batch(id, Some("second".to_owned())).await.unwrap().changed);
    }
    assert_eq!((kit.batch(with).await.abort_reason.as_deref(), kit.batch(without).await.abort_reason), (Some("first"), None));
}

pub async fn an_empty_held_batch_can_be_aborted(kit: Kit) {
    let id = kit.hold(0).await;
    let aborted = kit.store.abort_batch(id, None).await.unwrap();
    assert_eq!(aborted, Aborted { status: BatchStatus::Aborted, counts: counts(0, 0, 0, 0), changed: true });
    kit.finish_all().await;
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.step), (BatchStatus::Aborted, BatchStep::Done));
}

pub async fn nothing_is_recorded_after_an_abort(kit: Kit) {
    let id = kit.submit(6).await;
    let (half, whole) = (kit.claim_rows(3).await, kit.claim_rows(3).await);
    let (half_rows, whole_rows) = (kit.read(&half).await, kit.read(&whole).await);
    kit.record(&half, &[success(&half_rows[0]), failure(&half_rows[1])]).await;
    kit.abort(id).await;
    let before = kit.view(id).await;

    is_lost(kit.try_record(&half, &[success(&half_rows[2])]).await);
    is_lost(kit.try_record(&half, &[retry(&half_rows[2], SECOND)]).await);
    is_lost(kit.try_record(&whole, &whole_rows.iter().map(success).collect::<Vec<_>>()).await);
    is_lost(kit.store.read_leased_rows(half.key).await);
    assert_eq!(kit.store.renew_leases(&[half.key, whole.key], TTL).await.unwrap(), [half.key, whole.key]);
    kit.store.give_back_lease(whole.key).await.unwrap();
    kit.go_silent();
    kit.claim_nothing().await;
    is_lost(kit.try_record(&whole, &[success(&whole_rows[0])]).await);
    assert_eq!(kit.view(id).await, before);
    assert_eq!(kit.counts(id).await, counts(6, 1, 1, 4));
}

pub async fn rows_without_an_outcome_are_aborted_with_their_batch(kit: Kit) {
    let id = kit.submit(5).await;
    let lease = kit.claim_rows(4).await;
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[success(&rows[0]), failure(&rows[1]), retry(&rows[2], SECOND)]).await;
    assert_eq!(kit.statuses(id).await, [Some(RowStatus::Success), Some(RowStatus::Failed), None, None, None]);
    kit.abort(id).await;
    let aborted = Some(RowStatus::Aborted);
    let wanted = [Some(RowStatus::Success), Some(RowStatus::Failed), aborted, aborted, aborted];
    assert_eq!(kit.statuses(id).await, wanted);
    let found = kit.results(id).await;
    assert_eq!((found[4].input.as_str(), &found[4].output, found[4].attempts), (r#"{"line":5}"#, &None, 0));
    kit.finish_all().await;
    assert_eq!(kit.statuses(id).await, wanted);
}

pub async fn an_aborted_batch_is_finished_like_any_other(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, success).await;
    kit.abort(id).await;
    kit.pass(SECOND);
    let join = kit.claim_finish().await;
    assert_eq!((join.batch, join.step, join.attempt), (id, BatchStep::Join, 1));
    kit.store.record_files(&join, &[]).await.unwrap();
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.step, batch.finished_at), (BatchStatus::Aborted, BatchStep::Mark, Some(START.after(SECOND))));
    kit.finish_all().await;
    assert_eq!((kit.batch(id).await.step, kit.counts(id).await), (BatchStep::Done, counts(2, 1, 0, 1)));
}

pub async fn an_abort_touches_no_other_batch(kit: Kit) {
    let (gone, kept) = (kit.submit(3).await, kit.submit(3).await);
    kit.claim_rows(3).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[retry(&rows[0], SECOND)]).await;
    let before = kit.view(kept).await;
    kit.abort(gone).await;
    assert_eq!(kit.view(kept).await, before);
    kit.record_each(&lease, success).await;
    kit.pass(SECOND);
    kit.run_rows().await;
    assert_eq!(kit.counts(kept).await, counts(3, 3, 0, 0));
}

/// Either the batch was aborted, and the record was refused; or the record was the last, and the abort came too late.
pub async fn of_an_abort_and_the_last_record_at_the_same_moment_one_wins(kit: Kit) {
    let kit = Arc::new(kit);
    let mut aborts = 0;
    for _ in 0..100 {
        let id = kit.submit(1).await;
        let lease = kit.claim_rows(1).await;
        let results = [success(&kit.read(&lease).await[0])];
        let barrier = Arc::new(Barrier::new(2));
        let abort = tokio::spawn({
            let (kit, barrier) = (Arc::clone(&kit), Arc::clone(&barrier));
            async move {
                barrier.wait().await;
                kit.store.abort_batch(id, None).await.unwrap()
            }
        });
        barrier.wait().await;
        let recorded = kit.try_record(&lease, &results).await;
        let aborted = abort.await.unwrap();
        if aborted.changed {
            is_lost(recorded);
            aborts += 1;
            assert_eq!((kit.counts(id).await, kit.status(id).await), (counts(1, 0, 0, 1), BatchStatus::Aborted));
        } else {
            let recorded = recorded.unwrap();
            assert_eq!((recorded.counts, recorded.last), (counts(1, 1, 0, 0), true));
            assert_eq!((kit.counts(id).await, kit.status(id).await), (counts(1, 1, 0, 0), BatchStatus::Inprog));
        }
        let join = kit.claim_finish().await;
        assert_eq!(join.batch, id);
        kit.store.record_files(&join, &[]).await.unwrap();
        kit.store.record_mark_done(&kit.claim_finish().await, None).await.unwrap();
        assert_eq!(kit.try_claim_finish().await, None);
    }
    println!("the abort won {aborts} of 100 rounds");
}
