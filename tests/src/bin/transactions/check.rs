//! Results against the file, in one pass over all of them, record by record.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use crate::expect::{COLUMNS, Expected, expect, reject};

/// Differences that are kept; the rest are not looked for.
const DIFFERENCES_MAX: usize = 10;

#[derive(Default)]
pub struct Found {
    pub rows: u64,
    pub success: u64,
    pub failed: u64,
    pub balance_cents: i64,
    pub differences: Vec<String>,
}

#[derive(Deserialize)]
struct ResultLine {
    line: u64,
    status: String,
    output: Option<Value>,
    messages: Vec<MessageLine>,
    attempts: u64,
    fuel: u64,
}

#[derive(Deserialize)]
struct MessageLine {
    code: String,
}

/// A file that is read line by line; a file that is not there has none.
struct TextLines {
    name: &'static str,
    lines: Option<Lines<BufReader<File>>>,
}

impl TextLines {
    fn open(directory: &Path, name: &'static str) -> TextLines {
        TextLines { name, lines: File::open(directory.join(name)).ok().map(|file| BufReader::with_capacity(1 << 20, file).lines()) }
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        self.lines.as_mut().and_then(Iterator::next).transpose().with_context(|| format!("cannot read {}", self.name))
    }

    fn expect_line(&mut self, expected: &str, found: &mut Found) -> anyhow::Result<()> {
        let line = self.next()?;
        found.differ(line.as_deref() == Some(expected), || format!("{}: expected {expected:?}, found {line:?}", self.name));
        Ok(())
    }

    fn expect_end(&mut self, found: &mut Found) -> anyhow::Result<()> {
        let line = self.next()?;
        found.differ(line.is_none(), || format!("{}: expected its end, found {line:?}", self.name));
        Ok(())
    }
}

impl Found {
    fn differ(&mut self, same: bool, say: impl FnOnce() -> String) {
        if !same && self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(say());
        }
    }
}

pub fn check(file: &Path, directory: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut results = TextLines::open(directory, "results.ndjson");
    let mut postings = TextLines::open(directory, "files/postings.csv");
    let mut rejects = TextLines::open(directory, "files/rejects.csv");
    let mut failed = csv::ReaderBuilder::new().flexible(true).from_path(directory.join("failed.csv")).ok().map(csv::Reader::into_records);
    let mut fuel = 0;
    let mut record = csv::StringRecord::new();
    while found.differences.len() < DIFFERENCES_MAX && reader.read_record(&mut record)? {
        found.rows += 1;
        let line = found.rows;
        let Some(result) = results.next()? else {
            found.differ(false, || format!("results.ndjson ends before line {line}"));
            break;
        };
        let result: ResultLine = serde_json::from_str(&result).with_context(|| format!("results.ndjson, line {line}"))?;
        found.differ(result.line == line, || format!("results.ndjson: expected line {line}, found line {}", result.line));
        fuel += result.fuel;
        let codes: Vec<&str> = result.messages.iter().map(|message| message.code.as_str()).collect();
        let expected = if record.len() == COLUMNS.len() { expect(line, &record) } else { Expected::Bad(vec!["bad_row"]) };
        match expected {
            Expected::Good { change_cents, fee_cents, postings: lines } => {
                found.success += 1;
                found.balance_cents += change_cents;
                let output = serde_json::json!({"id": &record[0], "type": &record[2], "account": &record[3], "change_cents": change_cents, "fee_cents": fee_cents});
                let same = result.status == "success" && result.output.as_ref() == Some(&output) && codes.is_empty() && result.attempts >= 1;
                found.differ(same, || {
                    format!("line {line}: expected success with {output}, found {} with {:?}, {codes:?}", result.status, result.output)
                });
                for posting in lines {
                    postings.expect_line(&posting, &mut found)?;
                }
            }
            Expected::Bad(expected) => {
                found.failed += 1;
                let same = result.status == "failed" && codes == expected;
                found.differ(same, || format!("line {line}: expected failed with {expected:?}, found {} with {codes:?}", result.status));
                if expected != ["bad_row"] {
                    rejects.expect_line(&reject(line, &record[0], &expected), &mut found)?;
                }
                check_failed_row(line, &record, &codes, failed.as_mut().and_then(Iterator::next).transpose()?.as_ref(), &mut found);
            }
        }
    }
    if found.differences.len() < DIFFERENCES_MAX {
        for lines in [&mut results, &mut postings, &mut rejects] {
            lines.expect_end(&mut found)?;
        }
        let surplus = failed.as_mut().and_then(Iterator::next).is_some();
        found.differ(!surplus, || "failed.csv has more rows than failed".to_owned());
        check_summary(directory, fuel, &mut found)?;
        check_known(file, &mut found)?;
    }
    Ok(found)
}

/// The record as it was, then line and codes (and a reason, of whatever words).
fn check_failed_row(line: u64, record: &csv::StringRecord, codes: &[&str], failed: Option<&csv::StringRecord>, found: &mut Found) {
    let Some(failed) = failed else { return found.differ(false, || format!("failed.csv lacks line {line}")) };
    let kept = record.iter().take(COLUMNS.len()).eq(failed.iter().take(record.len().min(COLUMNS.len())));
    let told = failed.get(COLUMNS.len()) == Some(&line.to_string()) && failed.get(COLUMNS.len() + 1) == Some(&codes.join(";"));
    let reason = failed.get(COLUMNS.len() + 2).is_some_and(|reason| !reason.is_empty());
    found.differ(kept && told && reason, || format!("failed.csv: expected line {line} as it was, with {codes:?}, found {failed:?}"));
}

fn check_summary(directory: &Path, fuel: u64, found: &mut Found) -> anyhow::Result<()> {
    let summary: Value = serde_json::from_slice(&std::fs::read(directory.join("summary.json")).context("cannot read summary.json")?)?;
    let status = if found.failed > 0 { "failed" } else { "success" };
    let expected =
        serde_json::json!({"status": status, "rows": found.rows, "success": found.success, "failed": found.failed, "aborted": 0, "fuel": fuel});
    for (name, value) in expected.as_object().into_iter().flatten() {
        found.differ(&summary[name] == value, || format!("summary.json: {name} should be {value}, and is {}", summary[name]));
    }
    Ok(())
}

/// What the generator knew, when it made the file.
fn check_known(file: &Path, found: &mut Found) -> anyhow::Result<()> {
    let Ok(known) = std::fs::read(format!("{}.expected.json", file.display())) else { return Ok(()) };
    let known: Value = serde_json::from_slice(&known)?;
    let own = serde_json::json!({"rows": found.rows, "good": found.success, "bad": found.failed, "balance_cents": found.balance_cents});
    found.differ(known == own, || format!("the file was made with {known}, and has {own}"));
    Ok(())
}
