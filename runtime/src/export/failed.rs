//! The rows that failed or were not run, as they came, each with the reason: to be corrected and
//! run again.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Context;
use cap_std::fs::Dir;
use serde::Serialize;
use serde_json::value::RawValue;

use super::results::on_one_line;
use super::{FAILED_CSV, FAILED_NDJSON, Whole};
use crate::intake::{FAILED_COLUMNS, Format, REJECTED_CODE, fields_of_rejected, write_record};
use crate::model::{RecordedOutcome, RowStatus, without_controls};

/// The code of rows that were not run because the batch was aborted.
const ABORTED: &str = "aborted";
const WRITING: &str = "cannot write the failed rows";

pub(super) struct FailedRows {
    file: Whole,
    format: Format,
    header: Vec<String>,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    rowmill: Why<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Why<'a> {
    line: u32,
    codes: &'a [&'a str],
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
            write_record(&mut failed.file.writer, &columns).context(WRITING)?;
        }
        Ok(failed)
    }

    pub(super) fn write(&mut self, row: &RecordedOutcome) -> anyhow::Result<()> {
        match self.format {
            Format::Csv => {
                let record = record_of(row, &self.header)?;
                write_record(&mut self.file.writer, &record).context(WRITING)
            }
            Format::Ndjson => write_failed_line(&mut self.file.writer, row),
        }
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.file.finish()
    }
}

/// Writes a row that did not succeed, as a line of JSON. A rejected one stands there as its text,
/// so that it is rejected again until it is corrected.
pub(super) fn write_failed_line(writer: &mut impl Write, row: &RecordedOutcome) -> anyhow::Result<()> {
    let (codes, reason) = why(row);
    let text = rejected_text(row);
    let input = on_one_line(&row.input);
    // One that was pruned is empty.
    let input: Option<&RawValue> = if text.is_none() && !input.is_empty() { Some(serde_json::from_str(&input)?) } else { None };
    let line = FailedLine { rowmill: Why { line: row.line, codes: &codes, reason: &reason }, input, text: text.as_deref() };
    serde_json::to_writer(&mut *writer, &line).context(WRITING)?;
    writer.write_all(b"\n").context(WRITING)
}

/// A record of the list: the columns of the row, then those of the list.
fn record_of(row: &RecordedOutcome, header: &[String]) -> anyhow::Result<Vec<String>> {
    let (codes, reason) = why(row);
    let text = rejected_text(row);
    let mut fields = match &text {
        Some(text) => fields_of_rejected(text, header.len()),
        None => {
            let values: serde_json::Result<HashMap<String, String>> = serde_json::from_str(&row.input);
            let mut values = values.with_context(|| format!("cannot read the input of line {}", row.line))?;
            header.iter().map(|name| values.remove(name).unwrap_or_default()).collect()
        }
    };
    let [line, codes, text, reason] = [row.line.to_string(), without_controls(&codes.join(";")), text.unwrap_or_default(), without_controls(&reason)];
    fields.extend([line, codes, text, reason]);
    Ok(fields)
}

/// Why a row did not succeed: codes, and a sentence.
pub(super) fn why(row: &RecordedOutcome) -> (Vec<&str>, String) {
    match (row.status, &row.rejected) {
        (Some(RowStatus::Failed), _) => {
            let codes = row.messages.iter().map(|message| message.code.as_str()).collect();
            (codes, row.messages.iter().map(crate::model::Message::text).collect::<Vec<_>>().join("; "))
        }
        (_, Some(reason)) => (vec![ABORTED, REJECTED_CODE], reason.clone()),
        (_, None) => (vec![ABORTED], "the batch was aborted before this row was run".to_owned()),
    }
}

/// The text of a rejected row: a record or value that could not be read is kept as a string, and
/// the row of a checker as it made it.
pub fn rejected_text(row: &RecordedOutcome) -> Option<String> {
    row.rejected.as_ref().filter(|_| !row.input.is_empty())?;
    Some(serde_json::from_str(&row.input).unwrap_or_else(|_| row.input.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Message;

    fn row(input: &str, rejected: Option<&str>, status: RowStatus) -> RecordedOutcome {
        let message = |code: &str, value: &str| Message { id: 0, code: code.to_owned(), field: None, values: vec![value.to_owned()] };
        let messages = match (status, rejected) {
            (RowStatus::Failed, Some(reason)) => vec![message("bad_row", reason)],
            (RowStatus::Failed, None) => vec![message("processing_error", "no\nsuch")],
            _ => Vec::new(),
        };
        let (input, rejected) = (input.to_owned(), rejected.map(str::to_owned));
        RecordedOutcome { row_no: 1, line: 7, status: Some(status), output: None, messages, attempts: 1, fuel: 0, log: None, input, rejected }
    }

    fn record(row: &RecordedOutcome) -> String {
        record_of(row, &["a".to_owned(), "b".to_owned()]).unwrap().join("|")
    }

    fn line(row: &RecordedOutcome) -> String {
        let mut line = Vec::new();
        write_failed_line(&mut line, row).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_rejected_row_goes_out_as_its_text_whether_it_was_recorded_or_not() {
        let ragged = |status| row(r#""1,\"x,y\",3""#, Some("has 3 fields"), status);
        let failed = ragged(RowStatus::Failed);
        assert_eq!(record(&failed), "1|x,y|7|bad_row|1,\"x,y\",3|has 3 fields");
        assert_eq!(line(&failed), "{\"rowmill\":{\"line\":7,\"codes\":[\"bad_row\"],\"reason\":\"has 3 fields\"},\"text\":\"1,\\\"x,y\\\",3\"}\n");
        let aborted = ragged(RowStatus::Aborted);
        assert_eq!(record(&aborted), "1|x,y|7|aborted;bad_row|1,\"x,y\",3|has 3 fields");
        assert_eq!(
            line(&aborted),
            "{\"rowmill\":{\"line\":7,\"codes\":[\"aborted\",\"bad_row\"],\"reason\":\"has 3 fields\"},\"text\":\"1,\\\"x,y\\\",3\"}\n"
        );
        // A checker keeps what it likes of a row.
        assert!(line(&row("[1, 2]", Some("so"), RowStatus::Failed)).ends_with(",\"text\":\"[1, 2]\"}\n"));
    }

    #[test]
    fn a_row_that_can_be_run_goes_out_as_its_input() {
        let failed = row(r#"{"a":"1","b":"x\ny"}"#, None, RowStatus::Failed);
        assert_eq!(record(&failed), "1|x\ny|7|processing_error||no such");
        assert!(line(&failed).ends_with(",\"input\":{\"a\":\"1\",\"b\":\"x\\ny\"}}\n"));
        // Text and lists are rows, too, where they came as rows.
        for input in ["\"x\"", "[\"1\"]", "null"] {
            for status in [RowStatus::Failed, RowStatus::Aborted] {
                assert!(line(&row(input, None, status)).ends_with(&format!(",\"input\":{input}}}\n")), "{input}");
            }
        }
        assert!(line(&row("", None, RowStatus::Aborted)).ends_with("\"the batch was aborted before this row was run\"}}\n"));
    }
}
