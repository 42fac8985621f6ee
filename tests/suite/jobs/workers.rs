//! Who works: code from the object store, several workers, what fails on the way.

use std::time::Duration;

use rowmill::jobs::BatchRequest;
use rowmill::model::{App, BatchStatus, BatchStep, JsonText, Limits};
use rowmill::status::StatusBoard;

use super::{SOON, Site, manager, on_each_store, row, settings, transaction};

on_each_store! {
    another_process_runs_code_that_it_gets_from_the_object_store
    code_that_is_nowhere_fails_the_rows_with_configerror
    the_limits_of_an_app_hold_for_its_rows_and_no_others
    the_error_of_mark_done_is_recorded
    a_worker_is_listed_while_it_works
    a_worker_that_ends_gives_back_what_it_did_not_run
    leases_yield_when_another_app_submits
}

async fn another_process_runs_code_that_it_gets_from_the_object_store(site: Site) {
    let id = site.submit("validate", vec![transaction(1)]).await;
    let cache = tempfile::tempdir().unwrap();
    for _ in ["it compiles", "it is compiled"] {
        let other = site.another(&cache);
        let working = tokio::spawn({
            let other = other.clone();
            async move { other.run().await }
        });
        let id =
            if site.store.read_batch(id).await.unwrap().step == BatchStep::Rows { id } else { site.submit("validate", vec![transaction(1)]).await };
        assert_eq!(site.wait(id).await.status, BatchStatus::Success);
        other.shutdown();
        working.await.unwrap().unwrap();
        // The second one finds compiled code, though there is no other.
        let _ = std::fs::remove_dir_all(site.objects.path().join("processors"));
    }
}

async fn code_that_is_nowhere_fails_the_rows_with_configerror(site: Site) {
    let id = site.submit("validate", vec![transaction(1), transaction(2)]).await;
    std::fs::remove_dir_all(site.objects.path().join("processors")).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let other = site.another(&cache);
    let working = tokio::spawn({
        let other = other.clone();
        async move { other.run().await }
    });
    let batch = site.wait(id).await;
    assert_eq!((batch.status, batch.counts.failed), (BatchStatus::Failed, 2));
    for row in site.jobs.batch_rows(id, None, 10).await.unwrap() {
        assert_eq!(row.messages[0].code, "configerror");
        assert!(row.messages[0].values[0].contains("is not in the object store"), "{row:?}");
    }
    other.shutdown();
    working.await.unwrap().unwrap();
    // mark-done could not be called, and that can be seen.
    let error = site.jobs.batch_done(id).await.unwrap().unwrap().mark_error.unwrap();
    assert!(error.contains("is not in the object store"), "{error}");
}

async fn the_limits_of_an_app_hold_for_its_rows_and_no_others(mut site: Site) {
    site.jobs.register_processor("small", "validate", crate::support::guests::read("bank-transactions")).await.unwrap();
    let limits = Limits { fuel: 10, ..Limits::default() };
    site.jobs.register_app(&App { limits: Some(limits), ..App::named("small") }).await.unwrap();
    let small = site.jobs.batch_submit(BatchRequest::new("small", "validate").with_rows(vec![transaction(1)])).await.unwrap();
    let other = site.submit("validate", vec![transaction(1)]).await;
    site.begin_work();
    assert_eq!((site.wait(small).await.status, site.wait(other).await.status), (BatchStatus::Failed, BatchStatus::Success));
    let row = site.jobs.batch_rows(small, None, 1).await.unwrap().remove(0);
    assert_eq!(row.messages[0].code, "configerror", "it has not even the fuel to start: {row:?}");
    site.end_work().await;
}

async fn the_error_of_mark_done_is_recorded(mut site: Site) {
    site.begin_work();
    let context = JsonText::check(r#"{"mark_done":{"do":"fail-permanent"}}"#).unwrap();
    let request = BatchRequest::new("bank", "misbehave").with_rows(vec![row(1, r#"{"do":"ok"}"#)]).with_context(context);
    let id = site.jobs.batch_submit(request).await.unwrap();
    let batch = site.wait(id).await;
    assert_eq!(batch.status, BatchStatus::Success, "it is no row that failed");
    assert!(batch.mark_error.is_some());
    site.end_work().await;
}

async fn a_worker_is_listed_while_it_works(mut site: Site) {
    assert_eq!(site.jobs.list_workers().await.unwrap(), []);
    site.begin_work();
    let id = site.submit("sleep", vec![row(1, "{}"), row(2, "{}"), row(3, "{}")]).await;
    let listed = tokio::time::timeout(SOON, async {
        loop {
            let workers = site.jobs.list_workers().await.unwrap();
            if workers.iter().any(|worker| worker.runs.iter().any(|run| run.leases == 2)) {
                return workers;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let listed = listed.await.unwrap();
    assert_eq!((listed.len(), listed[0].info.name.as_str(), listed[0].info.slots, listed[0].info.query_slots), (1, "one", 2, 1));
    assert_eq!((listed[0].info.pid, listed[0].runs[0].app.as_str(), listed[0].runs[0].op.as_str()), (std::process::id(), "bank", "sleep"));
    site.jobs.batch_abort(id, None).await.unwrap();
    site.wait(id).await;
    site.end_work().await;
    assert_eq!(site.jobs.list_workers().await.unwrap(), []);
}

async fn a_worker_that_ends_gives_back_what_it_did_not_run(mut site: Site) {
    site.begin_work();
    let id = site.submit("sleep", (1..=3).map(|line| row(line, r#"{"ms":700}"#)).collect()).await;
    while site.jobs.list_workers().await.unwrap().iter().all(|worker| worker.runs.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The grace is shorter than the nap.
    site.end_work().await;
    let batch = site.store.read_batch(id).await.unwrap();
    assert_eq!((batch.status, batch.counts.success), (BatchStatus::Inprog, 0));
    let next = manager(&site.store, &site.blobs, settings("next"), StatusBoard::in_process());
    let working = tokio::spawn({
        let next = next.clone();
        async move { next.run().await }
    });
    assert_eq!(site.wait(id).await.status, BatchStatus::Success);
    next.shutdown();
    working.await.unwrap().unwrap();
    for row in site.jobs.batch_rows(id, None, 10).await.unwrap() {
        assert_eq!(row.attempts, 1, "what is given back is no attempt: {row:?}");
    }
}

async fn leases_yield_when_another_app_submits(mut site: Site) {
    site.jobs.register_processor("shop", "validate", crate::support::guests::read("bank-transactions")).await.unwrap();
    site.begin_work();
    // Two leases of 25 rows, which take five seconds each, in all slots that there are.
    let large = site.submit("sleep", (1..=50).map(|line| row(line, r#"{"ms":200}"#)).collect()).await;
    while site.store.read_batch(large).await.unwrap().counts.success == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let small = site.jobs.batch_submit(BatchRequest::new("shop", "validate").with_rows(vec![transaction(1)])).await.unwrap();
    assert_eq!(site.wait(small).await.status, BatchStatus::Success);
    let ran = site.store.read_batch(large).await.unwrap().counts.success;
    // Of a lease that runs to its end so many rows are recorded before its slot is free.
    assert!(ran < 20, "{ran} rows ran before the slot was free");
    site.jobs.batch_abort(large, None).await.unwrap();
    site.end_work().await;
}
