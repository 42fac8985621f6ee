//! The misbehaving guest, deed by deed.

use std::time::Duration;

use rowmill::model::{Answer, Ending, Limits};
use rowmill::sandbox::Processor;

use crate::support::guests;
use crate::support::sessions::{bad_output, bare, limits, output, processor, row, run_in, run_one, session, session_with, trap};

const OK: &str = r#"{"do":"ok"}"#;

fn misbehaving() -> Processor {
    processor(&guests::read("misbehaving"))
}

/// Runs a deed between two good rows in one session: whatever becomes of it, the others succeed.
async fn among_good_rows(limits: Limits, deed: &str) -> rowmill::model::RowRun {
    let mut runs = run_in(session(&misbehaving(), limits), &[OK, deed, OK]).await;
    assert_eq!(output(&runs[0]), "\"attempt 1\"");
    assert_eq!(output(&runs[2]), "\"attempt 1\"");
    runs.remove(1)
}

#[tokio::test]
async fn an_endless_loop_runs_out_of_fuel_at_the_limit() {
    let run = among_good_rows(Limits { fuel: 100_000_000, ..limits() }, r#"{"do":"loop"}"#).await;
    assert_eq!(bare(run.ending), Ending::OutOfFuel { used: 100_000_000, limit: 100_000_000, frames: vec![] });
    assert_eq!(run.fuel, 100_000_000);
}

#[tokio::test]
async fn an_endless_loop_with_fuel_to_spare_ends_at_the_deadline() {
    let timeout = Duration::from_millis(300);
    let run = among_good_rows(Limits { fuel: u64::MAX / 100, timeout, ..limits() }, r#"{"do":"loop"}"#).await;
    assert_eq!(bare(run.ending), Ending::Deadline { limit: timeout, frames: vec![] });
    assert!(run.fuel > 1_000_000, "{}", run.fuel);
}

#[tokio::test]
async fn a_sleeper_uses_no_fuel_and_ends_at_the_deadline() {
    let sleeper = processor(&guests::read("sleeper"));
    let timeout = Duration::from_millis(300);
    let runs = run_in(session(&sleeper, Limits { timeout, ..limits() }), &[r#"{"ms":1}"#, "{}", r#"{"ms":1}"#]).await;
    assert_eq!(output(&runs[0]), "{}");
    let Ending::Deadline { limit, frames } = &runs[1].ending else { panic!("{:?}", runs[1]) };
    assert_eq!(*limit, timeout);
    assert!(frames.iter().any(|frame| frame.contains(" (sleeper/src/lib.rs:")), "{frames:?}");
    assert_eq!(runs[1].log.as_deref(), Some("info: sleeping for 3600000 ms\n"));
    assert!(runs[1].fuel < 1_000_000, "{}", runs[1].fuel);
    assert_eq!(output(&runs[2]), "{}");
}

#[tokio::test]
async fn a_hog_is_stopped_with_what_it_needed_and_the_limit() {
    let limit_bytes = 20 << 20;
    let run = among_good_rows(Limits { memory_bytes: limit_bytes, ..limits() }, r#"{"do":"hog"}"#).await;
    let Ending::Memory { needed_bytes, limit_bytes: limit, .. } = run.ending else { panic!("{:?}", run.ending) };
    assert_eq!(limit, limit_bytes);
    assert!((limit_bytes + 1..limit_bytes + (4 << 20)).contains(&needed_bytes), "{needed_bytes}");
}

#[tokio::test]
async fn each_limit_that_stops_a_guest_names_functions_files_and_lines() {
    let loops = r#"{"do":"loop"}"#;
    for (name, limits, deed) in [
        ("fuel", Limits { fuel: 10_000_000, ..limits() }, loops),
        ("deadline", Limits { fuel: u64::MAX / 100, timeout: Duration::from_millis(100), ..limits() }, loops),
        ("memory", Limits { memory_bytes: 20 << 20, ..limits() }, r#"{"do":"hog"}"#),
    ] {
        let run = among_good_rows(limits, deed).await;
        let (Ending::OutOfFuel { frames, .. } | Ending::Deadline { frames, .. } | Ending::Memory { frames, .. }) = &run.ending else {
            panic!("{name}: {run:?}")
        };
        assert!(frames.len() <= 8 && frames[0].contains("isbehaving"), "{name}: {frames:?}");
        // The head of a loop may have no line of its own: then its caller has.
        assert!(frames[0].contains(" (misbehaving/src/lib.rs"), "{name}: {frames:?}");
        assert!(frames.iter().any(|frame| frame.contains(" (misbehaving/src/lib.rs:")), "{name}: {frames:?}");
        assert!(run.ending.explain().ends_with(&format!(", in {}", frames.join(" < "))), "{}", run.ending.explain());
    }
}

#[tokio::test]
async fn a_panic_is_a_trap_with_its_text_and_its_place_and_the_guests_functions() {
    let run = among_good_rows(limits(), r#"{"do":"panic"}"#).await;
    let (text, frames) = trap(&run);
    let place = text.strip_prefix("panicked at ").unwrap();
    assert!(place.contains("misbehaving/src/lib.rs:") && place.ends_with(":\nthis row panics on purpose"), "{text}");
    assert!(frames.iter().any(|frame| frame.contains("misbehaving")), "{frames:?}");
    assert!(frames.iter().all(|frame| !frame.contains("panicking")), "{frames:?}");
}

#[tokio::test]
async fn a_deep_recursion_is_a_trap_and_names_the_function() {
    let run = among_good_rows(limits(), r#"{"do":"recurse"}"#).await;
    let (text, frames) = trap(&run);
    assert!(text.contains("call stack exhausted"), "{text}");
    assert_eq!(frames.len(), 8);
    // The first was stopped before its first line.
    assert!(frames[1..].iter().all(|frame| frame.contains(" (misbehaving/src/lib.rs:")), "{frames:?}");
    assert!(frames.iter().all(|frame| frame.starts_with("misbehaving::recurse")), "{frames:?}");
}

#[tokio::test]
async fn what_a_row_may_not_return_fails_it_with_the_reason() {
    let told = async |deed| bad_output(&among_good_rows(limits(), deed).await).to_owned();
    assert_eq!(
        told(r#"{"do":"bad-json"}"#).await,
        "its output is not valid JSON: EOF while parsing a value at line 1 column 15; it begins with \"{\\\"unfinished\\\": \""
    );
    assert_eq!(
        told(r#"{"do":"bad-file-name"}"#).await,
        "\"../x\" cannot be the name of an output file: 1 to 128 ASCII letters, digits, '.', '-' and '_', not beginning with '.'"
    );
    assert_eq!(told(r#"{"do":"huge-output"}"#).await, "it returned 2097154 bytes of output, messages and pieces, the limit is 1048576");
    assert_eq!(told(r#"{"do":"huge-piece"}"#).await, "it returned 10485779 bytes of output, messages and pieces, the limit is 1048576");
    assert_eq!(told(r#"{"do":"many-messages","n":101}"#).await, "it returned 101 messages, the limit is 100");
    // So many that reading them is more than the host does.
    let reason = told(r#"{"do":"many-messages","n":500000}"#).await;
    assert!(reason.starts_with("what it passed cannot be read: "), "{reason}");
}

#[tokio::test]
async fn output_of_exactly_the_limit_is_kept() {
    let misbehaving = misbehaving();
    let text = "\"\"".len() as u64;
    let run = async |output_bytes| run_one(&misbehaving, Limits { output_bytes, ..limits() }, r#"{"do":"huge-output","n":1000}"#).await;
    assert_eq!(output(&run(1_000 + text).await).len(), 1_002);
    assert_eq!(bad_output(&run(999 + text).await), "it returned 1002 bytes of output, messages and pieces, the limit is 1001");
    let messages = run_one(&misbehaving, limits(), r#"{"do":"many-messages","n":100}"#).await;
    let Ending::Succeeded(Answer { messages, .. }) = messages.ending else { panic!("{:?}", messages.ending) };
    assert_eq!(messages.len(), 100);
}

#[tokio::test]
async fn a_huge_log_is_cut_and_says_how_much_and_the_row_succeeds() {
    let run = among_good_rows(limits(), r#"{"do":"huge-log"}"#).await;
    assert_eq!(output(&run), "\"attempt 1\"");
    let log = run.log.unwrap();
    assert!(log.starts_with("info: xxx"));
    // "info: ", 10 MiB and a line break; then a hundred thousand lines, of which these are the digits.
    let digits = 10 + 90 * 2 + 900 * 3 + 9_000 * 4 + 90_000 * 5;
    let all = 6 + (10 << 20) + 1 + 100_000 * "info: line \n".len() + digits;
    assert!(log.ends_with(&format!("\n[cut: {} more bytes; the limit is 8192 bytes per row]\n", all - 8_192)), "{}", &log[8_100..]);
    assert!(log.len() < 8_192 + 100);
}

#[tokio::test]
async fn failures_that_the_guest_returns_are_told_apart() {
    let mut session = session(&misbehaving(), limits());
    let mut deed = async |deed: &str, attempt| {
        let row = rowmill::model::LeasedRow { attempt, ..row(1, &format!("{{\"do\":\"{deed}\"}}")) };
        session.run_row(&row).await.ending
    };
    assert_eq!(deed("retry", 2).await, Ending::Retry { reason: "not yet, in attempt 2".to_owned(), after: None });
    assert!(matches!(deed("retry", 3).await, Ending::Succeeded(_)));
    assert_eq!(deed("fail-permanent", 1).await, Ending::Permanent { reason: "this row fails on purpose".to_owned() });
    assert_eq!(deed("abort", 1).await, Ending::AbortBatch { reason: "this row stops the batch on purpose".to_owned() });
}

#[tokio::test]
async fn an_input_or_a_context_that_does_not_fit_fails_with_its_path() {
    let misbehaving = misbehaving();
    let told = |run: &rowmill::model::RowRun| match &run.ending {
        Ending::Failed(Answer { output: None, messages, .. }) => (messages[0].code.clone(), messages[0].field.clone()),
        other => panic!("{other:?}"),
    };
    let run = run_one(&misbehaving, limits(), r#"{"do":"ok","n":"many"}"#).await;
    assert_eq!(told(&run), ("bad_input".to_owned(), Some("n".to_owned())));
    let session = session_with(&misbehaving, limits(), "op", r#"{"begin":{"do":"dance"}}"#);
    assert_eq!(told(&run_in(session, &[OK]).await[0]), ("bad_input".to_owned(), Some("context.begin.do".to_owned())));
}
