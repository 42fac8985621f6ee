//! Batches of an app, from the shell.

use serde_json::Value;

use super::{Installation, transactions};

#[test]
fn batches_are_listed_and_found_by_their_files_keys_and_states() {
    let site = Installation::database_and_directory();
    site.deploy("validate", "bank-transactions");
    let first = site.file("first.csv", &transactions(1, 60));
    let submit = |arguments: &[&str]| site.said(&[&["submit", "bank", "validate"], arguments].concat());
    let plain = submit(&[&first, "--context", r#"{"day":"2026-01-31","n":12345678901234567890}"#]);
    let keyed = submit(&[&site.file("second.csv", &transactions(1, 5)), "--key", "k1", "--group", "g"]);
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    let inbox = site.objects().join("inbox/day");
    std::fs::create_dir_all(&inbox).unwrap();
    std::fs::write(inbox.join("third.csv"), transactions(7, 9)).unwrap();
    let object = submit(&["object:inbox/day/third.csv", "--hold"]);

    let found = |filters: &[&str]| -> Vec<String> {
        let lines = site.lines(&[&["batches", "bank", "--json"], filters].concat());
        lines.iter().map(|batch| batch["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(&[]), [object.as_str(), keyed.as_str(), plain.as_str()]);
    assert_eq!(found(&["--file", "first.csv"]), [plain.as_str()]);
    assert_eq!(found(&["--key", "k1"]), [keyed.as_str()]);
    assert_eq!(found(&["--group", "g"]), [keyed.as_str()]);
    assert_eq!(found(&["--status", "failed", "--status", "wait"]), [object.as_str(), plain.as_str()]);
    assert_eq!(found(&["--op", "VALIDATE", "--since", "1h", "--version", "1"]).len(), 3);
    assert_eq!(found(&["--until", "1h"]), [] as [&str; 0]);
    let sha256 = site.status(&plain)["input_files"][0]["sha256"].as_str().unwrap().to_uppercase();
    assert_eq!(found(&["--sha256", &sha256]), [plain.as_str()]);
    let (status, out, said) = site.run(&["batches", "bank", "--limit", "2", "--json"]);
    assert_eq!((status, out.lines().count()), (0, 2));
    let after = said.split("--after ").nth(1).unwrap().trim();
    assert_eq!(found(&["--after", after]), [plain.as_str()]);
    let table = site.said(&["batches", "bank"]);
    let line = table.lines().find(|line| line.contains(&plain)).unwrap();
    assert!(line.contains("failed") && line.contains("first.csv"), "{line}");
    assert_eq!(site.run(&["batches", "bank", "--sha256", "abc"]).0, 2);

    // The object that a file was read from, and the context.
    let status = site.status(&object);
    assert_eq!(status["input_files"][0]["name"], "third.csv");
    assert_eq!(status["input_files"][0]["source_object"], "inbox/day/third.csv");
    assert!(site.said(&["status", &object]).contains("read from object:inbox/day/third.csv"));
    let said = site.said(&["status", &plain, "--json"]);
    assert!(said.contains(r#""context":{"day":"2026-01-31","n":12345678901234567890}"#), "{said}");
    let said = site.said(&["status", &plain]);
    assert!(said.contains(r#"context {"day":"2026-01-31","n":12345678901234567890}"#), "{said}");
    // It is the submitter's own, and stays.
    site.said(&["release", &object]);
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    let exported: Value = serde_json::from_str(&site.said(&["export", &object, "--out", "out", "--remove"])).unwrap();
    assert_eq!(exported["removed"]["batches"], 1);
    assert!(inbox.join("third.csv").exists());
}
