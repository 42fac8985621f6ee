//! When batches run, how fast, and how they end: from the shell, with real workers.

use rowmill_tests::servers::Database;
use serde_json::Value;

use super::{Installation, eventually, transactions};

/// Milliseconds of any ten seconds, by the database's clock.
const WINDOW_MS: i64 = 10_000;

#[test]
fn a_batch_starts_at_its_time_and_is_aborted_at_its_deadline() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 40));
    let _worker = site.worker("one", 2);
    let started = site.said(&["submit", "bank", "validate", &file, "--start-at", "700ms"]);
    let never = site.said(&["submit", "bank", "validate", &file, "--start-at", "2h", "--deadline", "3h"]);
    let held = site.said(&["submit", "bank", "validate", &file, "--hold", "--deadline", "3s"]);
    assert!(site.run(&["submit", "bank", "validate", &file, "--start-at", "2h", "--deadline", "1h"]).2.contains("cannot start after its deadline"));
    assert!(site.run(&["submit", "bank", "validate", &file, "--start-at", "1h", "--key", "k"]).2.contains("write the moment itself"));
    let shown = site.said(&["status", &never]);
    assert!(shown.contains("starts at 20") && shown.contains("ends at 20"), "{shown}");
    assert_eq!(site.status(&never)["status"], "queued");
    site.said(&["abort", &never]);
    assert_eq!(site.run(&["status", &started, "--watch"]).0, 0);
    let ended = site.status(&started);
    assert!(ended["started_at"].as_i64() >= ended["start_at"].as_i64(), "{ended}");
    assert_eq!(site.run(&["status", &held, "--watch"]).0, 1);
    let ended = site.status(&held);
    assert_eq!((ended["status"].as_str(), ended["aborted"].as_u64()), (Some("aborted"), Some(40)));
    assert_eq!(ended["abort_reason"], "its deadline has passed");
}

/// Its guests are stopped, wherever they run.
#[test]
fn a_deadline_stops_what_runs() {
    let site = Installation::shared();
    site.deploy("misbehave", "misbehaving");
    let worker = site.worker("one", 1);
    let file = site.file("loop.ndjson", "{\"do\":\"loop\"}\n");
    site.said(&["apps", "set", "bank", "--fuel", "1000000000000", "--timeout", "1h"]);
    let batch = site.said(&["submit", "bank", "misbehave", &file, "--deadline", "2s"]);
    site.wait_until_it_runs("one", 1);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 1);
    assert_eq!(site.status(&batch)["abort_reason"], "its deadline has passed");
    eventually(|| {
        let workers: Value = serde_json::from_str(&site.said(&["workers", "--json"])).unwrap();
        workers[0]["runs"].as_array().unwrap().is_empty().then_some(())
    });
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.ends(), Some(0));
}

#[test]
fn a_batch_is_aborted_when_more_rows_fail_than_may() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    site.said(&["policies", "set", "bank", "--op", "validate", "--failures-max", "0"]);
    let file = site.file("some.csv", &transactions(1, 2_000));
    let _worker = site.worker("one", 1);
    let batch = site.said(&["submit", "bank", "validate", &file]);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 1);
    let ended = site.status(&batch);
    let reason = ended["abort_reason"].as_str().unwrap();
    assert!(reason.ends_with(" failed; the limit is 0"), "{ended}");
    assert!(ended["aborted"].as_u64() > Some(0) && ended["failed"].as_u64() > Some(0), "{ended}");
    // A submission's own word goes before.
    let batch = site.said(&["submit", "bank", "validate", &file, "--failures-max", "50%"]);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 1);
    assert_eq!(site.status(&batch)["status"], "failed");
    // Failed rows are found by their code.
    let code = |code: &'static str| site.lines(&["rows", &batch, "--status", "failed", "--code", code]).len();
    let codes: Vec<String> = site.lines(&["rows", &batch, "--status", "failed"]).iter().map(|row| row["messages"][0]["code"].to_string()).collect();
    assert_eq!((codes.len(), code("no-such-code")), (40, 0));
    let first = codes[0].trim_matches('"');
    assert_eq!(site.lines(&["rows", &batch, "--code", "no-such-code", "--code", first]).len(), 40);
}

#[test]
fn what_is_paused_waits_and_goes_on() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 40));
    let _worker = site.worker("one", 2);
    site.said(&["pause", "bank", "validate"]);
    site.said(&["pause", "bank"]);
    let batch = site.said(&["submit", "bank", "validate", &file]);
    let policies: Value = serde_json::from_str(&site.said(&["policies", "--json"])).unwrap();
    let states: Vec<_> = policies.as_array().unwrap().iter().map(|policy| (&policy["op"], &policy["paused"])).collect();
    assert_eq!(states, [(&Value::Null, &true.into()), (&"validate".into(), &true.into())]);
    let (status, _, err) = site.run(&["resume", "bank", "validate"]);
    assert_eq!((status, err.as_str()), (0, "the app bank is paused as a whole: rowmill resume bank"));
    assert_eq!(site.status(&batch)["status"], "queued");
    site.said(&["resume", "bank"]);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 0);
    assert_eq!(site.run(&["policies", "remove", "shop"]).0, 1);
    assert!(site.run(&["policies", "set", "bank", "--rate", "5"]).2.contains("it looks like 500/s"));
    assert!(site.run(&["policies", "set", "bank", "--burst", "5"]).2.contains("a burst belongs to a rate"));
}

#[test]
fn the_priority_of_what_waits_decides() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 40));
    site.said(&["pause", "bank"]);
    let (first, second) = (site.said(&["submit", "bank", "validate", &file]), site.said(&["submit", "bank", "validate", &file]));
    site.said(&["priority", &second, "5"]);
    assert_eq!(site.status(&second)["priority"], 5);
    site.said(&["resume", "bank"]);
    site.said(&["work", "--until-idle", "--set", "worker.slots=1"]);
    let started = |batch| site.status(batch)["started_at"].as_i64().unwrap();
    assert!(started(&second) <= started(&first));
    let (status, _, err) = site.run(&["priority", &first, "9"]);
    assert!(status == 2 && err.contains("none of its rows waits any longer"), "{err}");
}

/// Rows are counted as they are leased, by a trigger.
#[test]
fn a_rate_holds_over_several_processes() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let database = site.database.as_ref().unwrap();
    database
        .sql(
            "CREATE TABLE leased (at bigint, rows int);
             CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO public.leased VALUES (rowmill.now_ms(), NEW.last_row - NEW.next_row + 1); RETURN NULL; END $$;
             CREATE TRIGGER note_lease AFTER INSERT ON rowmill.leases FOR EACH ROW EXECUTE FUNCTION note_lease()",
        )
        .unwrap();
    site.said(&["policies", "set", "bank", "--op", "validate", "--rate", "500/s"]);
    let file = site.file("many.csv", &transactions(1, 7_000));
    let _workers: Vec<_> = ["one", "two", "three", "four"].map(|name| site.worker(name, 2)).into();
    let batch = site.said(&["submit", "bank", "validate", &file, "--attempts", "1"]);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 1);
    assert_eq!(site.status(&batch)["status"], "failed");
    let most = most_in_a_window(database);
    assert!(most <= 5_000 * 105 / 100, "{most} rows in ten seconds");
}

fn most_in_a_window(database: &Database) -> i64 {
    let most = format!(
        "SELECT max(n) FROM (SELECT sum(rows) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND {} FOLLOWING) AS n FROM leased) w",
        WINDOW_MS - 1
    );
    database.sql(&most).unwrap().trim().parse().unwrap()
}
