//! What is not kept any longer goes, in steps, and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use rowmill::model::{
    After, AfterCondition, BatchFile, BatchId, BatchStatus, BatchStep, Due, DueCounts, KeepFor, NewBatch, OpKey, Part, PartialKeep, Policy,
    RetryRows, RowStatus, Timestamp, Verdict,
};
use rowmill::store::{ChainEnd, PruneStep, StoreError};

use super::build::{SECOND, batch, failure, held, query, result, rows, rows_with_lines, with_pieces};
use super::kit::{Kit, START, file, is_missing, is_wrong_status};
use super::stages::every_stage;

const HOUR: Duration = Duration::from_secs(3_600);

fn op() -> OpKey {
    OpKey { app: "bank".to_owned(), op: "post".to_owned() }
}

/// Whole batches that are done now are due.
fn all_of(kit: &Kit) -> Due {
    Due { batches: Some(now(kit)), ..Due::default() }
}

fn now(kit: &Kit) -> Timestamp {
    use rowmill::model::Clock;
    kit.clock.now()
}

/// A batch that is done, with one output file, and a file that its rows came from.
async fn done_with_files(kit: &Kit, rows_of_it: u32, name: &str) -> BatchId {
    let id = kit.hold(rows_of_it).await;
    kit.store.record_batch_file(id, &input_file(&format!("files/{name}")), None).await.unwrap();
    kit.store.release_batch(id).await.unwrap();
    kit.run_rows_with(|row| with_pieces(row, &[("out", "x")])).await;
    let join = kit.claim_finish().await;
    kit.store.record_files(&join, &[file("out", &format!("batches/{name}"))]).await.unwrap();
    kit.finish_all().await;
    assert_eq!(kit.batch(id).await.step, BatchStep::Done);
    id
}

fn input_file(object: &str) -> BatchFile {
    BatchFile {
        first_row: 1,
        name: "in.csv".to_owned(),
        form: "csv".to_owned(),
        size_bytes: 100,
        sha256: String::new(),
        object: Some(object.to_owned()),
        source_object: None,
    }
}

async fn done(kit: &Kit, rows: u32) -> BatchId {
    let id = kit.submit(rows).await;
    kit.run_rows().await;
    kit.finish_all().await;
    id
}

/// Goes through all rows of a batch by so many.
async fn prune_rows(kit: &Kit, id: BatchId, rows: u32) -> u64 {
    let mut all = 0;
    loop {
        let step = kit.store.prune_rows(id, rows, HOUR).await.unwrap();
        assert!(step.rows <= rows.into());
        all += step.rows;
        if !step.left {
            return all;
        }
    }
}

/// Removes what is to go, objects first, as a pruner does. The objects.
async fn prune_all(kit: &Kit, id: BatchId) -> Vec<String> {
    let mut gone = Vec::new();
    loop {
        let objects = kit.store.list_pruned_objects(id, 1).await.unwrap();
        gone.extend(objects.clone());
        if !kit.store.forget_objects(id, &objects).await.unwrap() {
            break;
        }
    }
    prune_rows(kit, id, 2).await;
    gone
}

#[track_caller]
fn is_pruned<T: std::fmt::Debug>(result: Result<T, StoreError>, wanted: (BatchId, Part, Timestamp)) {
    match result {
        Err(error @ StoreError::Pruned { .. }) => {
            let StoreError::Pruned { id, part, at } = error else { unreachable!() };
            assert_eq!((id, part, at), wanted);
            assert!(error.to_string().ends_with(&format!("no {} any more: they were pruned on {at}", part.as_str())), "{error}");
        }
        other => panic!("not pruned: {other:?}"),
    }
}

pub async fn how_long_batches_are_kept_comes_back_as_it_was_said(kit: Kit) {
    let keep = PartialKeep { files: Some(KeepFor::For(HOUR)), batches: Some(KeepFor::Ever), ..PartialKeep::default() };
    let policy = Policy { keep, ..Policy::of("bank", Some("post")) };
    kit.store.put_policy(&policy).await.unwrap();
    kit.store.set_paused("bank", Some("post"), true).await.unwrap();
    assert_eq!(kit.store.list_policies().await.unwrap(), [Policy { paused: true, ..policy.clone() }]);
    kit.store.put_policy(&Policy::of("bank", Some("post"))).await.unwrap();
    assert_eq!(kit.store.list_policies().await.unwrap(), [Policy::of("bank", Some("post"))]);
}

pub async fn only_batches_that_are_done_are_pruned(kit: Kit) {
    let stages = every_stage(&kit).await;
    kit.pass(HOUR);
    let mut wanted: BTreeSet<BatchId> = stages.iter().filter(|stage| stage.step == BatchStep::Done).map(|stage| stage.id).collect();
    assert_eq!(wanted.len(), 3);
    let before: Vec<_> = stages.iter().filter(|stage| stage.step != BatchStep::Done).collect();
    let mut views = Vec::new();
    for stage in &before {
        views.push(kit.view(stage.id).await);
        is_wrong_status(kit.store.begin_removal(stage.id, HOUR).await, (stage.id, stage.status));
    }
    while let Some(pruning) = kit.store.begin_prune(&op(), &all_of(&kit), HOUR).await.unwrap() {
        assert!(pruning.whole && wanted.remove(&pruning.batch), "{pruning:?}");
        prune_all(&kit, pruning.batch).await;
        is_missing(kit.store.read_batch(pruning.batch).await, pruning.batch);
        is_missing(kit.store.read_results(pruning.batch, None, 1).await, pruning.batch);
    }
    assert_eq!(wanted, BTreeSet::new());
    for (stage, view) in before.iter().zip(views) {
        assert_eq!(kit.view(stage.id).await, view, "{}", stage.name);
    }
    let unknown = BatchId::generate();
    is_missing(kit.store.begin_removal(unknown, HOUR).await, unknown);
    assert_eq!(kit.store.prune_rows(unknown, 1, HOUR).await.unwrap(), PruneStep { rows: 0, left: false });
}

pub async fn the_oldest_batch_that_is_due_goes_first_and_no_other(kit: Kit) {
    let first = done(&kit, 1).await;
    kit.pass(SECOND);
    let second = done(&kit, 1).await;
    let until_second = now(&kit);
    kit.pass(SECOND);
    let third = done(&kit, 1).await;
    let due = |at: Timestamp| Due { batches: Some(at), ..Due::default() };
    assert_eq!(kit.store.begin_prune(&op(), &due(Timestamp(START.0 - 1)), HOUR).await.unwrap(), None);
    assert_eq!(kit.store.begin_prune(&op(), &Due::default(), HOUR).await.unwrap(), None);
    for wanted in [Some(first), Some(second), None] {
        let begun = kit.store.begin_prune(&op(), &due(until_second), HOUR).await.unwrap();
        assert_eq!(begun.map(|pruning| pruning.batch), wanted);
    }
    let other = OpKey { op: "other".to_owned(), ..op() };
    assert_eq!(kit.store.begin_prune(&other, &all_of(&kit), HOUR).await.unwrap(), None);
    assert_eq!(kit.counts(third).await.success, 1);
}

pub async fn outcomes_that_were_pruned_say_so_and_the_summary_stays(kit: Kit) {
    let (id, other) = (done_with_files(&kit, 5, "a").await, done(&kit, 5).await);
    kit.pass(HOUR);
    let before = kit.batch(id).await;
    let due = Due { outcomes: before.finished_at, ..Due::default() };
    let pruning = kit.store.begin_prune(&op(), &due, HOUR).await.unwrap().unwrap();
    assert_eq!((pruning.batch, pruning.parts, pruning.whole), (id, vec![Part::Outcomes], false));
    // From the first moment on, though nothing is removed yet.
    let wanted = (id, Part::Outcomes, now(&kit));
    is_pruned(kit.store.read_results(id, None, 10).await, wanted);
    is_pruned(kit.store.read_pieces(id, None, 10).await, wanted);
    assert_eq!(prune_rows(&kit, id, 2).await, 5);
    kit.pass(HOUR);
    is_pruned(kit.store.read_results(id, None, 10).await, wanted);
    let after = kit.batch(id).await;
    assert_eq!(after.pruned.outcomes, Some(wanted.2));
    assert_eq!((after.counts, after.status, after.files, after.fuel), (before.counts, before.status, before.files, before.fuel));
    assert_eq!(kit.results(other).await.len(), 5, "what is another's stays");
    // It is done once.
    let mut begun = Vec::new();
    while let Some(pruning) = kit.store.begin_prune(&op(), &Due { outcomes: Some(now(&kit)), ..Due::default() }, HOUR).await.unwrap() {
        begun.push(pruning.batch);
        prune_all(&kit, pruning.batch).await;
    }
    assert_eq!(begun, [other]);
}

pub async fn inputs_that_were_pruned_leave_the_outcomes(kit: Kit) {
    let id = done_with_files(&kit, 5, "a").await;
    let before = kit.results(id).await;
    let due = Due { inputs: Some(now(&kit)), ..Due::default() };
    let pruning = kit.store.begin_prune(&op(), &due, HOUR).await.unwrap().unwrap();
    assert_eq!((pruning.parts, pruning.whole), (vec![Part::Inputs], false));
    let without: Vec<_> = before.into_iter().map(|row| rowmill::model::RecordedOutcome { input: String::new(), rejected: None, ..row }).collect();
    assert_eq!(kit.results(id).await, without, "before they are removed");
    let files = kit.store.list_batch_files(id, 0, 9).await.unwrap();
    assert_eq!(files, [BatchFile { object: None, ..input_file("") }]);
    assert_eq!(prune_all(&kit, id).await, ["files/a"]);
    assert_eq!(kit.results_by(id, 2).await, without, "and after that");
    assert_eq!(kit.store.list_batch_files(id, 0, 9).await.unwrap(), files);
    assert_eq!(kit.batch(id).await.pruned.inputs, Some(now(&kit)));
    assert_eq!(kit.batch(id).await.files.len(), 1);
    assert_eq!(kit.pieces_by(id, 2).await.len(), 5);
}

pub async fn files_that_were_pruned_are_named_until_they_are_gone(kit: Kit) {
    let id = done_with_files(&kit, 3, "a").await;
    let due = Due { files: Some(now(&kit)), ..Due::default() };
    let pruning = kit.store.begin_prune(&op(), &due, HOUR).await.unwrap().unwrap();
    assert_eq!(pruning.parts, [Part::Files]);
    let pruned = kit.batch(id).await;
    assert_eq!((pruned.files, pruned.pruned.files), (Vec::new(), Some(now(&kit))));
    // Rows have nothing to do with it, and their end is not the end of it.
    assert_eq!(kit.store.prune_rows(id, 100, SECOND).await.unwrap(), PruneStep { rows: 0, left: true });
    let objects = kit.store.list_pruned_objects(id, 9).await.unwrap();
    assert_eq!(objects, ["batches/a"]);
    assert_eq!(kit.store.list_pruned_objects(id, 9).await.unwrap(), objects, "it is named until it is said to be gone");
    assert!(!kit.store.forget_objects(id, &objects).await.unwrap());
    assert_eq!(kit.store.prune_rows(id, 100, SECOND).await.unwrap(), PruneStep { rows: 0, left: false });
    assert_eq!(kit.results(id).await.len(), 3);
    assert_eq!(kit.store.begin_prune(&op(), &due, HOUR).await.unwrap(), None);
}

pub async fn a_batch_goes_with_all_that_is_left_of_it(kit: Kit) {
    let id = done_with_files(&kit, 5, "a").await;
    let other = done_with_files(&kit, 5, "b").await;
    let other_view = kit.view(other).await;
    // One part before.
    let due = Due { outcomes: Some(now(&kit)), ..Due::default() };
    assert_eq!(kit.store.begin_prune(&op(), &due, HOUR).await.unwrap().unwrap().batch, id);
    prune_all(&kit, id).await;
    let pruning = kit.store.begin_removal(id, HOUR).await.unwrap();
    assert_eq!((pruning.batch, pruning.parts, pruning.whole), (id, vec![Part::Files, Part::Inputs, Part::Events], true));
    assert_eq!(kit.batch(id).await.counts.success, 5, "its summary is there to the last");
    let mut objects = prune_all(&kit, id).await;
    objects.sort_unstable();
    assert_eq!(objects, ["batches/a", "files/a"]);
    is_missing(kit.store.read_batch(id).await, id);
    is_missing(kit.store.list_batch_files(id, 0, 1).await, id);
    assert_eq!(kit.view(other).await, other_view);
    assert_eq!(kit.store.resume_prune(HOUR).await.unwrap(), None);
}

pub async fn a_key_lasts_as_long_as_its_batch(kit: Kit) {
    let new = || NewBatch { request_digest: Some("request".to_owned()), ..batch() };
    let first = new();
    kit.store.submit_batch(first.clone(), rows(2)).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    kit.store.begin_removal(first.id, HOUR).await.unwrap();
    kit.store.submit_batch(first.clone(), rows(2)).await.unwrap();
    assert_eq!(kit.batch(first.id).await.status, BatchStatus::Success, "it is still the same batch");
    prune_all(&kit, first.id).await;
    kit.store.submit_batch(first.clone(), rows(2)).await.unwrap();
    assert_eq!(kit.batch(first.id).await.status, BatchStatus::Queued, "and now another");
    kit.run_rows_with(failure).await;
    assert_eq!(kit.counts(first.id).await.failed, 2);
}

pub async fn lines_in_any_order_go_too(kit: Kit) {
    let id = kit.submit_rows(rows_with_lines(&[5, 3, 9, 1, 7])).await;
    kit.run_rows().await;
    kit.finish_all().await;
    kit.store.begin_removal(id, HOUR).await.unwrap();
    assert_eq!(prune_rows(&kit, id, 2).await, 5);
    is_missing(kit.store.read_batch(id).await, id);
    // The next batch may get what the first had, and finds nothing of it.
    let next = kit.submit_rows(rows_with_lines(&[5, 3, 9])).await;
    assert_eq!(kit.results(next).await.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 5, 9]);
}

pub async fn what_is_left_in_the_middle_is_gone_on_with_later(kit: Kit) {
    let id = done(&kit, 10).await;
    let began = kit.store.begin_prune(&op(), &all_of(&kit), SECOND * 10).await.unwrap().unwrap();
    assert_eq!(kit.store.prune_rows(id, 4, SECOND * 10).await.unwrap(), PruneStep { rows: 4, left: true });
    assert_eq!(kit.store.resume_prune(HOUR).await.unwrap(), None, "somebody is at it");
    assert_eq!(kit.store.begin_prune(&op(), &all_of(&kit), HOUR).await.unwrap(), None);
    let kit = kit.crash_and_reopen().await;
    kit.pass(SECOND * 10);
    assert_eq!(kit.store.resume_prune(HOUR).await.unwrap(), Some(began));
    assert_eq!(kit.store.resume_prune(HOUR).await.unwrap(), None);
    assert_eq!(prune_rows(&kit, id, 4).await, 6, "from where it was left");
    is_missing(kit.store.read_batch(id).await, id);
}

pub async fn those_who_prune_at_the_same_moment_take_up_different_batches(kit: Kit) {
    let mut ids = BTreeSet::new();
    for _ in 0..8 {
        ids.insert(done(&kit, 3).await);
    }
    let due = all_of(&kit);
    let begun = futures_util::future::join_all((0..8).map(|_| {
        let (store, due) = (kit.store.clone(), due);
        tokio::spawn(async move { store.begin_prune(&op(), &due, HOUR).await.unwrap() })
    }))
    .await;
    let begun: Vec<BatchId> = begun.into_iter().filter_map(|begun| begun.unwrap()).map(|pruning| pruning.batch).collect();
    assert_eq!(begun.iter().collect::<BTreeSet<_>>().len(), begun.len(), "none twice");
    // And two at the same batch do no harm.
    for id in ids {
        kit.store.begin_removal(id, HOUR).await.unwrap();
        let steps = futures_util::future::join_all((0..4).map(|_| kit.store.prune_rows(id, 1, HOUR))).await;
        assert_eq!(steps.into_iter().map(|step| step.unwrap().rows).sum::<u64>(), 3);
        is_missing(kit.store.read_batch(id).await, id);
    }
}

pub async fn an_object_of_several_batches_goes_with_the_last(kit: Kit) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = held();
        kit.store.submit_batch(new.clone(), rows(1)).await.unwrap();
        kit.store.record_batch_file(new.id, &input_file("files/shared"), None).await.unwrap();
        kit.store.release_batch(new.id).await.unwrap();
        ids.push(new.id);
    }
    kit.run_rows().await;
    kit.finish_all().await;
    for id in &ids {
        kit.store.begin_removal(*id, HOUR).await.unwrap();
    }
    assert_eq!(prune_all(&kit, ids[1]).await, Vec::<String>::new());
    assert_eq!(prune_all(&kit, ids[0]).await, Vec::<String>::new());
    assert_eq!(prune_all(&kit, ids[2]).await, ["files/shared"]);
}

pub async fn what_is_due_is_counted(kit: Kit) {
    done_with_files(&kit, 3, "a").await;
    let first = now(&kit);
    kit.pass(SECOND);
    done_with_files(&kit, 4, "b").await;
    let query = query();
    kit.store.submit_batch(query, vec![super::build::row(0)]).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    let second = now(&kit);
    let count = async |due: Due| kit.store.count_due(&op(), &due).await.unwrap();
    assert_eq!(count(Due::default()).await, DueCounts::default());
    let due = Due { batches: Some(first), files: Some(second), inputs: Some(second), outcomes: Some(second), events: None };
    let wanted = DueCounts {
        batches: 1,
        batch_rows: 3,
        files_of: 2,
        inputs_of: 2,
        input_rows: 5,
        outcomes_of: 2,
        outcome_rows: 5,
        objects: 4,
        object_bytes: 2 * (100 + 7),
    };
    assert_eq!(count(due).await, wanted);
    let files = DueCounts { files_of: 1, objects: 1, object_bytes: 7, ..DueCounts::default() };
    assert_eq!(count(Due { files: Some(first), ..Due::default() }).await, files);
    // Nothing was changed by looking; and what is being pruned is not due any more.
    kit.store.begin_prune(&op(), &due, HOUR).await.unwrap().unwrap();
    assert_eq!(count(due).await, DueCounts { batches: 0, batch_rows: 0, objects: 2, object_bytes: 107, ..wanted });
}

pub async fn operations_with_batches_that_are_done_are_listed_in_pages(kit: Kit) {
    let list = async |after: Option<&OpKey>, limit| kit.store.list_done_ops(after, limit).await.unwrap();
    assert_eq!(list(None, 10).await, []);
    let mut wanted = Vec::new();
    for (app, op) in [("a", "x"), ("a", "y"), ("b' \\ ü", "x"), ("c", "z")] {
        for _ in 0..2 {
            let new = NewBatch { app: app.to_owned(), op: op.to_owned(), ..batch() };
            kit.store.submit_batch(new, rows(1)).await.unwrap();
        }
        wanted.push(OpKey { app: app.to_owned(), op: op.to_owned() });
    }
    kit.run_rows().await;
    kit.finish_all().await;
    kit.submit(1).await;
    assert_eq!(list(None, 10).await, wanted);
    assert_eq!(list(None, 3).await, wanted[..3]);
    assert_eq!(list(Some(&wanted[2]), 3).await, wanted[3..]);
    assert_eq!(list(Some(&wanted[3]), 3).await, []);
}

/// A batch whose only row failed in its first round and succeeded in the second, each with a file.
async fn done_in_two_rounds(kit: &Kit) -> BatchId {
    let id = kit.submit(1).await;
    for (status, object) in [(RowStatus::Failed, "batches/first"), (RowStatus::Success, "batches/second")] {
        let pieces = vec![rowmill::model::Piece { file: "out".to_owned(), text: "x".to_owned() }];
        kit.run_rows_with(|row| result(row, Verdict::Final { status, output: None, messages: Vec::new(), pieces: pieces.clone() })).await;
        let join = kit.claim_finish().await;
        kit.store.record_files(&join, &[file("out", object)]).await.unwrap();
        kit.finish_all().await;
        if status == RowStatus::Failed {
            let failed = RetryRows { codes: Vec::new(), aborted: false, deadline_at: None };
            kit.store.retry_batch(id, &failed).await.unwrap();
        }
    }
    id
}

pub async fn what_earlier_rounds_left_goes_with_the_rest(kit: Kit) {
    let id = done_in_two_rounds(&kit).await;
    kit.pass(SECOND);
    assert_eq!(
        kit.store.count_due(&op(), &all_of(&kit)).await.unwrap(),
        DueCounts { batches: 1, batch_rows: 1, objects: 2, object_bytes: 14, ..DueCounts::default() }
    );
    let files = Due { files: Some(now(&kit)), ..Due::default() };
    kit.store.begin_prune(&op(), &files, HOUR).await.unwrap().unwrap();
    assert_eq!(
        prune_all(&kit, id).await.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["batches/first".to_owned(), "batches/second".to_owned()])
    );
    let round = kit.store.list_rounds(id, 0, 10).await.unwrap().remove(0);
    assert!(round.files.is_empty() && kit.store.read_past_outcomes(id, None, 10).await.unwrap().len() == 1, "{round:?}");
    let outcomes = Due { outcomes: Some(now(&kit)), ..Due::default() };
    kit.store.begin_prune(&op(), &outcomes, HOUR).await.unwrap().unwrap();
    prune_all(&kit, id).await;
    assert_eq!(kit.store.read_past_outcomes(id, None, 10).await.unwrap(), []);
    kit.store.begin_removal(id, HOUR).await.unwrap();
    prune_all(&kit, id).await;
    is_missing(kit.store.read_batch(id).await, id);
}

pub async fn what_has_not_its_outcomes_any_more_is_not_run_again(kit: Kit) {
    let id = kit.submit(1).await;
    kit.run_rows_with(failure).await;
    kit.finish_all().await;
    kit.pass(SECOND);
    let outcomes = Due { outcomes: Some(now(&kit)), ..Due::default() };
    kit.store.begin_prune(&op(), &outcomes, HOUR).await.unwrap().unwrap();
    let again = RetryRows { codes: Vec::new(), aborted: false, deadline_at: None };
    let refused = kit.store.retry_batch(id, &again).await.unwrap_err().to_string();
    assert_eq!(refused, format!("batch {id} cannot be retried: its inputs or outcomes were pruned; submit its rows again"));
    prune_all(&kit, id).await;
    assert!(kit.store.retry_batch(id, &again).await.is_err());
    assert_eq!(kit.batch(id).await.status, BatchStatus::Failed);
}

pub async fn what_others_come_after_is_kept_until_they_have_their_rows(kit: Kit) {
    let first = done(&kit, 2).await;
    let chained = || NewBatch { after: Some(After { batch: first, condition: AfterCondition::Any }), op: "next".to_owned(), ..batch() };
    let (next, late) = (chained(), chained());
    kit.store.submit_batch(next.clone(), Vec::new()).await.unwrap();
    kit.pass(SECOND);
    assert_eq!(kit.store.begin_prune(&op(), &all_of(&kit), HOUR).await.unwrap(), None);
    assert_eq!(kit.store.count_due(&op(), &all_of(&kit)).await.unwrap(), DueCounts::default());
    assert_eq!(kit.store.advance_chain().await.unwrap().map(|step| step.end), Some(ChainEnd::Queued));
    // Somebody removes it all the same: then the next has no rows, and says why.
    kit.store.submit_batch(late.clone(), Vec::new()).await.unwrap();
    kit.store.begin_removal(first, HOUR).await.unwrap();
    assert_eq!(kit.store.advance_chain().await.unwrap().map(|step| step.end), Some(ChainEnd::Aborted));
    let reason = kit.batch(late.id).await.abort_reason.unwrap();
    assert_eq!(reason, format!("the outcomes of batch {first} were pruned, and the rows of this batch are made from those"));
    assert_eq!(kit.batch(next.id).await.counts.rows, 2);
}
