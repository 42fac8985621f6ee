//! Alya's examples, each by the one command that docs/from-alya.md names, and what it shows.

mod files;
mod large;
mod mailbatch;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What an example printed, and where it worked.
struct Shown {
    out: String,
    directory: TempDir,
}

/// Runs an example, which succeeds.
fn example(name: &str, arguments: &[&str]) -> Shown {
    let directory = tempfile::tempdir().unwrap();
    let out = example_in(directory.path(), name, arguments);
    Shown { out, directory }
}

fn example_in(directory: &Path, name: &str, arguments: &[&str]) -> String {
    let mut make = Command::new("make");
    make.args(["example", &format!("NAME={name}")]).current_dir(repository());
    make.arg(format!("ARGS=--directory '{}' {}", directory.display(), arguments.join(" ")));
    // It is not a part of the make that may run the tests.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        make.env_remove(variable);
    }
    let output = make.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    out
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The lines of what was printed, one after the other, begin with these.
#[track_caller]
fn assert_lines(out: &str, beginnings: &[&str]) {
    let lines: Vec<&str> = out.lines().collect();
    let right = lines.len() == beginnings.len() && lines.iter().zip(beginnings).all(|(line, beginning)| line.starts_with(beginning));
    assert!(right, "{out}\ndoes not begin, line by line, with\n{}", beginnings.join("\n"));
}

#[test]
fn batch_append_appends_until_the_release() {
    let Shown { out, .. } = example("batch-append", &[]);
    let expected = [
        "submitted: wait, with 3 rows",
        "appended: 6 rows",
        "appended: 9 rows",
        "before its release: wait",
        "appended and released: 10 rows",
        "success: 10 rows, 10 success, 0 failed, 0 aborted",
        "appended too late: batch ",
    ];
    assert_lines(&out, &expected);
    assert!(out.contains(" is success: "), "{out}");
}

#[test]
fn batch_abort_keeps_outcomes_and_stops_the_rest() {
    let Shown { out, .. } = example("batch-abort", &[]);
    let expected =
        ["inprog: ", "aborted: ", "aborted: 1000 rows, ", "because: the file was the wrong one", "aborted again: aborted, nothing changed"];
    assert_lines(&out, &expected);
    let numbers = |line: &str| -> Vec<u64> { line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect() };
    let lines: Vec<&str> = out.lines().collect();
    let (succeeded, aborted, end) = (numbers(lines[0])[0], numbers(lines[1])[0], numbers(lines[2]));
    assert!(succeeded > 0 && aborted > 0 && end[1] >= succeeded, "{out}");
    assert_eq!((end[0], end[2], end[3], end[1] + end[3]), (1_000, 0, aborted, 1_000), "{out}");
}

#[test]
fn batch_blobrows_joins_pieces_in_line_order() {
    let Shown { out, .. } = example("batch-blobrows", &[]);
    let mut expected = vec!["failed: 10 rows, 5 success, 5 failed, 0 aborted".to_owned(), "postings.csv, ".to_owned()];
    expected.extend([1, 3, 5, 7, 9].map(|line| format!("{line},T{line},DE9710027535,{line}00,EUR")));
    expected.push("rejects.csv, ".to_owned());
    expected.extend([2, 4, 6, 8, 10].map(|line| format!("{line},T{line},amount-not-positive")));
    assert_lines(&out, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn slowquery_report_is_polled_and_answers_with_a_file() {
    let Shown { out, .. } = example("slowquery-report", &[]);
    let lines: Vec<&str> = out.lines().collect();
    let end = lines.iter().position(|line| !line.starts_with("try later: ")).unwrap();
    assert!(end >= 1, "{out}");
    // Each third takes out twice its number, the others put theirs in.
    let (credit, debit) = (1..=10_000_i64).fold((0, 0), |(credit, debit), n| if n % 3 == 0 { (credit, debit - 2 * n) } else { (credit + n, debit) });
    let closing = 1_000_000 + credit + debit;
    let answer = lines[end].strip_prefix("success: ").unwrap();
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    assert_eq!((&answer["closing_cents"], &answer["transactions"]), (&closing.into(), &10_000.into()));
    assert!(lines[end + 1].starts_with("statement.txt, ") && lines[end + 2].contains("Closing balance"), "{out}");
    let shown: String = lines[end + 2].chars().filter(char::is_ascii_digit).collect();
    assert!(shown.ends_with(&closing.to_string()), "{out}");
}

#[test]
fn slowquery_abort_stops_code_that_runs() {
    let Shown { out, .. } = example("slowquery-abort", &[]);
    let expected = [
        "try later: inprog, 50 %: half of it",
        "aborted: 1 query is not run to its end",
        "aborted: no answer",
        "aborted again: ",
        "the next one in its slot: success: {\"line\":0,\"said\":\"counted\"}",
    ];
    assert_lines(&out, &expected);
}
