//! Logs: how much of them is kept, and what they do to a terminal.

use rowmill::model::{App, AppQuota, BatchStatus, Limits};

use super::{Arena, HOSTILE, free};
use crate::sandbox::wasi;
use crate::service::Installation;
use crate::support::guests;
use crate::support::wat::{FREE, RETURNED, Wat};

/// 1 MiB without a line break, a thousand times, to stdout.
fn gigabyte() -> Wat {
    wasi::guest(&["wasi:cli/stdout", "wasi:io/streams"])
        .import("wasi:cli/stdout@0.2.0", "get-stdout", "stdout", "(result i32)")
        .import("wasi:io/streams@0.2.0", "[method]output-stream.write", "write", "(param i32 i32 i32 i32)")
        .pages(40)
        .body(
            "process-row",
            &format!(
                "(memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536)) (local.set $i (call $stdout))
                 (loop $again (call $write (local.get $i) (i32.const 65536) (i32.const 65536) (i32.const {FREE}))
                   (br_if $again (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 16384))))"
            ),
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn log_1_long_lines_many_lines_and_no_line_break_are_cut_and_counted() {
    let arena = Arena::open().await;
    arena.limit(Limits { fuel: Limits::most().fuel, ..free() }).await;
    arena.deploy("lines", guests::read("misbehaving")).await;
    arena.deploy("gigabyte", gigabyte().module()).await;
    // "info: ", 10 MiB and a line break; then as many lines, of which these are the digits.
    let of_lines = |digits: usize, count: usize| 6 + (10 << 20) + 1 + count * "info: line \n".len() + digits;
    let ten_thousand = of_lines(10 + 90 * 2 + 900 * 3 + 9_000 * 4, 10_000);
    let million = of_lines(10 + 90 * 2 + 900 * 3 + 9_000 * 4 + 90_000 * 5 + 900_000 * 6, 1_000_000);
    for (op, input, written) in [
        ("lines", r#"{"do":"huge-log","n":10000}"#, ten_thousand),
        ("lines", r#"{"do":"huge-log","n":1000000}"#, million),
        ("gigabyte", "{}", 1 << 30),
    ] {
        let (batch, rows) = arena.attack(op, &[input]).await;
        assert_eq!(batch.status, BatchStatus::Success, "{op} {input}");
        let log = rows[0].log.as_deref().unwrap();
        assert!(log.len() < 8_192 + 100, "{} bytes are kept", log.len());
        assert!(log.ends_with(&format!("\n[cut: {} more bytes; the limit is 8192 bytes per row]\n", written - 8_192)), "{}", &log[8_100..]);
    }
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_1_the_logs_of_a_batch_are_bounded_together() {
    let arena = Arena::open().await;
    let quota = AppQuota { batch_log_bytes: Some(100_000), ..AppQuota::default() };
    arena.site.jobs.register_app(&App { quota, limits: Some(free()), ..App::named(HOSTILE) }).await.unwrap();
    arena.deploy("lines", guests::read("misbehaving")).await;
    let id = arena.submit("lines", &[r#"{"do":"huge-log","n":1}"#; 50]).await;
    assert_eq!(arena.beside(arena.site.wait(id)).await.status, BatchStatus::Success);
    let (mut kept, mut after) = (0, None);
    loop {
        let page = arena.site.jobs.batch_logs(id, after).await.unwrap();
        kept += page.logs.iter().map(|row| row.log.len()).sum::<usize>();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let dropped = arena.site.jobs.dropped_logs(id).await.unwrap();
    assert!((50_000..=100_000).contains(&kept), "{kept} bytes are kept");
    assert_eq!(dropped, 50 - (kept / 8_200) as u64, "each row's log is kept or counted");
    arena.close().await;
}

/// Clears the screen, names the window, colours the text, ends it, begins the line anew, turns the direction of writing, and ends a script.
const EVIL: &str = r"\1b[2J\1b]0;owned\07\c2\9b31m\00\0d\7f\e2\80\ae</script>";
/// The same as far as JSON may hold it.
const EVIL_JSON: &str = r"\22\c2\9b31m\7f\e2\80\ae</script>\22";
const EVIL_NAME: &str = "h\x1b[2J\u{9b}31m\r\u{202e}</script>";

/// Processors that say it, each in one place.
fn sayers() -> Vec<(&'static str, Wat)> {
    let length = |text: &str| text.len() - text.matches('\\').count() * 2;
    let (evil, json) = (length(EVIL), length(EVIL_JSON));
    let data = format!("(data (i32.const 2000) \"{EVIL}\") (data (i32.const 2200) \"{EVIL_JSON}\")");
    let store = |at: u32, value: usize| format!("(i32.store (i32.const {at}) (i32.const {value}))");
    let text = |at: u32| [store(at, 2_000), store(at + 4, evil)].concat();
    let wat = || Wat::batch().fields(&data);
    let failed = |case: usize| [store(RETURNED, 1), store(RETURNED + 8, case), text(RETURNED + 16)].concat();
    // One message: code and its one value.
    let message = [text(2_404), store(2_424, 2_500), store(2_428, 1), text(2_500), store(RETURNED + 20, 2_400), store(RETURNED + 24, 1)].concat();
    let piece = [text(2_400), text(2_408), store(RETURNED + 28, 2_400), store(RETURNED + 32, 1)].concat();
    let log = format!("(call $log (i32.const 4) (i32.const 2000) (i32.const {evil}))");
    let bytes = wasi::guest(&["wasi:cli/stdout", "wasi:io/streams"])
        .import("wasi:cli/stdout@0.2.0", "get-stdout", "stdout", "(result i32)")
        .import("wasi:io/streams@0.2.0", "[method]output-stream.write", "write", "(param i32 i32 i32 i32)")
        .fields(r#"(data (i32.const 2000) "\ff\fe\1b[2J\c2\c3\9b\00")"#)
        .body("process-row", &format!("(call $write (call $stdout) (i32.const 2000) (i32.const 10) (i32.const {FREE}))"));
    let output = |at: u32| [store(at, 2_200), store(at + 4, json)].concat();
    vec![
        ("log", wat().import_log().body("process-row", &log)),
        ("panic", wat().import_log().body("process-row", &format!("{log} (unreachable)"))),
        ("bytes", bytes),
        ("message", wat().body("process-row", &message)),
        ("file", wat().body("process-row", &piece)),
        ("output", wat().body("process-row", &output(RETURNED + 12))),
        ("permanent", wat().body("process-row", &failed(0))),
        ("retry", wat().body("process-row", &failed(1))),
        ("abort", wat().body("process-row", &failed(2))),
        ("init", wat().body("init", &[store(RETURNED, 1), text(RETURNED + 4)].concat())),
        ("query", Wat::slow_query().fields(&data).body("run", &output(RETURNED + 12))),
    ]
}

/// Commands a terminal, or lets a text look like another.
fn is_evil(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t')) || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn log_2_nothing_that_a_guest_says_commands_the_terminal() {
    let site = Installation::embedded();
    std::fs::write(site.directory.path().join("rows.ndjson"), "{}\n").unwrap();
    let mut said = Vec::new();
    let mut run = |arguments: &[&str]| {
        let (_, out, err) = site.run(arguments);
        for text in [&out, &err] {
            assert!(!text.chars().any(is_evil), "rowmill {arguments:?} says {text:?}");
        }
        said.push(out.clone());
        out
    };
    // A name of an app, an operation or a group with such characters is refused, in words without them.
    for refused in [["apps", "set", EVIL_NAME], ["apps", "show", EVIL_NAME], ["processors", EVIL_NAME, "--json"]] {
        run(&refused);
    }
    let app = "hostile";
    run(&["apps", "set", app, "--weight", "2"]);
    for (op, guest) in sayers() {
        let file = format!("{op}.wasm");
        std::fs::write(site.directory.path().join(&file), guest.module()).unwrap();
        run(&["deploy", app, EVIL_NAME, &file]);
        run(&["deploy", app, op, &file]);
        run(&["deploy", app, op, &file, "--activate", "--note", EVIL_NAME, "--force"]);
        if op == "query" {
            run(&["query", app, op, "{}"]);
            continue;
        }
        run(&["submit", app, op, "rows.ndjson", "--attempts", "1", "--group", EVIL_NAME]);
        let id = run(&["submit", app, op, "rows.ndjson", "--attempts", "1", "--wait", "--json"]);
        let id: serde_json::Value = serde_json::from_str(&id).unwrap_or_else(|_| panic!("{app:?} {op}: {id}"));
        let id = id["id"].as_str().unwrap();
        for command in [
            &["status", id][..],
            &["status", id, "--json"],
            &["rows", id],
            &["results", id],
            &["logs", id],
            &["logs", id, "--json"],
            &["events", id],
            &["events", id, "--json"],
            &["rows", id, "--history"],
        ] {
            run(command);
        }
    }
    for command in [&["apps"][..], &["apps", "--json"], &["apps", "show", app], &["processors", app], &["processors", app, "--json"], &["usage", app]]
    {
        run(command);
    }
    run(&["policies", "set", app, "--attempts", "2"]);
    run(&["pause", app]);
    run(&["policies"]);
    run(&["policies", "--json"]);
    run(&["run", "--processor", "message.wasm", "--input", "rows.ndjson", "--out", "out", "--json"]);
    run(&["run", "--processor", "abort.wasm", "--input", "rows.ndjson", "--out", "out2"]);
    run(&["run", "--processor", EVIL_NAME, "--input", "rows.ndjson", "--out", "out3"]);
    // It was all said, as text: nothing of it is lost.
    let said = said.concat();
    assert!(said.contains("</script>") && said.contains("\\u001b[2J") && said.contains("\\u009b31m"), "{said}");
}
