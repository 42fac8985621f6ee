//! Files that are appended to one batch at the same moment, by processes that know nothing of each other.

use std::io::Write;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Installation, eventually};

const FILES: usize = 4;
const ROWS: usize = 300;

#[test]
fn files_that_are_appended_at_the_same_moment_all_come_in() {
    let site = Installation::database_and_directory();
    site.deploy("sleep", "sleeper");
    let batch = site.said(&["submit", "bank", "sleep", "--hold"]);
    let appends: Vec<_> = (0..FILES)
        .map(|file| {
            let rows: String = (0..ROWS).map(|row| format!("{{\"ms\":1,\"file\":{file},\"row\":{row}}}\n")).collect();
            let name = site.file(&format!("{file}.ndjson"), &rows);
            site.command(&["append", &batch, &name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for append in appends {
        let output = append.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let rows = site.lines(&["rows", &batch]);
    let lines: Vec<u64> = rows.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=(FILES * ROWS) as u64).collect::<Vec<_>>());
    // Files of this size are not torn apart, and each is recorded with its first row.
    for part in rows.chunks(ROWS) {
        let file = &part[0]["input"]["file"];
        let wanted = (0..ROWS as u64).map(|row| (file.clone(), row));
        assert!(part.iter().map(|row| (row["input"]["file"].clone(), row["input"]["row"].as_u64().unwrap())).eq(wanted), "{part:?}");
    }
    let firsts = "SELECT string_agg(first_row::text, ' ' ORDER BY first_row) FROM rowmill.batch_files";
    assert_eq!(site.database.as_ref().unwrap().sql(firsts).unwrap().trim(), "1 301 601 901");
}

#[test]
fn a_rejected_row_that_has_not_come_to_its_turn_shows_its_text_and_code() {
    let site = Installation::database_and_directory();
    site.deploy("sleep", "sleeper");
    let batch = site.said(&["submit", "bank", "sleep", "--hold"]);
    let file = site.file("a.csv", "ms,note\n1,x\n1,5\" disk\n");
    site.said(&["append", &batch, &file]);
    let rows = site.lines(&["rows", &batch]);
    assert_eq!(rows[0], serde_json::json!({"line": 1, "status": null, "input": {"ms": "1", "note": "x"}}));
    let reason = "record 2 (line 3 of the file) has a quote inside a field that does not begin with one: put the field in quotes, and write each quote in it twice";
    let message = serde_json::json!({"id": 0, "code": "bad_row", "values": [reason]});
    assert_eq!(rows[1], serde_json::json!({"line": 2, "status": null, "text": "1,5\" disk", "messages": [message]}));
    assert_eq!(site.lines(&["rows", &batch, "--code", "bad_row"]), rows[1..]);
}

/// Writes rows to a process that appends stdin, and waits until a part of them is stored.
fn feed(site: &Installation, batch: &str, arguments: &[&str]) -> Child {
    let mut child = site.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Two parts and the beginning of a third: the last part that came is held back, since it may be the last of the file.
    let rows = "{\"ms\":1}\n".repeat(25_000);
    child.stdin.as_mut().unwrap().write_all(rows.as_bytes()).unwrap();
    eventually(|| (site.status(batch)["open_append"]["rows"] == 10_000).then_some(()));
    child
}

/// Its status and stderr.
fn end_of(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn held_with_a_row(site: &Installation) -> String {
    site.deploy("sleep", "sleeper");
    let one = site.file("one.ndjson", "{\"ms\":1}\n");
    site.said(&["submit", "bank", "sleep", &one, "--hold"])
}

const STDIN: [&str; 3] = ["-", "--format", "ndjson"];

#[test]
fn a_fault_or_a_signal_in_the_middle_of_a_file_leaves_nothing_of_it() {
    let site = Installation::database_and_directory();
    let batch = held_with_a_row(&site);
    let append = ["append", &batch, STDIN[0], STDIN[1], STDIN[2]];
    let mut faulty = feed(&site, &batch, &append);
    faulty.stdin.take().unwrap().write_all(b"\xff\xfe\n").unwrap();
    let (status, said) = end_of(faulty);
    assert_eq!(status, Some(2), "{said}");
    assert!(site.status(&batch)["open_append"].is_null());
    assert_eq!(site.status(&batch)["rows"], 1);

    let stopped = feed(&site, &batch, &append);
    kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGTERM).unwrap();
    let (status, said) = end_of(stopped);
    assert_eq!(status, Some(143), "{said}");
    assert!(said.contains("stopped: nothing of the file was appended; the batch is still held"), "{said}");
    assert_eq!(site.said(&["release", &batch]), "1");
}

#[test]
fn a_release_in_the_middle_of_a_file_is_refused_and_the_file_comes_in() {
    let site = Installation::database_and_directory();
    let batch = held_with_a_row(&site);
    let mut appending = feed(&site, &batch, &["append", &batch, STDIN[0], STDIN[1], STDIN[2]]);
    let (status, _, said) = site.run(&["release", &batch]);
    assert_eq!(status, 2);
    assert!(said.contains(&format!("a file is being appended to batch {batch}")), "{said}");
    assert!(site.said(&["status", &batch]).contains("a file is being appended: 10000 of its rows are stored"));
    drop(appending.stdin.take());
    let (status, said) = end_of(appending);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(site.said(&["release", &batch]), "25001");
}

#[test]
fn a_client_that_was_killed_in_the_middle_leaves_nothing_and_can_repeat() {
    let site = Installation::database_and_directory();
    let batch = held_with_a_row(&site);
    let mut killed = feed(&site, &batch, &["append", &batch, STDIN[0], STDIN[1], STDIN[2]]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(site.status(&batch)["rows"], 1);
    assert_eq!(site.run(&["release", &batch]).0, 2);
    // As if half a minute had passed.
    site.database.as_ref().unwrap().sql("UPDATE rowmill.open_appends SET expires_at = 0").unwrap();
    let all = site.file("all.ndjson", &"{\"ms\":1}\n".repeat(25_000));
    let again = ["append", &batch, &all, "--key", "january"];
    assert_eq!(site.said(&again), "25001");
    assert_eq!(site.said(&again), "25001");
    let other = site.file("other.ndjson", "{\"ms\":2}\n");
    let (status, _, said) = site.run(&["append", &batch, &other, "--key", "january"]);
    assert!(status == 2 && said.contains("was used for another file"), "{said}");
    assert_eq!(site.said(&["release", &batch]), "25001");
    assert_eq!(site.said(&again), "25001");
    assert_eq!(site.status(&batch)["rows"], 25_001);
}

#[test]
fn a_submission_that_was_killed_in_the_middle_cannot_be_released() {
    let site = Installation::database_and_directory();
    site.deploy("sleep", "sleeper");
    let mut child = site.command(&["submit", "bank", "sleep", STDIN[0], STDIN[1], STDIN[2]]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all("{\"ms\":1}\n".repeat(25_000).as_bytes()).unwrap();
    let database = site.database.as_ref().unwrap();
    let open = "SELECT b.batch_id FROM rowmill.open_appends JOIN rowmill.batches b USING (batch_key)";
    let batch = eventually(|| Some(database.sql(open).unwrap().trim().to_owned()).filter(|id| !id.is_empty()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.run(&["release", &batch]).0, 2);
    database.sql("UPDATE rowmill.open_appends SET expires_at = 0").unwrap();
    let (status, _, said) = site.run(&["release", &batch]);
    assert!(status == 2 && said.contains("has no rows"), "{said}");
}

#[test]
fn large_files_that_are_appended_at_the_same_moment_stay_together() {
    let site = Installation::database_and_directory();
    site.deploy("sleep", "sleeper");
    let batch = site.said(&["submit", "bank", "sleep", "--hold"]);
    let appends: Vec<_> = (0..3)
        .map(|file| {
            let name = site.file(&format!("{file}.ndjson"), &format!("{{\"ms\":1,\"file\":{file}}}\n").repeat(12_000));
            site.command(&["append", &batch, &name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for append in appends {
        let (status, said) = end_of(append);
        assert_eq!(status, Some(0), "{said}");
    }
    let firsts = "SELECT string_agg(first_row::text, ' ' ORDER BY first_row) FROM rowmill.batch_files";
    assert_eq!(site.database.as_ref().unwrap().sql(firsts).unwrap().trim(), "1 12001 24001");
    assert_eq!(site.said(&["release", &batch]), "36000");
}
