//! Calls of `mark-done`: again after a while, counted, and kept with what they wrote.

use std::time::Duration;

use rowmill::model::{App, AppQuota, BatchId, BatchStatus, BatchStep, Due, MarkCall, MarkEnd, OpKey, Part, RetryRows, Timestamp};
use rowmill::store::StoreError;

use super::build::{MILLISECOND, SECOND, TTL, failure, query, row};
use super::kit::{Kit, START, is_lost, is_missing};

/// A batch that waits for its `mark-done`.
async fn to_be_marked(kit: &Kit) -> BatchId {
    let id = kit.submit(1).await;
    kit.run_rows_with(failure).await;
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();
    id
}

/// A call that asks for another.
fn again(reason: &str, after: Duration) -> MarkEnd {
    MarkEnd { called: true, error: Some(reason.to_owned()), again_after: Some(after), ..MarkEnd::default() }
}

fn logged(log: &str) -> MarkEnd {
    MarkEnd { called: true, log: Some(log.to_owned()), ..MarkEnd::default() }
}

async fn mark(kit: &Kit, end: &MarkEnd) {
    kit.store.record_mark(&kit.claim_finish().await, end).await.unwrap();
}

/// Step, calls, the last error, and when the next call is due.
async fn seen(kit: &Kit, id: BatchId) -> (BatchStep, u32, Option<String>, Option<Timestamp>) {
    let batch = kit.batch(id).await;
    (batch.step, batch.mark_calls, batch.mark_error, batch.mark_due_at)
}

async fn calls(kit: &Kit, id: BatchId, round: u32) -> Vec<MarkCall> {
    kit.store.read_mark_calls(id, round, 0, 100).await.unwrap()
}

pub async fn a_call_that_asks_for_another_is_followed_by_one_when_it_is_due(kit: Kit) {
    let id = to_be_marked(&kit).await;
    let away = Some("away".to_owned());
    assert_eq!(seen(&kit, id).await, (BatchStep::Mark, 0, None, None));
    let first = kit.claim_finish().await;
    kit.store.record_mark(&first, &again("away", SECOND * 30)).await.unwrap();
    assert_eq!(seen(&kit, id).await, (BatchStep::Mark, 1, away.clone(), Some(START.after(SECOND * 30))));
    assert_eq!(kit.batch(id).await.status, BatchStatus::Failed, "the status was final before");
    is_lost(kit.store.renew_finish(&first, TTL).await);
    // It is claimed when it is due and not before, also by a process that begins meanwhile.
    let kit = kit.crash_and_reopen().await;
    assert_eq!((kit.try_claim_finish().await, kit.store.next_due(None).await.unwrap()), (None, Some(SECOND * 30)));
    kit.pass(SECOND * 30 - MILLISECOND);
    assert_eq!(kit.try_claim_finish().await, None);
    kit.pass(MILLISECOND);
    let second = kit.claim_finish().await;
    assert_eq!((second.batch, second.step, second.attempt), (id, BatchStep::Mark, 1));
    assert_eq!(seen(&kit, id).await, (BatchStep::Mark, 1, away, None), "it is called now");
    kit.store.record_mark(&second, &MarkEnd { called: true, ..MarkEnd::default() }).await.unwrap();
    assert_eq!(seen(&kit, id).await, (BatchStep::Done, 2, None, None));
    assert_eq!((kit.try_claim_finish().await, kit.store.next_due(None).await.unwrap()), (None, None));
}

pub async fn a_batch_whose_next_call_is_not_due_holds_up_no_other(kit: Kit) {
    let first = to_be_marked(&kit).await;
    mark(&kit, &again("away", SECOND * 60)).await;
    let other = to_be_marked(&kit).await;
    assert_eq!(kit.claim_finish().await.batch, other);
    kit.pass(SECOND * 60);
    assert_eq!(kit.claim_finish().await.batch, first, "it was there before");
}

pub async fn a_call_whose_worker_died_is_a_call(kit: Kit) {
    let id = to_be_marked(&kit).await;
    let dead = kit.claim_finish().await;
    kit.go_silent();
    let second = kit.claim_finish().await;
    assert_eq!((dead.attempt, second.attempt), (1, 2));
    kit.store.record_mark(&second, &again("away", SECOND)).await.unwrap();
    assert_eq!(seen(&kit, id).await.1, 2);
    kit.pass(SECOND);
    // Deaths are counted anew after a call that came back, and what is given back is no call.
    let third = kit.claim_finish().await;
    assert_eq!(third.attempt, 1);
    kit.store.give_back_finish(&third, Duration::ZERO).await.unwrap();
    assert_eq!(kit.claim_finish().await.attempt, 1);
    kit.go_silent();
    let fourth = kit.claim_finish().await;
    is_lost(kit.store.record_mark(&dead, &again("late", SECOND)).await);
    is_lost(kit.store.record_mark(&third, &logged("late")).await);
    // The last one was not called: the one before it may have been.
    let given_up = MarkEnd { error: Some("given up".to_owned()), ..MarkEnd::default() };
    kit.store.record_mark(&fourth, &given_up).await.unwrap();
    assert_eq!(seen(&kit, id).await, (BatchStep::Done, 3, Some("given up".to_owned()), None));
    let kept: Vec<u32> = calls(&kit, id, 1).await.into_iter().map(|call| call.call).collect();
    assert_eq!(kept, [2]);
}

pub async fn what_calls_wrote_and_how_they_failed_is_kept(kit: Kit) {
    let id = to_be_marked(&kit).await;
    let texts = ["info: one\n", "a \"text\" with NUL \0 and \u{1a}\u{e9}\n"];
    mark(&kit, &MarkEnd { log: Some(texts[0].to_owned()), ..again(texts[1], SECOND) }).await;
    kit.pass(SECOND);
    mark(&kit, &again("without a log", SECOND)).await;
    kit.pass(SECOND);
    mark(&kit, &logged(texts[1])).await;
    let call = |call, error: Option<&str>, log: Option<&str>| MarkCall {
        call,
        ended_at: START.after(SECOND * (call - 1)),
        error: error.map(str::to_owned),
        log: log.map(str::to_owned),
        log_dropped: false,
    };
    let wanted = [call(1, Some(texts[1]), Some(texts[0])), call(2, Some("without a log"), None), call(3, None, Some(texts[1]))];
    assert_eq!(calls(&kit, id, 1).await, wanted);
    assert_eq!(kit.store.read_mark_calls(id, 1, 1, 1).await.unwrap(), wanted[1..2]);
    assert_eq!((kit.store.read_mark_calls(id, 1, 3, 1).await.unwrap(), calls(&kit, id, 2).await), (vec![], vec![]));
    // One that said nothing and succeeded is only counted, and so is one of a slow query.
    let quiet = query();
    kit.store.submit_batch(quiet.clone(), vec![row(0)]).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!((kit.batch(quiet.id).await.mark_calls, calls(&kit, quiet.id, 1).await), (1, vec![]));
    let unknown = BatchId::generate();
    is_missing(kit.store.read_mark_calls(unknown, 1, 0, 1).await, unknown);
}

pub async fn a_page_of_large_logs_of_calls_is_shorter(kit: Kit) {
    let id = to_be_marked(&kit).await;
    let large = "x".repeat(1 << 20);
    for _ in 0..6 {
        mark(&kit, &MarkEnd { log: Some(large.clone()), ..again("away", SECOND) }).await;
        kit.pass(SECOND);
    }
    let page = kit.store.read_mark_calls(id, 1, 0, 100).await.unwrap();
    assert!((1..6).contains(&page.len()), "{} calls", page.len());
    let after = u32::try_from(page.len()).unwrap();
    assert_eq!(kit.store.read_mark_calls(id, 1, after, 100).await.unwrap()[0].call, after + 1);
}

pub async fn each_round_has_calls_of_its_own(kit: Kit) {
    let id = to_be_marked(&kit).await;
    mark(&kit, &again("away", SECOND)).await;
    kit.pass(SECOND);
    mark(&kit, &MarkEnd { called: true, error: Some("for good".to_owned()), ..MarkEnd::default() }).await;
    kit.store.retry_batch(id, &RetryRows::default()).await.unwrap();
    assert_eq!(seen(&kit, id).await, (BatchStep::Rows, 0, None, None));
    kit.run_rows().await;
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();
    mark(&kit, &logged("info: round 2\n")).await;
    assert_eq!(seen(&kit, id).await, (BatchStep::Done, 1, None, None));
    let past = kit.store.list_rounds(id, 0, 10).await.unwrap().remove(0);
    assert_eq!((past.mark_calls, past.mark_error.as_deref()), (2, Some("for good")));
    let kept = async |round| calls(&kit, id, round).await.into_iter().map(|call| (call.call, call.error)).collect::<Vec<_>>();
    assert_eq!(kept(1).await, [(1, Some("away".to_owned())), (2, Some("for good".to_owned()))]);
    assert_eq!(kept(2).await, [(1, None)]);
}

pub async fn logs_of_calls_are_among_what_a_batch_may_log(kit: Kit) {
    let quota = AppQuota { batch_log_bytes: Some(10), ..AppQuota::default() };
    kit.store.put_app(&App { quota, ..App::named("bank") }).await.unwrap();
    let id = to_be_marked(&kit).await;
    for log in ["12345678", "123", "é"] {
        mark(&kit, &MarkEnd { log: Some(log.to_owned()), ..again("away", SECOND) }).await;
        kit.pass(SECOND);
    }
    let kept: Vec<_> = calls(&kit, id, 1).await.into_iter().map(|call| (call.log, call.log_dropped)).collect();
    assert_eq!(kept, [(Some("12345678".to_owned()), false), (None, true), (Some("é".to_owned()), false)]);
    // Only rows are counted here.
    assert_eq!(kit.store.count_dropped_logs(id).await.unwrap(), 0);
}

pub async fn calls_are_pruned_with_the_outcomes(kit: Kit) {
    let id = to_be_marked(&kit).await;
    mark(&kit, &logged("info: x\n")).await;
    let now = kit.batch(id).await.finished_at;
    let due = Due { outcomes: now, ..Due::default() };
    let op = OpKey { app: "bank".to_owned(), op: "post".to_owned() };
    kit.store.begin_prune(&op, &due, TTL).await.unwrap().unwrap();
    while kit.store.prune_rows(id, 10, TTL).await.unwrap().left {}
    match kit.store.read_mark_calls(id, 1, 0, 10).await {
        Err(StoreError::Pruned { part: Part::Outcomes, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(kit.batch(id).await.mark_calls, 1, "how often it was called stays with the batch");
}
