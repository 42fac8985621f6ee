//! Guests of several apps: which rows meet in one instance, what they use, what they leave behind, and the memory that they share.

use std::time::Duration;

use futures_util::TryStreamExt;
use rowmill::jobs::{BatchRequest, JobError};
use rowmill::model::{App, AppQuota, BatchId, BatchStatus, Isolation, Limits, Meter, NewRow, Policy, Timestamp};
use rowmill::store::{OverQuota, StoreError};
use rowmill::worker::WorkerSettings;

use super::{SOON, Site, on_each_store, row, settings, transaction};
use crate::support::guests;
use crate::support::wat::{FREE, Wat, answer};

on_each_store! {
    sec_3_rows_meet_in_one_instance_as_far_as_the_isolation_says
    mem_4_what_there_is_no_memory_for_waits_and_others_go_on
    a_limit_that_fires_is_in_the_outcome_and_counted
    logs_are_read_in_line_order_while_a_batch_runs
    rows_with_more_output_than_a_batch_may_have_fail
    what_an_app_may_not_hold_is_refused_with_a_sentence
}

/// Answers how many rows its instance has run, in a global.
fn counting() -> Vec<u8> {
    let count = format!(
        "(global.set $rows (i32.add (global.get $rows) (i32.const 1)))
         (i32.store8 (i32.const {FREE}) (i32.add (i32.const 48) (global.get $rows))) {answer}",
        answer = answer(FREE, 1),
    );
    Wat::batch().fields("(global $rows (mut i32) (i32.const 0))").body("process-row", &count).module()
}

async fn outputs(site: &Site, id: BatchId) -> String {
    assert_eq!(site.wait(id).await.status, BatchStatus::Success);
    site.jobs.batch_rows(id, None, 100).await.unwrap().into_iter().map(|row| row.output.unwrap()).collect()
}

async fn sec_3_rows_meet_in_one_instance_as_far_as_the_isolation_says(mut site: Site) {
    for app in ["bank", "shop"] {
        site.jobs.register_processor(app, "count", counting()).await.unwrap();
    }
    let rows = || (1..=6).map(|line| row(line, "{}")).collect::<Vec<NewRow>>();
    for (isolation, of_app, wanted) in [
        (None, None, "121212"),
        (Some(Isolation::Row), None, "111111"),
        (Some(Isolation::Warm), None, "123456"),
        // What is said of the operation goes before what is said of its app.
        (None, Some(Isolation::Row), "111111"),
        (Some(Isolation::Lease), Some(Isolation::Row), "121212"),
    ] {
        site.store.put_policy(&Policy { isolation, ..Policy::of("bank", Some("count")) }).await.unwrap();
        site.store.put_policy(&Policy { isolation: of_app, ..Policy::of("bank", None) }).await.unwrap();
        site = site.working_by(WorkerSettings { slots: 1, lease_rows_max: 2, ..settings("one") });
        let (first, second) = (site.submit("count", rows()).await, site.submit("count", rows()).await);
        let other = site.jobs.batch_submit(BatchRequest::new("shop", "count").with_rows(rows())).await.unwrap();
        site.begin_work();
        // No batch finds what another left, whatever the mode and the app.
        assert_eq!((outputs(&site, first).await, outputs(&site, second).await), (wanted.to_owned(), wanted.to_owned()), "{isolation:?}");
        assert_eq!(outputs(&site, other).await, "121212");
        site.end_work().await;
    }
}

async fn mem_4_what_there_is_no_memory_for_waits_and_others_go_on(site: Site) {
    const MIB: u64 = 1 << 20;
    let mut site = site.working_by(WorkerSettings { slots: 4, memory_bytes: 100 * MIB, ..settings("one") });
    for (app, memory_bytes) in [("large", 80 * MIB), ("small", 16 * MIB)] {
        site.jobs.register_processor(app, "sleep", guests::read("sleeper")).await.unwrap();
        let limits = Limits { memory_bytes, timeout: SOON * 60, ..Limits::default() };
        site.jobs.register_app(&App { limits: Some(limits), ..App::named(app) }).await.unwrap();
    }
    let submit = async |app: &str, input: &str| site.jobs.batch_submit(BatchRequest::new(app, "sleep").with_rows(vec![row(1, input)])).await.unwrap();
    let first = submit("large", "{}").await;
    let status = async |id| site.store.read_batch(id).await.unwrap().status;
    let worker = tokio::spawn({
        let jobs = site.jobs.clone();
        async move { jobs.run().await }
    });
    while status(first).await != BatchStatus::Inprog {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = submit("large", r#"{"ms":1}"#).await;
    for _ in 0..3 {
        let other = submit("small", r#"{"ms":1}"#).await;
        assert_eq!(site.wait(other).await.status, BatchStatus::Success);
    }
    assert_eq!(site.store.read_batch(second).await.unwrap().counts.success, 0);
    site.jobs.batch_abort(first, None).await.unwrap();
    assert_eq!(site.wait(second).await.status, BatchStatus::Success);
    site.worker = Some(worker);
    site.end_work().await;
}

async fn a_limit_that_fires_is_in_the_outcome_and_counted(mut site: Site) {
    let limits = Limits { fuel: 200_000, fuel_per_kib: 1_000, ..Limits::default() };
    site.jobs.register_app(&App { limits: Some(limits), ..App::named("bank") }).await.unwrap();
    site.begin_work();
    let id = site.submit("misbehave", vec![row(1, r#"{"do":"ok"}"#), row(2, r#"{"do":"loop"}"#)]).await;
    assert_eq!(site.wait(id).await.counts.failed, 1);
    let rows = site.jobs.batch_rows(id, None, 9).await.unwrap();
    // Half a KiB of input counts as one.
    let told = rows[1].messages[0].text();
    assert!(told.starts_with("ran out of fuel: used 201000, the limit is 201000, in ") && told.contains("(misbehaving/src/lib.rs:"), "{told}");
    let records = site.jobs.usage("bank", Some("MISBEHAVE"), Timestamp(0), Timestamp(i64::MAX / 2)).await.unwrap();
    let mut sum = Meter::default();
    records.iter().for_each(|record| sum.add(&record.meter));
    assert_eq!((sum.success, sum.failed, sum.codes.get("out_of_fuel")), (1, 1, Some(&1)));
    assert_eq!((sum.fuel, sum.fuel_max), (rows[0].fuel + rows[1].fuel, rows[0].fuel));
    assert!(sum.micros > 0);
    let [profile] = &site.jobs.fuel_profiles("bank").await.unwrap()[..] else { panic!() };
    assert_eq!((profile.histogram.rows(), profile.percentile(99)), (1, Some(rows[0].fuel)));
    assert!(profile.suggested_limit().unwrap() >= 10 * rows[0].fuel);
    site.end_work().await;
}

async fn logs_are_read_in_line_order_while_a_batch_runs(mut site: Site) {
    site = site.working_by(WorkerSettings { lease_rows_max: 1, ..settings("one") });
    let rows = [40, 1, 20, 3].into_iter().enumerate().map(|(at, ms)| row(9 - u32::try_from(at).unwrap(), &format!(r#"{{"ms":{ms}}}"#))).collect();
    let id = site.submit("sleep", rows).await;
    let logs = site.jobs.stream_logs(id, true).await.unwrap();
    site.begin_work();
    let found: Vec<_> = tokio::time::timeout(SOON, logs.try_collect()).await.unwrap().unwrap();
    let found: Vec<(u32, &str)> = found.iter().map(|row| (row.line, row.log.as_str())).collect();
    let of = |ms: u32| format!("info: sleeping for {ms} ms\n");
    assert_eq!(found, [(6, of(3).as_str()), (7, of(20).as_str()), (8, of(1).as_str()), (9, of(40).as_str())]);
    assert_eq!(site.jobs.row_log(id, 7).await.unwrap().unwrap().log, of(20));
    assert_eq!(site.jobs.row_log(id, 5).await.unwrap(), None);
    let plain = site.submit("sleep", (1..=9).map(|line| row(line * 10, r#"{"ms":0}"#)).collect()).await;
    site.wait(plain).await;
    for line in [10, 50, 90] {
        assert_eq!(site.jobs.row_log(plain, line).await.unwrap().unwrap().line, line);
    }
    assert_eq!(site.jobs.row_log(plain, 55).await.unwrap(), None);
    let page = site.jobs.batch_logs(plain, None).await.unwrap();
    assert_eq!((page.logs.len(), site.jobs.batch_logs(plain, page.next).await.unwrap().next), (9, None));
    assert!(matches!(site.jobs.restricted_to("shop").batch_logs(plain, None).await, Err(JobError::NoBatch { .. })));
    site.end_work().await;
}

async fn rows_with_more_output_than_a_batch_may_have_fail(mut site: Site) {
    // A transaction writes a line of some dozen bytes.
    let quota = AppQuota { batch_file_bytes: Some(100), ..AppQuota::default() };
    site.jobs.register_app(&App { quota, ..App::named("bank") }).await.unwrap();
    site.begin_work();
    let id = site.submit("validate", (1..=50).map(transaction).collect()).await;
    let batch = site.wait(id).await;
    assert!(batch.counts.success > 0 && batch.counts.failed > 0, "{batch:?}");
    assert!(batch.files.iter().map(|file| file.size_bytes).sum::<u64>() <= 100 + batch.counts.success);
    let failed = site.jobs.batch_rows(id, None, 100).await.unwrap().into_iter().find(|row| !row.messages.is_empty()).unwrap();
    assert_eq!(failed.messages[0].code, "bad_output");
    assert!(failed.messages[0].values[0].ends_with("those of a batch have 100 together"), "{failed:?}");
    site.end_work().await;
}

async fn what_an_app_may_not_hold_is_refused_with_a_sentence(site: Site) {
    let quota = AppQuota { batch_rows: Some(2), queued_rows: Some(3), ..AppQuota::default() };
    site.jobs.register_app(&App { quota, ..App::named("bank") }).await.unwrap();
    let submit = |rows: u32| site.jobs.batch_submit(BatchRequest::new("bank", "validate").with_rows((1..=rows).map(transaction).collect()));
    let error = submit(3).await.unwrap_err();
    assert_eq!(error.to_string(), "the batch would have 3 rows, and a batch of app \"bank\" may have 2 at most: make several of it");
    submit(2).await.unwrap();
    let error = submit(2).await.unwrap_err();
    assert_eq!(error.to_string(), "app \"bank\" would have 4 rows without an outcome, and may have 3 at most: submit again when some have ended");
    assert!(matches!(error, JobError::Store(StoreError::OverQuota(OverQuota::QueuedRows { rows: 4, limit: 3, .. }))));
}
