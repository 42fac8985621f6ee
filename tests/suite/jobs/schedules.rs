//! Schedules through `JobManager`, with a worker that submits and runs them.

use std::time::Duration;

use rowmill::jobs::{BatchRequest, JobError, QueryRequest, ScheduleRequest};
use rowmill::model::{BatchStatus, JsonText, Missed, Overlap, Schedule, Timestamp};

use super::{SOON, Site, is_store, on_each_store, refused, row, transaction};

const SECOND: &str = "* * * * * *";

on_each_store! {
    a_schedule_submits_batches_that_a_worker_runs
    a_schedule_submits_slow_queries_too
    a_paused_schedule_submits_nothing_and_goes_on_from_now
    what_is_wrong_with_a_schedule_is_said_at_once
    an_app_sees_its_own_schedules_only
    a_worker_that_ends_when_idle_submits_what_is_due_first
}

fn each_second(name: &str) -> ScheduleRequest {
    let request = BatchRequest::new("bank", "Validate").with_rows(vec![transaction(1), transaction(2)]);
    ScheduleRequest { missed: Missed::All, ..ScheduleRequest::batch(name, SECOND, request) }
}

/// Asks until it is so.
pub(super) async fn until(site: &Site, name: &str, wanted: impl Fn(&Schedule) -> bool) -> Schedule {
    tokio::time::timeout(SOON, async {
        loop {
            let schedule = site.jobs.read_schedule("bank", name).await.unwrap();
            if wanted(&schedule) {
                return schedule;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap()
}

async fn a_schedule_submits_batches_that_a_worker_runs(mut site: Site) {
    let put = site.jobs.put_schedule(each_second("s")).await.unwrap();
    assert_eq!((put.zone.as_str(), put.rows, put.op.as_str()), ("UTC", 2, "validate"));
    site.begin_work();
    let ticked = until(&site, "s", |schedule| schedule.last_at.is_some_and(|at| at >= put.next_at.after(Duration::from_secs(1)))).await;
    let batch = site.wait(ticked.last_batch.unwrap()).await;
    assert_eq!((batch.status, batch.counts.success, batch.op.as_str()), (BatchStatus::Success, 2, "validate"));
    site.jobs.remove_schedule("bank", "s").await.unwrap();
    site.end_work().await;
}

async fn a_schedule_submits_slow_queries_too(mut site: Site) {
    let input = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":700,"transactions":[]}"#;
    let query = QueryRequest::new("bank", "statement", JsonText::check(input).unwrap());
    site.jobs.put_schedule(ScheduleRequest { overlap: Overlap::Skip, ..ScheduleRequest::query("s", SECOND, query) }).await.unwrap();
    site.begin_work();
    let ticked = until(&site, "s", |schedule| schedule.last_batch.is_some()).await;
    let batch = site.wait(ticked.last_batch.unwrap()).await;
    assert_eq!((batch.status, batch.counts.rows), (BatchStatus::Success, 1));
    site.end_work().await;
}

async fn a_paused_schedule_submits_nothing_and_goes_on_from_now(site: Site) {
    let jobs = &site.jobs;
    let put = jobs.put_schedule(ScheduleRequest { cron: "@yearly".to_owned(), ..each_second("s") }).await.unwrap();
    assert_eq!(jobs.next_ticks("bank", "s", 3).await.unwrap().len(), 3);
    jobs.pause_schedule("bank", "s").await.unwrap();
    // Another line: its tick will be over when it is resumed.
    let paused = jobs.put_schedule(each_second("s")).await.unwrap();
    assert!(paused.paused && paused.next_at < put.next_at);
    until_clock(&site, paused.next_at).await;
    assert!(jobs.next_ticks("bank", "s", 1).await.unwrap()[0] > paused.next_at);
    jobs.resume_schedule("bank", "s").await.unwrap();
    let resumed = jobs.read_schedule("bank", "s").await.unwrap();
    assert!(!resumed.paused && resumed.next_at > paused.next_at, "what passed while it was paused was not missed");
    // Its other settings can be changed without its tick being lost.
    let changed = jobs.put_schedule(ScheduleRequest { overlap: Overlap::Skip, ..each_second("s") }).await.unwrap();
    assert_eq!(changed.next_at, resumed.next_at);
}

async fn until_clock(site: &Site, at: Timestamp) {
    while site.store.read_clock().await.unwrap() < at {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn what_is_wrong_with_a_schedule_is_said_at_once(site: Site) {
    let jobs = &site.jobs;
    let with = |cron: &str, zone: &str| ScheduleRequest { cron: cron.to_owned(), ..each_second("s").in_zone(zone) };
    for (request, part) in [
        (with("0 25 * * *", "UTC"), "\"25\" is no hour"),
        (with("0 0 30 2 *", "UTC"), "never comes"),
        (with("* * * * *", "Europe/Nowhere"), "there is no time zone \"Europe/Nowhere\""),
    ] {
        let said = refused!(jobs.put_schedule(request).await, JobError::Schedule(_));
        assert!(said.contains(part), "{said}");
    }
    let batch = || BatchRequest::new("bank", "validate").with_rows(vec![transaction(1)]);
    for request in [batch().held(), batch().with_key("k"), batch().in_group("g")] {
        refused!(jobs.put_schedule(ScheduleRequest::batch("s", SECOND, request)).await, JobError::ScheduledOtherwise);
    }
    let keyed = QueryRequest::new("bank", "statement", JsonText::default()).with_key("k");
    refused!(jobs.put_schedule(ScheduleRequest::query("s", SECOND, keyed)).await, JobError::ScheduledOtherwise);
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let rows = vec![row(1, &large)];
    refused!(jobs.put_schedule(ScheduleRequest::batch("s", SECOND, batch().with_rows(rows))).await, JobError::InputTooLarge { .. });
    let context = JsonText::check(large).unwrap();
    refused!(jobs.put_schedule(ScheduleRequest::batch("s", SECOND, batch().with_context(context))).await, JobError::ContextTooLarge { .. });
    let empty = jobs.put_schedule(ScheduleRequest::batch("s", SECOND, batch().with_rows(Vec::new()))).await.unwrap_err();
    is_store(&empty, "a batch needs at least one row");
    for said in [
        refused!(jobs.pause_schedule("bank", "s").await, JobError::NoSchedule { .. }),
        refused!(jobs.resume_schedule("bank", "s").await, JobError::NoSchedule { .. }),
        refused!(jobs.remove_schedule("bank", "s").await, JobError::NoSchedule { .. }),
        refused!(jobs.next_ticks("bank", "s", 1).await, JobError::NoSchedule { .. }),
    ] {
        assert_eq!(said, "app \"bank\" has no schedule \"s\"");
    }
    assert_eq!(jobs.list_schedules(None, None, 10).await.unwrap(), []);
    // A zone is kept as the database of zones writes it, and an operation may get its processor later.
    let later = BatchRequest::new("bank", "later").with_rows(vec![transaction(1)]);
    let put = jobs.put_schedule(ScheduleRequest::batch("s", SECOND, later).in_zone("europe/berlin")).await.unwrap();
    assert_eq!(put.zone, "Europe/Berlin");
}

async fn an_app_sees_its_own_schedules_only(site: Site) {
    site.jobs.put_schedule(each_second("s")).await.unwrap();
    let other = site.jobs.restricted_to("other");
    let own = BatchRequest::new("other", "op").with_rows(vec![transaction(1)]);
    other.put_schedule(ScheduleRequest::batch("s", "@daily", own)).await.unwrap();
    let apps = |schedules: Vec<Schedule>| schedules.into_iter().map(|schedule| schedule.app).collect::<Vec<_>>();
    assert_eq!(apps(other.list_schedules(None, None, 10).await.unwrap()), ["other"]);
    assert_eq!(apps(site.jobs.list_schedules(None, None, 10).await.unwrap()), ["bank", "other"]);
    assert_eq!(apps(site.jobs.list_schedules(Some("bank"), None, 10).await.unwrap()), ["bank"]);
    refused!(other.list_schedules(Some("bank"), None, 10).await, JobError::OtherApp { .. });
    refused!(other.put_schedule(each_second("s")).await, JobError::OtherApp { .. });
    refused!(other.read_schedule("bank", "s").await, JobError::OtherApp { .. });
    refused!(other.next_ticks("bank", "s", 1).await, JobError::OtherApp { .. });
    refused!(other.pause_schedule("bank", "s").await, JobError::OtherApp { .. });
    refused!(other.resume_schedule("bank", "s").await, JobError::OtherApp { .. });
    refused!(other.remove_schedule("bank", "s").await, JobError::OtherApp { .. });
    assert!(!site.jobs.read_schedule("bank", "s").await.unwrap().paused);
}

async fn a_worker_that_ends_when_idle_submits_what_is_due_first(site: Site) {
    let put = site.jobs.put_schedule(each_second("s")).await.unwrap();
    until_clock(&site, put.next_at).await;
    let settings = rowmill::worker::WorkerSettings { ends_when_idle: true, ..super::settings("idle") };
    let idle = super::manager(&site.store, &site.blobs, settings, rowmill::status::StatusBoard::in_process());
    tokio::time::timeout(SOON, idle.run()).await.unwrap().unwrap();
    let ticked = site.jobs.read_schedule("bank", "s").await.unwrap();
    assert!(ticked.last_at >= Some(put.next_at));
    let first = rowmill::schedule::batch_id(put.id, put.next_at);
    assert!(site.store.read_batch(first).await.unwrap().finished_at.is_some());
}
