//! Time of the processor: loops wherever code is called, very many loops at once, instructions that take long, and sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rowmill::jobs::BatchRequest;
use rowmill::model::{App, BatchStatus, Ending, Limits, RowStatus};
use rowmill::worker::WorkerSettings;

use super::{Arena, HOSTILE, failure, free, numbers};
use crate::jobs::{row, settings};
use crate::support::guests;
use crate::support::sessions::{processor, run_one};
use crate::support::wat::Wat;

const ENDLESS: &str = "(loop $again (br $again))";
const FUEL: u64 = 2_000_000;
const OUT_OF_FUEL_AT_START: &str = "ran out of fuel: used 20000000, the limit is 20000000";

/// Processors that loop for ever in one place each.
fn loops() -> Vec<(&'static str, Wat)> {
    let post_return = format!("(func (export \"cabi_post_rowmill:jobs/batch@0.1.0#process-row\") (param i32) {ENDLESS})");
    let mut loops = vec![
        ("start", Wat::batch().fields(&format!("(func $start {ENDLESS}) (start $start)"))),
        ("realloc", Wat::batch().body("realloc", &format!("{ENDLESS} (unreachable)"))),
        ("post-return", Wat::batch().fields(&post_return)),
    ];
    loops.extend(["init", "begin", "process-row", "mark-done", "close"].map(|place| (place, Wat::batch().body(place, ENDLESS))));
    loops
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_1_a_loop_ends_by_its_fuel_wherever_it_is() {
    let arena = Arena::open().await;
    arena.limit(Limits { fuel: FUEL, ..free() }).await;
    for (place, guest) in loops() {
        arena.deploy(place, guest.module()).await;
        let (batch, rows) = arena.attack(place, &["{}", "{}"]).await;
        match place {
            "mark-done" | "close" => assert_eq!(batch.status, BatchStatus::Success, "{place}: {batch:?}"),
            "process-row" | "post-return" => {
                assert_eq!(numbers(&failure(&rows[0])), ("out_of_fuel", vec![FUEL, FUEL]), "{place}");
                assert_eq!(failure(&rows[1]), failure(&rows[0]), "{place}");
            }
            _ => {
                let told = failure(&rows[0]);
                assert!(told.code == "configerror" && told.values[0].contains(OUT_OF_FUEL_AT_START), "{place}: {told:?}");
            }
        }
        if place == "mark-done" {
            let error = batch.mark_error.unwrap();
            assert!(error.contains(OUT_OF_FUEL_AT_START), "{error}");
        }
    }
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_1_a_loop_with_fuel_to_spare_ends_at_the_deadline() {
    let arena = Arena::open().await;
    // Ten times as much for the start.
    arena.limit(Limits { fuel: Limits::most().fuel, timeout: Duration::from_millis(50), ..free() }).await;
    for (place, guest) in loops() {
        arena.deploy(place, guest.module()).await;
        let (batch, rows) = arena.attack(place, &["{}"]).await;
        match place {
            "mark-done" | "close" => assert_eq!(batch.status, BatchStatus::Success, "{place}: {batch:?}"),
            "process-row" | "post-return" => assert_eq!(numbers(&failure(&rows[0])), ("deadline", vec![50]), "{place}"),
            _ => {
                let told = failure(&rows[0]);
                assert!(told.values[0].contains("did not end in time: the limit is 500ms"), "{place}: {told:?}");
            }
        }
    }
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_1_others_go_on_while_a_loop_runs() {
    let arena = Arena::open().await;
    // An operator keeps an app whose rows may take long from having all slots.
    let app = App { limits: Some(Limits { fuel: Limits::most().fuel, ..free() }), running_max: Some(1), ..App::named(HOSTILE) };
    arena.site.jobs.register_app(&app).await.unwrap();
    arena.deploy("loop", Wat::batch().body("process-row", ENDLESS).module()).await;
    let endless = arena.submit("loop", &["{}"; 50]).await;
    arena.beside_endless(endless).await;
    // Where it may have all of them, the others wait for its rows to end, one deadline at most, and are next.
    let app = App { limits: Some(Limits { fuel: Limits::most().fuel, timeout: Duration::from_millis(300), ..free() }), ..App::named(HOSTILE) };
    arena.site.jobs.register_app(&app).await.unwrap();
    let endless = arena.submit("loop", &["{}"; 500]).await;
    arena.beside_endless(endless).await;
    arena.close().await;
}

/// A thousand apps with loops, each of which gets its turn: the healthy app waits for one of each, and for no more.
#[tokio::test(flavor = "multi_thread")]
async fn cpu_2_a_thousand_apps_in_loops_leave_another_its_share() {
    const APPS: usize = 1_000;
    let arena = Arena::working_by(WorkerSettings { lease_rows_max: 5, ..settings("arena") }).await;
    let jobs = &arena.site.jobs;
    let wasm: bytes::Bytes = Wat::batch().body("process-row", ENDLESS).module().into();
    let mut batches = Vec::new();
    let begun = Instant::now();
    for number in 0..APPS {
        let app = format!("hostile-{number}");
        jobs.register_app(&App { limits: Some(Limits { fuel: 500_000, ..free() }), ..App::named(&app) }).await.unwrap();
        jobs.register_processor(&app, "loop", wasm.clone()).await.unwrap();
    }
    for number in 0..APPS {
        let rows = (1..=20).map(|line| row(line, "{}")).collect();
        batches.push(jobs.batch_submit(BatchRequest::new(format!("hostile-{number}"), "loop").with_rows(rows).held()).await.unwrap());
    }
    // One that has had nothing yet, either: what an app had before counts, and theirs is less than the other's.
    jobs.register_processor("newcomer", "validate", guests::read("bank-transactions")).await.unwrap();
    for id in &batches {
        jobs.release(*id).await.unwrap();
    }
    // What is asked of the library while they run: the status of a batch, again and again.
    let (asked, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
    let over = tokio_util::sync::CancellationToken::new();
    let asking = async {
        while !over.is_cancelled() {
            let begun = Instant::now();
            jobs.batch_status(batches[0]).await.unwrap();
            slowest.fetch_max(u64::try_from(begun.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let healthy = async {
        arena.healthy_batch_of("newcomer").await;
        over.cancel();
    };
    println!("after {:?} they run", begun.elapsed());
    tokio::join!(asking, healthy);
    println!("after {:?} the healthy batch is done", begun.elapsed());
    let mut ended = 0;
    for id in &batches {
        let batch = arena.site.store.read_batch(*id).await.unwrap();
        ended += usize::from(batch.counts.failed == 20);
        assert_eq!(batch.counts.success, 0);
    }
    println!("{ended} of {APPS} apps had ended; asked {} times, the slowest took {} µs", asked.into_inner(), slowest.into_inner());
    assert!(ended < APPS / 2, "{ended} of {APPS} hostile apps came before the healthy one");
    for id in &batches {
        // It may have ended by now.
        let _ = jobs.batch_abort(*id, None).await;
    }
    println!("after {:?} they are aborted", begun.elapsed());
    arena.close().await;
}

/// Apps with the same weight get about the same, though one has ten times as much to do.
#[tokio::test(flavor = "multi_thread")]
async fn cpu_2_apps_in_loops_get_fair_shares() {
    const APPS: u32 = 20;
    let arena = Arena::working_by(WorkerSettings { lease_rows_max: 5, ..settings("arena") }).await;
    let jobs = &arena.site.jobs;
    let wasm: bytes::Bytes = Wat::batch().body("process-row", ENDLESS).module().into();
    let mut batches = Vec::new();
    for number in 0..APPS {
        let app = format!("hostile-{number}");
        jobs.register_app(&App { limits: Some(Limits { fuel: 2_000_000, ..free() }), ..App::named(&app) }).await.unwrap();
        jobs.register_processor(&app, "loop", wasm.clone()).await.unwrap();
        let rows = (1..=if number == 0 { 5_000 } else { 500 }).map(|line| row(line, "{}")).collect();
        batches.push(jobs.batch_submit(BatchRequest::new(app, "loop").with_rows(rows).held()).await.unwrap());
    }
    for id in &batches {
        jobs.release(*id).await.unwrap();
    }
    let counts = async || {
        let mut counts = Vec::new();
        for id in &batches {
            counts.push(arena.site.store.read_batch(*id).await.unwrap().counts.failed);
        }
        counts
    };
    super::until(async || counts().await.iter().sum::<u64>() > 2_000).await;
    let counts = counts().await;
    println!("{counts:?}");
    let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
    assert!(most <= least * 3, "{counts:?}");
    for id in &batches {
        jobs.batch_abort(*id, None).await.unwrap();
    }
    arena.close().await;
}

/// 255 MiB in one instruction.
fn filler() -> Wat {
    Wat::batch().pages(4_096).body("process-row", "(loop $again (memory.fill (i32.const 65536) (i32.const 7) (i32.const 267386880)) (br $again))")
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_3_large_fills_end_at_the_deadline_or_by_their_fuel() {
    let arena = Arena::open().await;
    arena.deploy("fill", filler().module()).await;
    let limits = Limits { memory_bytes: Limits::MEMORY_MAX_BYTES, timeout: Duration::from_millis(500), fuel: Limits::most().fuel, ..free() };
    arena.limit(limits.clone()).await;
    assert_eq!(numbers(&arena.attack_row("fill", "{}").await), ("deadline", vec![500]));
    arena.limit(Limits { fuel: 600_000_000, timeout: free().timeout, ..limits }).await;
    assert_eq!(numbers(&arena.attack_row("fill", "{}").await), ("out_of_fuel", vec![600_000_000, 600_000_000]));
    arena.close().await;
}

/// On one thread: what else wants it gets it between two fills at the latest.
#[tokio::test]
async fn cpu_3_a_thread_is_given_up_between_large_fills() {
    let turns = Arc::new(AtomicU64::new(0));
    let counting = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let fills = 20;
    let limits = Limits { memory_bytes: Limits::MEMORY_MAX_BYTES, fuel: fills * 267_386_880, ..free() };
    let processor = processor(&filler().module());
    let before = turns.load(Ordering::Relaxed);
    let run = run_one(&processor, limits, "{}").await;
    assert!(matches!(run.ending, Ending::OutOfFuel { .. }), "{:?}", run.ending);
    let turns = turns.load(Ordering::Relaxed) - before;
    assert!(turns >= fills - 1, "{turns} turns for another in {fills} fills");
    counting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_4_a_row_with_just_its_fuel_succeeds_and_with_one_less_fails_in_every_run() {
    let arena = Arena::open().await;
    let counter = "(loop $turn (br_if $turn (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 300000))))";
    arena.deploy("count", Wat::batch().body("process-row", counter).module()).await;
    let inputs = ["{}"; 40];
    let (_, rows) = arena.attack("count", &inputs).await;
    let needs = rows[0].fuel;
    assert!(needs > 1_000_000 && rows.iter().all(|row| row.fuel == needs), "{needs}");
    for _ in 0..2 {
        arena.limit(Limits { fuel: needs, ..free() }).await;
        let (batch, rows) = arena.attack("count", &inputs).await;
        assert!(batch.status == BatchStatus::Success && rows.iter().all(|row| row.fuel == needs), "{batch:?}");
        arena.limit(Limits { fuel: needs - 1, ..free() }).await;
        let (_, rows) = arena.attack("count", &inputs).await;
        assert!(rows.iter().all(|row| row.status == Some(RowStatus::Failed) && numbers(&failure(row)) == ("out_of_fuel", vec![needs - 1; 2])));
    }
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_5_a_guest_that_sleeps_is_dropped_at_its_deadline() {
    let arena = Arena::open().await;
    arena.deploy("sleep", guests::read("sleeper")).await;
    arena.site.jobs.register_app(&App { limits: Some(free()), running_max: Some(1), ..App::named(HOSTILE) }).await.unwrap();
    let asleep = arena.submit("sleep", &["{}"; 10]).await;
    arena.beside_endless(asleep).await;
    arena.limit(Limits { timeout: Duration::from_millis(200), ..free() }).await;
    let (_, rows) = arena.attack("sleep", &["{}", r#"{"ms":1}"#, "{}"]).await;
    assert_eq!(rows[1].status, Some(RowStatus::Success));
    for at in [0, 2] {
        assert_eq!(numbers(&failure(&rows[at])), ("deadline", vec![200]));
        assert!(rows[at].fuel < 1_000_000, "{}", rows[at].fuel);
    }
    arena.close().await;
}
