//! One JSON value per line.

use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::source::{Budgeted, RecordBudget, Refusal};
use super::{IntakeError, ROW_BYTES_MAX};
use crate::model::{JsonText, NewRow};

pub(super) struct NdjsonRows {
    reader: BufReader<Budgeted<Box<dyn Read + Send>>>,
    budget: RecordBudget,
    bytes: Vec<u8>,
    /// Values, and lines of the file, so far.
    count: u64,
    file_line: u64,
}

/// A line of a list of failed rows: the row as it was, beside the reason, or a text that was no JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailedRow<'a> {
    #[serde(borrow, rename = "rowmill")]
    _reason: &'a RawValue,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    text: Option<String>,
}

impl NdjsonRows {
    pub(super) fn open(file: Box<dyn Read + Send>) -> NdjsonRows {
        let budget = RecordBudget::default();
        let reader = BufReader::with_capacity(64 << 10, Budgeted::new(file, budget.clone()));
        NdjsonRows { reader, budget, bytes: Vec::new(), count: 0, file_line: 0 }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<NewRow>, IntakeError> {
        loop {
            self.budget.reset();
            self.bytes.clear();
            let read = self.reader.read_until(b'\n', &mut self.bytes).map_err(|error| Refusal::explain(error, self.count + 1, self.file_line + 1))?;
            if read == 0 {
                return match (self.count, self.file_line) {
                    (0, 0) => Err(IntakeError::Empty),
                    (0, _) => Err(IntakeError::NoValue),
                    _ => Ok(None),
                };
            }
            self.file_line += 1;
            let text = std::str::from_utf8(&self.bytes).map_err(|_| IntakeError::NotUtf8 { line: self.file_line })?.trim();
            if text.is_empty() {
                continue;
            }
            self.count += 1;
            let line = u32::try_from(self.count).map_err(|_| IntakeError::TooMany)?;
            return Ok(Some(row(line, self.file_line, text)));
        }
    }
}

fn row(line: u32, file_line: u64, text: &str) -> NewRow {
    let place = format!("value {line} (line {file_line} of the file)");
    // What is no JSON is kept as a string, so that nothing is lost.
    let reject = |text: &str, reason: String| {
        let input = JsonText::trusted(serde_json::to_string(text).expect("a string is always JSON"));
        NewRow { line: line.into(), input, rejected: Some(reason) }
    };
    if text.len() > ROW_BYTES_MAX {
        return reject(text, format!("{place} is larger than 1 MiB"));
    }
    if text.starts_with("{\"rowmill\"")
        && let Ok(failed) = serde_json::from_str::<FailedRow<'_>>(text)
    {
        match failed {
            FailedRow { input: Some(input), text: None, .. } => return NewRow::new(line, JsonText::trusted(input.get())),
            FailedRow { input: None, text: Some(text), .. } => {
                return reject(&text, format!("{place} is still the text of a failed row, and not JSON"));
            }
            _ => {}
        }
    }
    match JsonText::check(text) {
        Ok(input) => NewRow::new(line, input),
        Err(error) => reject(text, format!("{place} is {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Line;

    fn read(file: &'static [u8]) -> Result<Vec<NewRow>, IntakeError> {
        let mut rows = NdjsonRows::open(Box::new(file));
        std::iter::from_fn(|| rows.next_row().transpose()).collect()
    }

    #[test]
    fn values_are_taken_as_they_are_and_empty_lines_are_not_counted() {
        let rows = read(b"{\"a\": 1}\r\n\n [2]\n\"three\"").unwrap();
        let rows: Vec<(Line, &str)> = rows.iter().map(|row| (row.line, row.input.as_str())).collect();
        assert_eq!(rows, [(Line::Given(1), "{\"a\": 1}"), (Line::Given(2), "[2]"), (Line::Given(3), "\"three\"")]);
    }

    #[test]
    fn a_line_that_is_no_json_is_rejected_with_its_place() {
        let rows = read(b"1\n\n{nope\n2\n").unwrap();
        let reason = rows[1].rejected.as_deref().unwrap();
        assert!(reason.starts_with("value 2 (line 3 of the file) is not valid JSON: "), "{reason}");
        assert_eq!(rows[1].input.as_str(), "\"{nope\"");
        assert!(rows[2].rejected.is_none());
    }

    #[test]
    fn failed_rows_come_back_as_they_were() {
        let rows =
            read(b"{\"rowmill\":{\"line\":3},\"input\":{\"a\":1}}\n{\"rowmill\":{},\"text\":\"{nope\"}\n{\"rowmill\":1,\"input\":2,\"c\":3}\n")
                .unwrap();
        assert_eq!((rows[0].input.as_str(), &rows[0].rejected), ("{\"a\":1}", &None));
        assert_eq!(rows[1].input.as_str(), "\"{nope\"");
        assert!(rows[1].rejected.is_some());
        assert_eq!(rows[2].input.as_str(), "{\"rowmill\":1,\"input\":2,\"c\":3}");
    }

    #[test]
    fn a_file_that_cannot_be_taken_says_what_and_where() {
        let error = |file| read(file).unwrap_err().to_string();
        assert_eq!(error(b""), "it is empty");
        assert_eq!(error(b"\n \n"), "it has no line with a value");
        assert_eq!(error(b"1\n\xff\n"), "it is not UTF-8: line 2 has a byte that cannot be read as text; save it as UTF-8");
    }
}
