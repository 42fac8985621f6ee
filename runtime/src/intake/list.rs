//! Lists of failed rows, which are corrected and read again. A row that was rejected is rejected
//! again until it is corrected.

mod columns;
mod line;

use std::borrow::Cow;
use std::io::{self, Write};

pub(super) use self::columns::ListColumns;
pub(super) use self::line::{JSON_LINE, Listed, ListedValue};

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

/// Begins the reason of a row that is rejected again.
const BEFORE: &str = "was rejected before";
/// Stands between the reason of a row that is rejected again and the first one.
const FIRST: &str = "; the first reason: ";
/// The bytes of a first reason that are kept, and the mark behind one that was cut.
const FIRST_BYTES_MAX: usize = 4 << 10;
const CUT: &str = " … (cut)";

/// The reason of a row that is rejected again, beside the one that its list has. Over any number
/// of lists the first reason stays, once.
fn again(why: &str, reason: &str) -> String {
    let first = match reason.split_once(FIRST) {
        Some((before, first)) if before.contains(BEFORE) => first,
        None if reason.contains(BEFORE) => "",
        _ => reason,
    };
    let kept = &first[..first.floor_char_boundary(FIRST_BYTES_MAX)];
    let (first_mark, cut_mark) = (if first.is_empty() { "" } else { FIRST }, if kept.len() < first.len() { CUT } else { "" });
    format!("{BEFORE}{why}{first_mark}{kept}{cut_mark}")
}

fn line_number(text: &str, name: &'static str, file_line: u64) -> Result<u32, IntakeError> {
    let found = || match text {
        "" => "empty".to_owned(),
        text => format!("{:?}", text.chars().take(20).collect::<String>()),
    };
    let number = text.trim().parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| IntakeError::ListLine { line: file_line, name, found: found() })
}

/// Returns true if two names differ in one letter at most, or in the order of two.
fn is_near(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let (one, other) = (&one[same..], &other[same..]);
    let same = one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
    match (&one[..one.len() - same], &other[..other.len() - same]) {
        ([first, second], [third, fourth]) => first == fourth && second == third,
        (one, other) => one.len() <= 1 && other.len() <= 1,
    }
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
    let fields = records.fields(records.text().ok()?).map(|(field, has_quotes)| unquoted(field, has_quotes).into_owned()).collect();
    Some(fields)
}

/// A field as a value.
pub(super) fn unquoted(field: &str, has_quotes: bool) -> Cow<'_, str> {
    if has_quotes { field.replace("\"\"", "\"").into() } else { field.into() }
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

/// Fields as a record of CSV, without a line break.
pub(super) fn record_text(fields: &[&str]) -> String {
    let mut record = Vec::new();
    write_record(&mut record, fields).expect("memory can be written");
    // The line break behind it.
    record.pop();
    String::from_utf8(record).expect("it was made of strings")
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
    fn the_first_reason_stays_once_over_any_number_of_lists() {
        let second = again(": correct it", "has 1 fields");
        assert_eq!(second, "was rejected before: correct it; the first reason: has 1 fields");
        assert_eq!(again(": correct it", &format!("record 1 {second}")), second);
        assert_eq!(again(": correct it", ""), "was rejected before: correct it");
        assert_eq!(again(": correct it", "record 1 was rejected before: correct it"), "was rejected before: correct it");
        let long = "ä".repeat(FIRST_BYTES_MAX);
        let cut = again("", &long);
        assert_eq!(cut, format!("was rejected before; the first reason: {}{CUT}", "ä".repeat(FIRST_BYTES_MAX / 2)));
        assert_eq!(again("", &cut), cut);
        let longest = "x".repeat(FIRST_BYTES_MAX);
        assert!(again("", &longest).ends_with(&longest));
    }

    #[test]
    fn names_that_differ_in_one_letter_are_near() {
        for near in ["code", "codes", "codess", "cods", "cdoes", "xcodes", "cores"] {
            assert!(is_near(near, "codes"), "{near}");
        }
        for far in ["", "cod", "lines", "coeds2", "sedoc"] {
            assert!(!is_near(far, "codes"), "{far}");
        }
    }
}
