//! Compares what a run left with what the rules say about its input. Everything is read once, side by side with the input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, ensure};
use csv::StringRecord;
use serde::Deserialize;

use crate::ordered::{Differences, Ordered};
use crate::results::{BAD_ROW, RESULTS, ResultLine, parse};
use crate::rules::{ACCOUNT, COLUMNS, CURRENCY, Effect, ID, Problem, TO_ACCOUNT, Verdict, judge};

const POSTINGS: &str = "files/postings.csv";
const REJECTS: &str = "files/rejects.csv";
const FAILED: &str = "failed.csv";
/// What it has behind the columns of the input.
const FAILED_COLUMNS: [&str; 4] = ["rowmill_line", "rowmill_codes", "rowmill_text", "rowmill_reason"];
const SUMMARY: &str = "summary.json";

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub rows: u64,
    /// As the rules say.
    pub success: u64,
    /// As the rules say.
    pub failed: u64,
    /// As the rules say: the changes of the accounts, less the fees.
    pub balance_cents: i64,
    pub differences: Differences,
}

/// `summary.json`.
#[derive(Debug, Deserialize)]
struct Summary {
    id: String,
    status: String,
    rows: u64,
    success: u64,
    failed: u64,
    aborted: u64,
    seconds: f64,
    rows_per_second: f64,
    fuel: u64,
    files: Vec<SummaryFile>,
}

#[derive(Debug, Deserialize)]
struct SummaryFile {
    name: String,
    size_bytes: u64,
}

/// Compares the results in `directory` with the transactions in `file`.
///
/// # Errors
/// When something cannot be read. A file that is missing in the directory is a difference, not an error.
pub fn check(file: &Path, directory: &Path) -> anyhow::Result<Report> {
    ensure!(directory.is_dir(), "{} is not a directory", directory.display());
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(file).with_context(|| format!("cannot read {}", file.display()))?;
    let header = reader.headers().with_context(|| format!("cannot read the header of {}", file.display()))?;
    ensure!(header.iter().eq(COLUMNS), "{} does not have the columns {}", file.display(), COLUMNS.join(","));

    let mut checker = Checker::open(directory)?;
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).with_context(|| format!("cannot read {}", file.display()))? {
        checker.check_row(&record)?;
    }
    checker.finish(directory)
}

struct Checker {
    results: Ordered<ResultLine>,
    postings: Ordered<StringRecord>,
    rejects: Ordered<StringRecord>,
    failed: Ordered<StringRecord>,
    /// Of the results together.
    fuel: u64,
    /// How many rows wrote to `rejects.csv`.
    rejected: u64,
    report: Report,
}

impl Checker {
    fn open(directory: &Path) -> anyhow::Result<Self> {
        let mut report = Report::default();
        let mut csv = |name, line_column, header: &[&str]| Ordered::open_csv(directory, name, line_column, header, &mut report.differences);
        let (postings, rejects) = (csv(POSTINGS, 0, &[])?, csv(REJECTS, 0, &[])?);
        let failed = csv(FAILED, COLUMNS.len(), &[&COLUMNS[..], &FAILED_COLUMNS].concat())?;
        let results = Ordered::open_lines(directory, RESULTS, parse)?;
        Ok(Self { results, postings, rejects, failed, fuel: 0, rejected: 0, report })
    }

    fn check_row(&mut self, record: &StringRecord) -> anyhow::Result<()> {
        let fields: Vec<&str> = record.iter().collect();
        self.report.rows += 1;
        let line = self.report.rows;
        let verdict = judge(&fields);
        if let Some(result) = self.results.expect(line, &mut self.report.differences)? {
            self.fuel = self.fuel.saturating_add(result.fuel());
            result.compare(&fields, &verdict, &mut self.report.differences);
        }
        match verdict {
            Verdict::Good(effect) => self.check_posted(line, &fields, &effect),
            Verdict::Bad(problems) => self.check_rejected(line, &fields, &problems),
            Verdict::Ragged => self.check_failed(line, &fields, &BTreeSet::from([BAD_ROW])),
        }
    }

    fn check_posted(&mut self, line: u64, fields: &[&str], effect: &Effect) -> anyhow::Result<()> {
        self.report.success += 1;
        self.report.balance_cents += effect.change_cents - effect.fee_cents;
        let change = Some((fields[ACCOUNT], effect.change_cents));
        let counter = effect.counter_cents.map(|cents| (fields[TO_ACCOUNT], cents));
        let differences = &mut self.report.differences;
        for (account, cents) in change.into_iter().chain(counter) {
            let Some(found) = self.postings.expect(line, differences)? else { continue };
            let expected = [&line.to_string(), fields[ID], account, &cents.to_string(), fields[CURRENCY]];
            if !found.iter().eq(expected) {
                differences.add(format!("{POSTINGS}: line {line}: expected {expected:?}, found {found:?}"));
            }
        }
        Ok(())
    }

    fn check_rejected(&mut self, line: u64, fields: &[&str], problems: &[Problem]) -> anyhow::Result<()> {
        self.rejected += 1;
        let codes: BTreeSet<&str> = problems.iter().map(|problem| problem.code).collect();
        if let Some(found) = self.rejects.expect(line, &mut self.report.differences)? {
            let right = found.len() == 3 && found[1] == *fields[ID] && same_codes(&found[2], &codes);
            if !right {
                self.report.differences.add(format!("{REJECTS}: line {line}: expected id {:?} and codes {codes:?}, found {found:?}", fields[ID]));
            }
        }
        self.check_failed(line, fields, &codes)
    }

    /// A failed row is listed with its own fields, then its line, codes, text if it was rejected, and reason.
    fn check_failed(&mut self, line: u64, fields: &[&str], codes: &BTreeSet<&str>) -> anyhow::Result<()> {
        self.report.failed += 1;
        let Some(found) = self.failed.expect(line, &mut self.report.differences)? else { return Ok(()) };
        let own = (0..COLUMNS.len()).map(|column| fields.get(column).copied().unwrap_or_default());
        // The text of a ragged record has the fields that it has too many.
        let text = if codes.contains(BAD_ROW) { csv_record(fields)? } else { String::new() };
        let right = found.len() == COLUMNS.len() + FAILED_COLUMNS.len()
            && found.iter().take(COLUMNS.len()).eq(own)
            && same_codes(&found[COLUMNS.len() + 1], codes)
            && found[COLUMNS.len() + 2] == *text
            && !found[COLUMNS.len() + 3].is_empty();
        if !right {
            self.report.differences.add(format!("{FAILED}: line {line}: expected {fields:?} with codes {codes:?} and a reason, found {found:?}"));
        }
        Ok(())
    }

    fn finish(mut self, directory: &Path) -> anyhow::Result<Report> {
        let differences = &mut self.report.differences;
        self.results.finish(differences)?;
        self.postings.finish(differences)?;
        self.rejects.finish(differences)?;
        self.failed.finish(differences)?;
        let mut names = Vec::new();
        if self.report.success > 0 {
            names.push("postings.csv");
        }
        if self.rejected > 0 {
            names.push("rejects.csv");
        }
        let sizes = file_sizes(&directory.join("files"))?;
        if !sizes.keys().eq(&names) {
            differences.add(format!("files: expected {names:?}, found {:?}", sizes.keys()));
        }
        self.check_summary(directory, &sizes)?;
        Ok(self.report)
    }

    fn check_summary(&mut self, directory: &Path, sizes: &BTreeMap<String, u64>) -> anyhow::Result<()> {
        let Report { rows, success, failed, .. } = self.report;
        let differences = &mut self.report.differences;
        let Some(text) = read_if_there(&directory.join(SUMMARY))? else {
            differences.add(format!("{SUMMARY}: missing"));
            return Ok(());
        };
        let summary: Summary = match serde_json::from_str(&text) {
            Ok(summary) => summary,
            Err(error) => {
                differences.add(format!("{SUMMARY}: {error}"));
                return Ok(());
            }
        };
        let counts = [
            ("rows", rows, summary.rows),
            ("success", success, summary.success),
            ("failed", failed, summary.failed),
            ("aborted", 0, summary.aborted),
            ("fuel", self.fuel, summary.fuel),
        ];
        for (name, expected, found) in counts {
            if expected != found {
                differences.add(format!("{SUMMARY}: {name}: expected {expected}, found {found}"));
            }
        }
        let status = if failed > 0 { "failed" } else { "success" };
        if summary.status != status {
            differences.add(format!("{SUMMARY}: status: expected {status}, found {}", summary.status));
        }
        if summary.id.is_empty() || summary.seconds < 0.0 || summary.rows_per_second < 0.0 {
            differences.add(format!("{SUMMARY}: an id, seconds and a rate were expected: {}", text.trim()));
        }
        let listed: BTreeMap<String, u64> = summary.files.iter().map(|file| (file.name.clone(), file.size_bytes)).collect();
        if listed != *sizes || listed.len() != summary.files.len() {
            differences.add(format!("{SUMMARY}: files: expected {sizes:?}, found {:?}", summary.files));
        }
        Ok(())
    }
}

/// A record as the generator writes it.
fn csv_record(fields: &[&str]) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    writer.write_record(fields)?;
    let text = String::from_utf8(writer.into_inner().context("memory can be written")?)?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn same_codes(joined: &str, codes: &BTreeSet<&str>) -> bool {
    joined.split(';').count() == codes.len() && joined.split(';').collect::<BTreeSet<_>>() == *codes
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Names and sizes of the files in a directory; none when it is not there.
fn file_sizes(directory: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    let mut sizes = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        sizes.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests;
