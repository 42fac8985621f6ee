//! Batches that come after another: their rows are its outputs.

use std::time::Duration;

use rowmill::model::{After, AfterCondition, BatchId, BatchStatus, BatchStep, LeasedRow, NewBatch, RetryRows, RowResult, RowStatus, Terms, Verdict};
use rowmill::store::{ChainEnd, StoreError};

use super::build::{MIB, SECOND, batch, counts, failure, held, json_of, query, result, row, rows, success, with_output};
use super::kit::{Kit, START, is_invalid, is_missing, is_wrong_status};

pub(super) fn after(first: BatchId, condition: AfterCondition) -> NewBatch {
    NewBatch { after: Some(After { batch: first, condition }), op: "next".to_owned(), ..batch() }
}

pub(super) async fn chain(kit: &Kit, first: BatchId, condition: AfterCondition) -> BatchId {
    let new = after(first, condition);
    kit.store.submit_batch(new.clone(), Vec::new()).await.unwrap();
    new.id
}

/// Takes chained batches forward until none can be. How often each end came.
pub(super) async fn advance(kit: &Kit) -> Vec<ChainEnd> {
    let mut ends = Vec::new();
    while let Some(step) = kit.store.advance_chain().await.unwrap() {
        ends.push(step.end);
    }
    ends
}

/// Says its line; every third row fails.
pub(super) fn some_fail(row: &LeasedRow) -> RowResult {
    if row.line.is_multiple_of(3) { failure(row) } else { with_output(row, format!(r#"{{"of":{}}}"#, row.line)) }
}

async fn inputs(kit: &Kit, id: BatchId) -> Vec<(u32, u32, String)> {
    kit.results(id).await.into_iter().map(|row| (row.row_no, row.line, row.input)).collect()
}

pub async fn the_outputs_of_a_batch_become_the_rows_of_the_next(kit: Kit) {
    let first = kit.submit_lines(&[5, 2, 9, 4, 1]).await;
    let next = chain(&kit, first, AfterCondition::Any).await;
    let new = kit.batch(next).await;
    assert_eq!(
        (new.status, new.counts, new.after),
        (BatchStatus::Wait, counts(0, 0, 0, 0), Some(After { batch: first, condition: AfterCondition::Any }))
    );
    assert_eq!(advance(&kit).await, []);
    kit.run_rows_with(some_fail).await;
    assert_eq!(advance(&kit).await, [], "its files are not joined");
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(Duration::ZERO));
    assert_eq!(advance(&kit).await, [ChainEnd::Queued]);
    assert_eq!(kit.status(next).await, BatchStatus::Queued);
    let of = |line: u32| format!(r#"{{"of":{line}}}"#);
    assert_eq!(inputs(&kit, next).await, [(1, 1, of(1)), (2, 2, of(2)), (3, 4, of(4)), (4, 5, of(5))]);
    kit.finish_all().await;
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!((kit.status(next).await, kit.counts(next).await), (BatchStatus::Success, counts(4, 4, 0, 0)));
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
}

pub async fn a_batch_may_come_after_one_that_has_ended(kit: Kit) {
    let first = kit.submit(2).await;
    kit.run_rows().await;
    kit.finish_all().await;
    let next = chain(&kit, first, AfterCondition::Success).await;
    let third = chain(&kit, next, AfterCondition::Success).await;
    assert_eq!(advance(&kit).await, [ChainEnd::Queued]);
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(advance(&kit).await, [ChainEnd::Queued]);
    assert_eq!(kit.counts(third).await, counts(2, 0, 0, 0));
}

pub async fn a_condition_that_is_not_met_aborts_the_next(kit: Kit) {
    let first = kit.submit(2).await;
    let (wants, takes) = (chain(&kit, first, AfterCondition::Success).await, chain(&kit, first, AfterCondition::Any).await);
    kit.run_rows_with(|row| if row.row_no == 1 { success(row) } else { failure(row) }).await;
    kit.finish_all().await;
    advance(&kit).await;
    let aborted = kit.batch(wants).await;
    assert_eq!((aborted.status, aborted.step), (BatchStatus::Aborted, BatchStep::Join));
    assert_eq!(aborted.abort_reason.unwrap(), format!("batch {first} ended as failed, and this batch runs only after its success"));
    assert_eq!((kit.status(takes).await, kit.counts(takes).await), (BatchStatus::Queued, counts(1, 0, 0, 0)));

    // What has no output at all makes no batch.
    let none = kit.submit(2).await;
    let (wants, takes) = (chain(&kit, none, AfterCondition::Success).await, chain(&kit, none, AfterCondition::Any).await);
    kit.abort(none).await;
    kit.finish_all().await;
    advance(&kit).await;
    assert_eq!(kit.batch(wants).await.abort_reason.unwrap(), format!("batch {none} ended as aborted, and this batch runs only after its success"));
    assert_eq!(
        kit.batch(takes).await.abort_reason.unwrap(),
        format!("no row of batch {none} succeeded, and the rows of this batch are made from those")
    );
    kit.finish_all().await;
    assert_eq!(kit.batch(takes).await.step, BatchStep::Done);
}

pub async fn what_cannot_come_after_is_refused_and_nothing_is_there(kit: Kit) {
    let first = kit.submit(1).await;
    let asked = query();
    kit.store.submit_batch(asked.clone(), vec![row(0)]).await.unwrap();
    let new = after(first, AfterCondition::Any);
    let itself = NewBatch { after: Some(After { batch: new.id, condition: AfterCondition::Any }), ..new.clone() };
    let unknown = NewBatch { after: Some(After { batch: BatchId::generate(), condition: AfterCondition::Any }), ..new.clone() };
    let of_another = NewBatch { app: "shop".to_owned(), ..new.clone() };
    let of_query = NewBatch { after: Some(After { batch: asked.id, condition: AfterCondition::Any }), ..new.clone() };
    let query = NewBatch { after: new.after, ..query() };
    for (wrong, rows, sentence) in [
        (itself, 0, "cannot come after itself"),
        (unknown, 0, "has no batch"),
        (of_another, 0, "app \"shop\" has no batch"),
        (of_query, 0, "is a slow query: only batches have batches that come after them"),
        (query, 0, "what comes after a batch is a batch"),
        (NewBatch { hold: true, ..new.clone() }, 0, "it is neither held nor has rows of its own"),
        (new.clone(), 2, "it is neither held nor has rows of its own"),
    ] {
        let id = wrong.id;
        let Err(StoreError::Invalid(reason)) = kit.store.submit_batch(wrong, super::build::rows(rows)).await else { panic!("{sentence}") };
        assert!(reason.contains(sentence), "{reason}");
        is_missing(kit.store.read_batch(id).await, id);
    }
    // The same request again is there once, and is not chained twice.
    let new = NewBatch { request_digest: Some("digest".to_owned()), ..new };
    for _ in 0..2 {
        kit.store.submit_batch(new.clone(), Vec::new()).await.unwrap();
    }
    // What is there cannot be put behind itself: so there is no circle.
    let circle = NewBatch { id: first, ..after(new.id, AfterCondition::Any) };
    assert!(matches!(kit.store.submit_batch(circle, Vec::new()).await, Err(StoreError::Exists(id)) if id == first));
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(advance(&kit).await, [ChainEnd::Queued]);
    kit.store.submit_batch(new.clone(), Vec::new()).await.unwrap();
    assert_eq!((advance(&kit).await, kit.counts(new.id).await.rows), (vec![], 1));
}

pub async fn a_chained_batch_is_not_filled_or_released_by_hand(kit: Kit) {
    let first = kit.submit(1).await;
    let next = chain(&kit, first, AfterCondition::Any).await;
    let before = kit.view(next).await;
    is_wrong_status(kit.store.append_rows(next, rows(1)).await, (next, BatchStatus::Wait));
    is_wrong_status(kit.store.release_batch(next).await, (next, BatchStatus::Wait));
    assert_eq!(kit.view(next).await, before);
    // It can be aborted, and discarded.
    let other = chain(&kit, first, AfterCondition::Any).await;
    kit.abort(next).await;
    kit.store.discard_batch(other).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    assert!(advance(&kit).await.iter().all(|end| *end == ChainEnd::Gone));
    assert_eq!((kit.status(next).await, kit.counts(next).await.rows), (BatchStatus::Aborted, 0));
    assert_eq!(kit.store.next_due(None).await.unwrap(), None);
}

pub async fn a_first_batch_that_is_discarded_aborts_the_next(kit: Kit) {
    let first = held();
    kit.store.submit_batch(first.clone(), rows(2)).await.unwrap();
    let next = chain(&kit, first.id, AfterCondition::Any).await;
    kit.store.discard_batch(first.id).await.unwrap();
    assert_eq!(advance(&kit).await, [ChainEnd::Aborted]);
    assert_eq!(
        kit.batch(next).await.abort_reason.unwrap(),
        format!("batch {} was removed, and the rows of this batch are made from its outcomes", first.id)
    );
}

pub async fn the_terms_of_a_chained_batch_are_its_own(kit: Kit) {
    let first = kit.submit(1).await;
    let later = Terms { start_at: Some(START.after(SECOND * 50)), priority: 3, ..Terms::default() };
    let soon = Terms { deadline_at: Some(START.after(SECOND * 10)), ..Terms::default() };
    let (deferred, overdue) =
        (NewBatch { terms: later, ..after(first, AfterCondition::Any) }, NewBatch { terms: soon, ..after(first, AfterCondition::Any) });
    for new in [&deferred, &overdue] {
        kit.store.submit_batch(new.clone(), Vec::new()).await.unwrap();
    }
    kit.pass(SECOND * 10);
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, [overdue.id]);
    kit.run_rows().await;
    kit.finish_all().await;
    advance(&kit).await;
    assert_eq!((kit.status(deferred.id).await, kit.batch(deferred.id).await.terms.priority), (BatchStatus::Queued, 3));
    kit.claim_nothing().await;
    kit.pass(SECOND * 40);
    kit.run_rows().await;
    assert_eq!(kit.batch(deferred.id).await.step, BatchStep::Join);
}

pub async fn many_outputs_are_made_in_steps_whoever_makes_them(kit: Kit) {
    const ROWS: u32 = 12_000;
    let first = kit.submit(ROWS).await;
    let other = kit.submit(2).await;
    let (next, small) = (chain(&kit, first, AfterCondition::Any).await, chain(&kit, other, AfterCondition::Any).await);
    while let [lease] = kit.claim(&rowmill::model::ClaimRequest { rows_max: 5_000, ..super::build::request() }).await[..] {
        kit.record_each(&lease, some_fail).await;
    }
    kit.finish_all().await;
    let step = kit.store.advance_chain().await.unwrap().unwrap();
    assert_eq!((step.batch, step.end), (Some(next), ChainEnd::More));
    let begun = kit.counts(next).await.rows;
    assert!((1..4_000).contains(&begun), "{begun}");
    // A small one does not wait for all of it; and its first is not retried in the middle.
    let step = kit.store.advance_chain().await.unwrap().unwrap();
    assert_eq!((step.batch, step.end), (Some(small), ChainEnd::Queued));
    let Err(StoreError::Invalid(reason)) = kit.store.retry_batch(first, &RetryRows::default()).await else { panic!("it was retried") };
    assert!(reason.contains("are being made of its outputs"), "{reason}");
    // Whoever comes next goes on, and many at the same moment make each row once.
    let kit = kit.crash_and_reopen().await;
    let makers: Vec<_> = (0..4)
        .map(|_| {
            let store = kit.store.clone();
            tokio::spawn(async move {
                while let Some(step) = store.advance_chain().await.unwrap() {
                    assert!(step.end == ChainEnd::More || step.end == ChainEnd::Queued);
                }
            })
        })
        .collect();
    for maker in makers {
        maker.await.unwrap();
    }
    advance(&kit).await;
    assert_eq!((kit.status(next).await, kit.counts(next).await.rows), (BatchStatus::Queued, u64::from(ROWS) * 2 / 3));
    let made = inputs(&kit, next).await;
    for ((row_no, line, input), at) in made.into_iter().zip(0..) {
        assert_eq!((row_no, line, input), (at + 1, at / 2 * 3 + at % 2 + 1, format!(r#"{{"of":{line}}}"#)));
    }
    assert_eq!(kit.store.retry_batch(first, &RetryRows::default()).await.unwrap().rows, u64::from(ROWS) / 3);
}

pub async fn a_step_of_large_outputs_is_shorter(kit: Kit) {
    let first = kit.submit(20).await;
    let next = chain(&kit, first, AfterCondition::Success).await;
    kit.run_rows_with(|row| with_output(row, json_of(MIB))).await;
    kit.finish_all().await;
    let ends = advance(&kit).await;
    assert!(ends.len() >= 4 && ends.last() == Some(&ChainEnd::Queued), "{ends:?}");
    assert_eq!(kit.results(next).await.iter().map(|row| row.input.len()).collect::<Vec<_>>(), [MIB; 20]);
}

pub async fn a_first_batch_that_is_retried_is_waited_for_or_was_taken_as_it_was(kit: Kit) {
    let first = kit.submit(3).await;
    let waits = chain(&kit, first, AfterCondition::Success).await;
    kit.run_rows_with(|row| if row.row_no == 2 { failure(row) } else { success(row) }).await;
    kit.finish_all().await;
    // Nobody has looked at it yet.
    kit.store.retry_batch(first, &RetryRows::default()).await.unwrap();
    assert_eq!(advance(&kit).await, []);
    let joins = chain(&kit, first, AfterCondition::Any).await;
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(advance(&kit).await, [ChainEnd::Queued; 2]);
    assert_eq!((kit.counts(waits).await.rows, kit.counts(joins).await.rows), (3, 3));

    let first = kit.submit(3).await;
    let taken = chain(&kit, first, AfterCondition::Any).await;
    kit.run_rows_with(some_fail).await;
    kit.finish_all().await;
    assert_eq!(advance(&kit).await.len(), 1);
    kit.store.retry_batch(first, &RetryRows::default()).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!((advance(&kit).await, kit.counts(taken).await), (vec![], counts(2, 2, 0, 0)));
}

pub async fn an_output_that_is_absent_is_null(kit: Kit) {
    let first = kit.submit(1).await;
    let next = chain(&kit, first, AfterCondition::Success).await;
    kit.run_rows_with(|row| result(row, Verdict::Final { status: RowStatus::Success, output: None, messages: Vec::new(), pieces: Vec::new() })).await;
    kit.finish_all().await;
    advance(&kit).await;
    assert_eq!(inputs(&kit, next).await, [(1, 1, "null".to_owned())]);
    is_invalid(kit.store.retry_batch(first, &RetryRows::default()).await);
}

/// Whichever comes first, it is made once.
pub async fn of_an_end_and_a_submission_at_the_same_moment_none_is_missed(kit: Kit) {
    for _ in 0..20 {
        let first = kit.submit(1).await;
        kit.run_rows().await;
        let lease = kit.claim_finish().await;
        let new = after(first, AfterCondition::Success);
        let (store, other, id) = (kit.store.clone(), kit.store.clone(), new.id);
        let ends = tokio::spawn(async move { store.record_files(&lease, &[]).await.unwrap() });
        let comes = tokio::spawn(async move { other.submit_batch(new, Vec::new()).await.unwrap() });
        ends.await.unwrap();
        comes.await.unwrap();
        assert_eq!(advance(&kit).await, [ChainEnd::Queued]);
        assert_eq!(kit.counts(id).await.rows, 1);
        kit.run_rows().await;
        kit.finish_all().await;
    }
}
