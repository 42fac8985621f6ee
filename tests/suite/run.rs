//! `rowmill run` as a process.

mod large_records;
mod outputs;
mod resumes;
mod special_files;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ended, guests, results, rowmill, summary, target};

fn directory_with(file: &str, content: &[u8]) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(file), content).unwrap();
    directory
}

fn message(result: &Value) -> (&str, Vec<&str>) {
    let message = &result["messages"][0];
    let values = message["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    (message["code"].as_str().unwrap_or(""), values)
}

#[test]
fn each_misbehaving_row_fails_alone_and_says_which_limit_fired() {
    let deeds = ["ok", "loop", "ok", "hog", "ok", "panic", "ok", "recurse", "ok", "bad-json", "ok", "huge-output", "ok", "bad-file-name", "ok"];
    let rows: String = deeds.iter().map(|deed| format!("{{\"do\":\"{deed}\"}}\n")).collect();
    let directory = directory_with("rows.ndjson", rows.as_bytes());
    let run = &mut rowmill(directory.path(), "misbehaving");
    let (status, _) = ended(run.args(["--input", "rows.ndjson", "--fuel", "500000000", "--memory", "16MiB"]));
    assert_eq!(status, 1);
    let results = results(directory.path());
    assert_eq!(results.len(), deeds.len());
    for (deed, result) in deeds.iter().zip(&results) {
        let status = if *deed == "ok" { "success" } else { "failed" };
        assert_eq!(result["status"], status, "{deed}: {result}");
    }
    let (code, values) = message(&results[1]);
    assert_eq!((code, &values[..2]), ("out_of_fuel", &["500000000", "500000000"][..]));
    assert!(values[2].contains("(misbehaving/src/lib.rs:"), "{values:?}");
    let (code, values) = message(&results[3]);
    assert_eq!((code, values[1]), ("memory", "16777216"));
    assert!(values[0].parse::<u64>().unwrap() > 16_777_216);
    let (code, values) = message(&results[5]);
    assert_eq!(code, "trap");
    assert!(values[0].contains("panicked at ") && values[0].contains("lib.rs:"), "{values:?}");
    assert_eq!(message(&results[7]).0, "trap");
    assert!(message(&results[7]).1[0].contains("stack"), "{}", results[7]);
    for at in [9, 11, 13] {
        assert_eq!(message(&results[at]).0, "bad_output", "{}", results[at]);
    }
    // The reasons are beside the rows, ready to be corrected.
    let failed = fs::read_to_string(directory.path().join("out/failed.ndjson")).unwrap();
    let first: Value = serde_json::from_str(failed.lines().next().unwrap()).unwrap();
    assert_eq!(first["input"], json!({"do": "loop"}));
    let reason = first["rowmill"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("ran out of fuel: used 500000000, the limit is 500000000, in "), "{reason}");
}

#[test]
fn a_row_that_does_not_end_in_time_is_stopped_in_a_loop_and_asleep() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"loop\"}\n{\"do\":\"ok\"}\n");
    let endless = ["--input", "rows.ndjson", "--timeout", "300ms", "--fuel", "1000000000000000"];
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(endless)).0, 1);
    let ended_rows = results(directory.path());
    let (code, values) = message(&ended_rows[0]);
    assert_eq!((code, values[0]), ("deadline", "300"));
    assert!(values[1].contains("(misbehaving/src/lib.rs:"), "{values:?}");
    assert_eq!(ended_rows[1]["status"], "success");
    let directory = directory_with("rows.ndjson", b"{}\n");
    assert_eq!(ended(rowmill(directory.path(), "sleeper").args(endless)).0, 1);
    let results = results(directory.path());
    let (code, values) = message(&results[0]);
    assert_eq!((code, values[0]), ("deadline", "300"));
}

#[test]
fn a_compressed_file_is_run_like_what_is_in_it() {
    let text = "id,account,amount,currency,date,type\nT1,DE9710027535,1.25,EUR,2026-01-31,deposit\nT2,DE9710027535,much,EUR,2026-01-31,deposit\n";
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let directory = directory_with("rows.csv.gz", &compressed);
    assert_eq!(ended(rowmill(directory.path(), "bank-transactions").args(["--input", "rows.csv.gz"])).0, 1);
    assert_eq!(results(directory.path()).iter().map(|row| row["status"].as_str().unwrap()).collect::<Vec<_>>(), ["success", "failed"]);
    let failed = fs::read_to_string(directory.path().join("out/failed.csv")).unwrap();
    assert!(failed.starts_with("id,account,amount,currency,date,type,rowmill_line,") && failed.contains("\nT2,"), "{failed}");

    let directory = directory_with("rows.csv.gz", &compressed[..compressed.len() - 1]);
    let (status, said) = ended(rowmill(directory.path(), "bank-transactions").args(["--input", "rows.csv.gz"]));
    assert!(status == 2 && said.contains("cannot take rows.csv.gz: its compressed data ends too early: it was cut off"), "{said}");
    assert!(!directory.path().join("out").exists());
    let directory = directory_with("rows.csv", &compressed);
    let (status, said) = ended(rowmill(directory.path(), "bank-transactions").args(["--input", "rows.csv"]));
    assert!(status == 2 && said.contains("it is compressed with gzip, and not called so"), "{said}");
}

#[test]
fn a_processor_that_cannot_start_fails_its_rows_and_says_why() {
    let directory = directory_with("rows.ndjson", b"{}\n{}\n");
    assert_eq!(ended(rowmill(directory.path(), "misbehaving-init").args(["--input", "rows.ndjson"])).0, 1);
    for result in results(directory.path()) {
        let (code, values) = message(&result);
        assert_eq!(code, "configerror");
        assert!(values[0].starts_with("init: was stopped by a trap: panicked at "), "{values:?}");
    }
}

#[test]
fn a_huge_log_is_cut_with_a_mark_and_the_row_goes_on() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"huge-log\",\"n\":1000}\n");
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson"])).0, 0);
    let log = results(directory.path())[0]["log"].as_str().unwrap().to_owned();
    assert!(log.len() < 8_400 && log.contains("more bytes; the limit is 8192 bytes per row]"), "{} bytes", log.len());
}

#[test]
fn retries_count_their_attempts_and_end_with_them() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"retry\"}\n{\"do\":\"retry-forever\"}\n");
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson", "--attempts", "3"])).0, 1);
    let results = results(directory.path());
    assert_eq!((&results[0]["status"], &results[0]["attempts"]), (&json!("success"), &json!(3)));
    assert_eq!((message(&results[1]).0, &results[1]["attempts"]), ("attempts_exhausted", &json!(3)));
}

#[test]
fn an_abort_ends_the_batch_and_keeps_the_rows_that_were_not_run() {
    let mut rows = "{\"do\":\"abort\"}\n".to_owned();
    rows.push_str(&"{\"do\":\"ok\"}\n".repeat(20_000));
    let directory = directory_with("rows.ndjson", rows.as_bytes());
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson"])).0, 1);
    let summary = summary(directory.path());
    assert_eq!((&summary["status"], &summary["rows"]), (&json!("aborted"), &json!(20_001)));
    let results = results(directory.path());
    let ended = |status: &str| results.iter().filter(|result| result["status"] == status).count();
    assert_eq!(json!([ended("success"), ended("failed"), ended("aborted")]), json!([summary["success"], summary["failed"], summary["aborted"]]));
    assert_eq!(results[0]["status"], "aborted");
    let failed = fs::read_to_string(directory.path().join("out/failed.ndjson")).unwrap();
    assert_eq!(failed.lines().count(), ended("aborted"));
}

#[test]
fn a_ragged_record_fails_alone_and_the_corrected_list_of_failed_rows_runs() {
    let header = "id,date,type,account,to_account,amount,currency,memo\n";
    let good = "T1,2026-01-31,deposit,DE0123456789,,10.00,EUR,\"a, \"\"b\"\"\"\n";
    let directory = directory_with("in.csv", format!("\u{feff}{header}{good}T2,2026-01-31,deposit\n").as_bytes());
    assert_eq!(ended(rowmill(directory.path(), "bank-transactions").args(["--input", "in.csv"])).0, 1);
    let all = results(directory.path());
    assert_eq!(all[0]["output"]["change_cents"], 1_000);
    assert_eq!(message(&all[1]), ("bad_row", vec!["record 2 (line 3 of the file) has 3 fields, but the header has 8"]));
    let failed = fs::read_to_string(directory.path().join("out/failed.csv")).unwrap();
    assert!(failed.contains("\nT2,2026-01-31,deposit,,,,,,2,bad_row,\"T2,2026-01-31,deposit\","), "{failed}");
    let corrected = failed.replace("deposit,,,,,,2,bad_row", "deposit,DE0123456789,,5,EUR,,2,");
    let directory = directory_with("failed.csv", corrected.as_bytes());
    assert_eq!(ended(rowmill(directory.path(), "bank-transactions").args(["--input", "failed.csv"])).0, 0);
    assert_eq!((&results(directory.path())[0]["output"]["change_cents"], &results(directory.path())[0]["line"]), (&json!(500), &json!(2)));
}

/// Runs a list of failed rows as it is, and returns the list that it leaves.
fn run_list_again(name: &str, list: &str) -> (Vec<Value>, String) {
    let directory = directory_with(name, list.as_bytes());
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", name])).0, 1);
    (results(directory.path()), fs::read_to_string(directory.path().join("out").join(name)).unwrap())
}

/// Over generations the line stays that of the first file, and the first reason stays, once.
#[test]
fn rejected_rows_stay_rejected_in_their_list_until_they_are_corrected() {
    let file = "do,note\nok,\"x\"\nok\nok,5\" disk\n\nok,\"say \"hi\" there\"\nok,1,2\n";
    let directory = directory_with("in.csv", file.as_bytes());
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "in.csv"])).0, 1);
    let mut list = fs::read_to_string(directory.path().join("out/failed.csv")).unwrap();
    let lines: Vec<u64> = results(directory.path()).iter().filter(|row| row["status"] == "failed").map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6]);
    let first: Vec<String> = results(directory.path()).iter().filter_map(|row| Some(row["messages"][0]["values"][0].as_str()?.to_owned())).collect();
    let mut before = String::new();
    for generation in 2..4 {
        let (rows, again) = run_list_again("failed.csv", &list);
        let said: Vec<_> = rows.iter().map(|row| (row["line"].as_u64().unwrap(), message(row))).collect();
        for (at, (line, (code, values))) in said.iter().enumerate() {
            let place = format!("record {} (line {} of the file)", at + 1, at + 2);
            assert_eq!((*line, *code), (lines[at], "bad_row"), "{generation}");
            let again = format!("{place} was rejected before: correct it, and empty its rowmill_codes; the first reason: {}", first[at]);
            assert_eq!(values, &[again]);
        }
        if generation > 2 {
            assert_eq!(again, before);
        }
        (before, list) = (again.clone(), again);
    }
    assert!(list.contains("\n,,3,bad_row,\"ok,5\"\" disk\",") && list.contains("\nok,1,6,bad_row,\"ok,1,2\","), "{list}");
}

/// The order of the keys and the space between them are those of whoever wrote the corrected list.
#[test]
fn a_corrected_list_is_read_however_its_json_is_written() {
    let directory = directory_with("in.ndjson", b"{\"do\":\"ok\"}\n{\"do\":\"panic\"}\n{nope\n");
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "in.ndjson"])).0, 1);
    let list = fs::read_to_string(directory.path().join("out/failed.ndjson")).unwrap();
    // serde_json sorts keys.
    let sorted: String = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap().to_string() + "\n").collect();
    assert!(sorted.starts_with("{\"input\":"), "{sorted}");
    for list in [list, sorted] {
        let (rows, again) = run_list_again("failed.ndjson", &list.replace("panic", "ok"));
        assert_eq!((&rows[0]["line"], &rows[0]["status"]), (&json!(2), &json!("success")));
        assert_eq!((&rows[1]["line"], message(&rows[1]).0), (&json!(3), "bad_row"));
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!((&again["text"], &again["rowmill"]["line"]), (&json!("{nope"), &json!(3)));
    }
}

#[test]
fn a_batch_that_was_aborted_lists_rows_that_were_rejected_and_not_run_as_rejected() {
    let file = format!("do,note\nabort,1\n{}ok\n", "ok,1\n".repeat(20_000));
    let directory = directory_with("in.csv", file.as_bytes());
    // One slot: the row that aborts comes before all others.
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "in.csv", "--workers", "1"])).0, 1);
    assert_eq!(results(directory.path())[20_001]["status"], "aborted");
    let list = fs::read_to_string(directory.path().join("out/failed.csv")).unwrap();
    let last = list.lines().last().unwrap();
    let reason = "record 20002 (line 20003 of the file) has 1 fields, but the header has 2";
    assert_eq!(last, format!("ok,,20002,aborted;bad_row,ok,\"{reason}\""));
}

#[test]
fn a_slow_query_answers_on_stdout_and_leaves_its_file() {
    let directory = TempDir::new().unwrap();
    let query = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":100,
        "transactions":[{"date":"2026-01-05","amount_cents":250,"memo":"pay"}]}"#;
    let output = rowmill(directory.path(), "account-statement").args(["--query", query]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer.is_object());
    assert!(fs::read_to_string(directory.path().join("out/files/statement.txt")).unwrap().contains("pay"));
}

#[test]
fn a_failed_mark_done_is_told_once_with_its_calls() {
    let run = |context: &str| {
        let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
        let (status, told) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson", "--context", context]));
        let calls = fs::read_to_string(directory.path().join("out/mark.ndjson")).unwrap_or_default();
        let calls: Vec<Value> = calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (status, told, summary(directory.path()), calls)
    };
    let (status, told, summary, calls) = run(r#"{"mark_done":{"do":"fail-permanent"}}"#);
    assert_eq!(status, 0, "it is no row that failed");
    assert!(told.contains("mark-done failed after 1 call: this row fails on purpose\n"), "{told}");
    assert_eq!(told.matches("on purpose").count(), 1, "{told}");
    assert_eq!((&summary["mark_calls"], &summary["mark_error"]), (&1.into(), &"this row fails on purpose".into()));
    assert_eq!((calls.len(), &calls[0]["call"], &calls[0]["error"]), (1, &1.into(), &"this row fails on purpose".into()));
    let (_, told, summary, calls) = run("{}");
    assert!(!told.contains("mark-done"), "{told}");
    assert_eq!((&summary["mark_calls"], calls.len()), (&1.into(), 0));
}

#[test]
fn json_prints_the_summary_on_stdout_and_nothing_else() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    let output = rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson", "--json"]).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, summary(directory.path()));
}

#[test]
fn a_run_goes_on_when_nobody_listens_any_more() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    let command = &mut rowmill(directory.path(), "misbehaving");
    let mut run = command.args(["--input", "rows.ndjson", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((run.stdout.take(), run.stderr.take()));
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!(summary(directory.path())["status"], "success");
}

#[test]
fn a_run_says_how_many_rows_failed_with_each_code_and_shows_the_first() {
    let deeds = ["ok", "bad-json", "panic", "ok", "panic", "fail-permanent"];
    let rows: String = deeds.iter().map(|deed| format!("{{\"do\":\"{deed}\"}}\n")).collect();
    let directory = directory_with("rows.ndjson", rows.as_bytes());
    let (status, said) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson"]));
    assert_eq!(status, 1);
    assert!(said.contains("\n2 rows failed with trap, the first in line 3: "), "{said}");
    assert!(said.contains("\n1 row failed with bad_output, line 2: ") && said.contains("; it begins with \""), "{said}");
    let failures = summary(directory.path())["failures"].clone();
    assert_eq!((&failures["codes"][0]["rows"], &failures["codes"][0]["line"], &failures["others"]), (&json!(2), &json!(3), &json!(0)));

    let (status, said) = ended(rowmill(TempDir::new().unwrap().path(), "account-statement").args(["--query", "{}"]));
    assert!(status == 1 && said.contains("\nbad_input: "), "{said}");
}

#[test]
fn a_run_is_aborted_when_more_rows_fail_than_may() {
    let directory = directory_with("rows.ndjson", "{\"do\":\"panic\"}\n".repeat(2_000).as_bytes());
    let (status, said) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson", "--failures-max", "3", "--workers", "1"]));
    assert!(status == 1 && said.contains("the limit is 3"), "{said}");
    assert_eq!(summary(directory.path())["status"], "aborted");
}

/// The default of a query is not that of a row.
#[test]
fn a_query_has_a_minute_and_a_row_five_seconds() {
    let settings = |directory: &Path| {
        let manifest: Value = serde_json::from_slice(&fs::read(directory.join("out/manifest.json")).unwrap()).unwrap();
        manifest["run"]["timeout_ms"].clone()
    };
    let query = TempDir::new().unwrap();
    ended(rowmill(query.path(), "account-statement").args(["--query", "{}"]));
    let rows = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    ended(rowmill(rows.path(), "misbehaving").args(["--input", "rows.ndjson"]));
    assert_eq!((settings(query.path()), settings(rows.path())), (json!(60_000), json!(5_000)));
}

#[test]
fn a_processor_is_compiled_once_and_a_run_says_so() {
    let (cache, directory) = (TempDir::new().unwrap(), directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n"));
    let cache = cache.path().join("cache");
    let run = || ended(rowmill(directory.path(), "misbehaving").env("ROWMILL_CACHE_DIR", &cache).args(["--input", "rows.ndjson", "--overwrite"])).1;
    assert!(run().contains("compiling ") && !run().contains("compiling "));
}

#[test]
fn what_cannot_run_gets_a_sentence_and_status_2_and_leaves_nothing() {
    let cases: [(&str, &[u8], &str); 11] = [
        ("empty.csv", b"", "it is empty"),
        ("header.csv", b"a,b\n", "it has a header and no record"),
        ("latin.csv", b"a\n\xe4\n", "it is not UTF-8: line 2"),
        ("names.csv", b"a,a\n1,2\n", "columns 1 and 2 of its header are both named \"a\""),
        ("quote.csv", b"a\n\"1\n", "has a quote that is never closed"),
        ("rows.txt", b"1\n", "say --format csv or --format ndjson"),
        ("blank.ndjson", b"\n\n", "it has no line with a value"),
        ("merges.csv", b"a,b\n1,\"5\"\" disk\n2,\"say \"\"hi\"\"\"\n", "it is not clear where the record ends"),
        ("sheet.csv", b"PK\x03\x04\x14\0\x06\0", "it is a zip archive, as .xlsx"),
        ("columns.csv", b"a;b\n1;2\n", "its columns are separated by semicolons and not by commas"),
        ("array.ndjson", b"[\n{\"a\":1}\n]\n", "it is one JSON array"),
    ];
    for (name, content, sentence) in cases {
        let directory = directory_with(name, content);
        let (status, stderr) = ended(rowmill(directory.path(), "misbehaving").args(["--input", name]));
        assert_eq!(status, 2, "{name}: {stderr}");
        assert!(stderr.contains(sentence), "{name}: {stderr}");
        assert!(!directory.path().join("out").exists(), "{name} left its output directory");
    }
    let directory = directory_with("rows.ndjson", b"1\n");
    let refused = |arguments: &[&str]| {
        let (status, stderr) = ended(rowmill(directory.path(), "misbehaving").args(arguments));
        assert_eq!(status, 2, "{arguments:?}: {stderr}");
        stderr
    };
    assert!(refused(&["--input", "none.csv"]).contains("cannot read none.csv: No such file"));
    assert!(refused(&["--input", "rows.ndjson", "--context", "{nope"]).contains("--context: not valid JSON"));
    assert!(refused(&["--query", "{}"]).contains("is a processor of rows"));
    assert!(refused(&["--input", "rows.ndjson", "--sql", "bank"]).contains("--databases-directory is missing"));
    assert!(refused(&["--input", "rows.ndjson", "--secret", "token=bank"]).contains("--secrets-directory is missing"));
    assert!(refused(&["--input", "rows.ndjson", "--resume"]).contains("there is no run in out to go on with"));
}

#[test]
fn a_file_that_is_no_processor_is_refused_with_what_was_found() {
    let cases: [(&[u8], &str); 4] = [
        (b"<!doctype html><html></html>", "this is not a WebAssembly file: it begins with the text \"<!doctype html>"),
        (b"", "this is not a WebAssembly file: it is empty"),
        (b"\0asm\x01\0\0\0", "this is a core module that does not carry its WIT"),
        (b"\0asm\x0d\0\x01\0", "this component is no processor"),
    ];
    for (content, sentence) in cases {
        let directory = directory_with("p.wasm", content);
        fs::write(directory.path().join("rows.ndjson"), "1\n").unwrap();
        let mut command = Command::new(target().join("release/rowmill"));
        command.current_dir(directory.path()).env("ROWMILL_CACHE_DIR", guests::cache());
        let (status, stderr) = ended(command.args(["run", "--processor", "p.wasm", "--input", "rows.ndjson"]));
        assert_eq!(status, 2);
        assert!(stderr.contains(sentence), "{stderr}");
    }
}

#[test]
fn a_directory_that_holds_another_run_is_refused() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson"])).0, 0);
    let (status, stderr) = ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson"]));
    assert_eq!(status, 2);
    assert!(stderr.contains("out holds another run"), "{stderr}");
    assert_eq!(ended(rowmill(directory.path(), "misbehaving").args(["--input", "rows.ndjson", "--resume"])).0, 0);
}

/// Bytes that a run's store takes at the moment.
fn store_bytes(directory: &Path) -> u64 {
    let size = |name: &str| fs::metadata(directory.join("out/.rowmill").join(name)).map_or(0, |file| file.len());
    size("store.sqlite") + size("store.sqlite-wal")
}

/// Makes transactions, begins a run, and waits until it has recorded some of them: its store grows behind the input.
fn begin_large_run(directory: &Path) -> std::process::Child {
    let rows = Command::new(target().join("release/transactions")).args(["generate", "--rows", "200000", "in.csv"]).current_dir(directory).output();
    assert!(rows.unwrap().status.success());
    let mut run = rowmill(directory, "bank-transactions").args(["--input", "in.csv"]).stderr(Stdio::null()).spawn().unwrap();
    let manifest = directory.join("out/.rowmill/run.json");
    let mut wait_until = |reached: &dyn Fn() -> bool| {
        while !reached() {
            assert!(run.try_wait().unwrap().is_none(), "the run ended before it was stopped");
            std::thread::yield_now();
        }
    };
    wait_until(&|| manifest.exists());
    let submitted = store_bytes(directory);
    wait_until(&|| store_bytes(directory) > submitted + (1 << 20));
    run
}

fn signal(name: &str, process: &std::process::Child) {
    assert!(Command::new("kill").args([name, &process.id().to_string()]).status().unwrap().success());
}

/// Goes on with a run whose input has gone away meanwhile, and checks what it leaves.
fn check_large_run(directory: &Path) -> Vec<Value> {
    let (input, away) = (directory.join("in.csv"), directory.join("away.csv"));
    fs::rename(&input, &away).unwrap();
    assert_eq!(ended(rowmill(directory, "bank-transactions").args(["--input", "in.csv", "--resume"])).0, 1);
    fs::rename(&away, &input).unwrap();
    let check = Command::new(target().join("release/transactions")).args(["check", "in.csv", "out"]).current_dir(directory).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    results(directory)
}

#[test]
fn a_second_process_is_kept_out_of_a_run() {
    let directory = TempDir::new().unwrap();
    let mut run = begin_large_run(directory.path());
    // So that it cannot end before the second one has looked.
    signal("-STOP", &run);
    let (status, stderr) = ended(rowmill(directory.path(), "bank-transactions").args(["--input", "in.csv", "--resume"]));
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(status, 2);
    assert!(stderr.contains("cannot use out: another process works on it"), "{stderr}");
}

#[test]
fn a_killed_run_goes_on_and_only_the_leases_that_ran_are_run_again() {
    let directory = TempDir::new().unwrap();
    let mut run = begin_large_run(directory.path());
    run.kill().unwrap();
    run.wait().unwrap();
    let again = check_large_run(directory.path()).iter().filter(|result| result["attempts"] != 1).count();
    // Twice as many slots as cores, and as many leases again whose results wait to be recorded.
    let slots = std::thread::available_parallelism().unwrap().get() * 2;
    assert!(again <= 2 * slots * 5_000, "{again} rows were run again");
}

#[test]
fn a_run_that_is_asked_to_stop_runs_no_row_twice() {
    let directory = TempDir::new().unwrap();
    let mut run = begin_large_run(directory.path());
    signal("-TERM", &run);
    assert_eq!(run.wait().unwrap().code(), Some(143));
    assert!(check_large_run(directory.path()).iter().all(|result| result["attempts"] == 1));
}
