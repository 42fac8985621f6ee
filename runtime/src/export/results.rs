//! One line of JSON per row.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use super::failed::rejected_text;
use crate::model::{BatchId, FailedPosition, FailedRow, Message, PastOutcome, RecordedOutcome, RowStatus};

#[derive(Serialize)]
struct ResultLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
    line: u32,
    status: RowStatus,
    output: Option<&'a RawValue>,
    messages: &'a [Message],
    attempts: u32,
    fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a str>,
}

/// Writes what became of a row of a final batch, or of one that has an outcome.
///
/// # Errors
/// Of the writer.
pub fn write_row(writer: &mut impl Write, row: &RecordedOutcome) -> io::Result<()> {
    // A final batch has no row without a status.
    let status = row.status.unwrap_or(RowStatus::Aborted);
    let RecordedOutcome { line, ref output, ref messages, attempts, fuel, ref log, .. } = *row;
    let rest = ResultLine { round: None, line, status, output: None, messages, attempts, fuel, log: log.as_deref() };
    write_line(writer, output.as_deref(), &rest)
}

/// A failed row among those of other batches.
#[derive(Serialize)]
struct FailedLine<'a> {
    position: FailedPosition,
    batch: BatchId,
    op: &'a str,
    round: u32,
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    /// In the place of the input, of a row that was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    output: Option<&'a RawValue>,
    messages: &'a [Message],
    attempts: u32,
    fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a str>,
}

/// Writes a failed row of an app.
///
/// # Errors
/// Of the writer.
pub fn write_failed(writer: &mut impl Write, failed: &FailedRow) -> io::Result<()> {
    let FailedRow { position, batch, ref op, round, ref row } = *failed;
    let (input, output) = (on_one_line(&row.input), row.output.as_deref().map(on_one_line));
    let json = |text| serde_json::from_str::<&RawValue>(text).map_err(io::Error::other);
    let text = rejected_text(row);
    let line = FailedLine {
        position,
        batch,
        op,
        round,
        line: row.line,
        // One that was pruned is empty.
        input: if input.is_empty() || text.is_some() { None } else { Some(json(&input)?) },
        text: text.as_deref(),
        output: output.as_deref().map(json).transpose()?,
        messages: &row.messages,
        attempts: row.attempts,
        fuel: row.fuel,
        log: row.log.as_deref(),
    };
    serde_json::to_writer(&mut *writer, &line)?;
    writer.write_all(b"\n")
}

/// Writes what a row came to in a round after which it was run again.
///
/// # Errors
/// Of the writer.
pub fn write_past(writer: &mut impl Write, outcome: &PastOutcome) -> io::Result<()> {
    let PastOutcome { round, line, ref output, ref messages, attempts, fuel, ref log, .. } = *outcome;
    let rest = ResultLine { round: Some(round), line, status: RowStatus::Failed, output: None, messages, attempts, fuel, log: log.as_deref() };
    write_line(writer, output.as_deref(), &rest)
}

fn write_line(writer: &mut impl Write, output: Option<&str>, rest: &ResultLine<'_>) -> io::Result<()> {
    let output = output.map(on_one_line);
    let output = output.as_deref().map(serde_json::from_str::<&RawValue>).transpose().map_err(io::Error::other)?;
    serde_json::to_writer(&mut *writer, &ResultLine { output, ..*rest })?;
    writer.write_all(b"\n")
}

/// JSON has line breaks only between its parts, where blanks do as well.
pub fn on_one_line(json: &str) -> std::borrow::Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_on_several_lines_stays_one_line() {
        let row = RecordedOutcome {
            row_no: 1,
            line: 7,
            status: Some(RowStatus::Success),
            output: Some("{\n \"a\": \"x\\ny\"}".to_owned()),
            messages: vec![],
            attempts: 1,
            fuel: 5,
            log: None,
            input: "{}".to_owned(),
            rejected: None,
        };
        let mut line = Vec::new();
        write_row(&mut line, &row).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"line\":7,\"status\":\"success\",\"output\":{  \"a\": \"x\\ny\"},\"messages\":[],\"attempts\":1,\"fuel\":5}\n"
        );
    }
}
