//! Schedules: what is registered.

use std::time::Duration;

use rowmill::model::{
    BatchId, ClaimRequest, JsonText, Missed, NewRow, NewSchedule, Overlap, PartialTerms, ProcessorKind, SCHEDULE_BYTES_MAX, SCHEDULE_ROWS_MAX,
    Schedule, ScheduleKey, TickAction, TickEnd, TickKey, Timestamp,
};

use super::build::{SECOND, json_of, request, row, row_with, rows};
use super::kit::{Kit, START, is_invalid};

/// So many seconds after the start.
pub fn at(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

pub fn terms(priority: i32) -> PartialTerms {
    PartialTerms { priority: Some(priority), attempts_max: Some(4), ..PartialTerms::default() }
}

pub fn schedule(name: &str) -> NewSchedule {
    NewSchedule {
        key: ScheduleKey::new("bank", name),
        op: "Post".to_owned(),
        kind: ProcessorKind::Batch,
        cron: "* * * * * *".to_owned(),
        zone: "UTC".to_owned(),
        terms: terms(-2),
        missed: Missed::All,
        overlap: Overlap::Allow,
        context: JsonText::check(r#"{"branch": 7}"#).unwrap(),
        next_at: at(1),
    }
}

/// What submits a batch for the schedule's next tick, and a second later comes the next.
pub fn submit(schedule: &Schedule, batch: BatchId) -> TickAction {
    let at = schedule.next_at;
    TickAction::Submit {
        at,
        batch,
        processor_version: 3,
        processor_digest: "digest".to_owned(),
        terms: schedule.terms.clone().complete(None, None),
        next_at: at.after(SECOND),
    }
}

impl Kit {
    pub async fn put(&self, new: &NewSchedule, rows: &[NewRow]) -> Schedule {
        self.store.put_schedule(new, rows).await.unwrap()
    }

    pub async fn schedule(&self, name: &str) -> Schedule {
        self.store.read_schedule(&ScheduleKey::new("bank", name)).await.unwrap().unwrap()
    }

    pub async fn run(&self, tick: &TickKey, action: &TickAction) -> TickEnd {
        self.store.run_tick(tick, action).await.unwrap()
    }

    /// Takes up the next tick with a batch, which is submitted.
    pub async fn tick(&self, name: &str) -> BatchId {
        let (schedule, batch) = (self.schedule(name).await, BatchId::generate());
        assert_eq!(self.run(&schedule.next_tick(), &submit(&schedule, batch)).await, TickEnd::Submitted);
        batch
    }

    /// How many batches there are that nobody has begun with; none is left.
    pub async fn count_batches(&self) -> usize {
        let mut batches = Vec::new();
        loop {
            let leases = self.claim(&ClaimRequest { leases_max: 50, ..request() }).await;
            if leases.is_empty() {
                batches.sort_unstable();
                batches.dedup();
                return batches.len();
            }
            batches.extend(leases.iter().map(|lease| lease.batch));
        }
    }
}

pub async fn a_schedule_comes_back_as_it_was_registered(kit: Kit) {
    let key = ScheduleKey::new("bank", "a' \\ üb");
    assert_eq!(kit.store.read_schedule(&key).await.unwrap(), None);
    let new = NewSchedule { key: key.clone(), zone: "Europe/Berlin".to_owned(), overlap: Overlap::Skip, ..schedule("") };
    let put = kit.put(&new, &rows(3)).await;
    assert_eq!(kit.store.read_schedule(&key).await.unwrap(), Some(put.clone()));
    assert_eq!((put.key(), put.op.as_str(), put.kind), (key, "post", ProcessorKind::Batch));
    assert_eq!((put.cron.as_str(), put.zone.as_str(), put.terms, put.rows), ("* * * * * *", "Europe/Berlin", terms(-2), 3));
    assert_eq!((put.missed, put.overlap, put.paused, put.next_at), (Missed::All, Overlap::Skip, false, at(1)));
    assert_eq!((put.last_at, put.last_batch, put.error), (None, None, None));
    assert_eq!(kit.store.read_clock().await.unwrap(), START);
}

pub async fn a_schedule_that_is_changed_keeps_what_its_ticks_did(kit: Kit) {
    let first = kit.put(&schedule("a"), &rows(2)).await;
    let batch = kit.tick("a").await;
    kit.store.pause_schedule(&first.key()).await.unwrap();
    let changed = NewSchedule { cron: "@daily".to_owned(), missed: Missed::Skip, next_at: at(90), terms: terms(5), ..schedule("a") };
    let put = kit.put(&changed, &[row(9)]).await;
    assert_eq!((put.id, put.last_at, put.last_batch, put.paused), (first.id, Some(at(1)), Some(batch), true));
    assert_eq!((put.cron.as_str(), put.next_at, put.missed, put.terms, put.rows), ("@daily", at(90), Missed::Skip, terms(5), 1));
    assert_ne!(put.token, first.token);
    // It submits what it was changed to.
    kit.store.resume_schedule(&first.key(), at(91)).await.unwrap();
    let batch = kit.tick("a").await;
    assert_eq!(kit.results(batch).await.iter().map(|row| row.line).collect::<Vec<_>>(), [9]);
}

pub async fn a_tick_of_a_cron_line_that_stays_is_not_lost_by_a_change(kit: Kit) {
    kit.put(&schedule("a"), &rows(1)).await;
    let put = |cron: &str, zone: &str| NewSchedule { cron: cron.to_owned(), zone: zone.to_owned(), next_at: at(50), ..schedule("a") };
    assert_eq!(kit.put(&put("* * * * * *", "UTC"), &rows(2)).await.next_at, at(1));
    assert_eq!(kit.put(&put("* * * * * *", "Europe/Berlin"), &rows(2)).await.next_at, at(50));
    assert_eq!(kit.put(&NewSchedule { next_at: at(60), ..put("@hourly", "Europe/Berlin") }, &rows(2)).await.next_at, at(60));
}

pub async fn a_schedule_that_cannot_be_is_refused_and_nothing_is_stored(kit: Kit) {
    let many = u32::try_from(SCHEDULE_ROWS_MAX + 1).unwrap();
    let half = || json_of(SCHEDULE_BYTES_MAX / 2);
    let query = NewSchedule { kind: ProcessorKind::SlowQuery, ..schedule("a") };
    for (new, rows) in [
        (schedule(""), rows(1)),
        (schedule(&"n".repeat(256)), rows(1)),
        (NewSchedule { op: "o".repeat(256), ..schedule("a") }, rows(1)),
        (NewSchedule { terms: PartialTerms { attempts_max: Some(0), ..terms(0) }, ..schedule("a") }, rows(1)),
        (schedule("a"), rows(many)),
        (schedule("a"), vec![row_with(1, half()), row_with(2, half()), row(3)]),
        (schedule("a"), Vec::new()),
        (schedule("a"), vec![row(0)]),
        (schedule("a"), vec![row(2), row(2)]),
        (schedule("a"), vec![NewRow { rejected: Some("it is no JSON".to_owned()), ..row(1) }]),
        (query.clone(), rows(1)),
        (query, vec![row(0), row(0)]),
    ] {
        is_invalid(kit.store.put_schedule(&new, &rows).await);
    }
    assert_eq!(kit.store.list_schedules(None, None, 10).await.unwrap(), []);
    // What is just as large as it may be is taken.
    kit.put(&schedule("a"), &rows(many - 1)).await;
    kit.put(&schedule("b"), &[row_with(1, half()), row_with(2, half())]).await;
}

pub async fn schedules_are_listed_by_app_and_name_in_pages(kit: Kit) {
    for (app, name) in [("b", "one"), ("a", "two"), ("a", "one"), ("c", "one"), ("a", "three")] {
        kit.put(&NewSchedule { key: ScheduleKey::new(app, name), ..schedule("") }, &rows(1)).await;
    }
    let listed = async |app: Option<&str>, page: u32| {
        let mut all: Vec<ScheduleKey> = Vec::new();
        loop {
            let page = kit.store.list_schedules(app, all.last(), page).await.unwrap();
            if page.is_empty() {
                return all.iter().map(|key| format!("{}/{}", key.app, key.name)).collect::<Vec<_>>();
            }
            all.extend(page.iter().map(Schedule::key));
        }
    };
    for page in [1, 2, 100] {
        assert_eq!(listed(None, page).await, ["a/one", "a/three", "a/two", "b/one", "c/one"]);
        assert_eq!(listed(Some("a"), page).await, ["a/one", "a/three", "a/two"]);
        assert!(listed(Some("d"), page).await.is_empty());
    }
}
