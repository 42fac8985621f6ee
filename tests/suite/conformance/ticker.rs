//! The ticker over each store: which ticks are submitted, by a clock that the tests move.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{BatchId, JsonText, Missed, NewSchedule, Overlap, PartialTerms, ProcessorKind, Schedule, ScheduleKey, Timestamp};
use rowmill::schedule::{Ticker, batch_id};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::build::{row, rows, version};
use super::kit::{Kit, START};

const MINUTE: Duration = Duration::from_secs(60);
/// The first whole minute behind the start.
const FIRST: Timestamp = Timestamp(START.0 - START.0 % 60_000 + 60_000);

fn each_minute(name: &str, missed: Missed) -> NewSchedule {
    NewSchedule {
        key: ScheduleKey::new("bank", name),
        op: "post".to_owned(),
        kind: ProcessorKind::Batch,
        cron: "* * * * *".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        terms: PartialTerms::default(),
        missed,
        overlap: Overlap::Allow,
        context: JsonText::default(),
        next_at: FIRST,
    }
}

fn minute(number: u32) -> Timestamp {
    FIRST.after(MINUTE * number)
}

impl Kit {
    async fn deploy(&self, digest: &str) {
        self.store.put_processor(&version("bank", "post", ProcessorKind::Batch, digest)).await.unwrap();
    }

    async fn put_minutes(&self, name: &str, missed: Missed) -> Schedule {
        self.store.put_schedule(&each_minute(name, missed), &rows(1)).await.unwrap()
    }

    async fn run_due(&self) {
        Ticker::new(Arc::clone(&self.store), false).run_due().await.unwrap();
    }

    /// Moves the clock to so many minutes behind the first tick, and some seconds more.
    fn go_to(&self, number: u32, seconds: u64) {
        let now = rowmill::model::Clock::now(&*self.clock);
        self.pass(minute(number).after(Duration::from_secs(seconds)).since(now));
    }

    async fn now_is(&self, name: &str) -> Schedule {
        self.store.read_schedule(&ScheduleKey::new("bank", name)).await.unwrap().unwrap()
    }

    async fn is_there(&self, id: BatchId) -> bool {
        self.store.read_batch(id).await.is_ok()
    }

    /// The minutes for which a batch was submitted.
    async fn submitted(&self, schedule: &Schedule, among: u32) -> Vec<u32> {
        let mut found = Vec::new();
        for number in 0..among {
            if self.is_there(batch_id(schedule.id, minute(number))).await {
                found.push(number);
            }
        }
        found
    }
}

pub async fn what_is_due_is_submitted_with_the_active_processor(kit: Kit) {
    kit.deploy("one").await;
    kit.put_minutes("a", Missed::Skip).await;
    kit.run_due().await;
    assert_eq!(kit.now_is("a").await.last_batch, None, "nothing is due");
    for (number, digest) in [(0, "one"), (1, "two")] {
        kit.deploy(digest).await;
        kit.go_to(number, 0);
        kit.run_due().await;
        let schedule = kit.now_is("a").await;
        assert_eq!((schedule.last_at, schedule.next_at), (Some(minute(number)), minute(number + 1)));
        let batch = kit.batch(schedule.last_batch.unwrap()).await;
        assert_eq!((batch.processor_digest.as_str(), batch.processor_version), (digest, number + 1));
    }
}

pub async fn missed_ticks_are_skipped_submitted_once_or_each(kit: Kit) {
    for (missed, late, in_time) in
        [(Missed::Skip, vec![], vec![30]), (Missed::Once, vec![20], vec![20, 30]), (Missed::All, vec![0, 10, 20], vec![0, 10, 20, 30])]
    {
        let kit = kit.another().await;
        kit.deploy("one").await;
        // The first minute is the seventh of its hour.
        let new = NewSchedule { cron: "7,17,27,37,47,57 * * * *".to_owned(), ..each_minute("a", missed) };
        let schedule = kit.store.put_schedule(&new, &rows(1)).await.unwrap();
        // The last tick was five minutes ago.
        kit.go_to(25, 0);
        kit.run_due().await;
        assert_eq!(kit.submitted(&schedule, 40).await, late, "{missed:?}");
        let moved = kit.now_is("a").await;
        assert_eq!((moved.next_at, moved.last_at), (minute(30), late.last().map(|last| minute(*last))));
        // A minute is not too late.
        kit.go_to(31, 0);
        kit.run_due().await;
        assert_eq!(kit.submitted(&schedule, 40).await, in_time, "{missed:?}");
        assert_eq!(kit.now_is("a").await.next_at, minute(40));
    }
}

pub async fn of_more_missed_ticks_than_a_hundred_the_last_are_submitted(kit: Kit) {
    kit.deploy("one").await;
    let schedule = kit.put_minutes("a", Missed::All).await;
    kit.go_to(249, 59);
    kit.run_due().await;
    assert_eq!(kit.submitted(&schedule, 260).await, (150..250).collect::<Vec<_>>());
    assert_eq!(kit.now_is("a").await.next_at, minute(250));
}

pub async fn a_tick_without_a_processor_says_so_and_the_next_is_submitted(kit: Kit) {
    kit.store.put_processor(&version("bank", "post", ProcessorKind::SlowQuery, "query")).await.unwrap();
    let schedule = kit.put_minutes("a", Missed::All).await;
    let other = NewSchedule { op: "nothing".to_owned(), ..each_minute("b", Missed::All) };
    kit.store.put_schedule(&other, &rows(1)).await.unwrap();
    kit.go_to(0, 0);
    kit.run_due().await;
    let said = kit.now_is("a").await;
    assert!(
        said.error.as_ref().is_some_and(
            |error| error.contains("has no batch processor that serves the operation \"post\" (its slow-query processor does not run batches)")
        ),
        "{said:?}"
    );
    let nothing = kit.now_is("b").await;
    assert!(
        nothing.error.as_ref().is_some_and(|error| error.contains("has no batch processor that serves the operation \"nothing\":")),
        "{nothing:?}"
    );
    assert_eq!((said.last_at, said.last_batch, said.next_at), (Some(minute(0)), None, minute(1)));
    kit.deploy("batch").await;
    kit.go_to(1, 0);
    kit.run_due().await;
    assert_eq!(kit.now_is("a").await.error, None);
    assert_eq!(kit.submitted(&schedule, 5).await, [1]);
}

pub async fn ticks_go_to_the_kind_that_their_schedule_means(kit: Kit) {
    kit.deploy("rows").await;
    kit.store.put_processor(&version("bank", "post", ProcessorKind::SlowQuery, "queries")).await.unwrap();
    kit.put_minutes("rows", Missed::All).await;
    let questions = NewSchedule { kind: ProcessorKind::SlowQuery, ..each_minute("questions", Missed::All) };
    kit.store.put_schedule(&questions, &[row(0)]).await.unwrap();
    for (number, digest) in [(0, "rows"), (1, "more rows")] {
        kit.deploy(digest).await;
        kit.go_to(number, 0);
        kit.run_due().await;
        for (name, kind, digest) in [("rows", ProcessorKind::Batch, digest), ("questions", ProcessorKind::SlowQuery, "queries")] {
            let ticked = kit.now_is(name).await;
            let batch = kit.batch(ticked.last_batch.unwrap()).await;
            assert_eq!((batch.kind, batch.processor_digest.as_str(), ticked.last_at), (kind, digest, Some(minute(number))));
        }
    }
}

pub async fn a_schedule_whose_zone_is_gone_is_paused_and_stops_no_other(kit: Kit) {
    kit.deploy("one").await;
    for (name, cron, zone) in [("no zone", "* * * * *", "Europe/Nowhere"), ("no line", "every minute", "UTC"), ("never", "0 0 30 2 *", "UTC")] {
        let new = NewSchedule { cron: cron.to_owned(), zone: zone.to_owned(), ..each_minute(name, Missed::All) };
        kit.store.put_schedule(&new, &rows(1)).await.unwrap();
    }
    let good = kit.put_minutes("good", Missed::All).await;
    kit.go_to(2, 0);
    kit.run_due().await;
    for (name, part) in [("no zone", "there is no time zone \"Europe/Nowhere\""), ("no line", "has 2"), ("never", "never comes")] {
        let stopped = kit.now_is(name).await;
        assert!(stopped.paused && stopped.error.as_ref().is_some_and(|error| error.contains(part)), "{stopped:?}");
    }
    assert_eq!(kit.submitted(&good, 5).await, [0, 1, 2]);
}

pub async fn many_tickers_submit_each_tick_once(kit: Kit) {
    const TICKERS: usize = 6;
    kit.deploy("one").await;
    let mut schedules = Vec::new();
    for number in 0..12 {
        schedules.push(kit.put_minutes(&format!("schedule {number}"), Missed::All).await);
    }
    kit.go_to(9, 0);
    let (kit, barrier) = (Arc::new(kit), Arc::new(Barrier::new(TICKERS)));
    let mut tasks = JoinSet::new();
    for _ in 0..TICKERS {
        let (kit, barrier) = (Arc::clone(&kit), Arc::clone(&barrier));
        tasks.spawn(async move {
            barrier.wait().await;
            kit.run_due().await;
        });
    }
    tasks.join_all().await;
    for schedule in &schedules {
        assert_eq!(kit.submitted(schedule, 12).await, (0..10).collect::<Vec<_>>());
        let moved = kit.now_is(&schedule.name).await;
        assert_eq!((moved.next_at, moved.error), (minute(10), None));
    }
}
