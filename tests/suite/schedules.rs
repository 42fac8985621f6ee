//! Schedules as a user meets them: the program as a process, over SQLite and over PostgreSQL with workers that are killed.

use std::process::Command;
use std::time::Duration;

use rowmill_tests::servers::Database;
use rowmill_tests::ticks::{Options, run};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{guests, target};

/// A directory with a store.
struct Site(TempDir);

impl Site {
    /// With a processor for `validate`, and a file of two rows.
    fn new() -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        site.said(&["deploy", "bank", "validate", guests::path("bank-transactions").to_str().unwrap(), "--activate"]);
        let rows = "id,account,amount,currency,date,type\nT1,DE9710027535,1.25,EUR,2026-01-31,deposit\nT2,DE9710027535,2.25,EUR,2026-01-31,deposit\n";
        site.file("rows.csv", rows);
        site
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Its status, stdout and stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(target().join("release/rowmill"));
        let output = command.args(arguments).current_dir(self.0.path()).env("ROWMILL_CACHE_DIR", guests::cache()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// What a command printed, which succeeded.
    fn said(&self, arguments: &[&str]) -> String {
        let (status, out, err) = self.run(arguments);
        assert_eq!(status, 0, "{arguments:?}: {out} {err}");
        out
    }

    fn schedule(&self) -> Value {
        let all: Value = serde_json::from_str(&self.said(&["schedules", "--json"])).unwrap();
        all[0].clone()
    }
}

#[test]
fn a_schedule_is_set_shown_paused_resumed_and_removed() {
    let site = Site::new();
    assert_eq!(site.said(&["schedules"]), "APP  NAME  OP  CRON  ZONE  NEXT  LAST  LAST BATCH  ERROR");
    let set = ["schedules", "set", "bank", "nightly", "VALIDATE", "--cron", "0 7 * * MON-FRI", "--zone", "europe/berlin", "--input", "rows.csv"];
    let said = site.said(&[&set[..], &["--missed", "once", "--overlap", "skip", "--priority", "-3", "--attempts", "2"]].concat());
    assert!(said.contains("nightly  validate  0 7 * * MON-FRI  Europe/Berlin") && said.contains("T07:00:00+0"), "{said}");
    let listed = site.schedule();
    for (key, value) in [("app", "bank"), ("name", "nightly"), ("kind", "batch"), ("missed", "once"), ("overlap", "skip"), ("zone", "Europe/Berlin")]
    {
        assert_eq!(listed[key], value, "{listed}");
    }
    assert_eq!(
        (&listed["terms"]["priority"], &listed["terms"]["attempts_max"], &listed["rows"], &listed["paused"]),
        (&(-3).into(), &2.into(), &2.into(), &false.into())
    );
    assert!(listed.get("token").is_none());
    let next = site.said(&["schedules", "next", "bank", "nightly", "--count", "3"]);
    assert!(next.lines().count() == 3 && next.lines().all(|tick| tick.contains("T07:00:00+0")), "{next}");
    let json: Vec<i64> = serde_json::from_str(&site.said(&["schedules", "next", "bank", "nightly", "--json"])).unwrap();
    assert_eq!((json.len(), json[0]), (5, listed["next_at"].as_i64().unwrap()));

    assert!(site.said(&["schedules", "pause", "bank", "nightly"]).contains("  paused"));
    assert!(site.run(&["schedules", "next", "bank", "nightly"]).2.contains("it is paused"));
    assert!(!site.said(&["schedules", "resume", "bank", "nightly"]).contains("  paused"));
    assert_eq!(site.said(&["schedules", "other"]).lines().count(), 1);
    assert_eq!(site.said(&["schedules", "bank"]).lines().count(), 2);
    site.said(&["schedules", "remove", "bank", "nightly"]);
    assert_eq!(site.said(&["schedules", "--json"]), "[]");
}

#[test]
fn a_worker_runs_what_is_due_and_does_not_wait_for_the_next_tick() {
    let site = Site::new();
    site.said(&["schedules", "set", "bank", "s", "validate", "--cron", "* * * * * *", "--missed", "all", "--input", "rows.csv"]);
    let ended = |schedule: &Value| schedule["last_batch"].as_str().map(str::to_owned);
    let batch = loop {
        // The first time its tick may not have come.
        assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
        if let Some(batch) = ended(&site.schedule()) {
            break batch;
        }
    };
    // The last one may have been submitted when the worker was about to end.
    site.said(&["schedules", "pause", "bank", "s"]);
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    let status: Value = serde_json::from_str(&site.said(&["status", &batch, "--json"])).unwrap();
    assert_eq!((&status["status"], &status["success"]), (&"success".into(), &2.into()));
    let listed = site.said(&["schedules"]);
    assert!(listed.contains(&batch), "{listed}");
}

#[test]
fn what_cannot_be_scheduled_gets_a_sentence_and_status_2() {
    let site = Site::new();
    site.file("bad.ndjson", "{\"a\":1}\n{oops\n");
    site.file("many.ndjson", &"{}\n".repeat(1_001));
    site.file("large.ndjson", &format!("\"{}\"\n", "x".repeat(600_000)).repeat(2));
    let set = |more: &[&str]| site.run(&[&["schedules", "set", "bank", "s", "validate"], more].concat());
    let good = ["--cron", "* * * * *", "--input", "rows.csv"];
    for (arguments, sentence) in [
        (&["--cron", "61 * * * *", "--input", "rows.csv"][..], "\"61\" is no minute; minutes are 0 to 59"),
        (&["--cron", "0 0 31 2 *", "--input", "rows.csv"], "never comes"),
        (&["--cron", "* * * * *", "--zone", "Mars/Olympus", "--input", "rows.csv"], "there is no time zone \"Mars/Olympus\""),
        (&["--cron", "* * * * *", "--input", "missing.csv"], "cannot read missing.csv"),
        (&["--cron", "* * * * *", "--input", "bad.ndjson"], "the row of line 2 would fail each time"),
        (&["--cron", "* * * * *", "--input", "many.ndjson"], "many.ndjson is too large for a schedule, which has at most 1000 rows"),
        (&["--cron", "* * * * *", "--input", "large.ndjson"], "large.ndjson is too large for a schedule"),
        (&["--cron", "* * * * *"], "--input <FILE>"),
        (&["--cron", "* * * * *", "--query", "{oops"], "--query: not valid JSON"),
        (&["--cron", "* * * * *", "--input", "rows.csv", "--context", "{oops"], "--context: not valid JSON"),
    ] {
        let (status, out, err) = set(arguments);
        assert!(status == 2 && out.is_empty() && err.contains(sentence), "{arguments:?}: {status} {out} {err}");
    }
    assert_eq!(site.said(&["schedules", "--json"]), "[]");
    for action in ["pause", "resume", "remove", "next"] {
        let (status, _, err) = site.run(&["schedules", action, "bank", "s"]);
        assert!(status == 2 && err.contains("app \"bank\" has no schedule \"s\""), "{err}");
    }
    let (status, _, err) = site.run(&[&["schedules", "bank", "set", "bank", "s", "validate"], &good[..]].concat());
    assert!(status == 2 && err.contains("what is to be done comes before the app"), "{err}");
    // A schedule may come before the processor of its kind: it is taken, and the command says so.
    let (status, _, err) = site.run(&[&["schedules", "set", "bank", "s", "later"], &good[..]].concat());
    let said = "ticks cannot be submitted yet: app \"bank\" has no batch processor that serves the operation \"later\":";
    assert!(status == 0 && err.contains(said) && !err.contains("replaced"), "{err}");
    // One schedule takes the place of another, and the command says which.
    let (status, _, err) = set(&["--cron", "* * * * *", "--query", "{}"]);
    assert!(err.starts_with("schedule s of app bank is replaced as a whole: it submitted batches of rows to later, at * * * * * in UTC"), "{err}");
    let said = "has no slow-query processor that serves the operation \"validate\" (its batch processor does not run slow queries)";
    assert!(status == 0 && err.contains(said), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_submit_each_tick_once() {
    let database = Database::create().unwrap();
    let options = Options { processes: 3, ticks: 20, kill_every: Duration::from_millis(1_500), seed: 7 };
    let report = run(&database.url(), &options).await.unwrap();
    assert!(report.is_right() && report.killed >= 5 && report.ticks >= 20, "{report:#?}");
}
