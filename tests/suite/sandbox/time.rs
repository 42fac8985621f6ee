//! Wall time: the deadline and the wish to stop reach a guest wherever it is.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{Ending, Limits, RowRun};
use rowmill::sandbox::{Session, SessionSpec};
use tokio_util::sync::CancellationToken;

use super::wasi;
use crate::support::sessions::{NO_DEADLINE, bare, batch, limits, output, processor, row, run_one, spec};
use crate::support::wat::{FREE, Wat, answer};

/// The fuel is no limit in these tests.
fn by_time(timeout: Duration) -> Limits {
    Limits { fuel: u64::MAX / 100, timeout, query_timeout: timeout, ..limits() }
}

/// Guests that make the host work, for ever and for next to no fuel: the time between two looks of the sandbox must not hang on the guest's own instructions.
fn floods() -> Vec<(&'static str, Wat)> {
    // 15 MiB of zeros, which are good UTF-8 and empty options, behind the free memory.
    let large = "(i32.const 65536) (i32.const 15728640)";
    let again = |call: &str| format!("(loop $again {call} (br $again))");
    let log = Wat::batch().import_log().pages(300).body("process-row", &again(&format!("(call $log (i32.const 0) {large})")));
    let progress = Wat::batch()
        .import("rowmill:jobs/host@0.1.0", "progress", "progress", "(param i32 i32 i32)")
        .pages(300)
        .body("process-row", &again(&format!("(call $progress (i32.const 0) {large})")));
    let resolve = wasi::guest(&["wasi:sockets/instance-network", "wasi:sockets/ip-name-lookup"])
        .import("wasi:sockets/instance-network@0.2.0", "instance-network", "network", "(result i32)")
        .import("wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses", "resolve", "(param i32 i32 i32 i32)")
        .pages(300)
        .body(
            "process-row",
            &format!("(local.set $i (call $network)) {}", again(&format!("(call $resolve (local.get $i) {large} (i32.const {FREE}))"))),
        );
    let random = wasi::guest(&["wasi:random/random"])
        .import("wasi:random/random@0.2.0", "get-random-bytes", "random", "(param i64 i32)")
        .pages(300)
        .body("realloc", "(i32.const 65536)")
        .body("process-row", &again(&format!("(call $random (i64.const 1048576) (i32.const {FREE}))")));
    // Many handles at once, all of the same clock that has struck.
    let poll = wasi::guest(&["wasi:io/poll", "wasi:clocks/monotonic-clock"])
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.0", "poll", "poll", "(param i32 i32 i32)")
        .pages(300)
        .body("realloc", "(i32.const 10485760)")
        .body(
            "process-row",
            &format!(
                "(local.set $i (call $subscribe (i64.const 0)))
                 (loop $fill (i32.store (i32.add (i32.const 65536) (i32.mul (local.get $j) (i32.const 4))) (local.get $i))
                    (local.set $j (i32.add (local.get $j) (i32.const 1))) (br_if $fill (i32.lt_u (local.get $j) (i32.const 5000))))
                 {}",
                again(&format!("(call $poll (i32.const 65536) (i32.const 5000) (i32.const {FREE}))"))
            ),
        );
    let stdout = wasi::guest(&["wasi:cli/stdout", "wasi:io/streams"])
        .import("wasi:cli/stdout@0.2.0", "get-stdout", "stdout", "(result i32)")
        .import("wasi:io/streams@0.2.0", "[method]output-stream.write", "write", "(param i32 i32 i32 i32)")
        .pages(300)
        .body(
            "process-row",
            &format!(
                "(local.set $i (call $stdout)) {}",
                again(&format!("(call $write (local.get $i) (i32.const 65536) (i32.const 65536) (i32.const {FREE}))"))
            ),
        );
    vec![("log", log), ("progress", progress), ("resolve", resolve), ("random", random), ("poll", poll), ("stdout", stdout)]
}

#[tokio::test]
async fn cpu_1_a_guest_that_keeps_the_host_busy_ends_at_the_deadline() {
    for (name, flood) in floods() {
        let timeout = Duration::from_millis(200);
        let run = run_one(&processor(&flood.module()), by_time(timeout), "{}").await;
        assert_eq!(bare(run.ending), Ending::Deadline { limit: timeout, frames: vec![] }, "{name}");
    }
}

/// Rows whose first word about their progress stops them.
async fn run_and_cancel(guest: &Wat) -> RowRun {
    let processor = processor(&guest.module());
    let cancel = CancellationToken::new();
    let progress = {
        let cancel = cancel.clone();
        Arc::new(move |_, _| cancel.cancel())
    };
    let spec = SessionSpec { cancel, progress: Some(progress), ..spec(batch(processor.kind(), "op", "{}"), by_time(NO_DEADLINE)) };
    let mut session = Session::new(processor, spec);
    session.run_row(&row(1, "{}")).await
}

fn telling(wat: Wat, then: &str) -> Wat {
    wat.import("rowmill:jobs/host@0.1.0", "progress", "tell", "(param i32 i32 i32)")
        .body("process-row", &format!("(call $tell (i32.const 1) (i32.const 0) (i32.const 0)) {then}"))
}

#[tokio::test]
async fn life_3_a_wish_to_stop_reaches_a_tight_loop() {
    assert_eq!(run_and_cancel(&telling(Wat::batch(), "(loop $again (br $again))")).await.ending, Ending::Cancelled);
}

#[tokio::test]
async fn life_3_a_wish_to_stop_reaches_a_guest_that_keeps_the_host_busy() {
    let large = "(i32.const 65536) (i32.const 15728640)";
    let flood = Wat::batch().import_log().pages(300);
    let flood = telling(flood, &format!("(loop $again (call $log (i32.const 0) {large}) (br $again))"));
    assert_eq!(run_and_cancel(&flood).await.ending, Ending::Cancelled);
}

#[tokio::test]
async fn life_3_a_wish_to_stop_reaches_a_guest_that_sleeps() {
    let hour = "(call $block (call $subscribe (i64.const 3600000000000)))";
    let asleep = wasi::guest(&["wasi:io/poll", "wasi:clocks/monotonic-clock"])
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.0", "[method]pollable.block", "block", "(param i32)");
    assert_eq!(run_and_cancel(&telling(asleep, hour)).await.ending, Ending::Cancelled);
}

#[tokio::test]
async fn a_guest_that_looks_whether_it_is_cancelled_can_leave_in_good_order() {
    let looking = Wat::batch().import("rowmill:jobs/host@0.1.0", "cancelled", "cancelled", "(result i32)");
    let run = run_and_cancel(&telling(looking, "(loop $again (br_if $again (i32.eqz (call $cancelled))))")).await;
    assert_eq!(output(&run), "{}");
}

#[tokio::test]
async fn a_session_that_is_cancelled_from_the_start_runs_nothing_for_long() {
    let processor = processor(&Wat::batch().body("init", "(loop $again (br $again))").module());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let mut session = Session::new(processor.clone(), SessionSpec { cancel, ..spec(batch(processor.kind(), "op", "{}"), by_time(NO_DEADLINE)) });
    for _ in 0..2 {
        assert_eq!(session.run_row(&row(1, "{}")).await.ending, Ending::Cancelled);
    }
}

/// The yields that keep other guests going do not show in the account.
#[tokio::test]
async fn what_a_row_costs_does_not_depend_on_how_often_it_yields() {
    // A hundred times 1 MiB to the log and a hundred copies of 1 MiB, in between some turns of a loop.
    let busy = Wat::batch().import_log().pages(40).body(
        "process-row",
        "(loop $again
           (call $log (i32.const 0) (i32.const 65536) (i32.const 1048576))
           (memory.copy (i32.const 65536) (i32.const 1179648) (i32.const 1048576))
           (local.set $j (i32.const 0))
           (loop $turn (br_if $turn (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 1000))))
           (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))",
    );
    let processor = processor(&busy.module());
    let cost = run_one(&processor, by_time(NO_DEADLINE), "{}").await.fuel;
    assert!(cost > 100 << 20, "{cost}");
    for _ in 0..3 {
        assert_eq!(run_one(&processor, by_time(NO_DEADLINE), "{}").await.fuel, cost);
    }
    assert_eq!(output(&run_one(&processor, Limits { fuel: cost, ..by_time(NO_DEADLINE) }, "{}").await), "{}");
    let run = run_one(&processor, Limits { fuel: cost - 1, ..by_time(NO_DEADLINE) }, "{}").await;
    assert_eq!(bare(run.ending), Ending::OutOfFuel { used: cost - 1, limit: cost - 1, frames: vec![] });
}

#[tokio::test]
async fn the_guest_is_told_how_much_time_is_left() {
    // Answers 1 when there is more than a minute and less than an hour.
    let asking = Wat::batch().import("rowmill:jobs/host@0.1.0", "remaining-ms", "left", "(result i64)").body(
        "process-row",
        &format!(
            "(i32.store8 (i32.const {FREE}) (i32.add (i32.const 48)
               (i32.and (i64.gt_u (call $left) (i64.const 60000)) (i64.le_u (call $left) (i64.const 3600000)))))
             {}",
            answer(FREE, 1)
        ),
    );
    assert_eq!(output(&run_one(&processor(&asking.module()), by_time(NO_DEADLINE), "{}").await), "1");
}
