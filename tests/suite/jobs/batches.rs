//! Batches: Alya's operations one by one, and what is refused.

use futures_util::TryStreamExt;
use rowmill::jobs::{BatchRequest, JobError, KeepError};
use rowmill::model::{App, BatchId, BatchStatus, ClaimRequest, INPUT_BYTES_MAX, Limits, RetryRows, RowStatus};
use rowmill::store::ResultCursor;
use sqlx::Connection;

use super::{Site, is_store, on_each_store, refused, row, transaction};
use crate::support::guests;

on_each_store! {
    a_held_batch_takes_rows_until_it_is_released
    results_come_when_a_batch_has_ended_and_progress_always
    an_abort_keeps_what_was_done_and_stops_what_runs
    a_finished_batch_is_not_aborted
    sec_1_an_app_sees_its_own_batches_only
    what_cannot_be_submitted_is_refused_with_a_sentence
    what_cannot_be_appended_leaves_the_batch_as_it_was
    an_append_with_a_refused_part_takes_no_other
    a_new_version_serves_new_batches_and_the_old_one_those_that_have_it
    a_batch_with_a_key_is_there_once
    many_who_submit_with_one_key_get_one_batch
    the_failed_rows_of_a_batch_are_retried
}

async fn a_held_batch_takes_rows_until_it_is_released(mut site: Site) {
    site.begin_work();
    let jobs = site.jobs.clone();
    let id = jobs.batch_submit(BatchRequest::new("bank", "VaLiDaTe").with_rows(vec![transaction(1)]).held()).await.unwrap();
    assert_eq!(jobs.batch_append(id, vec![transaction(2), transaction(3)], false).await.unwrap(), 3);
    let status = jobs.batch_status(id).await.unwrap();
    assert_eq!((status.op.as_str(), status.status, status.counts.rows), ("validate", BatchStatus::Wait, 3));
    assert_eq!(jobs.batch_append(id, vec![transaction(4)], true).await.unwrap(), 4);
    let batch = site.wait(id).await;
    assert_eq!((batch.status, batch.counts.success), (BatchStatus::Success, 4));
    is_store(&jobs.batch_append(id, vec![transaction(5)], false).await.unwrap_err(), "rows can be appended only while it is held");
    is_store(&jobs.release(id).await.unwrap_err(), "only a held batch can be released");
    site.end_work().await;

    let id = jobs.batch_submit(BatchRequest::new("bank", "validate").held()).await.unwrap();
    is_store(&jobs.release(id).await.unwrap_err(), "has no rows");
    jobs.batch_append(id, vec![transaction(1)], false).await.unwrap();
    for _ in 0..3 {
        assert_eq!(jobs.release(id).await.unwrap(), 1, "releasing again changes nothing");
    }
}

async fn a_batch_with_a_key_is_there_once(mut site: Site) {
    let jobs = site.jobs.clone();
    let request = || BatchRequest::new("bank", "validate").with_rows(vec![transaction(1), transaction(2)]).with_key("january");
    let id = jobs.batch_submit(request()).await.unwrap();
    assert_eq!(jobs.batch_submit(BatchRequest { op: "VALIDATE".to_owned(), ..request() }).await.unwrap(), id);
    let other = BatchRequest { rows: vec![transaction(1), transaction(3)], ..request() };
    let said = refused!(jobs.batch_submit(other).await, JobError::KeyReused { .. });
    assert!(said.starts_with(&format!("the key \"january\" is that of batch {id}, which was submitted with another request")), "{said}");
    assert_ne!(jobs.batch_submit(request().with_key("february")).await.unwrap(), id);
    let said = refused!(jobs.batch_submit(request().with_key("")).await, JobError::BadKey(_));
    assert_eq!(said, "the key of a submission is empty: it has 1 to 255 bytes");

    // Also when it has ended, and when another version is the newest.
    site.begin_work();
    site.wait(id).await;
    jobs.register_processor("bank", "validate", guests::read("sleeper")).await.unwrap();
    assert_eq!(jobs.batch_submit(request()).await.unwrap(), id);
    let found = jobs.store().read_batch(id).await.unwrap();
    assert_eq!((found.counts.success, found.processor_version), (2, 1));
    site.end_work().await;

    // In a transaction of the caller's own, too, which is as good as before afterwards.
    if let Some(store) = &site.postgres {
        let url = site.database.as_ref().unwrap().url();
        let mut mine = sqlx::PgConnection::connect(&url).await.unwrap();
        let mut transaction = mine.begin().await.unwrap();
        let new = jobs.batch_submit_in(store, &mut transaction, request().with_key("march")).await.unwrap();
        for (request, wanted) in [(request(), id), (request().with_key("march"), new)] {
            assert_eq!(jobs.batch_submit_in(store, &mut transaction, request).await.unwrap(), wanted);
        }
        transaction.commit().await.unwrap();
        assert_eq!(jobs.store().read_batch(new).await.unwrap().counts.rows, 2);
    }
}

async fn many_who_submit_with_one_key_get_one_batch(site: Site) {
    let rows: Vec<_> = (1..=200).map(transaction).collect();
    let submit = || {
        let (jobs, request) = (site.jobs.clone(), BatchRequest::new("bank", "validate").with_rows(rows.clone()).with_key("one"));
        tokio::spawn(async move { jobs.batch_submit(request).await.unwrap() })
    };
    let submitted: Vec<_> = (0..12).map(|_| submit()).collect();
    let mut ids = std::collections::HashSet::new();
    for submitted in submitted {
        ids.insert(submitted.await.unwrap());
    }
    let [id] = ids.into_iter().collect::<Vec<_>>()[..] else { panic!("several batches") };
    assert_eq!(site.jobs.store().read_batch(id).await.unwrap().counts.rows, 200);
}

async fn the_failed_rows_of_a_batch_are_retried(mut site: Site) {
    site.begin_work();
    let jobs = site.jobs.clone();
    let id = site.submit("validate", vec![transaction(1), row(2, "{}"), transaction(3)]).await;
    let first = site.wait(id).await;
    let all = RetryRows::default();
    let shop = jobs.restricted_to("shop");
    assert_eq!(refused!(shop.batch_retry(id, &all).await, JobError::NoBatch { .. }), format!("there is no batch {id} of app \"shop\""));
    refused!(shop.batch_rounds(id, 0, 1).await, JobError::NoBatch { .. });
    refused!(shop.past_outcomes(id, None, 1).await, JobError::NoBatch { .. });
    // Its processor is told first.
    let retried = loop {
        match jobs.batch_retry(id, &all).await {
            Ok(retried) => break retried,
            Err(error) => is_store(&error, "it can be retried once it has ended"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((retried.round, retried.rows), (2, 1));
    assert_eq!(jobs.batch_status(id).await.unwrap().round, 2, "it is not what it was");
    let second = site.wait(id).await;
    assert_eq!((second.round, second.status, second.counts), (2, BatchStatus::Failed, first.counts));
    assert_eq!(
        second.files.iter().map(|file| (&file.name, file.size_bytes)).collect::<Vec<_>>(),
        first.files.iter().map(|file| (&file.name, file.size_bytes)).collect::<Vec<_>>()
    );
    assert!(second.files.iter().all(|file| !first.files.contains(file)), "files are joined anew");
    let rounds = jobs.batch_rounds(id, 0, 10).await.unwrap();
    assert_eq!((rounds.len(), &rounds[0].files, rounds[0].counts), (1, &first.files, first.counts));
    let past = jobs.past_outcomes(id, None, 10).await.unwrap();
    assert_eq!((past.len(), past[0].line, past[0].messages[0].code.as_str()), (1, 2, "bad_input"));
    site.end_work().await;
}

async fn results_come_when_a_batch_has_ended_and_progress_always(mut site: Site) {
    let jobs = site.jobs.clone();
    let rows = (1..=250).map(|line| if line == 7 { row(7, "{}") } else { transaction(line) }).collect();
    let id = site.submit("validate", rows).await;
    assert!(jobs.batch_done(id).await.unwrap().is_none());
    let said = refused!(jobs.batch_rows(id, None, 10).await, JobError::NotFinal { .. });
    assert_eq!(said, format!("batch {id} is queued: results can be read once it has ended"));
    assert!(matches!(jobs.stream_rows(id).await, Err(JobError::NotFinal { .. })));
    assert_eq!(jobs.batch_status(id).await.unwrap().counts.rows, 250);

    site.begin_work();
    site.wait(id).await;
    let done = jobs.batch_done(id).await.unwrap().unwrap();
    assert_eq!((done.status, done.counts.success, done.counts.failed), (BatchStatus::Failed, 249, 1));
    let first = jobs.batch_rows(id, None, 100).await.unwrap();
    let last = first.last().unwrap();
    let second = jobs.batch_rows(id, Some(ResultCursor { line: last.line, row_no: last.row_no }), 100).await.unwrap();
    assert_eq!((first[0].line, last.line, second[0].line), (1, 100, 101));
    let all: Vec<_> = jobs.stream_rows(id).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.iter().map(|row| row.line).collect::<Vec<_>>(), (1..=250).collect::<Vec<_>>());
    assert_eq!(all[6].messages[0].code, "bad_input", "{:?}", all[6].messages);
    site.end_work().await;
}

async fn an_abort_keeps_what_was_done_and_stops_what_runs(mut site: Site) {
    site.begin_work();
    let jobs = site.jobs.clone();
    let limits = Limits { timeout: super::SOON * 60, ..Limits::default() };
    jobs.register_app(&App { limits: Some(limits), ..App::named("bank") }).await.unwrap();
    // What took half a second is recorded; the others sleep for an hour.
    let rows = std::iter::once(row(1, r#"{"ms":600}"#)).chain((2..=50).map(|line| row(line, "{}"))).collect();
    let id = site.submit("sleep", rows).await;
    while jobs.store().read_batch(id).await.unwrap().counts.success == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let aborted = jobs.batch_abort(id, Some("it takes too long")).await.unwrap();
    assert!(aborted.changed && aborted.status == BatchStatus::Aborted, "{aborted:?}");
    assert_eq!((aborted.counts.success, aborted.counts.aborted), (1, 49));
    assert_eq!(jobs.batch_status(id).await.unwrap().status, BatchStatus::Aborted);
    let batch = site.wait(id).await;
    assert_eq!(batch.abort_reason.as_deref(), Some("it takes too long"));
    let rows = jobs.batch_rows(id, None, 100).await.unwrap();
    assert_eq!((rows[0].status, rows[49].status), (Some(RowStatus::Success), Some(RowStatus::Aborted)));
    // The guests that slept are gone: the worker has no slot but these.
    let next = site.submit("sleep", vec![row(1, r#"{"ms":1}"#), row(2, r#"{"ms":1}"#)]).await;
    assert_eq!(site.wait(next).await.status, BatchStatus::Success);
    site.end_work().await;
}

async fn a_finished_batch_is_not_aborted(mut site: Site) {
    site.begin_work();
    let id = site.submit("validate", vec![transaction(1)]).await;
    site.wait(id).await;
    let aborted = site.jobs.batch_abort(id, None).await.unwrap();
    assert!(!aborted.changed && aborted.status == BatchStatus::Success, "{aborted:?}");
    assert_eq!(site.jobs.batch_done(id).await.unwrap().unwrap().abort_reason, None);
    site.end_work().await;
}

async fn sec_1_an_app_sees_its_own_batches_only(site: Site) {
    site.jobs.register_processor("shop", "validate", crate::support::guests::read("bank-transactions")).await.unwrap();
    let id = site.submit("validate", vec![transaction(1)]).await;
    let (bank, shop) = (site.jobs.restricted_to("bank"), site.jobs.restricted_to("shop"));
    assert_eq!(bank.batch_status(id).await.unwrap().app, "bank");
    let no_batch = format!("there is no batch {id} of app \"shop\"");
    // Known to the cache or not.
    for _ in 0..2 {
        assert_eq!(refused!(shop.batch_status(id).await, JobError::NoBatch { .. }), no_batch);
        site.jobs.batch_status(id).await.unwrap();
    }
    assert_eq!(refused!(shop.batch_done(id).await, JobError::NoBatch { .. }), no_batch);
    assert_eq!(refused!(shop.batch_rows(id, None, 1).await, JobError::NoBatch { .. }), no_batch);
    assert_eq!(refused!(shop.batch_append(id, vec![transaction(2)], true).await, JobError::NoBatch { .. }), no_batch);
    assert_eq!(refused!(shop.release(id).await, JobError::NoBatch { .. }), no_batch);
    assert_eq!(refused!(shop.batch_abort(id, None).await, JobError::NoBatch { .. }), no_batch);
    assert_eq!(refused!(shop.slow_query_done(id).await, JobError::NoBatch { .. }), no_batch);
    assert_eq!(refused!(shop.slow_query_abort(id, None).await, JobError::NoBatch { .. }), no_batch);
    let lease = ClaimRequest {
        worker: "seen".to_owned(),
        kind: None,
        apps_except: Vec::new(),
        leases_max: 1,
        rows_max: 1,
        target: super::SOON,
        slots: 1,
        ttl: super::SOON,
    };
    site.store.beat_worker(&super::worker_info("seen")).await.unwrap();
    assert_eq!(site.store.claim_leases(&lease).await.unwrap().len(), 1);
    assert_eq!(bank.list_workers().await.unwrap()[0].runs.len(), 1);
    assert_eq!(shop.list_workers().await.unwrap()[0].runs, []);
    refused!(shop.batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)])).await, JobError::OtherApp { .. });
    assert_eq!(site.store.read_batch(id).await.unwrap().counts.rows, 1, "nothing was changed");
    // Files in the object store are not one app's.
    let kept = site.jobs.keep_file("id", std::io::Cursor::new("rows")).await.unwrap();
    assert!(matches!(shop.keep_file("id", std::io::empty()).await, Err(KeepError::Jobs(JobError::FilesOfAllApps { .. }))));
    assert!(matches!(shop.open_object(&kept.object).await.map(drop), Err(JobError::FilesOfAllApps { .. })));
    refused!(shop.remove_kept_file("id").await, JobError::FilesOfAllApps { .. });
    refused!(shop.limits_of("bank").await, JobError::OtherApp { .. });
    assert_eq!(site.blobs.get(&kept.object).await.unwrap(), "rows");
    let unknown = BatchId::generate();
    assert_eq!(refused!(bank.batch_status(unknown).await, JobError::NoBatch { .. }), format!("there is no batch {unknown} of app \"bank\""));
    assert_eq!(refused!(site.jobs.batch_done(unknown).await, JobError::NoBatch { .. }), format!("there is no batch {unknown}"));
}

async fn what_cannot_be_submitted_is_refused_with_a_sentence(site: Site) {
    let jobs = &site.jobs;
    let request = || BatchRequest::new("bank", "validate");
    let said = refused!(jobs.batch_submit(BatchRequest::new("bank", "Nope").with_rows(vec![transaction(1)])).await, JobError::NoProcessor(_));
    assert_eq!(
        said,
        "app \"bank\" has no batch processor that serves the operation \"nope\": deploy one and activate it (rowmill deploy --activate)"
    );
    refused!(jobs.batch_submit(BatchRequest::new("ban", "kvalidate").with_rows(vec![transaction(1)])).await, JobError::NoProcessor(_));
    let said = refused!(jobs.batch_submit(BatchRequest::new("bank", "statement").with_rows(vec![transaction(1)])).await, JobError::NoProcessor(_));
    assert!(said.contains("(its slow-query processor does not run batches)"), "{said}");
    is_store(&jobs.batch_submit(request()).await.unwrap_err(), "a batch needs at least one row");
    is_store(&jobs.batch_submit(request().with_rows(vec![transaction(1), row(0, "{}")])).await.unwrap_err(), "but row 2 of this request has 0");
    is_store(&jobs.batch_submit(request().with_rows(vec![transaction(3), transaction(3)])).await.unwrap_err(), "line 3 comes twice");
    let large = format!("\"{}\"", "x".repeat(10 << 20));
    let said = refused!(jobs.batch_submit(request().with_rows(vec![row(9, &large)])).await, JobError::InputTooLarge { .. });
    assert_eq!(said, format!("the input of line 9 has {} bytes, and may have {INPUT_BYTES_MAX} at most", large.len()));
    let context = rowmill::model::JsonText::check(large).unwrap();
    refused!(jobs.batch_submit(request().with_rows(vec![transaction(1)]).with_context(context)).await, JobError::ContextTooLarge { .. });
    assert!(rowmill::model::JsonText::check("{oops").unwrap_err().to_string().starts_with("not valid JSON: "));
    let said = refused!(jobs.register_processor("bank", "text", b"no wasm".to_vec()).await, JobError::Unusable(_));
    assert_eq!(said, "this is no processor that can be used");
    let queries = crate::support::guests::read("account-statement");
    let said = refused!(jobs.register_batch_processor("bank", "Statement", queries).await, JobError::OtherKind { .. });
    assert_eq!(
        said,
        "this component is a slow-query processor, and a batch processor was to be registered for the operation \"statement\" of app \"bank\""
    );
    // Nothing of all this is there.
    let everything = ClaimRequest {
        worker: "nobody".to_owned(),
        kind: None,
        apps_except: Vec::new(),
        leases_max: 100,
        rows_max: 100,
        target: super::SOON,
        slots: 100,
        ttl: super::SOON,
    };
    assert_eq!(jobs.store().claim_leases(&everything).await.unwrap(), []);
    assert_eq!(jobs.store().list_processors(Some("bank")).await.unwrap().len(), 4);
}

async fn an_append_with_a_refused_part_takes_no_other(site: Site) {
    let jobs = site.jobs.clone();
    let id = jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)]).held()).await.unwrap();
    let lost = "nothing of the file was appended";
    // The line of the first part stands in the batch; the part is written when the second one comes.
    let mut append = jobs.append_file(id, None).await.unwrap();
    append.push(vec![transaction(1)]).await.unwrap();
    is_store(&append.push(vec![transaction(2)]).await.unwrap_err(), "line 1");
    is_store(&append.push(vec![transaction(3)]).await.unwrap_err(), lost);
    is_store(&append.renew().await.unwrap_err(), lost);
    is_store(&append.end(None).await.unwrap_err(), lost);
    // A row that is too large is refused before the store sees it.
    let mut append = jobs.append_file(id, None).await.unwrap();
    append.push(vec![transaction(2)]).await.unwrap();
    let large = row(3, &format!("\"{}\"", "x".repeat(INPUT_BYTES_MAX)));
    assert!(matches!(append.push(vec![large]).await.unwrap_err(), JobError::InputTooLarge { .. }));
    is_store(&append.end(None).await.unwrap_err(), lost);
    assert_eq!(jobs.batch_status(id).await.unwrap().counts.rows, 1);
    assert_eq!(jobs.batch_append(id, vec![transaction(2)], false).await.unwrap(), 2);
}

async fn what_cannot_be_appended_leaves_the_batch_as_it_was(site: Site) {
    let jobs = &site.jobs;
    let id = jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![transaction(5)]).held()).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(10 << 20));
    refused!(jobs.batch_append(id, vec![transaction(6), row(7, &large)], true).await, JobError::InputTooLarge { .. });
    is_store(&jobs.batch_append(id, vec![transaction(6), transaction(5)], true).await.unwrap_err(), "line 5 comes twice");
    is_store(&jobs.batch_append(id, vec![transaction(6), row(0, "{}")], true).await.unwrap_err(), "a row's line is 1 or more");
    let batch = jobs.store().read_batch(id).await.unwrap();
    assert_eq!((batch.status, batch.counts.rows), (BatchStatus::Wait, 1));
}

async fn a_new_version_serves_new_batches_and_the_old_one_those_that_have_it(mut site: Site) {
    let jobs = site.jobs.clone();
    let old = site.submit("validate", vec![transaction(1)]).await;
    let again = jobs.register_processor("bank", "validate", crate::support::guests::read("bank-transactions")).await.unwrap();
    assert_eq!(again.version, 1, "the same code is the same version");
    let version = jobs.register_processor("bank", "VALIDATE", crate::support::guests::read("misbehaving")).await.unwrap();
    assert_eq!((version.op.as_str(), version.version), ("validate", 2));
    let new = site.submit("validate", vec![transaction(1)]).await;
    site.begin_work();
    let (old, new) = (site.wait(old).await, site.wait(new).await);
    assert_eq!((old.processor_version, new.processor_version), (1, 2));
    let output = |id| async move { site.jobs.batch_rows(id, None, 1).await.unwrap().remove(0).output };
    assert!(output(old.id).await.unwrap().contains("change_cents"));
    let jobs = jobs.batch_rows(new.id, None, 1).await.unwrap().remove(0).output;
    assert!(!jobs.unwrap_or_default().contains("change_cents"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_the_callers_transaction_exists_if_that_commits() {
    let mut site = Site::postgres().await.with_processors().await;
    let (store, url) = (site.postgres.clone().unwrap(), site.database.as_ref().unwrap().url());
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE orders (id int PRIMARY KEY)").execute(&mut connection).await.unwrap();
    let request = |line| BatchRequest::new("bank", "validate").with_rows(vec![transaction(line)]);

    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *transaction).await.unwrap();
    let undone = site.jobs.batch_submit_in(&store, &mut transaction, request(1)).await.unwrap();
    assert!(matches!(site.jobs.batch_done(undone).await, Err(JobError::NoBatch { .. })), "it is not there before the commit");
    transaction.rollback().await.unwrap();
    assert!(matches!(site.jobs.batch_done(undone).await, Err(JobError::NoBatch { .. })));

    site.begin_work();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("INSERT INTO orders VALUES (2)").execute(&mut *transaction).await.unwrap();
    let id = site.jobs.batch_submit_in(&store, &mut transaction, request(2)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(site.wait(id).await.status, BatchStatus::Success);
    let orders: Vec<i32> = sqlx::query_scalar("SELECT id FROM orders").fetch_all(&mut connection).await.unwrap();
    assert_eq!(orders, [2]);
    site.end_work().await;
}
