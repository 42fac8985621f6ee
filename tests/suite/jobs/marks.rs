//! `mark-done` by a worker: called again, its log kept, the output files of its batch in its hands.

use std::time::Duration;

use rowmill::blobs::Blobs;
use rowmill::jobs::{BatchRequest, JobError, QueryRequest};
use rowmill::model::{Batch, BatchId, BatchStatus, BatchStep, JsonText, MarkCall, NewRow, PartialTerms, Policy};
use rowmill::status::StatusBoard;
use rowmill_tests::servers::S3;
use serde_json::{Value, json};

use super::{SOON, Site, manager, on_each_store, row, settings};
use crate::support::guests;

on_each_store! {
    mark_done_is_called_again_until_it_succeeds
    mark_done_is_called_as_often_as_a_row_is_tried
    what_is_final_is_called_once
    a_worker_ends_while_the_next_call_waits
    mark_done_reads_the_output_files_of_its_batch
    mark_done_of_a_slow_query_reads_its_file
}

/// Submits a batch whose `mark-done` takes these steps.
async fn submit(site: &Site, rows: Vec<NewRow>, steps: Value) -> BatchId {
    site.jobs.register_processor("bank", "carry", guests::read("courier")).await.unwrap();
    let context = JsonText::check(json!({ "mark": steps }).to_string()).unwrap();
    site.jobs.batch_submit(BatchRequest::new("bank", "carry").with_rows(rows).with_context(context)).await.unwrap()
}

async fn until(site: &Site, id: BatchId, is_there: impl Fn(&Batch) -> bool) -> Batch {
    let looking = async {
        loop {
            let batch = site.store.read_batch(id).await.unwrap();
            if is_there(&batch) {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap()
}

async fn until_done(site: &Site, id: BatchId) -> Batch {
    until(site, id, |batch| batch.step == BatchStep::Done).await
}

/// Each call with its error and its log.
async fn calls(site: &Site, id: BatchId) -> Vec<(u32, Option<String>, Option<String>)> {
    let calls = site.jobs.mark_calls(id, 1).await.unwrap();
    calls.into_iter().map(|MarkCall { call, error, log, .. }| (call, error, log)).collect()
}

async fn mark_done_is_called_again_until_it_succeeds(mut site: Site) {
    site.begin_work();
    let id = submit(&site, vec![row(1, "{}")], json!([{"do": "attempt"}, {"do": "retry", "until": 3, "after_ms": 1}])).await;
    let batch = until_done(&site, id).await;
    assert_eq!((batch.status, batch.mark_calls, batch.mark_error, batch.mark_due_at), (BatchStatus::Success, 3, None, None));
    let failed = |call| (call, Some("not yet".to_owned()), Some(format!("info: {call}\n")));
    assert_eq!(calls(&site, id).await, [failed(1), failed(2), (3, None, Some("info: 3\ninfo: null\n".to_owned()))]);
    assert!(matches!(site.jobs.restricted_to("shop").mark_calls(id, 1).await, Err(JobError::NoBatch { .. })));
    site.end_work().await;
}

async fn mark_done_is_called_as_often_as_a_row_is_tried(mut site: Site) {
    let terms = PartialTerms { attempts_max: Some(2), ..PartialTerms::default() };
    site.jobs.put_policy(&Policy { terms, ..Policy::of("bank", Some("carry")) }).await.unwrap();
    site.begin_work();
    let id = submit(&site, vec![row(1, "{}")], json!([{"do": "retry", "until": 99, "after_ms": 1}])).await;
    let batch = until_done(&site, id).await;
    assert_eq!((batch.status, batch.mark_calls, batch.mark_error.as_deref()), (BatchStatus::Success, 2, Some("not yet")));
    site.end_work().await;
}

async fn what_is_final_is_called_once(mut site: Site) {
    site.begin_work();
    for (deed, error) in [("permanent", "for good"), ("abort", "no more")] {
        let id = submit(&site, vec![row(1, "{}")], json!([{ "do": deed }])).await;
        let batch = until_done(&site, id).await;
        // The batch has ended: there is nothing to abort.
        assert_eq!((batch.status, batch.abort_reason.as_deref(), batch.mark_calls), (BatchStatus::Success, None, 1), "{deed}");
        assert!(batch.mark_error.as_deref().is_some_and(|told| told.contains(error)), "{batch:?}");
    }
    site.end_work().await;
}

async fn a_worker_ends_while_the_next_call_waits(mut site: Site) {
    site.begin_work();
    let id = submit(&site, vec![row(1, "{}")], json!([{"do": "retry", "until": 2, "after_ms": 3_600_000}])).await;
    let batch = until(&site, id, |batch| batch.mark_calls == 1).await;
    assert_eq!((batch.step, batch.mark_error.as_deref()), (BatchStep::Mark, Some("not yet")));
    assert!(batch.mark_due_at.is_some());
    // Neither a slot nor a lease is held meanwhile.
    let other = submit(&site, vec![row(1, "{}")], json!([])).await;
    until_done(&site, other).await;
    site.end_work().await;
    assert_eq!(site.store.read_batch(id).await.unwrap().step, BatchStep::Mark);
}

async fn mark_done_reads_the_output_files_of_its_batch(mut site: Site) {
    site.begin_work();
    reads_files(&site).await;
    site.end_work().await;
}

async fn reads_files(site: &Site) {
    let piece = |file: &str, text: &str, bytes: usize| json!({"file": file, "text": text, "bytes": bytes}).to_string();
    let large: Vec<NewRow> = (2..5).map(|line| row(line, &piece("large.txt", "line", 600_000))).collect();
    let rows = [vec![row(1, &piece("small.txt", "a piece", 0))], large].concat();
    let read = |name: &str| json!({"do": "read", "name": name, "max": 1 << 20});
    let id = submit(site, rows, json!([{"do": "files"}, read("small.txt"), read("large.txt"), read("none.txt")])).await;
    let batch = until_done(site, id).await;
    assert_eq!((batch.status, batch.mark_error), (BatchStatus::Success, None));
    let log = calls(site, id).await.remove(0).2.unwrap();
    let said: Vec<Value> = log.lines().map(|line| serde_json::from_str(line.strip_prefix("info: ").unwrap()).unwrap()).collect();
    let size = 3 * 600_005;
    assert_eq!(said[0], json!([["large.txt", size], ["small.txt", 8]]));
    assert_eq!(said[1], json!({"parts": [8], "text": "a piece\n"}));
    assert_eq!(said[2]["parts"], json!([1 << 20, size - (1 << 20)]));
    assert_eq!(said[3], json!({"error": "NoSuchFile"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_done_reads_the_output_files_of_its_batch_from_s3() {
    let s3 = S3::start().unwrap();
    let mut site = Site::sqlite().await;
    site.blobs = Blobs::open(&crate::blobs::s3_settings(&s3)).unwrap();
    site.jobs = manager(&site.store, &site.blobs, settings("one"), StatusBoard::in_process());
    site.begin_work();
    reads_files(&site).await;
    site.end_work().await;
}

async fn mark_done_of_a_slow_query_reads_its_file(mut site: Site) {
    site.begin_work();
    let question = json!({"account": "DE0123456789", "from": "2026-01-01", "to": "2026-01-31", "opening_cents": 0, "transactions": []});
    let request = QueryRequest::new("bank", "statement", JsonText::check(question.to_string()).unwrap());
    let id = site.jobs.slow_query_submit(request).await.unwrap();
    let batch = until_done(&site, id).await;
    assert_eq!((batch.status, batch.mark_error), (BatchStatus::Success, None));
    let size = batch.files[0].size_bytes;
    let log = calls(&site, id).await.remove(0).2.unwrap();
    assert!(log.starts_with("info: statement.txt of ") && log.contains(&format!("{size} bytes")), "{log}");
    site.end_work().await;
}
