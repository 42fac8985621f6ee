//! Limits, logs and usage of apps, from the command line.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Installation, eventually};

#[test]
fn an_operator_bounds_what_apps_may_be_given_and_sees_what_they_used() {
    let site = Installation::embedded();
    site.deploy("misbehave", "misbehaving");
    let (status, _, said) = site.run(&["apps", "--set", "maximum.fuel=1500000", "set", "bank", "--fuel", "2000000"]);
    assert_eq!(
        (status, said.as_str()),
        (2, "rowmill: app \"bank\" was to have fuel 2000000, but the most that an app may have is 1500000 (maximum.fuel)")
    );
    let (status, _, said) = site.run(&["config", "--set", "maximum.batch_rows=5", "--set", "limits.batch_rows=6"]);
    assert!(status == 2 && said.ends_with("it should be no more than maximum.batch_rows, which is 5"), "{said}");
    let set = ["apps", "set", "bank", "--fuel", "2000000", "--batch-rows", "3", "--batch-log", "40B", "--query-timeout", "30s", "--json"];
    let app: Value = serde_json::from_str(&site.said(&set)).unwrap();
    assert_eq!(app[0]["limits"]["query_timeout_ms"], 30_000);
    assert_eq!(app[0]["quota"], serde_json::json!({ "batch_rows": 3, "batch_log_bytes": 40 }));
    // What is given later leaves the rest as it was.
    let app: Value = serde_json::from_str(&site.said(&["apps", "set", "bank", "--queued-rows", "10", "--json"])).unwrap();
    assert_eq!((&app[0]["quota"]["batch_rows"], &app[0]["limits"]["fuel"]), (&3.into(), &2_000_000.into()));

    let four = site.file("four.ndjson", &"{\"do\":\"ok\"}\n".repeat(4));
    let (status, _, said) = site.run(&["submit", "bank", "misbehave", &four]);
    assert!(status == 2 && said.contains("the batch would have 4 rows, and a batch of app \"bank\" may have 3 at most"), "{said}");
    let rows = site.file("rows.ndjson", "{\"do\":\"escapes\"}\n{\"do\":\"loop\"}\n{\"do\":\"escapes\"}\n");
    let id = site.said(&["submit", "bank", "misbehave", &rows]);
    site.said(&["work", "--until-idle"]);
    let logs = site.said(&["logs", &id]);
    // Which of the two logs comes first is chance: the rows run side by side.
    let line = if logs.starts_with("1: ") { 1 } else { 3 };
    assert!(logs.starts_with(&format!("{line}: info: ")) && !logs.chars().any(|character| character.is_control() && character != '\n'), "{logs:?}");
    assert!(logs.ends_with("[the logs of 1 rows were dropped: together they were more than a batch of this app may log]"), "{logs}");
    let lines = site.lines(&["logs", &id, "--json"]);
    assert_eq!((&lines[0]["line"], &lines[1]["dropped"]), (&line.into(), &1.into()));
    assert_eq!(site.run(&["logs", &id, "--line", "2"]).0, 1);
    let usage: Value = serde_json::from_str(&site.said(&["usage", "bank", "--by", "version", "--json"])).unwrap();
    let sum = &usage["usage"][0];
    assert_eq!((&sum["version"], &sum["success"], &sum["failed"], &sum["codes"]["out_of_fuel"]), (&1.into(), &2.into(), &1.into(), &1.into()));
    assert_eq!(usage["fuel_per_row"][0]["rows"], 2);
    assert!(usage["fuel_per_row"][0]["suggested_limit"].as_u64().unwrap() > usage["fuel_per_row"][0]["p99"].as_u64().unwrap());
    assert!(site.said(&["usage", "bank"]).contains("SUGGESTED LIMIT"));
}

#[test]
fn what_mark_done_did_is_shown_by_status_and_logs() {
    let site = Installation::embedded();
    site.deploy("carry", "courier");
    let rows = site.file("rows.ndjson", "{}\n");
    let context = r#"{"mark":[{"do":"attempt"},{"do":"retry","until":99,"after_ms":1}]}"#;
    let id = site.said(&["submit", "bank", "carry", &rows, "--attempts", "2", "--context", context]);
    assert_eq!(site.run(&["logs", &id, "--mark"]), (1, String::new(), String::new()));
    site.said(&["work", "--until-idle"]);
    let status = site.said(&["status", &id]);
    assert!(status.lines().any(|line| line == "mark-done failed after 2 calls: not yet"), "{status}");
    let status: Value = serde_json::from_str(&site.said(&["status", &id, "--json"])).unwrap();
    assert_eq!((&status["mark_calls"], &status["mark_error"], &status["done"]), (&2.into(), &"not yet".into(), &true.into()));
    let logs = "call 1: info: 1\n[call 1 failed: not yet]\ncall 2: info: 2\n[call 2 failed: not yet]";
    assert_eq!(site.said(&["logs", &id, "--mark"]), logs);
    let lines = site.lines(&["logs", &id, "--mark", "--round", "1", "--json"]);
    let seen: Vec<_> = lines.iter().map(|line| (line["round"].as_u64(), line["call"].as_u64(), line["log"].as_str())).collect();
    assert_eq!(seen, [(Some(1), Some(1), Some("info: 1\n")), (Some(1), Some(2), Some("info: 2\n"))]);
    let (status, _, said) = site.run(&["logs", &id, "--mark", "--round", "2"]);
    assert_eq!((status, said), (2, format!("rowmill: batch {id} has no round 2: it is in round 1")));
    // The next call is due at a time that everybody can see.
    let later = r#"{"mark":[{"do":"retry","until":99,"after_ms":3600000}]}"#;
    let waiting = site.said(&["submit", "bank", "carry", &rows, "--context", later]);
    let mut worker = site.worker("one", 1);
    eventually(|| std::fs::read_to_string(&worker.log).unwrap().contains("it is called again in 1h").then_some(()));
    worker.signal(Signal::SIGTERM);
    assert!(worker.child.wait().unwrap().success());
    let told = site.said(&["status", &waiting]);
    assert!(told.contains("\nmark-done failed after 1 call: not yet; call 2 of at most 3 is due at "), "{told}");
    let status: Value = serde_json::from_str(&site.said(&["status", &waiting, "--json"])).unwrap();
    assert!(status["mark_due_at"].is_i64() && status["done"] == false, "{status}");
}
