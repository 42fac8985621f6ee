//! The output directory of a run: made anew, and never written over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{directory_with, ended, results, rowmill, summary};

fn run(directory: &Path, options: &[&str]) -> (i32, String) {
    ended(rowmill(directory, "misbehaving").args(["--input", "rows.ndjson"]).args(options))
}

fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("out/manifest.json")).unwrap()).unwrap()
}

/// The names in the output directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory.join("out")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_run_replaces_the_results_of_another_when_it_is_told_to() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n{\"do\":\"panic\"}\n");
    let directory = directory.path();
    assert_eq!(run(directory, &[]).0, 1);
    assert!(names(directory).contains("failed.ndjson"));
    let first = manifest(directory);
    assert_eq!((&first["kind"], &first["batch"]), (&json!("run"), &summary(directory)["id"]));
    fs::write(directory.join("rows.ndjson"), "{\"do\":\"ok\"}\n").unwrap();
    let (status, said) = run(directory, &[]);
    assert!(status == 2 && said.contains("out holds another run, which is finished"), "{said}");
    assert!(said.contains("--overwrite") && !said.contains("--resume"), "{said}");
    assert_eq!(manifest(directory), first);
    // A run that cannot begin leaves the results before it.
    fs::write(directory.join("bad.ndjson"), "\n").unwrap();
    let overwrite = ["--input", "bad.ndjson", "--overwrite"];
    assert_eq!(ended(rowmill(directory, "misbehaving").args(overwrite)).0, 2);
    assert_eq!(manifest(directory), first);

    assert_eq!(run(directory, &["--overwrite"]).0, 0);
    assert_eq!(results(directory).len(), 1);
    let wanted = ["manifest.json", "results.ndjson", "summary.json"].map(str::to_owned);
    assert_eq!(names(directory), BTreeSet::from(wanted));
    let listed = manifest(directory)["files"].clone();
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(listed, ["results.ndjson", "summary.json"]);
}

#[test]
fn a_run_does_not_replace_what_it_did_not_write_or_what_was_changed() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n{\"do\":\"panic\"}\n");
    let directory = directory.path();
    assert_eq!(run(directory, &[]).0, 1);
    let refused = |sentence: &str| {
        let (status, said) = run(directory, &["--overwrite"]);
        assert!(status == 2 && said.contains(sentence), "{said}");
        assert!(!names(directory).contains(".rowmill"));
    };
    fs::write(directory.join("out/notes.txt"), "mine").unwrap();
    refused("out holds notes.txt, which is not of a result");
    fs::remove_file(directory.join("out/notes.txt")).unwrap();
    let failed = fs::read_to_string(directory.join("out/failed.ndjson")).unwrap();
    fs::write(directory.join("out/failed.ndjson"), failed.replace("panic", "ok")).unwrap();
    refused("failed.ndjson in out was changed since rowmill wrote it");
    fs::rename(directory.join("out/failed.ndjson"), directory.join("corrected.ndjson")).unwrap();
    assert_eq!(run(directory, &["--overwrite"]).0, 1);
    // A directory of somebody else.
    let other = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    fs::create_dir(other.path().join("out")).unwrap();
    fs::write(other.path().join("out/results.ndjson"), "theirs").unwrap();
    let (status, said) = run(other.path(), &["--overwrite"]);
    assert!(status == 2 && said.contains("out holds results.ndjson, which is not of a result"), "{said}");
    assert_eq!(names(other.path()), BTreeSet::from(["results.ndjson".to_owned()]));
}

#[test]
fn a_run_that_was_stopped_is_begun_anew_when_it_is_told_to() {
    let directory = tempfile::TempDir::new().unwrap();
    let directory = directory.path();
    let mut stopped = super::begin_large_run(directory);
    stopped.kill().unwrap();
    stopped.wait().unwrap();
    fs::write(directory.join("rows.ndjson"), "{\"do\":\"ok\"}\n").unwrap();
    let (status, said) = run(directory, &[]);
    assert!(status == 2 && said.contains("out holds another run, which is not finished (of in.csv ("), "{said}");
    assert_eq!(run(directory, &["--overwrite"]).0, 0);
    assert_eq!(results(directory).len(), 1);
    assert!(!names(directory).contains(".rowmill"));
}
