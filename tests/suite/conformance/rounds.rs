//! Batches that have ended are run again, in part: in a new round.

use std::time::Duration;

use rowmill::model::{
    BatchId, BatchStatus, BatchStep, FinishLease, LeasedRow, Message, NewBatch, PastOutcome, PastRound, Retried, RetryRows, RowResult, RowStatus,
    Terms, Verdict,
};
use rowmill::store::StoreError;

use super::build::{SECOND, batch, counts, failure, outcome, query, result, retry, row, rows, success, with_pieces};
use super::kit::{Kit, START, file, is_invalid, is_lost, is_missing, is_wrong_status};
use super::stages::every_stage;

const ALL: &RetryRows = &RetryRows { codes: Vec::new(), aborted: false, deadline_at: None };
const WITH_ABORTED: &RetryRows = &RetryRows { codes: Vec::new(), aborted: true, deadline_at: None };

fn with_code(row: &LeasedRow, code: &str) -> RowResult {
    let message = Message { id: 7, code: code.to_owned(), field: None, values: vec!["\"code\":\"other\"".to_owned()] };
    result(row, Verdict::Final { status: RowStatus::Failed, output: None, messages: vec![message], pieces: Vec::new() })
}

/// Five rows, of which the second and the fourth failed, with the codes `busy` and `wrong`.
fn ends(row: &LeasedRow) -> RowResult {
    match row.row_no {
        2 => with_code(row, "busy"),
        4 => with_code(row, "wrong"),
        _ => success(row),
    }
}

async fn some_failed(kit: &Kit) -> BatchId {
    let id = kit.submit(5).await;
    kit.run_rows_with(ends).await;
    kit.finish_all().await;
    id
}

async fn past(kit: &Kit, id: BatchId) -> Vec<PastOutcome> {
    let mut all: Vec<PastOutcome> = Vec::new();
    loop {
        let page = kit.store.read_past_outcomes(id, all.last().map(PastOutcome::cursor), 2).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub async fn the_failed_rows_of_a_batch_are_run_again_in_a_new_round(kit: Kit) {
    let id = some_failed(&kit).await;
    assert_eq!(kit.batch(id).await.round, 1);
    kit.pass(SECOND);
    assert_eq!(kit.store.retry_batch(id, ALL).await.unwrap(), Retried { round: 2, rows: 2 });
    let batch = kit.batch(id).await;
    assert_eq!((batch.round, batch.status, batch.step, batch.counts), (2, BatchStatus::Queued, BatchStep::Rows, counts(5, 3, 0, 0)));
    assert_eq!((batch.started_at, batch.finished_at, batch.mark_error, batch.fuel), (None, None, None, 50));
    use RowStatus::{Failed, Success};
    assert_eq!(kit.statuses(id).await, [Some(Success), None, Some(Success), None, Some(Success)]);
    assert_eq!(kit.store.next_due(None).await.unwrap(), Some(Duration::ZERO));

    let lease = kit.claim_rows(2).await;
    assert_eq!((kit.row_numbers(&lease).await, kit.attempts(&lease).await), (vec![2, 4], vec![1, 1]));
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.started_at), (BatchStatus::Inprog, Some(START.after(SECOND))));
    let leased = kit.read(&lease).await;
    let recorded = kit.record(&lease, &[success(&leased[0])]).await;
    assert_eq!((recorded.round, recorded.counts, recorded.last), (2, counts(5, 4, 0, 0), false));
    assert!(kit.record_each(&lease, failure).await.last);
    kit.finish_all().await;
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.step, batch.counts, batch.fuel), (BatchStatus::Failed, BatchStep::Done, counts(5, 4, 1, 0), 70));
    assert_eq!(kit.statuses(id).await, [Some(Success), Some(Success), Some(Success), Some(Failed), Some(Success)]);

    // And again, until there is nothing left.
    assert_eq!(kit.store.retry_batch(id, ALL).await.unwrap(), Retried { round: 3, rows: 1 });
    kit.run_rows().await;
    kit.finish_all().await;
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.counts), (BatchStatus::Success, counts(5, 5, 0, 0)));
    is_invalid(kit.store.retry_batch(id, ALL).await);
}

pub async fn only_rows_with_a_code_are_run_again(kit: Kit) {
    let id = some_failed(&kit).await;
    let codes = |codes: &[&str]| RetryRows { codes: codes.iter().map(|code| (*code).to_owned()).collect(), ..RetryRows::default() };
    for none in [&["other"][..], &["usy", "bus", ""], &["busy\""], &["bu\0sy"]] {
        let before = kit.view(id).await;
        let Err(StoreError::Invalid(reason)) = kit.store.retry_batch(id, &codes(none)).await else { panic!("{none:?}") };
        assert!(reason.ends_with("has no failed row with one of these codes: there is nothing to retry"), "{reason}");
        assert_eq!(kit.view(id).await, before);
    }
    assert_eq!(kit.store.retry_batch(id, &codes(&["nothing", "wrong"])).await.unwrap().rows, 1);
    assert_eq!(kit.counts(id).await, counts(5, 3, 1, 0));
    let lease = kit.claim_rows(1).await;
    assert_eq!(kit.row_numbers(&lease).await, [4]);
    assert!(kit.record_each(&lease, success).await.last);
    kit.finish_all().await;
    assert_eq!((kit.status(id).await, kit.counts(id).await), (BatchStatus::Failed, counts(5, 4, 1, 0)));
    // Codes of any text.
    let strange = "a \"code\" \\ \u{1a}\u{e9}";
    let other = kit.submit(2).await;
    kit.run_rows_with(|row| if row.row_no == 1 { with_code(row, strange) } else { with_code(row, "a") }).await;
    kit.finish_all().await;
    assert_eq!(kit.store.retry_batch(other, &codes(&[strange])).await.unwrap().rows, 1);
    assert_eq!(kit.row_numbers(&kit.claim_rows(1).await).await, [1]);
}

pub async fn what_the_rounds_before_came_to_stays(kit: Kit) {
    let id = some_failed(&kit).await;
    let finished_at = kit.batch(id).await.finished_at.unwrap();
    assert_eq!((past(&kit, id).await, kit.store.list_rounds(id, 0, 10).await.unwrap()), (vec![], vec![]));
    kit.pass(SECOND);
    kit.store.retry_batch(id, ALL).await.unwrap();
    kit.run_rows_with(|row| with_code(row, "again")).await;
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();
    kit.store.record_mark_done(&kit.claim_finish().await, Some("the mail server is away")).await.unwrap();
    kit.store.retry_batch(id, ALL).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;

    let outcomes = past(&kit, id).await;
    let seen: Vec<_> = outcomes.iter().map(|outcome| (outcome.row_no, outcome.round, outcome.line, outcome.messages[0].code.as_str())).collect();
    assert_eq!(seen, [(2, 1, 2, "busy"), (2, 2, 2, "again"), (4, 1, 4, "wrong"), (4, 2, 4, "again")]);
    let first = &outcomes[0];
    assert_eq!((first.attempts, first.fuel, &first.output, &first.log), (1, 10, &None, &None));
    let rounds = kit.store.list_rounds(id, 0, 10).await.unwrap();
    let ended = |round, mark_error, at| PastRound {
        round,
        status: BatchStatus::Failed,
        counts: counts(5, 3, 2, 0),
        abort_reason: None,
        mark_error,
        mark_calls: 1,
        started_at: Some(at),
        finished_at: at,
        files: Vec::new(),
    };
    let second = ended(2, Some("the mail server is away".to_owned()), START.after(SECOND));
    assert_eq!(rounds, [ended(1, None, finished_at), second.clone()]);
    assert_eq!(kit.store.list_rounds(id, 1, 10).await.unwrap(), [second]);
    assert_eq!(kit.store.list_rounds(id, 0, 1).await.unwrap().len(), 1);
    assert_eq!(kit.batch(id).await.mark_error, None);
    let unknown = BatchId::generate();
    is_missing(kit.store.list_rounds(unknown, 0, 1).await, unknown);
    is_missing(kit.store.read_past_outcomes(unknown, None, 1).await, unknown);
}

pub async fn a_batch_that_was_aborted_is_run_again_with_its_aborted_rows(kit: Kit) {
    let id = kit.submit(9).await;
    // 1 to 4 were leased: one failed, one succeeded, one is to be retried, one was never recorded. 5 to 9 were never leased.
    let lease = kit.claim_rows(4).await;
    let leased = kit.read(&lease).await;
    kit.record(&lease, &[failure(&leased[0]), success(&leased[1]), retry(&leased[2], SECOND)]).await;
    kit.store.abort_batch(id, Some("it was the wrong day".to_owned())).await.unwrap();
    kit.finish_all().await;
    let before = kit.view(id).await;
    let Err(StoreError::Invalid(reason)) = kit.store.retry_batch(id, ALL).await else { panic!("it was retried") };
    assert!(reason.contains("was aborted: it can only be retried with the rows that were aborted"), "{reason}");
    assert_eq!(kit.view(id).await, before);

    assert_eq!(kit.store.retry_batch(id, WITH_ABORTED).await.unwrap(), Retried { round: 2, rows: 8 });
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.counts, batch.abort_reason), (BatchStatus::Queued, counts(9, 1, 0, 0), None));
    is_lost(kit.store.read_leased_rows(lease.key).await);
    is_lost(kit.try_record(&lease, &[success(&leased[3])]).await);
    let mut seen = Vec::new();
    while let [lease] = kit.claim(&super::build::request()).await[..] {
        assert!(kit.attempts(&lease).await.iter().all(|attempt| *attempt == 1));
        seen.extend(kit.row_numbers(&lease).await);
        kit.record_each(&lease, success).await;
    }
    assert_eq!(seen, [1, 3, 4, 5, 6, 7, 8, 9]);
    kit.finish_all().await;
    assert_eq!((kit.status(id).await, kit.counts(id).await), (BatchStatus::Success, counts(9, 9, 0, 0)));
    let rounds = kit.store.list_rounds(id, 0, 1).await.unwrap();
    assert_eq!((rounds[0].status, rounds[0].counts), (BatchStatus::Aborted, counts(9, 1, 1, 7)));
    assert_eq!(rounds[0].abort_reason.as_deref(), Some("it was the wrong day"));
    assert_eq!(past(&kit, id).await.iter().map(|outcome| outcome.row_no).collect::<Vec<_>>(), [1]);
}

pub async fn a_batch_that_never_ran_can_be_run_after_its_abort(kit: Kit) {
    let (held, empty) = (kit.hold(3).await, kit.hold(0).await);
    let deferred = NewBatch { terms: Terms { start_at: Some(START.after(SECOND * 60)), ..Terms::default() }, ..batch() };
    let later = deferred.id;
    kit.store.submit_batch(deferred, rows(2)).await.unwrap();
    for id in [held, empty, later] {
        kit.abort(id).await;
    }
    kit.finish_all().await;
    is_invalid(kit.store.retry_batch(empty, WITH_ABORTED).await);
    assert_eq!(kit.store.retry_batch(held, WITH_ABORTED).await.unwrap().rows, 3);
    assert_eq!(kit.store.retry_batch(later, WITH_ABORTED).await.unwrap().rows, 2);
    kit.run_rows().await;
    assert_eq!((kit.batch(held).await.step, kit.status(later).await), (BatchStep::Join, BatchStatus::Queued), "its start has not come");
    kit.pass(SECOND * 60);
    kit.run_rows().await;
    assert_eq!(kit.batch(later).await.step, BatchStep::Join);
}

pub async fn what_cannot_be_retried_is_refused_and_stays(kit: Kit) {
    for stage in every_stage(&kit).await {
        let before = kit.view(stage.id).await;
        match (stage.name, kit.store.retry_batch(stage.id, ALL).await) {
            ("failed", retried) => assert_eq!(retried.unwrap(), Retried { round: 2, rows: 3 }),
            ("success" | "aborted and done", refused) => {
                is_invalid(refused);
                assert_eq!(kit.view(stage.id).await, before);
            }
            (_, refused) => {
                is_wrong_status(refused, (stage.id, stage.status));
                assert_eq!(kit.view(stage.id).await, before, "{}", stage.name);
            }
        }
    }
    let unknown = BatchId::generate();
    is_missing(kit.store.retry_batch(unknown, ALL).await, unknown);
    let asked = query();
    kit.store.submit_batch(asked.clone(), vec![row(0)]).await.unwrap();
    kit.run_rows_with(failure).await;
    kit.finish_all().await;
    let Err(StoreError::Invalid(reason)) = kit.store.retry_batch(asked.id, ALL).await else { panic!("a slow query was retried") };
    assert!(reason.contains("is a slow query: ask it again"), "{reason}");
}

pub async fn files_are_joined_anew_in_each_round(kit: Kit) {
    let id = kit.submit(3).await;
    let pieces = |row: &LeasedRow, status| match with_pieces(
        row,
        &[("all", row.row_no.to_string().as_str()), ("failed", "x")][..if status == RowStatus::Failed { 2 } else { 1 }],
    ) {
        RowResult { verdict: Verdict::Final { output, messages, pieces, .. }, .. } => {
            result(row, Verdict::Final { status, output, messages, pieces })
        }
        other => other,
    };
    kit.run_rows_with(|row| pieces(row, if row.row_no == 2 { RowStatus::Failed } else { RowStatus::Success })).await;
    let files = [file("all", "first of all"), file("failed", "first of failed")];
    kit.store.record_files(&kit.claim_finish().await, &files).await.unwrap();
    kit.finish_all().await;
    kit.store.retry_batch(id, ALL).await.unwrap();
    assert_eq!(kit.batch(id).await.files, [], "they are to be joined");
    assert_eq!(kit.pieces_by(id, 10).await.len(), 2, "what a row wrote that is run again is gone");
    kit.run_rows_with(|row| pieces(row, RowStatus::Success)).await;
    let written = kit.pieces_by(id, 10).await;
    let names = kit.store.list_file_names(id).await.unwrap();
    let named: Vec<_> = written.iter().flat_map(|row| &row.pieces).map(|(file, text)| (names[*file].as_str(), text.as_str())).collect();
    assert_eq!(named, [("all", "1"), ("all", "2"), ("all", "3")]);
    kit.store.record_files(&kit.claim_finish().await, &[file("all", "second of all")]).await.unwrap();
    kit.finish_all().await;
    assert_eq!(kit.batch(id).await.files, [file("all", "second of all")]);
    assert_eq!(kit.store.list_rounds(id, 0, 1).await.unwrap()[0].files, files);
}

pub async fn keys_of_the_round_before_open_nothing(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    kit.record_each(&lease, failure).await;
    let join = kit.claim_finish().await;
    kit.store.record_files(&join, &[]).await.unwrap();
    let mark = kit.claim_finish().await;
    kit.store.record_mark_done(&mark, None).await.unwrap();
    kit.store.retry_batch(id, ALL).await.unwrap();
    let opens_nothing = async |kit: &Kit| {
        let before = kit.view(id).await;
        is_lost(kit.try_record(&lease, &[success(&rows[0])]).await);
        for old in [join, mark] {
            is_lost(kit.store.record_files(&old, &[]).await);
            is_lost(kit.store.record_mark_done(&FinishLease { ..old }, None).await);
        }
        assert_eq!(kit.view(id).await, before);
    };
    opens_nothing(&kit).await;
    kit.run_rows().await;
    opens_nothing(&kit).await;
    let again = kit.claim_finish().await;
    assert_eq!((again.batch, again.step, again.attempt), (id, BatchStep::Join, 1));
    opens_nothing(&kit).await;
    kit.store.record_files(&again, &[]).await.unwrap();
    opens_nothing(&kit).await;
    let again = kit.claim_finish().await;
    assert_eq!((again.step, again.attempt), (BatchStep::Mark, 1));
    kit.store.record_mark_done(&again, None).await.unwrap();
    opens_nothing(&kit).await;
}

pub async fn a_round_can_be_aborted_and_retried_again(kit: Kit) {
    let id = some_failed(&kit).await;
    kit.store.retry_batch(id, ALL).await.unwrap();
    let lease = kit.claim_rows(1).await;
    kit.abort(id).await;
    is_lost(kit.store.read_leased_rows(lease.key).await);
    kit.claim_nothing().await;
    kit.finish_all().await;
    assert_eq!((kit.status(id).await, kit.counts(id).await), (BatchStatus::Aborted, counts(5, 3, 0, 2)));
    kit.go_silent();
    assert_eq!(kit.store.retry_batch(id, WITH_ABORTED).await.unwrap(), Retried { round: 3, rows: 2 });
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!((kit.status(id).await, kit.counts(id).await), (BatchStatus::Success, counts(5, 5, 0, 0)));
}

pub async fn a_deadline_that_has_passed_does_not_hold_in_a_new_round(kit: Kit) {
    let deadline = |seconds: u32| Some(START.after(SECOND * seconds));
    let submit = async |seconds| {
        let new = NewBatch { terms: Terms { deadline_at: deadline(seconds), ..Terms::default() }, ..batch() };
        kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
        new.id
    };
    let (passed, ahead, set) = (submit(10).await, submit(100).await, submit(10).await);
    kit.run_rows_with(failure).await;
    kit.finish_all().await;
    kit.pass(SECOND * 10);
    for id in [passed, ahead] {
        kit.store.retry_batch(id, ALL).await.unwrap();
    }
    kit.store.retry_batch(set, &RetryRows { deadline_at: deadline(50), ..RetryRows::default() }).await.unwrap();
    let deadlines = [kit.batch(passed).await, kit.batch(ahead).await, kit.batch(set).await].map(|batch| batch.terms.deadline_at);
    assert_eq!(deadlines, [None, deadline(100), deadline(50)]);
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, []);
    kit.pass(SECOND * 40);
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, [set]);
    kit.finish_all().await;
    assert_eq!(kit.counts(set).await, counts(2, 0, 0, 2));
}

pub async fn a_limit_of_failures_counts_what_is_failed_now(kit: Kit) {
    use rowmill::model::FailureLimit;
    let new = NewBatch { terms: Terms { failures_max: Some(FailureLimit::Rows(1)), ..Terms::default() }, ..batch() };
    let id = new.id;
    kit.store.submit_batch(new, rows(4)).await.unwrap();
    let lease = kit.claim_rows(2).await;
    assert!(kit.record_each(&lease, failure).await.aborted);
    kit.finish_all().await;
    kit.store.retry_batch(id, WITH_ABORTED).await.unwrap();
    let lease = kit.claim_rows(2).await;
    let leased = kit.read(&lease).await;
    assert!(!kit.record(&lease, &[outcome(&leased[0], RowStatus::Failed)]).await.aborted, "one may fail");
    kit.record_each(&lease, success).await;
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!((kit.status(id).await, kit.counts(id).await), (BatchStatus::Failed, counts(4, 3, 1, 0)));
}

pub async fn of_many_retries_at_the_same_moment_one_begins_a_round(kit: Kit) {
    let id = some_failed(&kit).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = kit.store.clone();
            tokio::spawn(async move { store.retry_batch(id, ALL).await })
        })
        .collect();
    let mut begun = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(retried) => {
                assert_eq!(retried, Retried { round: 2, rows: 2 });
                begun += 1;
            }
            refused => is_wrong_status(refused, (id, BatchStatus::Queued)),
        }
    }
    assert_eq!(begun, 1);
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(kit.counts(id).await, counts(5, 5, 0, 0));
}

pub async fn a_round_is_there_after_a_crash(kit: Kit) {
    let id = some_failed(&kit).await;
    kit.store.retry_batch(id, ALL).await.unwrap();
    let kit = kit.crash_and_reopen().await;
    assert_eq!((kit.batch(id).await.round, kit.counts(id).await, past(&kit, id).await.len()), (2, counts(5, 3, 0, 0), 2));
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(kit.status(id).await, BatchStatus::Success);
}
