//! Chained batches that were aborted have a way back.

use std::time::Duration;

use rowmill::model::{AfterCondition, BatchId, BatchStatus, BatchStep, LeasedRow, NewBatch, RetryRows, RowResult, Terms};
use rowmill::store::{ChainEnd, StoreError};

use super::build::{SECOND, counts, failure, success};
use super::chains::{advance, after, chain, some_fail};
use super::kit::{Kit, START, is_invalid, is_wrong_status};

const WITH_ABORTED: &RetryRows = &RetryRows { codes: Vec::new(), aborted: true, deadline_at: None };

/// Runs and finishes everything; each row succeeds.
async fn run_all(kit: &Kit) -> Vec<ChainEnd> {
    let mut ends = Vec::new();
    loop {
        kit.run_rows().await;
        kit.finish_all().await;
        let made = advance(kit).await;
        if made.is_empty() {
            return ends;
        }
        ends.extend(made);
    }
}

fn one_fails(row: &LeasedRow) -> RowResult {
    if row.row_no == 1 { failure(row) } else { success(row) }
}

pub async fn what_was_aborted_because_of_a_batch_runs_when_that_succeeds_in_a_later_round(kit: Kit) {
    let a = kit.submit(2).await;
    let b = chain(&kit, a, AfterCondition::Success).await;
    let (c, d) = (chain(&kit, b, AfterCondition::Success).await, chain(&kit, b, AfterCondition::Any).await);
    let asked = chain(&kit, a, AfterCondition::Success).await;
    kit.abort(asked).await;
    kit.run_rows_with(one_fails).await;
    run_all(&kit).await;
    for id in [b, c, d] {
        assert_eq!((kit.status(id).await, kit.batch(id).await.step), (BatchStatus::Aborted, BatchStep::Done));
    }

    let retried = kit.store.retry_batch(a, &RetryRows::default()).await.unwrap();
    assert_eq!((retried.round, retried.rows, retried.waits), (2, 1, vec![b, c, d]));
    for id in [b, c, d] {
        let batch = kit.batch(id).await;
        assert_eq!((batch.status, batch.step, batch.round, batch.abort_reason), (BatchStatus::Wait, BatchStep::Rows, 2, None));
        let past = kit.store.list_rounds(id, 0, 10).await.unwrap();
        assert_eq!((past.len(), past[0].status), (1, BatchStatus::Aborted));
        assert!(past[0].abort_reason.as_ref().unwrap().contains(&if id == b { a } else { b }.to_string()), "{past:?}");
    }
    assert_eq!(kit.status(asked).await, BatchStatus::Aborted, "somebody wanted that");
    assert_eq!(advance(&kit).await, []);
    assert_eq!(run_all(&kit).await, [ChainEnd::Queued; 3]);
    for id in [a, b, c, d] {
        assert_eq!((kit.status(id).await, kit.counts(id).await), (BatchStatus::Success, counts(2, 2, 0, 0)));
    }
}

pub async fn what_was_aborted_because_of_a_batch_is_aborted_again_when_that_fails_again(kit: Kit) {
    let first = kit.submit(2).await;
    let next = chain(&kit, first, AfterCondition::Success).await;
    for round in 1..=3 {
        kit.run_rows_with(one_fails).await;
        assert_eq!(run_all(&kit).await, [ChainEnd::Aborted]);
        let batch = kit.batch(next).await;
        assert_eq!((batch.status, batch.round, batch.counts.rows), (BatchStatus::Aborted, round, 0));
        assert_eq!(kit.store.retry_batch(first, &RetryRows::default()).await.unwrap().waits, [next]);
    }
    run_all(&kit).await;
    assert_eq!((kit.status(next).await, kit.batch(next).await.round), (BatchStatus::Success, 4));
}

/// The next batch is aborted, and no worker has joined its files or told its processor.
pub async fn a_batch_that_has_just_been_aborted_because_of_another_waits_again(kit: Kit) {
    let first = kit.submit(1).await;
    let next = chain(&kit, first, AfterCondition::Success).await;
    kit.run_rows_with(failure).await;
    kit.finish_all().await;
    assert_eq!(advance(&kit).await, [ChainEnd::Aborted]);
    let joins = kit.claim_finish().await;
    assert_eq!(kit.store.retry_batch(first, &RetryRows::default()).await.unwrap().waits, [next]);
    assert!(matches!(kit.store.record_files(&joins, &[]).await, Err(StoreError::LeaseLost)));
    assert_eq!((kit.status(next).await, kit.batch(next).await.step), (BatchStatus::Wait, BatchStep::Rows));
    assert_eq!(run_all(&kit).await, [ChainEnd::Queued]);
    assert_eq!(kit.status(next).await, BatchStatus::Success);
}

pub async fn a_chained_batch_that_somebody_aborted_waits_again_when_it_is_retried(kit: Kit) {
    let first = kit.submit(2).await;
    let (next, last) = (chain(&kit, first, AfterCondition::Success).await, BatchId::generate());
    kit.store.submit_batch(NewBatch { id: last, ..after(next, AfterCondition::Success) }, Vec::new()).await.unwrap();
    kit.abort(next).await;
    kit.finish_all().await;
    advance(&kit).await;
    kit.finish_all().await;
    assert_eq!((kit.status(next).await, kit.status(last).await), (BatchStatus::Aborted, BatchStatus::Aborted));
    is_invalid(kit.store.retry_batch(next, &RetryRows::default()).await);
    // The first one has not ended.
    let retried = kit.store.retry_batch(next, WITH_ABORTED).await.unwrap();
    assert_eq!((retried.round, retried.rows, retried.waits), (2, 0, vec![last]));
    assert_eq!((kit.status(next).await, kit.status(last).await), (BatchStatus::Wait, BatchStatus::Wait));
    is_wrong_status(kit.store.retry_batch(next, WITH_ABORTED).await, (next, BatchStatus::Wait));
    run_all(&kit).await;
    assert_eq!((kit.status(next).await, kit.counts(last).await), (BatchStatus::Success, counts(2, 2, 0, 0)));

    // It has ended.
    let late = chain(&kit, first, AfterCondition::Success).await;
    kit.abort(late).await;
    advance(&kit).await;
    kit.finish_all().await;
    assert_eq!(kit.store.retry_batch(late, WITH_ABORTED).await.unwrap().rows, 0);
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(Duration::ZERO));
    assert_eq!(run_all(&kit).await, [ChainEnd::Queued]);
    assert_eq!(kit.status(late).await, BatchStatus::Success);
}

pub async fn a_chained_batch_that_would_be_aborted_again_is_not_retried(kit: Kit) {
    let first = kit.submit(1).await;
    let next = chain(&kit, first, AfterCondition::Success).await;
    kit.run_rows_with(failure).await;
    run_all(&kit).await;
    let before = kit.view(next).await;
    let refused = async || match kit.store.retry_batch(next, WITH_ABORTED).await {
        Err(StoreError::Invalid(reason)) => reason,
        retried => panic!("{retried:?}"),
    };
    assert_eq!(
        refused().await,
        format!(
            "batch {next} would be aborted again: batch {first} ended as failed, and this batch runs only after its success; retry that batch first"
        )
    );
    assert_eq!(kit.view(next).await, before);
    let removed = kit.store.begin_removal(first, SECOND).await.unwrap();
    while kit.store.prune_rows(removed.batch, 100, SECOND).await.unwrap().left {}
    assert!(refused().await.contains(&format!("batch {first} was removed")));
}

pub async fn a_chained_batch_that_was_aborted_while_it_was_made_is_made_anew(kit: Kit) {
    const ROWS: u32 = 7_000;
    let first = kit.submit(ROWS).await;
    let next = chain(&kit, first, AfterCondition::Any).await;
    while let [lease] = kit.claim(&rowmill::model::ClaimRequest { rows_max: 5_000, ..super::build::request() }).await[..] {
        kit.record_each(&lease, some_fail).await;
    }
    kit.finish_all().await;
    assert_eq!(kit.store.advance_chain().await.unwrap().unwrap().end, ChainEnd::More);
    assert!(kit.counts(next).await.rows > 0);
    kit.abort(next).await;
    assert_eq!(advance(&kit).await, [ChainEnd::Gone]);
    kit.finish_all().await;
    assert_eq!(kit.store.retry_batch(next, WITH_ABORTED).await.unwrap().rows, 0);
    assert_eq!(kit.counts(next).await, counts(0, 0, 0, 0));
    assert_eq!(advance(&kit).await, [ChainEnd::More, ChainEnd::Queued]);
    let lines: Vec<u32> = kit.results(next).await.iter().map(|row| row.line).collect();
    assert_eq!(lines, (1..=ROWS).filter(|line| !line.is_multiple_of(3)).collect::<Vec<_>>());
}

pub async fn a_deadline_that_has_passed_does_not_hold_for_a_batch_that_waits_again(kit: Kit) {
    let first = kit.submit(1).await;
    let soon = Terms { deadline_at: Some(START.after(SECOND * 10)), ..Terms::default() };
    let next = NewBatch { terms: soon, ..after(first, AfterCondition::Success) };
    kit.store.submit_batch(next.clone(), Vec::new()).await.unwrap();
    kit.run_rows_with(failure).await;
    run_all(&kit).await;
    kit.pass(SECOND * 20);
    kit.store.retry_batch(first, &RetryRows::default()).await.unwrap();
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, []);
    run_all(&kit).await;
    assert_eq!(kit.status(next.id).await, BatchStatus::Success);
}

/// Retries of the batches of a chain, at the same moment: none waits for another for ever, and all of them end.
pub async fn retries_along_a_chain_at_the_same_moment_all_end(kit: Kit) {
    for _ in 0..10 {
        let a = kit.submit(1).await;
        let b = chain(&kit, a, AfterCondition::Success).await;
        let c = chain(&kit, b, AfterCondition::Success).await;
        kit.abort(b).await;
        kit.finish_all().await;
        advance(&kit).await;
        kit.run_rows_with(failure).await;
        run_all(&kit).await;
        let retries = [a, b, c].map(|id| {
            let store = kit.store.clone();
            tokio::spawn(async move { store.retry_batch(id, WITH_ABORTED).await })
        });
        for retried in retries {
            match retried.await.unwrap() {
                Ok(_) | Err(StoreError::Invalid(_) | StoreError::WrongStatus { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        run_all(&kit).await;
        if kit.status(b).await == BatchStatus::Aborted {
            kit.store.retry_batch(b, WITH_ABORTED).await.unwrap();
        }
        run_all(&kit).await;
        for id in [a, b, c] {
            assert_eq!(kit.status(id).await, BatchStatus::Success);
        }
    }
}

pub async fn a_retry_lets_at_most_a_thousand_batches_wait_again(kit: Kit) {
    let first = kit.submit(1).await;
    let mut behind = Vec::new();
    for _ in 0..1_001 {
        behind.push(chain(&kit, first, AfterCondition::Success).await);
    }
    kit.run_rows_with(one_fails).await;
    kit.finish_all().await;
    assert_eq!(advance(&kit).await, [ChainEnd::Aborted; 1_001]);
    kit.finish_all().await;
    let last = behind.pop().unwrap();
    assert_eq!(kit.store.retry_batch(first, &RetryRows::default()).await.unwrap().waits, behind);
    assert_eq!((kit.status(behind[999]).await, kit.status(last).await), (BatchStatus::Wait, BatchStatus::Aborted));
    // The last one has a way back of its own.
    assert_eq!(kit.store.retry_batch(last, WITH_ABORTED).await.unwrap().round, 2);
    assert_eq!(kit.status(last).await, BatchStatus::Wait);
}
