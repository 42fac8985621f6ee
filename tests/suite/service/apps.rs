//! Limits, logs and usage of apps, from the command line.

use serde_json::Value;

use super::Installation;

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
