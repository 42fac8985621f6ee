//! Batches that are run again, from the shell, with real workers.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Installation, eventually, transactions};

#[test]
fn what_failed_is_run_again_and_the_history_is_kept() {
    let site = Installation::shared();
    site.deploy("sleep", "sleeper");
    site.said(&["apps", "set", "bank", "--timeout", "1s"]);
    let rows = site.file("rows.ndjson", "{\"ms\":1}\n{\"ms\":2000}\n{\"ms\":1}\n{\"ms\":2000}\n");
    let _worker = site.worker("one", 4);
    let batch = site.said(&["submit", "bank", "sleep", &rows]);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 1);
    let codes = |arguments: &[&str]| {
        let lines = site.lines(arguments);
        lines.iter().map(|row| (row["round"].as_u64(), row["line"].as_u64().unwrap(), row["messages"][0]["code"].to_string())).collect::<Vec<_>>()
    };
    let deadline = || "\"deadline\"".to_owned();
    assert_eq!(codes(&["rows", &batch, "--status", "failed"]), [(None, 2, deadline()), (None, 4, deadline())]);
    assert_eq!(site.said(&["rows", &batch, "--history"]), "");
    let (status, _, said) = site.run(&["retry", &batch, "--code", "trap"]);
    assert!(status == 2 && said.contains("has no failed row with one of these codes"), "{said}");

    // They have more time now.
    site.said(&["apps", "set", "bank", "--timeout", "1h"]);
    let (status, rows, said) = site.run(&["retry", &batch, "--code", "deadline"]);
    assert_eq!((status, rows.as_str(), said.as_str()), (0, "2", format!("round 2 of batch {batch}").as_str()));
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 0);
    let ended = site.status(&batch);
    assert_eq!((&ended["status"], &ended["success"], &ended["round"], &ended["done"]), (&"success".into(), &4.into(), &2.into(), &true.into()));
    assert_eq!((&ended["past_rounds"][0]["status"], &ended["past_rounds"][0]["failed"]), (&"failed".into(), &2.into()));
    assert_eq!(codes(&["rows", &batch, "--history"]), [(Some(1), 2, deadline()), (Some(1), 4, deadline())]);
    assert!(site.said(&["status", &batch]).contains("round 1 was failed: 2 success, 2 failed, 0 aborted"));
    let (status, _, said) = site.run(&["retry", &batch]);
    assert!(status == 2 && said.contains("has no failed row: there is nothing to retry"), "{said}");
}

#[test]
fn a_batch_that_was_aborted_goes_on_with_a_retry_whatever_is_killed() {
    let site = Installation::shared();
    site.deploy("sleep", "sleeper");
    let rows = site.file("rows.ndjson", &"{\"ms\":100}\n".repeat(40));
    let killed = site.worker("killed", 2);
    let batch = site.said(&["submit", "bank", "sleep", &rows]);
    site.wait_until_it_runs("killed", 2);
    let (status, _, said) = site.run(&["retry", &batch]);
    assert!(status == 2 && said.contains("it can be retried once it has ended"), "{said}");
    site.said(&["abort", &batch]);
    eventually(|| (site.status(&batch)["done"] == true).then_some(()));
    let (status, _, said) = site.run(&["retry", &batch]);
    assert!(status == 2 && said.contains("it can only be retried with the rows that were aborted (--aborted)"), "{said}");
    let aborted = site.status(&batch)["aborted"].to_string();
    assert_eq!(site.said(&["retry", &batch, "--aborted"]), aborted);
    site.wait_until_it_runs("killed", 1);
    killed.signal(Signal::SIGKILL);
    let _other = site.worker("other", 4);
    assert_eq!(site.run(&["status", &batch, "--watch"]).0, 0);
    let ended: Value = site.status(&batch);
    assert_eq!((&ended["success"], &ended["past_rounds"][0]["status"]), (&40.into(), &"aborted".into()));
    assert_eq!(ended["past_rounds"][0]["aborted"].to_string(), aborted);
}

/// The file of failed rows, corrected, is a batch of its own.
#[test]
fn failed_rows_are_corrected_and_submitted_again() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let file = site.file("t.csv", &transactions(1, 100));
    let path = super::guests::path("bank-transactions");
    assert_eq!(site.run(&["run", "--processor", path.to_str().unwrap(), "--input", &file, "--out", "out"]).0, 1);
    let failed = std::fs::read_to_string(site.directory.path().join("out/failed.csv")).unwrap();
    assert!(failed.lines().count() == 3 && failed.contains(",much,"), "{failed}");
    let corrected = site.file("corrected.csv", &failed.replace(",much,", ",50.25,"));
    let (status, out, err) = site.run(&["submit", "bank", "validate", &corrected, "--wait", "--json"]);
    let batch: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {err}"));
    assert_eq!((status, &batch["rows"], &batch["success"]), (0, &2.into(), &2.into()));

    // The same from the results of a batch.
    let (_, id, _) = site.run(&["submit", "bank", "validate", &file, "--wait"]);
    let id = id.as_str();
    site.said(&["results", id, "--out", "results"]);
    let failed = std::fs::read_to_string(site.directory.path().join("results/failed.ndjson")).unwrap();
    let corrected = site.file("corrected.ndjson", &failed.replace("\"much\"", "\"50.25\""));
    assert_eq!(site.run(&["submit", "bank", "validate", &corrected, "--wait"]).0, 0);
    // A record of another length does not come back as a row that a processor could read by the order of its fields.
    let ragged = site.file("ragged.csv", "id,date,type,account,to_account,amount,currency,memo\nT1,2026-01-31,deposit,DE0123456789,,10.00,EUR,\nT2,2026-01-31,deposit,DE0123456789,,10.00,\"E,R\"\n");
    let (status, out, _) = site.run(&["submit", "bank", "validate", &ragged, "--wait"]);
    assert_eq!(status, 1);
    site.said(&["results", &out, "--out", "ragged"]);
    let failed = std::fs::read_to_string(site.directory.path().join("ragged/failed.ndjson")).unwrap();
    let line: Value = serde_json::from_str(&failed).unwrap();
    assert_eq!((&line["text"], line.get("input")), (&"T2,2026-01-31,deposit,DE0123456789,,10.00,\"E,R\"".into(), None));
    let again = site.file("again.ndjson", &failed);
    let (_, out, _) = site.run(&["submit", "bank", "validate", &again, "--wait", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["failed"], 1, "{out}");
    // And over SQLite a retry runs what it retries.
    let (status, out, _) = site.run(&["retry", id, "--wait", "--json"]);
    let retried: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &retried["round"], &retried["failed"]), (1, &2.into(), &2.into()));
}
