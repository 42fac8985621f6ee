//! The course of an instance, a lease and a batch: what does not start, does not end, traps, kills its worker, is aborted.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use rowmill::jobs::BatchRequest;
use rowmill::model::{BatchStatus, Grants, HttpGrant, KeyValueGrant, Limits, RowStatus};
use rowmill_tests::reaching::with_what_it_imports;
use rowmill_tests::servers::Database;
use rowmill_tests::stopping;
use serde_json::{Value, json};

use super::{Arena, HOSTILE, failure, free};
use crate::jobs::row;
use crate::sandbox::wasi;
use crate::service::{Installation, eventually, transactions};
use crate::support::guests;
use crate::support::wat::Wat;

#[tokio::test(flavor = "multi_thread")]
async fn life_1_what_does_not_start_or_end_fails_its_own_rows_at_most() {
    let arena = Arena::open().await;
    arena.limit(Limits { fuel: 10_000_000, timeout: Duration::from_millis(100), ..free() }).await;
    for (op, reason) in [
        ("panic", "init panics on purpose"),
        ("error", "init: the configuration is wrong on purpose"),
        ("loop", "init: ran out of fuel: used 100000000, the limit is 100000000"),
    ] {
        arena.deploy(op, guests::read("misbehaving-init")).await;
        let (batch, rows) = arena.attack(op, &["{}", "{}", "{}"]).await;
        assert_eq!((batch.status, batch.counts.failed), (BatchStatus::Failed, 3));
        for row in &rows {
            let told = failure(row);
            assert!(told.code == "configerror" && told.values[0].contains(reason), "{op}: {told:?}");
        }
    }
    // Its rows are done before: nothing waits for its end, which has an end.
    let asleep = wasi::guest(&["wasi:io/poll", "wasi:clocks/monotonic-clock"])
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.0", "[method]pollable.block", "block", "(param i32)")
        .body("close", "(call $block (call $subscribe (i64.const 3600000000000)))");
    for (op, guest) in [
        ("close-asleep", asleep),
        ("close-loop", Wat::batch().body("close", "(loop $again (br $again))")),
        ("close-trap", Wat::batch().body("close", "(unreachable)")),
    ] {
        arena.deploy(op, guest.module()).await;
        for _ in 0..3 {
            assert_eq!(arena.attack(op, &["{}", "{}"]).await.0.status, BatchStatus::Success, "{op}");
        }
    }
    arena.close().await;
}

/// What a row does outside of its instance happens once: neighbours are not run again.
#[tokio::test(flavor = "multi_thread")]
async fn life_2_a_trap_costs_its_row_and_runs_no_other_again() {
    let arena = Arena::open().await;
    let http = HttpGrant { allow: ["https://api.example.com".parse().unwrap()].into(), ..HttpGrant::default() };
    let values = [("word".to_owned(), "a value".to_owned())].into();
    let grants = with_what_it_imports(Grants { http: Some(http), key_value: Some(KeyValueGrant::default()), values, ..Grants::default() });
    assert!(arena.site.jobs.set_grants(HOSTILE, &Grants::default(), &grants).await.unwrap());
    arena.deploy("reach", guests::read("reaching")).await;
    let count = r#"[{"do":"increment","key":"n","delta":1}]"#;
    let trap = r#"[{"do":"increment","key":"traps","delta":1},{"do":"tell","key":"word","place":"panic"}]"#;
    let inputs: Vec<&str> = (0..60).map(|at| if at % 6 == 3 { trap } else { count }).collect();
    let (batch, rows) = arena.attack("reach", &inputs).await;
    assert_eq!((batch.counts.success, batch.counts.failed), (50, 10));
    for (input, row) in inputs.iter().zip(&rows) {
        assert_eq!(row.attempts, 1);
        if *input == trap {
            let told = failure(row);
            assert!(told.code == "trap" && told.values[0].contains("panicked at "), "{told:?}");
        } else {
            assert_eq!(row.status, Some(RowStatus::Success));
        }
    }
    let (_, rows) = arena.attack("reach", &[r#"[{"do":"get","key":"n"},{"do":"get","key":"traps"}]"#]).await;
    assert_eq!(rows[0].output.as_deref(), Some(r#"["50","10"]"#));
    arena.close().await;
}

/// A row that kills each worker that runs it, as far as workers can tell: they die while it runs.
#[test]
fn life_2_a_row_that_kills_its_worker_is_quarantined_and_no_other_is_lost() {
    let site = Installation::database_and_directory();
    let deploy = |app: &str, op: &str, guest: &str| site.said(&["deploy", app, op, guests::path(guest).to_str().unwrap(), "--activate"]);
    deploy("hostile", "sleep", "sleeper");
    deploy("healthy", "validate", "bank-transactions");
    let write = |name: &str, text: &str| std::fs::write(site.directory.path().join(name), text).unwrap();
    write("rows.ndjson", "{\"ms\":1}\n{\"ms\":1}\n{\"ms\":3600000}\n{\"ms\":1}\n{\"ms\":1}\n");
    write("healthy.csv", &transactions(1, 49));
    site.said(&["apps", "set", "hostile", "--timeout", "1h"]);
    let batch = site.said(&["submit", "hostile", "sleep", "rows.ndjson"]);
    let mut killed = 0;
    loop {
        // A lease lives long enough not to end on a busy machine, where that would count as one more crash.
        let mut command =
            site.command(&["work", "--set", &format!("worker.name=w{killed}"), "--set", "worker.slots=2", "--set", "worker.heartbeat=2s"]);
        let mut worker = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The healthy app's rows come through each of these workers, before it dies.
        let healthy = site.said(&["submit", "healthy", "validate", "healthy.csv"]);
        eventually(|| (site.status(&healthy)["status"] == "success").then_some(()));
        let ended = eventually(|| {
            let status = site.status(&batch);
            let is_final = status["status"] != "queued" && status["status"] != "inprog";
            let workers: Value = serde_json::from_str(&site.said(&["workers", "--json"])).unwrap();
            let own = workers.as_array().unwrap().iter().find(|worker| worker["name"] == format!("w{killed}"))?;
            let runs = own["runs"].as_array().unwrap().iter().any(|run| run["app"] == "hostile");
            (is_final || runs).then_some(is_final)
        });
        let signal = if ended { Signal::SIGTERM } else { Signal::SIGKILL };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.id().cast_signed()), signal).unwrap();
        worker.wait().unwrap();
        if ended {
            break;
        }
        killed += 1;
        assert!(killed < 12, "it is never put into quarantine: {}", site.status(&batch));
    }
    let rows = site.lines(&["rows", &batch]);
    let statuses: Vec<&str> = rows.iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["success", "success", "failed", "success", "success"]);
    assert_eq!(rows[2]["messages"][0]["code"], "quarantined");
    assert!(killed >= 4, "{killed} workers died");
    println!("{killed} workers died");
}

/// Some tries of each kind, among some others that run: how long it takes is measured by `make stopping`.
#[tokio::test(flavor = "multi_thread")]
async fn life_3_abort_and_deadline_stop_a_guest_wherever_it_is() {
    let database = Database::create().unwrap();
    let report = stopping::run(&database.url(), &stopping::Options { tries: 3, beside: 6 }).await.unwrap();
    println!("{report:?}");
    assert_eq!((report.abort.len(), report.deadline.len()), (3, 3));
    // Far more than a second, for machines that have much else to do.
    assert!(report.abort.values().chain(report.deadline.values()).all(|times| times.max_ms < 30_000.0), "{report:?}");
}

/// Between rows, and in a guest that makes the host work.
#[tokio::test(flavor = "multi_thread")]
async fn life_3_an_abort_between_rows_and_in_a_flood_lets_nothing_more_be_run() {
    let arena = Arena::open().await;
    arena.limit(Limits { fuel: Limits::most().fuel, ..free() }).await;
    let flood = "(loop $again (call $log (i32.const 0) (i32.const 65536) (i32.const 15728640)) (br $again))";
    arena.deploy("flood", Wat::batch().import_log().pages(300).body("process-row", flood).module()).await;
    arena.deploy("rows", guests::read("sleeper")).await;
    let nap = json!({"ms": 1}).to_string();
    for (op, inputs) in [("flood", vec!["{}"; 10]), ("rows", vec![nap.as_str(); 20_000])] {
        let rows = (1..).zip(inputs).map(|(line, input)| row(line, input)).collect();
        let id = arena.site.jobs.batch_submit(BatchRequest::new(HOSTILE, op).with_rows(rows)).await.unwrap();
        arena.until_it_runs(id).await;
        arena.beside(async { arena.site.jobs.batch_abort(id, Some("enough")).await.unwrap() }).await;
        let before = arena.site.wait(id).await;
        super::until(async || arena.site.jobs.list_workers().await.unwrap().iter().all(|worker| worker.runs.iter().all(|run| run.app != HOSTILE)))
            .await;
        arena.healthy_batch().await;
        let after = arena.site.store.read_batch(id).await.unwrap();
        assert_eq!((after.status, after.counts), (BatchStatus::Aborted, before.counts), "{op}: something was recorded after the abort");
    }
    arena.close().await;
}
