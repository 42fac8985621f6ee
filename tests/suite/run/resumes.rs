//! A run goes on with the processor, the settings and the input that it was begun with.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;

use super::{directory_with, ended, rowmill, summary};

fn resumed(directory: &Path, options: &[&str]) -> (i32, String) {
    ended(rowmill(directory, "misbehaving").args(options).arg("--resume"))
}

fn refused(directory: &Path, options: &[&str], sentence: &str) {
    let (status, said) = resumed(directory, options);
    assert!(status == 2 && said.contains(sentence), "{options:?}: {said}");
}

#[test]
fn a_finished_run_is_told_only_to_those_who_have_its_input_and_settings() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    let directory = directory.path();
    let input = ["--input", "rows.ndjson"];
    assert_eq!(ended(rowmill(directory, "misbehaving").args(input)).0, 0);
    let file = &summary(directory)["input_files"][0];
    assert_eq!((&file["name"], &file["size_bytes"]), (&json!("rows.ndjson"), &json!(12)));
    let sha256 = file["sha256"].as_str().unwrap().to_owned();
    assert_eq!(sha256.len(), 64);
    assert_eq!(resumed(directory, &input).0, 0);

    let begun = format!("the run in out was begun with rows.ndjson (12 bytes, SHA-256 {sha256})");
    for (name, text, now) in [
        ("longer.ndjson", "{\"do\":\"ok\"}\n\n", "longer.ndjson has 13 bytes now"),
        ("other.ndjson", "{\"do\":\"on\"}\n", "other.ndjson has 12 bytes and SHA-256"),
    ] {
        fs::write(directory.join(name), text).unwrap();
        refused(directory, &["--input", name], &format!("{begun}, and {now}"));
    }
    refused(directory, &["--input", "missing.ndjson"], &format!("{begun}, and missing.ndjson cannot be read"));
    // The same contents under another name are the same input.
    fs::copy(directory.join("rows.ndjson"), directory.join("copy.ndjson")).unwrap();
    assert_eq!(resumed(directory, &["--input", "copy.ndjson"]).0, 0);
    for (option, value, sentence) in [
        ("--context", "{\"a\":1}", "--context was {}, and is {\"a\":1}"),
        ("--fuel", "7", "--fuel was"),
        ("--timeout", "1s", "--timeout was 5s, and is 1s"),
        ("--memory", "32MiB", "--memory was"),
        ("--attempts", "1", "--attempts was 3, and is 1"),
        ("--format", "csv", "the format was ndjson, and is csv"),
    ] {
        refused(directory, &["--input", "rows.ndjson", option, value], sentence);
    }
    // Slots change no result.
    assert_eq!(resumed(directory, &["--input", "rows.ndjson", "--workers", "1"]).0, 0);
    let (status, said) = ended(rowmill(directory, "bank-transactions").args(input).arg("--resume"));
    assert!(status == 2 && said.contains("the digest of the processor was"), "{said}");
}

#[test]
fn a_finished_run_is_not_told_when_its_results_are_not_as_they_were() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n{\"do\":\"panic\"}\n");
    let directory = directory.path();
    let input = ["--input", "rows.ndjson"];
    assert_eq!(ended(rowmill(directory, "misbehaving").args(input)).0, 1);
    assert_eq!(resumed(directory, &input).0, 1);
    for name in ["results.ndjson", "failed.ndjson", "summary.json"] {
        let path = directory.join("out").join(name);
        let text = fs::read(&path).unwrap();
        let other: Vec<u8> = text.iter().map(|byte| byte ^ 1).collect();
        for changed in [&text[1..], &other] {
            fs::write(&path, changed).unwrap();
            refused(
                directory,
                &input,
                &format!("{name} in out was changed since the run, which is finished: put it back as it was, or move it away"),
            );
        }
        fs::remove_file(&path).unwrap();
        refused(directory, &input, &format!("{name} is missing in out, whose run is finished: put it back, or run anew with --overwrite"));
        fs::write(&path, text).unwrap();
    }
    assert_eq!(resumed(directory, &input).0, 1);
    // The way that the sentence names is open.
    fs::remove_file(directory.join("out/failed.ndjson")).unwrap();
    assert_eq!(ended(rowmill(directory, "misbehaving").args(input).arg("--overwrite")).0, 1);
    assert_eq!(resumed(directory, &input).0, 1);
}

#[test]
fn a_run_that_was_stopped_does_not_go_on_with_another_input() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let mut run = super::begin_large_run(directory);
    run.kill().unwrap();
    run.wait().unwrap();
    let original = fs::read_to_string(directory.join("in.csv")).unwrap();
    let resumed = |text: &str| {
        fs::write(directory.join("in.csv"), text).unwrap();
        ended(rowmill(directory, "bank-transactions").args(["--input", "in.csv", "--resume"]))
    };
    let longer = format!("{original}T1,2026-01-31,deposit\n");
    let (status, said) = resumed(&longer);
    assert!(status == 2 && said.contains(&format!("in.csv has {} bytes now", longer.len())), "{said}");
    let (status, said) = resumed(&original.replacen("deposit", "DEPOSIT", 1));
    assert!(status == 2 && said.contains(" bytes and SHA-256 "), "{said}");
    assert_eq!(resumed(&original).0, 1);
    assert_eq!(summary(directory)["input_files"][0]["size_bytes"], original.len());
}

#[test]
fn a_run_of_stdin_goes_on_with_the_same_bytes_or_none() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let run = |text: &str, options: &[&str]| {
        let mut command = rowmill(directory, "misbehaving");
        command.args(["--input", "-", "--format", "ndjson"]).args(options);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let rows = "{\"do\":\"ok\"}\n";
    assert_eq!(run(rows, &[]).0, 0);
    assert_eq!(summary(directory)["input_files"][0]["name"], "stdin");
    assert_eq!(run(rows, &["--resume"]).0, 0);
    let (status, said) = run("", &["--resume"]);
    assert!(status == 0 && said.contains("stdin is empty: all rows of the run were read before"), "{said}");
    let (status, said) = run("{\"do\":\"on\"}\n", &["--resume"]);
    assert!(status == 2 && said.contains("stdin has 12 bytes and SHA-256"), "{said}");
}

#[test]
fn a_compressed_input_is_compared_as_it_came() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"{\"do\":\"ok\"}\n").unwrap();
    let compressed = encoder.finish().unwrap();
    let directory = directory_with("rows.ndjson.gz", &compressed);
    let directory = directory.path();
    let input = ["--input", "rows.ndjson.gz"];
    assert_eq!(ended(rowmill(directory, "misbehaving").args(input)).0, 0);
    assert_eq!(summary(directory)["input_files"][0]["size_bytes"], compressed.len());
    assert_eq!(resumed(directory, &input).0, 0);
    fs::write(directory.join("rows.ndjson.gz"), [&compressed[..], &[0]].concat()).unwrap();
    refused(directory, &input, "bytes now");
}

#[test]
fn another_query_is_not_answered_by_a_finished_one() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let query = |to: &str| {
        format!(
            r#"{{"account":"DE0123456789","from":"2026-01-01","to":"{to}","opening_cents":100,
            "transactions":[]}}"#
        )
    };
    let ask = |to: &str, options: &[&str]| ended(rowmill(directory, "account-statement").args(["--query", &query(to)]).args(options));
    assert_eq!(ask("2026-01-31", &[]).0, 0);
    assert_eq!(ask("2026-01-31", &["--resume"]).0, 0);
    let (status, said) = ask("2026-02-28", &["--resume"]);
    assert!(status == 2 && said.contains("--query was") && said.contains("begun with a query"), "{said}");
}
