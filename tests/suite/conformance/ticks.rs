//! Schedules: each tick is taken up once, and its batch comes in with it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rowmill::model::{BatchId, BatchStatus, ClaimRequest, NewSchedule, Overlap, ProcessorKind, Schedule, ScheduleKey, TickAction, TickEnd, TickKey};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::build::{SECOND, request, row, row_with, rows};
use super::kit::{Kit, is_invalid};
use super::scheduled::{at, schedule, submit, terms};

pub async fn ticks_come_in_their_order_and_not_while_paused(kit: Kit) {
    assert!(kit.store.coming_ticks(5).await.unwrap().is_none());
    for (name, seconds) in [("later", 30), ("first", 10), ("second", 20)] {
        kit.put(&NewSchedule { next_at: at(seconds), ..schedule(name) }, &rows(1)).await;
    }
    kit.pass(Duration::from_secs(15));
    let coming = async |limit| {
        let coming = kit.store.coming_ticks(limit).await.unwrap().unwrap();
        (coming.now, coming.schedules.into_iter().map(|schedule| schedule.name).collect::<Vec<_>>())
    };
    assert_eq!(coming(5).await, (at(15), ["first", "second", "later"].map(str::to_owned).to_vec()));
    assert_eq!(coming(1).await.1, ["first"]);
    let first = ScheduleKey::new("bank", "first");
    assert!(kit.store.pause_schedule(&first).await.unwrap());
    assert!(kit.store.pause_schedule(&first).await.unwrap());
    assert_eq!(coming(5).await.1, ["second", "later"]);
    assert!(kit.store.resume_schedule(&first, at(25)).await.unwrap());
    assert_eq!(coming(5).await.1, ["second", "first", "later"]);
    // One that is not paused stays as it is.
    assert!(kit.store.resume_schedule(&first, at(99)).await.unwrap());
    assert_eq!(kit.schedule("first").await.next_at, at(25));
    let nobody = ScheduleKey::new("bank", "nobody");
    assert!(!kit.store.pause_schedule(&nobody).await.unwrap() && !kit.store.resume_schedule(&nobody, at(1)).await.unwrap());
}

pub async fn a_tick_submits_the_batch_with_its_rows_and_moves_on(kit: Kit) {
    // Lines need not grow, and an app's name may be any text.
    let new = NewSchedule { key: ScheduleKey::new("b' \\ ük", "a"), ..schedule("") };
    let put = kit.put(&new, &[row(5), row(2), row_with(9, "[1,  2]".to_owned())]).await;
    kit.pass(Duration::from_secs(2));
    let id = BatchId::generate();
    assert_eq!(kit.run(&put.next_tick(), &submit(&put, id)).await, TickEnd::Submitted);
    let batch = kit.batch(id).await;
    assert_eq!((batch.app.as_str(), batch.op.as_str(), batch.kind, batch.status), ("b' \\ ük", "post", ProcessorKind::Batch, BatchStatus::Queued));
    assert_eq!((batch.terms.priority, batch.terms.attempts_max, batch.context.as_str()), (-2, 4, r#"{"branch": 7}"#));
    assert_eq!((batch.processor_version, batch.processor_digest.as_str(), batch.submitted_at), (3, "digest", at(2)));
    let rows: Vec<(u32, String)> = kit.results(id).await.into_iter().map(|row| (row.line, row.input)).collect();
    assert_eq!(rows, [(2, r#"{"line":2}"#), (5, r#"{"line":5}"#), (9, "[1,  2]")].map(|(line, input)| (line, input.to_owned())));
    let moved = kit.store.read_schedule(&put.key()).await.unwrap().unwrap();
    assert_eq!(moved, Schedule { next_at: at(2), last_at: Some(at(1)), last_batch: Some(id), ..put });
    assert_eq!(kit.count_batches().await, 1);
}

pub async fn a_tick_submits_a_slow_query_too(kit: Kit) {
    let query = NewSchedule { kind: ProcessorKind::SlowQuery, ..schedule("a") };
    kit.put(&query, &[row(0)]).await;
    let id = kit.tick("a").await;
    let batch = kit.batch(id).await;
    assert_eq!((batch.kind, batch.counts.rows), (ProcessorKind::SlowQuery, 1));
    let lease = kit.claim(&ClaimRequest { kind: Some(ProcessorKind::SlowQuery), ..request() }).await[0];
    assert_eq!(kit.read(&lease).await[0].line, 0);
}

pub async fn a_tick_that_is_not_the_next_one_does_nothing(kit: Kit) {
    let put = kit.put(&schedule("a"), &rows(1)).await;
    let (old, action) = (put.next_tick(), submit(&put, BatchId::generate()));
    kit.tick("a").await;
    let before = kit.schedule("a").await;
    let again = [
        old.clone(),
        TickKey { next_at: at(3), ..before.next_tick() },
        TickKey { schedule: ScheduleKey::new("bank", "b"), ..before.next_tick() },
        TickKey { schedule: ScheduleKey::new("other", "a"), ..before.next_tick() },
    ];
    for tick in again {
        let action = TickAction::Fail { at: tick.next_at, error: "it is late".to_owned(), next_at: tick.next_at.after(SECOND) };
        assert_eq!(kit.run(&tick, &action).await, TickEnd::Gone);
    }
    assert_eq!(kit.run(&old, &action).await, TickEnd::Gone);
    assert_eq!(kit.schedule("a").await, before);
    assert_eq!(kit.count_batches().await, 1);
}

pub async fn a_tick_of_a_schedule_that_was_changed_does_nothing(kit: Kit) {
    let key = ScheduleKey::new("bank", "a");
    for change in 0..3 {
        let put = kit.put(&schedule("a"), &rows(1)).await;
        match change {
            0 => drop(kit.put(&schedule("a"), &rows(2)).await),
            1 => assert!(kit.store.pause_schedule(&key).await.unwrap()),
            // Resumed at the same tick: it is another one all the same.
            _ => {
                kit.store.pause_schedule(&key).await.unwrap();
                kit.store.resume_schedule(&key, put.next_at).await.unwrap();
            }
        }
        assert_eq!(kit.run(&put.next_tick(), &submit(&put, BatchId::generate())).await, TickEnd::Gone);
        kit.store.resume_schedule(&key, put.next_at).await.unwrap();
    }
    // A paused one has no ticks, even for who knows it.
    kit.store.pause_schedule(&key).await.unwrap();
    let paused = kit.schedule("a").await;
    assert_eq!(kit.run(&paused.next_tick(), &submit(&paused, BatchId::generate())).await, TickEnd::Gone);
    assert_eq!(kit.count_batches().await, 0);
}

pub async fn a_removed_schedule_leaves_its_batches_and_has_no_ticks(kit: Kit) {
    let put = kit.put(&schedule("a"), &rows(2)).await;
    let batch = kit.tick("a").await;
    let next = kit.schedule("a").await;
    assert!(kit.store.remove_schedule(&put.key()).await.unwrap());
    assert!(!kit.store.remove_schedule(&put.key()).await.unwrap());
    assert_eq!(kit.store.read_schedule(&put.key()).await.unwrap(), None);
    assert!(kit.store.coming_ticks(5).await.unwrap().is_none());
    assert_eq!(kit.run(&next.next_tick(), &submit(&next, BatchId::generate())).await, TickEnd::Gone);
    assert_eq!(kit.batch(batch).await.counts.rows, 2);
}

pub async fn a_schedule_made_again_is_another_one(kit: Kit) {
    let first = kit.put(&schedule("a"), &rows(3)).await;
    kit.tick("a").await;
    kit.store.remove_schedule(&first.key()).await.unwrap();
    let second = kit.put(&schedule("a"), &rows(1)).await;
    assert_ne!((second.id, second.token), (first.id, first.token));
    assert_eq!((second.last_at, second.last_batch), (None, None));
    assert_eq!(kit.run(&first.next_tick(), &submit(&first, BatchId::generate())).await, TickEnd::Gone);
    let batch = kit.tick("a").await;
    assert_eq!(kit.counts(batch).await.rows, 1);
}

pub async fn ticks_go_forward_only(kit: Kit) {
    let put = kit.put(&NewSchedule { next_at: at(10), ..schedule("a") }, &rows(1)).await;
    let tick = put.next_tick();
    let fail = |at, next_at| TickAction::Fail { at, error: String::new(), next_at };
    for wrong in [fail(at(10), at(10)), fail(at(10), at(9)), fail(at(9), at(11)), fail(at(12), at(11)), TickAction::Drop { next_at: at(10) }] {
        is_invalid(kit.store.run_tick(&tick, &wrong).await);
    }
    assert_eq!(kit.schedule("a").await, put);
    // One submission may stand for several ticks.
    assert_eq!(kit.run(&tick, &fail(at(15), at(16))).await, TickEnd::Moved);
    assert_eq!(kit.schedule("a").await.last_at, Some(at(15)));
}

pub async fn a_tick_that_fails_says_why_until_the_next(kit: Kit) {
    let put = kit.put(&schedule("a"), &rows(1)).await;
    let why = "there is\0no processor";
    let fail = TickAction::Fail { at: at(1), error: why.to_owned(), next_at: at(2) };
    assert_eq!(kit.run(&put.next_tick(), &fail).await, TickEnd::Moved);
    let failed = kit.schedule("a").await;
    assert_eq!(failed, Schedule { next_at: at(2), last_at: Some(at(1)), error: Some(why.to_owned()), ..put.clone() });
    let batch = kit.tick("a").await;
    assert_eq!(kit.schedule("a").await, Schedule { next_at: at(3), last_at: Some(at(2)), last_batch: Some(batch), ..put });
    // A failure keeps what was submitted last.
    let now = kit.schedule("a").await;
    kit.run(&now.next_tick(), &TickAction::Fail { at: at(3), error: "again".to_owned(), next_at: at(4) }).await;
    assert_eq!(kit.schedule("a").await.last_batch, Some(batch));
    kit.put(&schedule("a"), &rows(1)).await;
    assert_eq!(kit.schedule("a").await.error, None);
}

pub async fn a_missed_tick_moves_on_without_a_batch(kit: Kit) {
    let put = kit.put(&schedule("a"), &rows(1)).await;
    assert_eq!(kit.run(&put.next_tick(), &TickAction::Drop { next_at: at(100) }).await, TickEnd::Moved);
    assert_eq!(kit.schedule("a").await, Schedule { next_at: at(100), ..put });
    assert_eq!(kit.count_batches().await, 0);
}

pub async fn a_tick_that_nobody_can_follow_pauses_its_schedule(kit: Kit) {
    let put = kit.put(&schedule("a"), &rows(1)).await;
    let stop = TickAction::Stop { error: "there is no such zone".to_owned() };
    assert_eq!(kit.run(&put.next_tick(), &stop).await, TickEnd::Moved);
    let stopped = kit.schedule("a").await;
    assert_eq!((stopped.paused, stopped.error.as_deref(), stopped.next_at), (true, Some("there is no such zone"), at(1)));
    assert_ne!(stopped.token, put.token);
    assert!(kit.store.coming_ticks(5).await.unwrap().is_none());
    kit.store.resume_schedule(&put.key(), at(5)).await.unwrap();
    let resumed = kit.schedule("a").await;
    assert_eq!((resumed.paused, resumed.error, resumed.next_at), (false, None, at(5)));
}

pub async fn a_tick_is_skipped_while_the_batch_before_it_runs(kit: Kit) {
    kit.put(&NewSchedule { overlap: Overlap::Skip, ..schedule("a") }, &rows(1)).await;
    kit.put(&schedule("beside"), &rows(1)).await;
    let first = kit.tick("a").await;
    let skipped = async |seconds| {
        let schedule = kit.schedule("a").await;
        assert_eq!(kit.run(&schedule.next_tick(), &submit(&schedule, BatchId::generate())).await, TickEnd::EarlierRuns);
        let moved = kit.schedule("a").await;
        assert_eq!((moved.last_at, moved.last_batch, moved.next_at), (Some(at(seconds)), Some(first), at(seconds + 1)));
    };
    skipped(2).await;
    kit.run_rows().await;
    // All rows have ended, and the files have not.
    skipped(3).await;
    kit.finish_all().await;
    let second = kit.tick("a").await;
    kit.abort(second).await;
    let schedule = kit.schedule("a").await;
    assert_eq!(kit.run(&schedule.next_tick(), &submit(&schedule, BatchId::generate())).await, TickEnd::EarlierRuns);
    kit.finish_all().await;
    kit.tick("a").await;
    // What may overlap does.
    kit.tick("beside").await;
    kit.tick("beside").await;
    assert_eq!(kit.count_batches().await, 3);
}

/// The same tick was submitted before, and the clock was set back.
pub async fn a_tick_whose_batch_is_there_moves_on(kit: Kit) {
    kit.put(&schedule("a"), &rows(2)).await;
    let batch = kit.tick("a").await;
    let before = kit.view(batch).await;
    kit.put(&NewSchedule { terms: terms(77), ..schedule("a") }, &rows(1)).await;
    let schedule = kit.schedule("a").await;
    assert_eq!(kit.run(&schedule.next_tick(), &submit(&schedule, batch)).await, TickEnd::Submitted);
    assert_eq!(kit.view(batch).await, before);
    assert_eq!(kit.schedule("a").await.next_at, at(3));
}

pub async fn of_many_who_take_up_a_tick_at_the_same_moment_one_does(kit: Kit) {
    const TASKS: usize = 8;
    const TICKS: usize = 30;
    let kit = Arc::new(kit);
    kit.put(&schedule("a"), &rows(2)).await;
    for _ in 0..TICKS {
        let schedule = kit.schedule("a").await;
        let barrier = Arc::new(Barrier::new(TASKS));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (kit, barrier, schedule) = (Arc::clone(&kit), Arc::clone(&barrier), schedule.clone());
            tasks.spawn(async move {
                barrier.wait().await;
                // Each with an id of its own: it is not the id that makes it one.
                let batch = BatchId::generate();
                (kit.run(&schedule.next_tick(), &submit(&schedule, batch)).await, batch)
            });
        }
        let (did, not): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(|(end, _)| *end == TickEnd::Submitted);
        assert_eq!((did.len(), not.len()), (1, TASKS - 1));
        assert!(not.iter().all(|(end, _)| *end == TickEnd::Gone));
        let moved = kit.schedule("a").await;
        assert_eq!((moved.last_batch, moved.last_at), (Some(did[0].1), Some(schedule.next_at)));
    }
    assert_eq!(kit.count_batches().await, TICKS);
}

/// A tick submits what was registered before the change, or it is gone: never the old request once the new one is there.
pub async fn a_change_and_a_tick_at_the_same_moment_do_not_mix(kit: Kit) {
    let kit = Arc::new(kit);
    let (mut before, mut gone) = (0, 0);
    for round in 1..=40 {
        let old = kit.put(&NewSchedule { terms: terms(round), ..schedule("a") }, &rows(2)).await;
        let barrier = Arc::new(Barrier::new(2));
        let batch = BatchId::generate();
        let ticking = tokio::spawn({
            let (kit, barrier, old) = (Arc::clone(&kit), Arc::clone(&barrier), old.clone());
            async move {
                barrier.wait().await;
                kit.run(&old.next_tick(), &submit(&old, batch)).await
            }
        });
        barrier.wait().await;
        let new = kit.put(&NewSchedule { terms: terms(-round), ..schedule("a") }, &rows(5)).await;
        match ticking.await.unwrap() {
            TickEnd::Submitted => {
                before += 1;
                let submitted = kit.batch(batch).await;
                assert_eq!((submitted.terms.priority, submitted.counts.rows), (round, 2));
                assert_eq!((new.last_batch, new.next_at), (Some(batch), old.next_at.after(SECOND)));
            }
            end => {
                gone += 1;
                assert_eq!((end, new.next_at), (TickEnd::Gone, old.next_at));
            }
        }
    }
    assert_eq!((before + gone, kit.count_batches().await), (40, before));
}

/// What a future returns, unless it has to be asked more often than this: then it is dropped, as at the end of a process.
async fn dropped_after<T>(polls: usize, doing: impl Future<Output = T>) -> Option<T> {
    let mut doing = pin!(doing);
    let mut left = polls;
    std::future::poll_fn(|context| match doing.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

pub async fn a_tick_that_is_dropped_in_the_middle_does_all_or_nothing(kit: Kit) {
    kit.put(&schedule("a"), &[row(3), row(1)]).await;
    let (mut ticks, mut dropped) = (0, 0);
    for polls in 0..40 {
        let (schedule, batch) = (kit.schedule("a").await, BatchId::generate());
        let (tick, action) = (schedule.next_tick(), submit(&schedule, batch));
        let first = dropped_after(polls, kit.store.run_tick(&tick, &action)).await;
        dropped += usize::from(first.is_none());
        // Whatever was done of it, the next who takes it up finds all or nothing.
        let second = kit.run(&tick, &action).await;
        if let Some(first) = first {
            assert_eq!((first.unwrap(), second), (TickEnd::Submitted, TickEnd::Gone));
        }
        ticks += 1;
        assert_eq!(kit.schedule("a").await.last_batch, Some(batch));
        assert_eq!(kit.batch(batch).await.counts.rows, 2);
    }
    assert!(dropped > 0, "none was dropped");
    assert_eq!(kit.count_batches().await, ticks);
}

pub async fn what_a_tick_did_is_there_after_a_crash(kit: Kit) {
    kit.put(&schedule("a"), &rows(2)).await;
    let batch = kit.tick("a").await;
    let before = kit.schedule("a").await;
    let kit = kit.crash_and_reopen().await;
    assert_eq!(kit.schedule("a").await, before);
    assert_eq!(kit.counts(batch).await.rows, 2);
    kit.tick("a").await;
    assert_eq!(kit.count_batches().await, 2);
}
