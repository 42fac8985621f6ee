//! The rows that failed or were not run, as they came, each with the reason: to be corrected and run again.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Context;
use cap_std::fs::Dir;
use serde::Serialize;
use serde_json::value::RawValue;

use super::results::on_one_line;
use super::{FAILED_CSV, FAILED_NDJSON, Whole};
use crate::intake::{FAILED_COLUMNS, Format};
use crate::model::{RecordedOutcome, RowStatus, without_controls};

/// The code of rows that were not run because the batch was aborted.
const ABORTED: &str = "aborted";

pub(super) struct FailedRows {
    file: Whole,
    format: Format,
    header: Vec<String>,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    rowmill: Reason<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Reason<'a> {
    line: u32,
    codes: Vec<&'a str>,
    reason: &'a str,
}

impl FailedRows {
    pub(super) fn begin(out: &Dir, format: Format, header: &[String]) -> anyhow::Result<FailedRows> {
        let name = match format {
            Format::Csv => FAILED_CSV,
            Format::Ndjson => FAILED_NDJSON,
        };
        let mut failed = FailedRows { file: Whole::begin(out, name)?, format, header: header.to_vec() };
        if format == Format::Csv {
            let columns: Vec<&str> = header.iter().map(String::as_str).chain(FAILED_COLUMNS).collect();
            write_record(&mut failed.file.writer, &columns)?;
        }
        Ok(failed)
    }

    pub(super) fn write(&mut self, row: &RecordedOutcome) -> anyhow::Result<()> {
        let (codes, reason) = why(row);
        match self.format {
            Format::Csv => {
                let mut fields = self.fields_of(&row.input).with_context(|| format!("cannot read the input of line {}", row.line))?;
                // Fields beyond the header go behind the reason, so that it stays under its name.
                let surplus = fields.split_off(self.header.len().min(fields.len()));
                fields.resize(self.header.len(), String::new());
                fields.extend([row.line.to_string(), without_controls(&codes.join(";")), without_controls(&reason)]);
                fields.extend(surplus);
                write_record(&mut self.file.writer, &fields)
            }
            Format::Ndjson => write_value(&mut self.file.writer, row, codes, &reason),
        }
    }

    /// The fields of a CSV record: of an object by the header, or of the list in which a ragged record was kept.
    fn fields_of(&self, input: &str) -> serde_json::Result<Vec<String>> {
        if input.starts_with('[') {
            return serde_json::from_str(input);
        }
        let mut values: HashMap<String, String> = serde_json::from_str(input)?;
        Ok(self.header.iter().map(|name| values.remove(name).unwrap_or_default()).collect())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.file.finish()
    }
}

/// Writes a row that did not succeed, as a line of JSON.
pub(super) fn write_failed_line(writer: &mut impl Write, row: &RecordedOutcome) -> anyhow::Result<()> {
    let (codes, reason) = why(row);
    write_value(writer, row, codes, &reason)
}

/// Why a row did not succeed: codes, and a sentence.
fn why(row: &RecordedOutcome) -> (Vec<&str>, String) {
    if row.status != Some(RowStatus::Failed) {
        return (vec![ABORTED], "the batch was aborted before this row was run".to_owned());
    }
    let codes = row.messages.iter().map(|message| message.code.as_str()).collect();
    (codes, row.messages.iter().map(crate::model::Message::text).collect::<Vec<_>>().join("; "))
}

fn write_value(writer: &mut impl Write, row: &RecordedOutcome, codes: Vec<&str>, reason: &str) -> anyhow::Result<()> {
    let was_text = matches!(&row.messages[..], [message] if message.id == 0 && message.code == "bad_row");
    let text = if was_text { text_of(&row.input) } else { None };
    let input = on_one_line(&row.input);
    // One that was pruned is empty.
    let input: Option<&RawValue> = if text.is_none() && !input.is_empty() { Some(serde_json::from_str(&input)?) } else { None };
    let line = FailedLine { rowmill: Reason { line: row.line, codes, reason }, input, text: text.as_deref() };
    serde_json::to_writer(&mut *writer, &line).context("cannot write the failed rows")?;
    writer.write_all(b"\n").context("cannot write the failed rows")
}

/// What was no row is kept as a string, and a record of CSV as the list of its fields. It goes out as the text that it was, so that it is not taken for a row: of a list a
/// processor might take the fields in their order.
fn text_of(input: &str) -> Option<String> {
    if let Ok(text) = serde_json::from_str(input) {
        return Some(text);
    }
    let fields: Vec<String> = serde_json::from_str(input).ok()?;
    let mut record = Vec::new();
    write_record(&mut record, &fields).ok()?;
    // The line break behind it.
    record.pop();
    String::from_utf8(record).ok()
}

fn write_record<T: AsRef<[u8]>>(writer: &mut impl Write, fields: &[T]) -> anyhow::Result<()> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(writer);
    writer.write_record(fields).and_then(|()| writer.flush().map_err(csv::Error::from)).context("cannot write the failed rows")
}
