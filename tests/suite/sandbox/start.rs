//! What comes before and after the rows: the start function, `init`, `begin`, `mark-done`, `close`, and the allocator that is called to pass values.

use rowmill::model::{Batch, BatchCounts, BatchStatus, Ending, Limits, OutputFile, ProcessorKind};
use rowmill::sandbox::Session;

use crate::support::guests;
use crate::support::sessions::{
    bare, batch, cannot_start, limits, no_files, output, processor, row, run_in, run_one, session, session_with, spec, trap,
};
use crate::support::wat::{RETURNED, Wat};

const ENDLESS: &str = "(loop $again (br $again))";

fn little_fuel() -> Limits {
    Limits { fuel: 1_000_000, ..limits() }
}

#[tokio::test]
async fn a_start_function_that_loops_is_stopped_before_init() {
    let guest = Wat::batch().fields(&format!("(func $start {ENDLESS}) (start $start)"));
    let run = run_one(&processor(&guest.module()), little_fuel(), "{}").await;
    assert_eq!(cannot_start(&run), "the instance: ran out of fuel: used 10000000, the limit is 10000000, in start");
}

#[tokio::test]
async fn a_start_function_that_traps_says_where() {
    let guest = Wat::batch().fields("(func $start unreachable) (start $start)");
    let run = run_one(&processor(&guest.module()), limits(), "{}").await;
    let reason = cannot_start(&run);
    assert_eq!(reason, "the instance: was stopped by a trap: it stopped itself (unreachable instruction) and said nothing, in start");
}

#[tokio::test]
async fn cpu_1_each_function_that_never_returns_is_stopped_by_its_fuel() {
    let run = async |function| run_one(&processor(&Wat::batch().body(function, ENDLESS).module()), little_fuel(), "{}").await;
    assert_eq!(cannot_start(&run("init").await), "init: ran out of fuel: used 10000000, the limit is 10000000, in lifecycle/init");
    assert_eq!(cannot_start(&run("begin").await), "begin: ran out of fuel: used 10000000, the limit is 10000000, in batch/begin");
    assert_eq!(bare(run("process-row").await.ending), Ending::OutOfFuel { used: 1_000_000, limit: 1_000_000, frames: vec![] });
    // Nothing waits for `close`, but it ends.
    assert_eq!(output(&run("close").await), "{}");
    let mut session = session(&processor(&Wat::batch().body("mark-done", ENDLESS).module()), little_fuel());
    assert_eq!(
        session.mark_done(no_files()).await.ended.map_err(bare),
        Err(Ending::OutOfFuel { used: 10_000_000, limit: 10_000_000, frames: vec![] })
    );
}

#[tokio::test]
async fn an_allocator_that_misbehaves_fails_what_it_was_called_for() {
    let run = async |body: &str| run_one(&processor(&Wat::batch().body("realloc", body).module()), little_fuel(), "{}").await;
    let endless = run(&format!("{ENDLESS} (unreachable)")).await;
    assert!(cannot_start(&endless).starts_with("init: ran out of fuel: used 10000000, the limit is 10000000"), "{endless:?}");
    assert!(cannot_start(&run("(unreachable)").await).starts_with("init: was stopped by a trap: "));
    // Addresses that are not in the memory, or not where they may be.
    for address in ["-1", "65535", "65536", "2147483647"] {
        let run = run(&format!("(i32.const {address})")).await;
        let reason = cannot_start(&run);
        assert!(reason.starts_with("init: returned what cannot be kept: what it passed cannot be read: "), "{reason}");
    }
}

#[tokio::test]
async fn results_that_are_not_in_memory_or_no_text_fail_the_row() {
    let returned = |at: u32, length: u32| Wat::batch().body("process-row", &crate::support::wat::answer(at, length));
    for (at, length) in [(65_536, 1), (65_530, 100), (0, 65_537), (u32::MAX, 1), (1, u32::MAX)] {
        let run = run_one(&processor(&returned(at, length).module()), limits(), "{}").await;
        let reason = crate::support::sessions::bad_output(&run);
        assert!(reason.starts_with("what it passed cannot be read: "), "{reason}");
    }
    let not_utf8 = returned(2_000, 2).fields("(data (i32.const 2000) \"\\ff\\fe\")");
    let run = run_one(&processor(&not_utf8.module()), limits(), "{}").await;
    assert!(crate::support::sessions::bad_output(&run).contains("utf-8"), "{:?}", run.ending);
}

#[tokio::test]
async fn begin_gets_the_context_and_its_failure_is_that_of_every_row() {
    let misbehaving = processor(&guests::read("misbehaving"));
    let rows = async |deed: &str| {
        let context = format!("{{\"begin\":{{\"do\":\"{deed}\"}}}}");
        run_in(session_with(&misbehaving, limits(), "op", &context), &[r#"{"do":"ok"}"#, r#"{"do":"ok"}"#]).await
    };
    let permanent = Ending::Permanent { reason: "this row fails on purpose".to_owned() };
    assert_eq!(rows("fail-permanent").await.iter().map(|run| &run.ending).collect::<Vec<_>>(), [&permanent, &permanent]);
    assert!(matches!(rows("retry").await[1].ending, Ending::Retry { .. }));
    assert!(matches!(rows("abort").await[0].ending, Ending::AbortBatch { .. }));
    let runs = rows("panic").await;
    assert!(cannot_start(&runs[0]).starts_with("begin: was stopped by a trap: panicked at "), "{:?}", runs[0]);
    assert_eq!(runs[0].ending, runs[1].ending);
}

fn finished(context: &str) -> Batch {
    let counts = BatchCounts { rows: 3, success: 1, failed: 1, aborted: 1 };
    let files = vec![OutputFile { name: "a.txt".to_owned(), object: "x/y".to_owned(), size_bytes: 7 }];
    Batch { status: BatchStatus::Aborted, counts, files, ..batch(ProcessorKind::Batch, "op", context) }
}

#[tokio::test]
async fn mark_done_is_called_without_begin_and_its_failure_is_told() {
    let misbehaving = processor(&guests::read("misbehaving"));
    let mark = async |context: &str| Session::new(misbehaving.clone(), spec(finished(context), limits())).mark_done(no_files()).await.ended;
    // Were `begin` called, it would panic.
    assert_eq!(mark(r#"{"begin":{"do":"panic"}}"#).await, Ok(()));
    assert_eq!(mark(r#"{"mark_done":{"do":"fail-permanent"}}"#).await, Err(Ending::Permanent { reason: "this row fails on purpose".to_owned() }));
    let Err(Ending::Trap { text, .. }) = mark(r#"{"mark_done":{"do":"panic"}}"#).await else { panic!() };
    assert!(text.contains("on purpose"), "{text}");
    let Err(Ending::Memory { .. }) = mark(r#"{"mark_done":{"do":"hog"}}"#).await else { panic!() };
    let bad_context = mark(r#"{"mark_done":7}"#).await;
    assert!(matches!(&bad_context, Err(Ending::Permanent { reason }) if reason.starts_with("bad_input: context.mark_done: ")), "{bad_context:?}");
}

#[tokio::test]
async fn what_mark_done_writes_is_told_however_it_ends() {
    let misbehaving = processor(&guests::read("misbehaving"));
    let log = async |deed: &str| {
        let context = format!("{{\"mark_done\":{{\"do\":\"{deed}\"}}}}");
        Session::new(misbehaving.clone(), spec(finished(&context), limits())).mark_done(no_files()).await.log
    };
    assert_eq!(log("ok").await, None);
    let panicked = log("panic").await.unwrap();
    assert!(panicked.starts_with("error: ") && panicked.contains("on purpose"), "{panicked}");
    // The limit is that of a row.
    let huge = log("huge-log").await.unwrap();
    let limit = limits().log_bytes as usize;
    assert!(huge.len() < limit + 100 && huge.contains("[cut: "), "{} bytes", huge.len());
}

#[tokio::test]
async fn a_close_that_traps_changes_nothing() {
    let misbehaving = processor(&guests::read("misbehaving"));
    for deed in ["panic", "hog", "recurse", "ok"] {
        let context = format!("{{\"close\":{{\"do\":\"{deed}\"}}}}");
        let runs = run_in(session_with(&misbehaving, limits(), "op", &context), &[r#"{"do":"ok"}"#]).await;
        assert_eq!(output(&runs[0]), "\"attempt 1\"", "{deed}");
    }
}

#[tokio::test]
async fn a_slow_query_ends_in_the_same_ways_as_a_row() {
    let run = async |query: Wat| run_one(&processor(&query.module()), little_fuel(), "{}").await;
    assert_eq!(output(&run(Wat::slow_query()).await), "{}");
    assert_eq!(
        bare(run(Wat::slow_query().body("run", ENDLESS)).await.ending),
        Ending::OutOfFuel { used: 1_000_000, limit: 1_000_000, frames: vec![] }
    );
    assert_eq!(trap(&run(Wat::slow_query().body("run", "(unreachable)")).await).1, ["slow-query/run"]);
    let query = processor(&Wat::slow_query().body("mark-done", "(unreachable)").module());
    let mut marking = Session::new(query.clone(), spec(batch(ProcessorKind::SlowQuery, "op", "{}"), limits()));
    assert_eq!(output(&marking.run_row(&row(0, "{}")).await), "{}");
    let mut marking = Session::new(query, spec(batch(ProcessorKind::SlowQuery, "op", "{}"), limits()));
    assert!(matches!(marking.mark_done(no_files()).await.ended, Err(Ending::Trap { .. })));
}

/// 1 MiB of text in the guest's memory, at the same address.
fn long_text(body: &str) -> Wat {
    Wat::batch().pages(32).fields("(func $fill (memory.fill (i32.const 65536) (i32.const 120) (i32.const 1048576)))").body("process-row", body)
}

#[tokio::test]
async fn the_reason_of_a_failure_is_cut_with_a_mark() {
    let store = |offset: u32, value: u32| format!("(i32.store (i32.const {}) (i32.const {value}))", RETURNED + offset);
    // An error, its case, and the text.
    let failure = |case| format!("(call $fill) {} {} {} {}", store(0, 1), store(8, case), store(16, 65_536), store(20, 1_048_576));
    let cut = format!("{} [cut: {} more bytes]", "x".repeat(8_192), 1_048_576 - 8_192);
    let end = async |case| run_one(&processor(&long_text(&failure(case)).module()), limits(), "{}").await.ending;
    assert_eq!(end(0).await, Ending::Permanent { reason: cut.clone() });
    assert_eq!(end(1).await, Ending::Retry { reason: cut.clone(), after: None });
    assert_eq!(end(2).await, Ending::AbortBatch { reason: cut.clone() });
    let init = long_text("").body("init", &format!("(call $fill) {} {} {}", store(0, 1), store(4, 65_536), store(8, 1_048_576)));
    assert_eq!(cannot_start(&run_one(&processor(&init.module()), limits(), "{}").await), format!("init: {cut}"));
}

#[tokio::test]
async fn the_names_of_functions_are_cut() {
    let name = "ä".repeat(100_000);
    let guest = Wat::batch().fields(&format!("(func $\"{name}\" unreachable)")).body("process-row", &format!("(call $\"{name}\")"));
    let run = run_one(&processor(&guest.module()), limits(), "{}").await;
    assert_eq!(trap(&run).1, ["ä".repeat(150), "batch/process-row".to_owned()]);
}
