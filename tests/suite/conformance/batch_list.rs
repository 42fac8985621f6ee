//! The batches of an app are listed, and found by what is known of them.

use rowmill::model::{
    BatchFile, BatchFilter, BatchId, BatchPage, BatchPosition, BatchStatus, Clock, Due, ListedBatch, NewBatch, OpKey, ProcessorKind, Terms, Timestamp,
};

use super::build::{SECOND, batch, held, query, rows, rows_with_lines};
use super::kit::Kit;

fn bank() -> BatchFilter {
    BatchFilter::of("bank")
}

fn file(first_row: u32, name: &str, sha256: &str) -> BatchFile {
    BatchFile {
        first_row,
        name: name.to_owned(),
        form: "csv".to_owned(),
        size_bytes: 7,
        sha256: sha256.to_owned(),
        object: None,
        source_object: None,
    }
}

/// All of them, read in pages of this size.
async fn all(kit: &Kit, of: &BatchFilter, limit: u32) -> Vec<ListedBatch> {
    let mut found: Vec<ListedBatch> = Vec::new();
    let mut after = None;
    loop {
        let BatchPage { batches, next } = kit.store.list_batches(of, after, limit).await.unwrap();
        assert!(batches.len() <= limit as usize);
        found.extend(batches);
        match next {
            None => return found,
            next => after = next,
        }
    }
}

async fn ids(kit: &Kit, of: &BatchFilter) -> Vec<BatchId> {
    let in_pages: Vec<BatchId> = all(kit, of, 1).await.iter().map(|found| found.id).collect();
    let at_once: Vec<BatchId> = all(kit, of, 100).await.iter().map(|found| found.id).collect();
    assert_eq!(in_pages, at_once);
    at_once
}

async fn submit(kit: &Kit, new: NewBatch) -> BatchId {
    kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
    new.id
}

async fn submit_with_files(kit: &Kit, new: NewBatch, files: &[BatchFile]) -> BatchId {
    kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
    for file in files {
        kit.store.record_batch_file(new.id, file, None).await.unwrap();
    }
    new.id
}

pub async fn batches_are_listed_from_the_newest_on_as_they_are(kit: Kit) {
    assert_eq!(ids(&kit, &bank()).await, []);
    let first = submit(&kit, NewBatch { group: Some("g".to_owned()), ..batch() }).await;
    let lease = kit.claim_rows(2).await;
    let results = kit.read(&lease).await;
    let failure = super::build::failure(&results[0]);
    kit.record(&lease, &[failure, super::build::success(&results[1])]).await;
    submit(&kit, NewBatch { app: "shop".to_owned(), ..batch() }).await;
    let asked = query();
    kit.store.submit_batch(asked.clone(), rows_with_lines(&[0])).await.unwrap();
    let waits = submit_with_files(&kit, held(), &[file(1, "in.csv", "aa"), file(2, "b.csv", "bb")]).await;
    assert_eq!(ids(&kit, &bank()).await, [waits, asked.id, first]);
    let found = all(&kit, &bank(), 10).await;
    for listed in &found {
        let whole = kit.batch(listed.id).await;
        let file = (listed.id == waits).then(|| file(1, "in.csv", "aa"));
        let wanted = ListedBatch {
            position: listed.position,
            id: whole.id,
            app: whole.app,
            op: whole.op,
            kind: whole.kind,
            version: whole.processor_version,
            priority: whole.terms.priority,
            group: whole.group,
            round: whole.round,
            status: whole.status,
            done: false,
            counts: whole.counts,
            fuel: whole.fuel,
            abort_reason: whole.abort_reason,
            mark_error: whole.mark_error,
            submitted_at: whole.submitted_at,
            started_at: whole.started_at,
            finished_at: whole.finished_at,
            file,
        };
        assert_eq!(*listed, wanted);
    }
    assert_eq!((found[2].counts.failed, found[1].kind), (1, ProcessorKind::SlowQuery));
    kit.abort(waits).await;
    kit.finish_all().await;
    let found = all(&kit, &bank(), 10).await;
    assert!(found[0].done && found[2].done && !found[1].done);
    assert_eq!((found[0].status, found[2].status), (BatchStatus::Aborted, BatchStatus::Failed));

    // A batch that comes in does not move a place, and a place outlives its batch.
    let page = kit.store.list_batches(&bank(), None, 1).await.unwrap();
    submit(&kit, batch()).await;
    let next = page.next.map(|next| next.to_string().parse::<BatchPosition>().unwrap());
    assert_eq!(kit.store.list_batches(&bank(), next, 1).await.unwrap().batches[0].id, asked.id);
    let late = submit(&kit, NewBatch { terms: Terms { deadline_at: Some(kit.clock.now().after(SECOND)), ..Terms::default() }, ..batch() }).await;
    kit.pass(SECOND);
    kit.store.abort_overdue().await.unwrap();
    let listed = all(&kit, &bank(), 1).await.remove(0);
    assert_eq!((listed.id, listed.abort_reason.as_deref()), (late, Some("its deadline has passed")));
}

pub async fn batches_are_found_by_all_that_a_filter_names(kit: Kit) {
    let first = submit(&kit, NewBatch { group: Some("g".to_owned()), ..batch() }).await;
    kit.run_rows().await;
    kit.finish_all().await;
    kit.clock.advance(SECOND);
    let at = Clock::now(&*kit.clock);
    let other = submit(&kit, NewBatch { op: "Check".to_owned(), processor_version: 7, ..batch() }).await;
    kit.clock.advance(SECOND);
    let last = NewBatch { group: Some("g".to_owned()), op: "check".to_owned(), ..held() };
    let last = submit(&kit, last).await;

    let of_op = BatchFilter { op: Some("CHECK".to_owned()), ..bank() };
    assert_eq!(ids(&kit, &of_op).await, [last, other]);
    for (statuses, wanted) in [
        (vec![BatchStatus::Success], vec![first]),
        (vec![BatchStatus::Wait, BatchStatus::Success], vec![last, first]),
        (vec![BatchStatus::Aborted], Vec::new()),
    ] {
        assert_eq!(ids(&kit, &BatchFilter { statuses, ..bank() }).await, wanted);
    }
    assert_eq!(ids(&kit, &BatchFilter { version: Some(7), ..bank() }).await, [other]);
    let of_group = BatchFilter { group: Some("g".to_owned()), ..bank() };
    assert_eq!(ids(&kit, &of_group).await, [last, first]);
    assert_eq!(ids(&kit, &BatchFilter { op: of_op.op.clone(), ..of_group.clone() }).await, [last]);
    let with_id = |app: &str| BatchFilter { id: Some(other), ..BatchFilter::of(app) };
    assert_eq!((ids(&kit, &with_id("bank")).await, ids(&kit, &with_id("shop")).await), (vec![other], vec![]));
    // From a moment on, and before a moment.
    let at_or_later = BatchFilter { since: Some(at), ..bank() };
    assert_eq!(ids(&kit, &at_or_later).await, [last, other]);
    assert_eq!(ids(&kit, &BatchFilter { until: Some(at), ..bank() }).await, [first]);
    let just_then = BatchFilter { until: Some(Timestamp(at.0 + 1)), ..at_or_later };
    assert_eq!(ids(&kit, &just_then).await, [other]);
    let of_no_group = BatchFilter { group: Some("G".to_owned()), ..bank() };
    assert_eq!(ids(&kit, &of_no_group).await, []);
}

pub async fn batches_are_found_by_the_name_and_the_digest_of_a_file(kit: Kit) {
    let named = |name: &str| BatchFilter { file_name: Some(name.to_owned()), ..bank() };
    let with_digest = |sha256: &str| BatchFilter { file_sha256: Some(sha256.to_owned()), ..bank() };
    let long = "x".repeat(100_000);
    let read_from = BatchFile { source_object: Some("inbox/a.csv".to_owned()), object: Some("files/1".to_owned()), ..file(1, "a.csv", "aa") };
    let first = submit_with_files(&kit, held(), &[read_from.clone(), file(2, "b.csv", "bb")]).await;
    let twice = submit_with_files(&kit, held(), &[file(1, "a.csv", "cc"), file(2, "a.csv", "aa")]).await;
    let of_shop = NewBatch { app: "shop".to_owned(), ..held() };
    submit_with_files(&kit, of_shop, &[file(1, "a.csv", "aa")]).await;
    let odd = submit_with_files(&kit, held(), &[file(1, "a\0'%.csv", "dd"), file(2, &long, "ee")]).await;

    assert_eq!(ids(&kit, &named("a.csv")).await, [twice, first]);
    assert_eq!(ids(&kit, &named("A.csv")).await, []);
    assert_eq!(ids(&kit, &named("a\0'%.csv")).await, [odd]);
    assert_eq!(ids(&kit, &named(&long)).await, [odd]);
    assert_eq!(ids(&kit, &with_digest("AA")).await, [twice, first]);
    let both = |name: &str, sha256: &str| BatchFilter { file_sha256: Some(sha256.to_owned()), ..named(name) };
    assert_eq!(ids(&kit, &both("a.csv", "bb")).await, [], "they are two files");
    assert_eq!(ids(&kit, &both("b.csv", "bb")).await, [first]);
    // The file that was looked for is shown.
    let shown = |found: Vec<ListedBatch>| found.into_iter().map(|listed| listed.file).collect::<Vec<_>>();
    assert_eq!(shown(all(&kit, &both("b.csv", "bb"), 9).await), [Some(file(2, "b.csv", "bb"))]);
    assert_eq!(shown(all(&kit, &with_digest("aa"), 9).await), [Some(file(2, "a.csv", "aa")), Some(read_from.clone())]);
    // With the other filters.
    kit.store.release_batch(first).await.unwrap();
    let held_ones = BatchFilter { statuses: vec![BatchStatus::Wait], ..named("a.csv") };
    assert_eq!(ids(&kit, &held_ones).await, [twice]);
    // Its object goes when its inputs are pruned; the object that it was read from is not ours.
    kit.run_rows().await;
    kit.finish_all().await;
    let op = OpKey { app: "bank".to_owned(), op: "post".to_owned() };
    let due = Due { inputs: Some(Clock::now(&*kit.clock)), ..Due::default() };
    let pruning = kit.store.begin_prune(&op, &due, 60 * SECOND).await.unwrap().unwrap();
    assert_eq!(pruning.batch, first);
    assert_eq!(kit.store.list_pruned_objects(first, 10).await.unwrap(), ["files/1"]);
    let kept = BatchFile { object: None, ..read_from };
    assert_eq!(shown(all(&kit, &both("a.csv", "aa"), 9).await)[1], Some(kept));
}

pub async fn a_page_of_batches_is_bounded_in_work(kit: Kit) {
    const MANY: usize = 2_050;
    let rare = submit(&kit, NewBatch { op: "rare".to_owned(), ..held() }).await;
    for _ in 0..MANY {
        kit.store.submit_batch(held(), Vec::new()).await.unwrap();
    }
    let of_op = BatchFilter { op: Some("rare".to_owned()), ..bank() };
    let page = kit.store.list_batches(&of_op, None, 1).await.unwrap();
    assert!(page.batches.is_empty() && page.next.is_some(), "{page:?}");
    assert_eq!(ids(&kit, &of_op).await, [rare]);
    let page = kit.store.list_batches(&bank(), None, 5_000).await.unwrap();
    assert_eq!((page.batches.len(), page.next.is_some()), (1_000, true));
}

/// The bound of a page counts the files of its own app only.
pub async fn files_of_other_apps_do_not_hide_those_of_an_app(kit: Kit) {
    const MANY: usize = 3_000;
    let wanted = submit_with_files(&kit, held(), &[file(1, "in.csv", "aa")]).await;
    for _ in 0..MANY {
        let of_shop = NewBatch { app: "shop".to_owned(), ..held() };
        kit.store.submit_batch(of_shop.clone(), Vec::new()).await.unwrap();
        kit.store.record_batch_file(of_shop.id, &file(1, "in.csv", "aa"), None).await.unwrap();
    }
    let named = BatchFilter { file_name: Some("in.csv".to_owned()), ..bank() };
    let with_digest = BatchFilter { file_sha256: Some("aa".to_owned()), ..bank() };
    for of in [named, with_digest] {
        let page = kit.store.list_batches(&of, None, 10).await.unwrap();
        let found: Vec<BatchId> = page.batches.iter().map(|found| found.id).collect();
        assert_eq!((found, page.next), (vec![wanted], None));
    }
}
