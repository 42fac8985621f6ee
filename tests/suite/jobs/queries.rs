//! Slow queries.

use rowmill::jobs::{JobError, QueryRequest, QueryState};
use rowmill::model::{BatchId, BatchStatus, CodeQuota, JsonText, NewVersion, PartialTerms, Policy, ProcessorKind};

use super::{SOON, Site, on_each_store, refused, transaction};

on_each_store! {
    a_query_says_try_later_until_it_has_its_answer_with_messages_and_files
    a_query_that_runs_can_be_aborted_and_one_that_ended_cannot
    an_aborted_query_is_answered_at_once_without_a_worker
    a_batch_that_was_aborted_before_it_ran_has_ended_without_a_worker
    batches_do_not_take_the_slots_of_queries
    a_batch_is_no_query
    a_query_with_a_key_is_asked_once
    a_query_is_answered_by_who_asks_it
    a_query_is_served_as_its_operation_is_now
}

const QUESTION: &str = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":500,"transactions":[]}"#;

async fn submit(site: &Site, input: &str) -> BatchId {
    site.jobs.slow_query_submit(QueryRequest::new("bank", "Statement", JsonText::check(input).unwrap())).await.unwrap()
}

async fn a_query_says_try_later_until_it_has_its_answer_with_messages_and_files(mut site: Site) {
    let id = submit(&site, QUESTION).await;
    let QueryState::TryLater(progress) = site.jobs.slow_query_done(id).await.unwrap() else { panic!() };
    assert_eq!((progress.status, progress.counts.rows), (BatchStatus::Queued, 1));
    site.begin_work();
    let result = tokio::time::timeout(SOON, site.jobs.wait_for_query(id)).await.unwrap().unwrap();
    assert_eq!(result.status, BatchStatus::Success);
    assert!(result.output.as_ref().unwrap().contains(r#""closing_cents":500"#), "{result:?}");
    assert_eq!(result.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["statement.txt"]);
    assert!(site.objects.path().join(&result.files[0].object).exists());
    // Once from the store, and once from what is known then.
    for _ in 0..2 {
        let QueryState::Done(again) = site.jobs.slow_query_done(id).await.unwrap() else { panic!() };
        assert_eq!(again, result);
    }
    // Without files and output, with messages: it is there all the same.
    let id = submit(&site, r#"{"account":"none","from":"2026-01-01","to":"2026-01-31","opening_cents":0,"transactions":[]}"#).await;
    let result = tokio::time::timeout(SOON, site.jobs.wait_for_query(id)).await.unwrap().unwrap();
    assert_eq!((result.status, result.messages[0].code.as_str()), (BatchStatus::Failed, "account-malformed"));
    site.end_work().await;
}

async fn a_query_with_a_key_is_asked_once(site: Site) {
    let ask = |op: &str, input: &str| QueryRequest::new("bank", op, JsonText::check(input).unwrap()).with_key("mine");
    let id = site.jobs.slow_query_submit(ask("statement", QUESTION)).await.unwrap();
    assert_eq!(site.jobs.slow_query_submit(ask("STATEMENT", QUESTION)).await.unwrap(), id);
    refused!(site.jobs.slow_query_submit(ask("statement", "{}")).await, JobError::KeyReused { .. });
    // A batch has no key that a query has.
    let batch = rowmill::jobs::BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)]).with_key("mine");
    refused!(site.jobs.batch_submit(batch).await, JobError::KeyReused { .. });
}

async fn a_query_is_answered_by_who_asks_it(mut site: Site) {
    site.begin_work();
    let ask = |key: Option<&str>| {
        let request = QueryRequest::new("bank", "statement", JsonText::check(QUESTION).unwrap());
        let (jobs, request) = (site.jobs.clone(), QueryRequest { key: key.map(str::to_owned), ..request });
        // As a service would, which answers many at a time.
        tokio::spawn(async move { tokio::time::timeout(SOON, jobs.slow_query(request)).await.unwrap().unwrap() })
    };
    let (one, other) = (ask(None).await.unwrap(), ask(None).await.unwrap());
    assert!(one.0 != other.0 && one.1.output == other.1.output && one.1.status == BatchStatus::Success, "{one:?} {other:?}");
    let QueryState::Done(read) = site.jobs.slow_query_done(one.0).await.unwrap() else { panic!() };
    assert_eq!(read, one.1);
    // With a key it is the same query, also when it has ended.
    let (one, again) = (ask(Some("mine")).await.unwrap(), ask(Some("mine")).await.unwrap());
    assert_eq!(one, again);
    site.end_work().await;
}

async fn a_query_is_served_as_its_operation_is_now(site: Site) {
    let served = async || {
        let batch = site.store.read_batch(submit(&site, QUESTION).await).await.unwrap();
        (batch.processor_version, batch.terms.attempts_max)
    };
    let before = served().await;
    assert_eq!(served().await, before);
    // As another process does it.
    let terms = PartialTerms { attempts_max: Some(7), ..PartialTerms::default() };
    site.store.put_policy(&Policy { terms, ..Policy::of("bank", Some("statement")) }).await.unwrap();
    assert_eq!(served().await, (before.0, 7));
    let put = async |kind, digest: &str| {
        let (app, op, digest) = ("bank".to_owned(), "statement".to_owned(), digest.repeat(64));
        let new = NewVersion { app, op, kind, digest, size_bytes: 1, note: None, activate: true, quota: CodeQuota::default() };
        site.store.put_processor(&new).await.unwrap().version
    };
    assert_eq!(put(ProcessorKind::SlowQuery, "0").await, 2);
    assert_eq!(served().await, (2, 7));
    put(ProcessorKind::Batch, "1").await;
    assert_eq!(served().await, (2, 7), "a batch processor is another one");
}

async fn a_query_that_runs_can_be_aborted_and_one_that_ended_cannot(mut site: Site) {
    let id = submit(&site, QUESTION).await;
    assert!(site.jobs.slow_query_abort(id, Some("not wanted")).await.unwrap().changed);
    let said = refused!(site.jobs.slow_query_abort(id, None).await, JobError::AlreadyFinal { .. });
    assert_eq!(said, format!("slow query {id} has ended already, as aborted"));
    site.begin_work();
    let result = tokio::time::timeout(SOON, site.jobs.wait_for_query(id)).await.unwrap().unwrap();
    assert_eq!((result.status, result.output), (BatchStatus::Aborted, None));
    let id = submit(&site, QUESTION).await;
    site.wait(id).await;
    let said = refused!(site.jobs.slow_query_abort(id, None).await, JobError::AlreadyFinal { .. });
    assert_eq!(said, format!("slow query {id} has ended already, as success"));
    site.end_work().await;
}

async fn an_aborted_query_is_answered_at_once_without_a_worker(mut site: Site) {
    let id = submit(&site, QUESTION).await;
    let waits = tokio::spawn({
        let jobs = site.jobs.clone();
        async move { jobs.wait_for_query(id).await }
    });
    site.jobs.slow_query_abort(id, Some("nobody waits for it")).await.unwrap();
    let result = tokio::time::timeout(SOON, waits).await.unwrap().unwrap().unwrap();
    assert_eq!((result.status, result.output.as_ref(), result.files.len()), (BatchStatus::Aborted, None, 0));
    assert_eq!(result.abort_reason.as_deref(), Some("nobody waits for it"));
    let answered = async || match site.jobs.slow_query_done(id).await.unwrap() {
        QueryState::Done(result) => result,
        QueryState::TryLater(progress) => panic!("{progress:?}"),
    };
    assert_eq!(answered().await, result);
    assert_eq!(tokio::time::timeout(SOON, site.jobs.wait_for_query(id)).await.unwrap().unwrap(), result);
    assert_eq!(site.jobs.batch_done(id).await.unwrap().unwrap().status, BatchStatus::Aborted);
    // In another process, which knows nothing of it.
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(tokio::time::timeout(SOON, site.another(&cache).wait_for_query(id)).await.unwrap().unwrap(), result);
    // And when its processor has been told.
    site.begin_work();
    site.wait(id).await;
    site.end_work().await;
    let QueryState::Done(told) = site.jobs.slow_query_done(id).await.unwrap() else { panic!("it has ended") };
    assert_eq!(told, result);
}

async fn a_batch_that_was_aborted_before_it_ran_has_ended_without_a_worker(site: Site) {
    let id = site.submit("validate", vec![transaction(1)]).await;
    let waits = tokio::spawn({
        let jobs = site.jobs.clone();
        async move { jobs.wait(id).await }
    });
    site.jobs.batch_abort(id, Some("the file was the wrong one")).await.unwrap();
    let batch = tokio::time::timeout(SOON, waits).await.unwrap().unwrap().unwrap();
    assert_eq!((batch.status, batch.abort_reason.as_deref()), (BatchStatus::Aborted, Some("the file was the wrong one")));
    assert!(batch.files.is_empty() && site.jobs.batch_done(id).await.unwrap().is_some());
}

async fn batches_do_not_take_the_slots_of_queries(mut site: Site) {
    site.begin_work();
    // More rows that sleep for an hour than there are slots.
    let batch = site.submit("sleep", (1..=20).map(|line| super::row(line, "{}")).collect()).await;
    while site.jobs.batch_status(batch).await.unwrap().status == BatchStatus::Queued {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let id = submit(&site, QUESTION).await;
    assert_eq!(site.wait(id).await.status, BatchStatus::Success);
    site.jobs.batch_abort(batch, None).await.unwrap();
    site.end_work().await;
}

async fn a_batch_is_no_query(site: Site) {
    let batch = site.submit("validate", vec![transaction(1)]).await;
    let said = refused!(site.jobs.slow_query_done(batch).await, JobError::BatchOfOtherKind { .. });
    assert_eq!(said, format!("{batch} is of the kind batch, and this is for slow_query"));
    refused!(site.jobs.slow_query_abort(batch, None).await, JobError::BatchOfOtherKind { .. });
    let request = QueryRequest::new("bank", "validate", JsonText::default());
    refused!(site.jobs.slow_query_submit(request).await, JobError::NoProcessor(_));
}
