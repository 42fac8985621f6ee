//! Directories and prefixes of objects that results and exports are written to.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Installation, transactions};

/// A batch that is done: with failed rows from line 50 on.
fn done(site: &Installation, last: u32) -> String {
    let file = site.file("t.csv", &transactions(1, last));
    let (status, out, err) = site.run(&["submit", "bank", "validate", &file, "--wait"]);
    assert!(status < 2, "{err}");
    out.lines().next().unwrap().to_owned()
}

/// All files below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.insert(name);
        }
    }
    found
}

/// The files that a manifest names, with the manifest.
fn listed(manifest: &[u8]) -> BTreeSet<String> {
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let files = manifest["files"].as_array().unwrap().iter();
    let files = files.map(|file| file["path"].as_str().unwrap().to_owned());
    files.chain(["manifest.json".to_owned()]).collect()
}

#[test]
fn results_and_exports_are_made_anew() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let (failing, good) = (done(&site, 60), done(&site, 10));
    for (command, failed) in [("results", "failed.ndjson"), ("export", "failed.ndjson")] {
        let out = site.directory.path().join(command);
        site.said(&[command, &failing, "--out", command]);
        assert!(out.join(failed).exists());
        assert_eq!(files(&out), listed(&std::fs::read(out.join("manifest.json")).unwrap()));
        // Another batch.
        let (status, _, said) = site.run(&[command, &good, "--out", command]);
        assert!(status == 2 && said.contains(&failing) && said.contains("--overwrite"), "{said}");
        site.said(&[command, &good, "--out", command, "--overwrite"]);
        assert!(!out.join(failed).exists());
        assert_eq!(files(&out), listed(&std::fs::read(out.join("manifest.json")).unwrap()));
        // The same batch again, and the other command.
        site.said(&[command, &good, "--out", command]);
        let other = if command == "results" { "export" } else { "results" };
        let (status, _, said) = site.run(&[other, &good, "--out", command]);
        assert!(status == 2 && said.contains("--overwrite"), "{said}");
        std::fs::write(out.join("mine.txt"), "1").unwrap();
        let (status, _, said) = site.run(&[command, &good, "--out", command, "--overwrite"]);
        assert!(status == 2 && said.contains("holds mine.txt, which is not of a result"), "{said}");
        assert_eq!(std::fs::read_to_string(out.join("mine.txt")).unwrap(), "1");
    }
}

#[test]
fn a_batch_that_was_retried_leaves_nothing_of_the_round_before_in_its_results() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let batch = done(&site, 60);
    site.said(&["results", &batch, "--out", "out"]);
    let before = site.lines(&["results", &batch]);
    assert!(site.run(&["retry", &batch, "--wait"]).0 < 2);
    site.said(&["results", &batch, "--out", "out"]);
    let out = site.directory.path().join("out");
    let lines = std::fs::read_to_string(out.join("results.ndjson")).unwrap();
    assert_eq!(lines.lines().count(), before.len());
    assert_eq!(files(&out), listed(&std::fs::read(out.join("manifest.json")).unwrap()));
}

#[test]
fn an_export_to_the_object_store_is_made_anew() {
    let site = Installation::database_and_directory();
    site.deploy("validate", "bank-transactions");
    let submit = |last| {
        let file = site.file("t.csv", &transactions(1, last));
        let batch = site.said(&["submit", "bank", "validate", &file]);
        assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
        batch
    };
    let (failing, good) = (submit(60), submit(10));
    let place = site.objects().join("exports/1");
    let is_whole = || files(&place) == listed(&std::fs::read(place.join("manifest.json")).unwrap());
    let export = |batch: &str, overwrite: bool| {
        let options: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
        let command = ["export", batch, "--out", "object:exports/1"];
        site.run(&[&command[..], options].concat())
    };
    assert_eq!(export(&failing, false).0, 0);
    assert!(is_whole() && place.join("failed.ndjson").exists());
    let (status, _, said) = export(&good, false);
    assert!(status == 2 && said.contains(&failing) && said.contains("--overwrite"), "{said}");
    // An export that was killed: some objects are new, and a note says which there may be.
    let note = format!(r#"{{"batch":"{good}","paths":["rows.ndjson","files/late.csv"]}}"#);
    std::fs::write(place.join("unfinished.json"), note).unwrap();
    std::fs::write(place.join("files/late.csv"), "1").unwrap();
    std::fs::write(place.join("rows.ndjson"), "2").unwrap();
    assert_eq!(export(&good, true).0, 0);
    assert!(is_whole() && !place.join("failed.ndjson").exists() && !place.join("files/late.csv").exists());
    assert_eq!(export(&good, false).0, 0);
    // Objects of others, and objects that were changed.
    std::fs::write(place.join("mine"), "1").unwrap();
    let (status, _, said) = export(&good, true);
    assert!(status == 2 && said.contains("holds the object exports/1/mine"), "{said}");
    std::fs::remove_file(place.join("mine")).unwrap();
    std::fs::write(place.join("rows.ndjson"), "changed").unwrap();
    let (status, _, said) = export(&good, true);
    assert!(status == 2 && said.contains("exports/1/rows.ndjson was changed"), "{said}");
    assert_eq!(std::fs::read_to_string(place.join("rows.ndjson")).unwrap(), "changed");
}
