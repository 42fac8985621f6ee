//! Batches come in.

use rowmill::model::{BatchId, BatchStatus, BatchStep, FailureLimit, JsonText, NewBatch, NewRow, ProcessorKind, RetryRule, Terms};
use rowmill::store::StoreError;

use super::build::{MILLISECOND, SECOND, batch, counts, held, query, row, row_with, rows, rows_with_lines};
use super::kit::{Kit, START, is_invalid, is_missing};

/// None of them the default.
fn terms() -> Terms {
    Terms {
        priority: i32::MIN,
        attempts_max: u32::MAX,
        retries: RetryRule { backoff: SECOND * 2, backoff_max: SECOND * 3, codes: vec!["trap".to_owned(), "a \0 code".to_owned()] },
        start_at: Some(START.after(SECOND * 100)),
        deadline_at: Some(START.after(SECOND * 200)),
        failures_max: Some(FailureLimit::Percent(7)),
    }
}

pub async fn a_batch_comes_back_as_it_was_submitted(kit: Kit) {
    kit.pass(SECOND);
    let new = NewBatch { context: JsonText::check(r#"{"day":1}"#).unwrap(), processor_version: u32::MAX, terms: terms(), ..batch() };
    kit.store.submit_batch(new.clone(), rows(3)).await.unwrap();
    kit.pass(SECOND);

    let found = kit.batch(new.id).await;
    assert_eq!((found.id, &found.app, &found.op, found.kind), (new.id, &new.app, &new.op, ProcessorKind::Batch));
    assert_eq!((found.processor_version, &found.terms), (u32::MAX, &new.terms));
    assert_eq!((&found.processor_digest, &found.context), (&new.processor_digest, &new.context));
    assert_eq!((found.status, found.step, found.counts), (BatchStatus::Queued, BatchStep::Rows, counts(3, 0, 0, 0)));
    assert_eq!((found.submitted_at, found.started_at, found.finished_at), (START.after(SECOND), None, None));
    assert_eq!((found.abort_reason, found.mark_error, found.fuel), (None, None, 0));
    assert_eq!(found.files, []);
    let inputs: Vec<String> = kit.results(new.id).await.into_iter().map(|row| row.input).collect();
    assert_eq!(inputs, [r#"{"line":1}"#, r#"{"line":2}"#, r#"{"line":3}"#]);
}

pub async fn an_op_is_stored_in_lower_case(kit: Kit) {
    for (given, stored) in [("Post", "post"), ("PRÜFE-Ä", "prüfe-ä"), ("post_2", "post_2")] {
        let new = NewBatch { op: given.to_owned(), app: "Bank".to_owned(), ..batch() };
        let id = new.id;
        kit.store.submit_batch(new, rows(1)).await.unwrap();
        let found = kit.batch(id).await;
        assert_eq!((found.app.as_str(), found.op.as_str()), ("Bank", stored));
    }
}

pub async fn a_batch_without_rows_must_be_held(kit: Kit) {
    let new = batch();
    is_invalid(kit.store.submit_batch(new.clone(), Vec::new()).await);
    is_missing(kit.store.read_batch(new.id).await, new.id);
    kit.store.submit_batch(NewBatch { hold: true, ..new.clone() }, Vec::new()).await.unwrap();
    let found = kit.batch(new.id).await;
    assert_eq!((found.status, found.counts), (BatchStatus::Wait, counts(0, 0, 0, 0)));
}

pub async fn a_line_of_a_batch_is_one_or_more(kit: Kit) {
    let new = batch();
    is_invalid(kit.store.submit_batch(new.clone(), rows_with_lines(&[1, 0, 2])).await);
    is_missing(kit.store.read_batch(new.id).await, new.id);

    let id = kit.hold(2).await;
    is_invalid(kit.store.append_rows(id, rows_with_lines(&[3, 0])).await);
    assert_eq!(kit.results(id).await.len(), 2);
    assert_eq!(kit.counts(id).await.rows, 2);
}

pub async fn a_slow_query_is_one_row_with_line_zero(kit: Kit) {
    for lines in [&[][..], &[1], &[0, 0], &[0, 1]] {
        is_invalid(kit.store.submit_batch(query(), rows_with_lines(lines)).await);
        is_invalid(kit.store.submit_batch(NewBatch { hold: true, ..query() }, rows_with_lines(lines)).await);
    }
    is_invalid(kit.store.submit_batch(NewBatch { hold: true, ..query() }, vec![row(0)]).await);

    let new = query();
    kit.store.submit_batch(new.clone(), vec![row(0)]).await.unwrap();
    let (found, results) = (kit.batch(new.id).await, kit.results(new.id).await);
    assert_eq!((found.kind, found.status, found.counts.rows), (ProcessorKind::SlowQuery, BatchStatus::Queued, 1));
    assert_eq!((results.len(), results[0].line, results[0].row_no), (1, 0, 1));
    let lease = kit.claim_rows(1).await;
    assert_eq!((lease.batch, kit.read(&lease).await[0].line), (new.id, 0));
}

pub async fn an_id_is_taken_only_once(kit: Kit) {
    let first = held();
    kit.store.submit_batch(first.clone(), rows(2)).await.unwrap();
    let before = kit.view(first.id).await;
    kit.pass(MILLISECOND);
    for (new, rows) in [
        (first.clone(), rows(2)),
        (NewBatch { id: first.id, app: "other".to_owned(), ..batch() }, rows(5)),
        (NewBatch { request_digest: Some("digest".to_owned()), ..first.clone() }, rows(2)),
    ] {
        let refused = kit.store.submit_batch(new, rows).await;
        assert!(matches!(refused, Err(StoreError::Exists(id)) if id == first.id), "{refused:?}");
    }
    assert_eq!(kit.view(first.id).await, before);
    kit.claim_nothing().await;
}

pub async fn what_is_asked_for_again_is_there_once(kit: Kit) {
    let new = NewBatch { request_digest: Some("digest".to_owned()), ..batch() };
    kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
    kit.claim_rows(2).await;
    let before = kit.view(new.id).await;
    kit.pass(MILLISECOND);
    // Rows out of order take another way in.
    for again in [rows(2), rows_with_lines(&[2, 1])] {
        kit.store.submit_batch(new.clone(), again).await.unwrap();
    }
    for other in [Some("another".to_owned()), None] {
        let refused = kit.store.submit_batch(NewBatch { request_digest: other, ..new.clone() }, rows(2)).await;
        assert!(matches!(refused, Err(StoreError::Exists(id)) if id == new.id), "{refused:?}");
    }
    assert_eq!(kit.view(new.id).await, before);
    kit.claim_nothing().await;
}

pub async fn a_row_is_tried_once_at_least(kit: Kit) {
    let new = NewBatch { terms: Terms { attempts_max: 0, ..Terms::default() }, ..batch() };
    is_invalid(kit.store.submit_batch(new.clone(), rows(1)).await);
    is_missing(kit.store.read_batch(new.id).await, new.id);
}

pub async fn rows_are_numbered_from_one_in_the_order_they_came_in(kit: Kit) {
    // More than an implementation would write at once, in several requests.
    let sizes = [1_u32, 150, 99, 100, 201, 1];
    let total: u32 = sizes.iter().sum();
    let id = kit.hold(0).await;
    let mut first = 1;
    for size in sizes {
        let rows = (first..first + size).map(|line| row(line * 2)).collect();
        assert_eq!(kit.store.append_rows(id, rows).await.unwrap(), u64::from(first + size - 1));
        first += size;
    }
    let found: Vec<(u32, u32, String)> = kit.results(id).await.into_iter().map(|row| (row.row_no, row.line, row.input)).collect();
    let wanted: Vec<(u32, u32, String)> = (1..=total).map(|row_no| (row_no, row_no * 2, format!(r#"{{"line":{}}}"#, row_no * 2))).collect();
    assert_eq!(found, wanted);
}

pub async fn a_line_may_be_as_large_as_it_gets(kit: Kit) {
    let id = kit.submit_lines(&[u32::MAX, 1, u32::MAX - 1]).await;
    let lease = kit.claim_rows(3).await;
    assert_eq!(kit.read(&lease).await.iter().map(|row| row.line).collect::<Vec<_>>(), [u32::MAX, 1, u32::MAX - 1]);
    for page_rows in 1..=5 {
        let found: Vec<(u32, u32)> = kit.results_by(id, page_rows).await.iter().map(|row| (row.line, row.row_no)).collect();
        assert_eq!(found, [(1, 2), (u32::MAX - 1, 3), (u32::MAX, 1)]);
    }
}

pub async fn a_line_comes_once_in_a_batch_and_nothing_is_half_written(kit: Kit) {
    let twice = |result: Result<u64, StoreError>, line: u32| match result {
        Err(StoreError::Invalid(text)) => assert_eq!(text, format!("line {line} comes twice: each row of a batch has a line of its own")),
        other => panic!("{other:?}"),
    };
    for lines in [&[1, 2, 2][..], &[7, 3, 7]] {
        let new = batch();
        twice(kit.store.submit_batch(new.clone(), rows_with_lines(lines)).await.map(|()| 0), lines[2]);
        is_missing(kit.store.read_batch(new.id).await, new.id);
    }
    let id = kit.hold(0).await;
    kit.store.append_rows(id, rows_with_lines(&[5, 6, 9])).await.unwrap();
    // One that only grew until now, and one that did not.
    for _ in 0..2 {
        let before = kit.results(id).await;
        twice(kit.store.append_rows(id, rows_with_lines(&[8, 8])).await, 8);
        twice(kit.store.append_rows(id, rows_with_lines(&[9])).await, 9);
        twice(kit.store.append_rows(id, rows_with_lines(&[100, 6, 101])).await, 6);
        assert_eq!(kit.results(id).await, before);
        kit.store.append_rows(id, rows_with_lines(&[3 + u32::try_from(before.len()).unwrap() % 2])).await.unwrap();
    }
    assert_eq!(kit.store.release_batch(id).await.unwrap(), 5);
}

pub async fn a_rejected_row_is_leased_with_its_reason(kit: Kit) {
    let bad = NewRow { rejected: Some("column 3 is missing".to_owned()), ..row_with(2, r#""raw;text""#.to_owned()) };
    kit.submit_rows(vec![row(1), bad, row(3)]).await;
    let rows = kit.read(&kit.claim_rows(3).await).await;
    let reasons: Vec<Option<&str>> = rows.iter().map(|row| row.rejected.as_deref()).collect();
    assert_eq!(reasons, [None, Some("column 3 is missing"), None]);
    assert_eq!(rows[1].input, r#""raw;text""#);
}

/// Also where it was never run: it must not be taken for a row when it is read again.
pub async fn results_say_which_rows_were_rejected(kit: Kit) {
    let bad = NewRow { rejected: Some("column\n3 is missing\0".to_owned()), ..row_with(2, r#""raw;text""#.to_owned()) };
    for lines in [[1, 2, 3], [3, 2, 1]] {
        let id = kit.submit_rows(vec![row(lines[0]), NewRow { line: lines[1].into(), ..bad.clone() }, row(lines[2])]).await;
        kit.store.abort_batch(id, None).await.unwrap();
        let reasons: Vec<Option<String>> = kit.results(id).await.into_iter().map(|row| row.rejected).collect();
        assert_eq!(reasons, [None, bad.rejected.clone(), None]);
    }
}

pub async fn many_batches_live_side_by_side(kit: Kit) {
    let mut ids = Vec::new();
    for count in 1..=60 {
        ids.push((kit.submit(count).await, u64::from(count)));
    }
    kit.run_rows().await;
    kit.finish_all().await;
    for (id, rows) in ids {
        let found = kit.batch(id).await;
        assert_eq!((found.status, found.counts), (BatchStatus::Success, counts(rows, rows, 0, 0)));
    }
}

pub async fn what_was_never_submitted_is_not_found(kit: Kit) {
    kit.submit(1).await;
    let id = BatchId::generate();
    is_missing(kit.store.append_rows(id, rows(1)).await, id);
    is_missing(kit.store.append_rows(id, Vec::new()).await, id);
    is_missing(kit.store.release_batch(id).await, id);
    is_missing(kit.store.abort_batch(id, None).await, id);
    is_missing(kit.store.discard_batch(id).await, id);
    is_missing(kit.store.read_batch(id).await, id);
    is_missing(kit.store.read_results(id, None, 1).await, id);
    is_missing(kit.store.list_file_names(id).await, id);
    is_missing(kit.store.read_pieces(id, None, 1).await, id);
}

pub async fn what_was_committed_is_there_after_a_crash(kit: Kit) {
    let (done, half, waiting) = (kit.submit(2).await, kit.submit(3).await, kit.hold(4).await);
    let lease = kit.claim_rows(2).await;
    kit.record_each(&lease, super::build::success).await;
    let lease = kit.claim_rows(3).await;
    kit.record(&lease, &[super::build::failure(&kit.read(&lease).await[0])]).await;
    kit.finish_all().await;
    let before = [kit.view(done).await, kit.view(half).await, kit.view(waiting).await];

    let kit = kit.crash_and_reopen().await;
    assert_eq!([kit.view(done).await, kit.view(half).await, kit.view(waiting).await], before);
    kit.go_silent();
    kit.store.release_batch(waiting).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    assert_eq!(kit.counts(half).await, counts(3, 2, 1, 0));
    assert_eq!(kit.counts(waiting).await, counts(4, 4, 0, 0));
}
