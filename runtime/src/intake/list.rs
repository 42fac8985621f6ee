//! Lists of failed rows, which are corrected and read again. A row that was rejected is rejected
//! again until it is corrected.

use std::io::{self, Write};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::records::Records;
use super::window::Window;
use super::{BYTE_ORDER_MARK, IntakeError};

const LINE: &str = "rowmill_line";
const CODES: &str = "rowmill_codes";
const TEXT: &str = "rowmill_text";
const REASON: &str = "rowmill_reason";

/// Columns that a list of failed rows has behind those of the rows: the line of the row, why it
/// failed as codes, the record as it stood in the file if it was rejected, and why it failed as a
/// sentence. They are no part of the row when the list is read.
pub const FAILED_COLUMNS: [&str; 4] = [LINE, CODES, TEXT, REASON];

/// The code of a row that was rejected, in a list of failed rows.
pub const REJECTED_CODE: &str = "bad_row";

/// The name of the line in a list that is JSON.
pub(super) const JSON_LINE: &str = "rowmill.line";

/// Where the columns of a list of failed rows are.
pub(super) struct ListColumns {
    line: Option<usize>,
    codes: Option<usize>,
    text: Option<usize>,
}

impl ListColumns {
    /// None if no column is one of a list of failed rows.
    pub(super) fn of(columns: &[String]) -> Option<ListColumns> {
        let at = |name: &str| columns.iter().position(|column| column == name);
        let found = ListColumns { line: at(LINE), codes: at(CODES), text: at(TEXT) };
        (found.line.is_some() || found.codes.is_some() || found.text.is_some() || at(REASON).is_some()).then_some(found)
    }

    /// Returns true if rows have lines of their own.
    pub(super) fn has_lines(&self) -> bool {
        self.line.is_some()
    }

    /// The row's own line; none if rows have none.
    pub(super) fn line_of(&self, fields: &[String], file_line: u64) -> Result<Option<u32>, IntakeError> {
        self.line.map(|column| line_number(&fields[column], LINE, file_line)).transpose()
    }

    /// Returns true if the codes still say that the record, which has these fields of its own, was rejected. A processor may have a
    /// code of the same name: a rejected record is kept as text too, or is empty.
    pub(super) fn is_rejected(&self, fields: &[String], own: &[String]) -> bool {
        let is_kept = |column: usize| !fields[column].is_empty() || own.iter().all(String::is_empty);
        self.codes.is_some_and(|column| fields[column].split(';').any(|code| code.trim() == REJECTED_CODE)) && self.text.is_none_or(is_kept)
    }

    /// The text of a rejected record: as it was kept, or, if its fields were changed meanwhile, as
    /// they are now.
    pub(super) fn text_of(&self, fields: &[String], own: &[String]) -> String {
        let kept = self.text.map(|column| fields[column].as_str());
        match kept {
            // Without fields there is nothing else to keep: it may be the text that was corrected.
            Some(kept) if own.iter().all(String::is_empty) || fields_of_rejected(kept, own.len()) == own => kept.to_owned(),
            _ => record_text(own),
        }
    }
}

fn line_number(text: &str, name: &'static str, file_line: u64) -> Result<u32, IntakeError> {
    let found = || match text {
        "" => "empty".to_owned(),
        text => format!("{:?}", text.chars().take(20).collect::<String>()),
    };
    let number = text.trim().parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| IntakeError::ListLine { line: file_line, name, found: found() })
}

/// The fields of a record that was rejected, for so many columns: without those that it has too
/// many, and with empty ones for those that are missing. All are empty where its text cannot be
/// split into fields.
pub fn fields_of_rejected(text: &str, columns: usize) -> Vec<String> {
    let mut fields = split(text).unwrap_or_default();
    fields.resize(columns, String::new());
    fields
}

fn split(text: &str) -> Option<Vec<String>> {
    let mut records = Records::new(Window::of_text(text.as_bytes()), b',');
    if !records.advance().ok()? || records.fault().is_some() || !records.is_last() {
        return None;
    }
    let fields = records.fields(records.text().ok()?).map(|(field, has_quotes)| unquoted(field, has_quotes)).collect();
    Some(fields)
}

/// A field as a value.
pub(super) fn unquoted(field: &str, has_quotes: bool) -> String {
    if has_quotes { field.replace("\"\"", "\"") } else { field.to_owned() }
}

/// Writes a record of CSV.
///
/// # Errors
/// Of the writer.
pub fn write_record<T: AsRef<[u8]>>(writer: &mut impl Write, fields: &[T]) -> io::Result<()> {
    // A value that begins with a byte order mark would be taken for one of the file.
    let begins_with_mark = fields.first().is_some_and(|field| field.as_ref().starts_with(BYTE_ORDER_MARK.encode_utf8(&mut [0; 4]).as_bytes()));
    let style = if begins_with_mark { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
    let mut writer = csv::WriterBuilder::new().flexible(true).quote_style(style).from_writer(writer);
    writer.write_record(fields).map_err(io::Error::other)?;
    writer.flush()
}

fn record_text(fields: &[String]) -> String {
    let mut record = Vec::new();
    write_record(&mut record, fields).expect("memory can be written");
    // The line break behind it.
    record.pop();
    String::from_utf8(record).expect("it was made of strings")
}

/// A line of a list of failed rows: a row as it was, or a text that was no row, beside the reason.
/// The order of the keys is of no importance.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedRow<'a> {
    #[serde(borrow)]
    rowmill: Why<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Why<'a> {
    #[serde(borrow)]
    line: Option<&'a RawValue>,
}

/// Null is a value, too.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The row in a line of a list.
pub(super) enum Listed<'a> {
    Input(&'a str),
    /// It was rejected, and is not corrected.
    Text(String),
}

impl<'a> ListedRow<'a> {
    /// None for a value that is a row itself.
    pub(super) fn of(json: &'a str) -> Option<(ListedRow<'a>, Listed<'a>)> {
        // Nearly no row begins like this.
        let first_key = json.strip_prefix('{')?.trim_start();
        if !["\"rowmill\"", "\"input\"", "\"text\""].iter().any(|key| first_key.starts_with(key)) {
            return None;
        }
        let mut row: ListedRow<'a> = serde_json::from_str(json).ok()?;
        match (row.input.take(), row.text.take()) {
            (Some(input), None) => Some((row, Listed::Input(input.get()))),
            (None, Some(text)) => Some((row, Listed::Text(text))),
            _ => None,
        }
    }

    /// The row's own line; none if the list has none for it.
    pub(super) fn line(&self, file_line: u64) -> Result<Option<u32>, IntakeError> {
        self.rowmill.line.map(|line| line_number(line.get(), JSON_LINE, file_line)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_record_has_as_many_fields_as_there_are_columns() {
        assert_eq!(fields_of_rejected("1,\"a \"\"b\"\"\"", 3), ["1", "a \"b\"", ""]);
        assert_eq!(fields_of_rejected("1,2,3", 2), ["1", "2"]);
        assert_eq!(fields_of_rejected("", 2), ["", ""]);
        for text in ["1,a\"b", "\"1\" ,2", "1\r,2", "\"open"] {
            assert_eq!(fields_of_rejected(text, 2), ["", ""], "{text}");
        }
    }

    #[test]
    fn a_line_of_a_list_is_known_by_its_shape() {
        let input = |json| match ListedRow::of(json) {
            Some((_, Listed::Input(input))) => Some(input.to_owned()),
            _ => None,
        };
        assert_eq!(input(r#"{"rowmill":{"line":3},"input":{"a":1}}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(input("{ \"input\" : null,\t\"rowmill\":{\"line\": 3} }").as_deref(), Some("null"));
        for row in [
            r#"{"rowmill":1,"input":2}"#,
            r#"{"rowmill":{},"input":2,"c":3}"#,
            r#"{"rowmill":{},"input":2,"text":"x"}"#,
            r#"{"rowmill":{}}"#,
            r#"{"input":2}"#,
            r#"["rowmill"]"#,
            r#"{"rowmill":{},"text":null}"#,
        ] {
            assert!(ListedRow::of(row).is_none(), "{row}");
        }
        assert!(matches!(ListedRow::of(r#"{"text":"{nope","rowmill":{}}"#), Some((_, Listed::Text(text))) if text == "{nope"));
        assert!(ListedRow::of(r#"{"rowmill":{"line":0},"input":1}"#).unwrap().0.line(7).is_err());
    }
}
