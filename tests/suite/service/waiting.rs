//! Commands that wait, and options that stand behind subcommands: from the shell.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use sqlx::Connection;

use super::{Installation, transactions};

#[test]
fn a_command_that_waits_without_a_worker_says_so_and_waits_on() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    site.deploy("statement", "account-statement");
    let file = site.file("some.csv", &transactions(1, 3));
    let input = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":0,"transactions":[]}"#;
    for (command, part) in [
        (["submit", "bank", "validate", &file, "--wait"].as_slice(), "no worker is running that takes rows"),
        (&["query", "bank", "statement", input], "no worker is running that takes slow queries"),
    ] {
        let mut waiting = site.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
        let said = lines.by_ref().map(Result::unwrap).find(|line| line.contains("no worker")).unwrap();
        assert!(said.starts_with(part) && said.ends_with("this waits until one is started (rowmill work)"), "{said}");
        assert!(waiting.try_wait().unwrap().is_none(), "it waits");
        let worker = site.worker("one", 1);
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(!rest.iter().any(|line| line.contains("no worker")), "once: {rest:?}");
        assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(0));
        worker.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(worker.ends(), Some(0));
    }
}

#[test]
fn submit_prints_the_id_alone_whether_it_waits_or_not() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 30));
    let (status, id, said) = site.run(&["submit", "bank", "validate", &file, "--wait"]);
    assert_eq!((status, id.lines().count(), site.status(&id)["rows"].as_u64()), (0, 1, Some(30)), "{id}");
    assert!(said.contains(&format!("{id}: validate of app bank, version 1, success: 30 rows")), "{said}");
    assert!(!said.contains("no worker"), "it works itself: {said}");
}

#[test]
fn options_for_all_commands_may_stand_behind_a_subcommand() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 3));
    let other = "store.url=sqlite:other.db";
    site.said(&["apps", "set", "bank", "--weight", "2", "--set", other]);
    assert!(site.said(&["apps", "--set", other]).contains('2') && !site.said(&["apps", "show", "bank"]).contains("weight 2"));
    site.said(&["policies", "set", "bank", "--rate", "5/s", "--set", other]);
    site.said(&["policies", "remove", "bank", "--set", other]);
    site.said(&["schedules", "set", "bank", "nightly", "validate", "--cron", "@daily", "--input", &file, "--set", other]);
    site.said(&["schedules", "next", "bank", "nightly", "--set", other]);
    assert!(site.said(&["schedules"]).lines().count() <= 1, "in the other store alone");
    // Both places are heard, and the last word counts.
    std::fs::write(site.directory.path().join("c.toml"), "[store]\nurl = \"sqlite:other.db\"\n").unwrap();
    site.said(&["schedules", "--set", "store.url=sqlite:third.db", "pause", "bank", "nightly", "--set", other]);
    assert!(site.said(&["schedules", "resume", "bank", "nightly", "--config", "c.toml"]).contains("nightly"));
    let (status, _, said) = site.run(&["schedules", "--config", "c.toml", "remove", "bank", "nightly", "--config", "c.toml"]);
    assert!(status == 2 && said.contains("--config is given twice"), "{said}");
    site.said(&["schedules", "--config", "c.toml", "remove", "bank", "nightly", "--set", "worker.slots=1"]);
}

#[test]
fn conditions_and_terms_that_say_nothing_are_refused() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 3));
    for (options, part) in [
        (["--when", "any"].as_slice(), "--after"),
        (&["--retry-code", ""], "a code of a rule for retries is empty"),
        (&["--backoff", "10s", "--backoff-max", "5s"], "the second attempt comes 10s after the first"),
        (&["--deadline", "2020-01-01T00:00:00Z"], "the deadline 2020-01-01T00:00:00Z has passed"),
        (&["--deadline", "0s"], "has passed"),
        (&["--key", " "], "the key of a submission begins or ends with a space"),
        (&["--group", ""], "the name of a group is empty"),
        (&["--backoff", "1.5s"], "a time looks like 500ms, 5s, 2m, 1h30m or 90d"),
    ] {
        let (status, out, said) = site.run(&[["submit", "bank", "validate", &file].as_slice(), options].concat());
        assert!(status == 2 && out.is_empty() && said.contains(part), "{options:?}: {said}");
    }
    assert_eq!(site.run(&["submit", "bank ", "validate", &file]).0, 2);
    site.said(&["submit", "bank", "validate", &file, "--start-at", "1d", "--deadline", "90d", "--backoff", "1h30m"]);
}

/// There is no worker: the command that waits applies the deadline.
#[test]
fn a_command_that_waits_without_a_worker_ends_at_the_deadline() {
    let site = Installation::database_and_directory();
    site.deploy("validate", "bank-transactions");
    site.deploy("statement", "account-statement");
    let file = site.file("some.csv", &transactions(1, 3));
    let (status, batch, said) = site.run(&["submit", "bank", "validate", &file, "--wait", "--deadline", "5s"]);
    assert!(status == 1 && said.contains("aborted: its deadline has passed"), "{said}");
    assert_eq!(site.status(&batch)["aborted"].as_u64(), Some(3));
    let held = site.said(&["submit", "bank", "validate", &file, "--hold", "--deadline", "5s"]);
    assert_eq!(site.run(&["status", &held, "--watch"]).0, 1);
    let followed = site.said(&["submit", "bank", "validate", &file, "--deadline", "5s"]);
    site.said(&["logs", &followed, "--follow"]);
    assert_eq!(site.status(&followed)["status"], "aborted");
    let (status, out, said) = site.run(&["query", "bank", "statement", "{}", "--deadline", "5s"]);
    assert!(status == 1 && out.is_empty() && said.contains("aborted: its deadline has passed"), "{said}");
}

/// Each exit status that docs/cli.md states beside 0 and 2.
#[test]
fn commands_end_with_the_exit_statuses_that_their_page_states() {
    let site = Installation::embedded();
    site.deploy("misbehave", "misbehaving");
    site.deploy("statement", "account-statement");
    let good = site.file("good.ndjson", "{\"do\":\"ok\"}\n");
    let bad = site.file("bad.ndjson", "{\"do\":\"ok\"}\n{\"do\":\"panic\"}\n");
    let queued = site.said(&["submit", "bank", "misbehave", &good]);
    let query = site.said(&["query", "bank", "statement", "{}", "--no-wait"]);
    let grouped = site.said(&["submit", "bank", "misbehave", &good, "--group", "g"]);
    for (arguments, wanted) in [
        (&["answer", &query][..], 3),
        (&["abort", &queued], 0),
        // It is aborted already.
        (&["abort", &queued], 0),
        (&["abort", &query], 0),
        (&["answer", &query], 1),
        (&["abort", &grouped], 0),
        (&["work", "--until-idle"], 0),
        (&["group", "bank", "g", "--seal", "--wait"], 1),
        (&["submit", "bank", "misbehave", &bad, "--wait"], 1),
        (&["submit", "bank", "misbehave", &good, "--wait", "--key", "k"], 0),
        (&["query", "bank", "statement", "{}"], 1),
        (&["status", &queued, "--watch"], 1),
        (&["status", &queued], 0),
        (&["retry", &queued, "--aborted", "--wait"], 0),
        // It has ended otherwise.
        (&["abort", &queued], 1),
        (&["retry", &queued], 2),
        (&["logs", &queued, "--line", "1"], 1),
        (&["logs", &queued, "--mark"], 1),
    ] {
        let (status, out, said) = site.run(arguments);
        assert_eq!(status, wanted, "{arguments:?}: {out} {said}");
    }
    let (_, _, said) = site.run(&["abort", &query]);
    assert_eq!(said, "it was aborted before; nothing was changed");
}

/// A process has three connections to PostgreSQL at least, and a worker with the least of all that it may be given works.
#[test]
fn the_least_that_a_setting_allows_works() {
    let site = Installation::database_and_directory();
    site.deploy("validate", "bank-transactions");
    site.deploy("statement", "account-statement");
    let file = site.file("some.csv", &transactions(1, 300));
    let least = [
        "store.connections=3",
        "worker.slots=1",
        "worker.query_slots=1",
        "worker.lease_rows_max=1",
        "worker.lease_target=1ms",
        "worker.drain_grace=0s",
        "processors.compiles_at_once=1",
    ];
    let with_least = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        for setting in least {
            all.extend(["--set", setting]);
        }
        site.run(&all)
    };
    let batch = with_least(&["submit", "bank", "validate", &file]).1;
    let input = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":0,"transactions":[]}"#;
    let query = with_least(&["query", "bank", "statement", input, "--no-wait"]).1;
    let (status, _, said) = with_least(&["work", "--until-idle"]);
    assert_eq!(status, 0, "{said}");
    let ended = site.status(&batch);
    // Each fiftieth transaction is wrong.
    assert_eq!((ended["success"].as_u64(), ended["failed"].as_u64()), (Some(294), Some(6)));
    assert_eq!(with_least(&["answer", &query]).0, 0);
    let (status, _, said) = site.run(&["workers", "--set", "store.connections=2"]);
    assert!(status == 2 && said.contains("it should be between 3 and 1000, not 2"), "{said}");
}

/// Before names were composed they were stored as they were given.
#[test]
fn commands_find_an_app_and_its_group_by_the_names_that_they_were_stored_with() {
    let site = Installation::embedded();
    site.deploy("misbehave", "misbehaving");
    let file = site.file("good.ndjson", "{\"do\":\"ok\"}\n");
    let batch = site.said(&["submit", "bank", "misbehave", &file, "--group", "g"]);
    let (composed, old) = ("größe", "gro\u{308}ße");
    let url = format!("sqlite:{}", site.directory.path().join("rowmill.db").display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut store = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let rename =
            format!("UPDATE batches SET app = '{old}', group_name = '{old}'; UPDATE groups SET app = '{old}', name = '{old}'; UPDATE processors SET app = '{old}';");
        sqlx::raw_sql(sqlx::AssertSqlSafe(rename)).execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    });
    for arguments in [
        &["batches", old, "--group", old, "--json"][..],
        &["groups", old, "--json"],
        &["group", old, old, "--json"],
        &["processors", old, "--json"],
        &["events", "--app", old, "--json"],
    ] {
        let said = site.said(arguments);
        assert!(said.contains(old), "{arguments:?}: {said}");
    }
    assert!(!site.said(&["batches", composed, "--json"]).contains(&batch));
}
