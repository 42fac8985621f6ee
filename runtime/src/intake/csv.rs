//! CSV with a header: rows of its records.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::IntakeError;
use super::error::FaultText;
use super::list::{ListColumns, record_text, unquoted};
use super::nature::{Delimiter, SPLIT_BYTES};
use super::records::Records;
use super::window::Window;
use super::{BYTE_ORDER_MARK, FAILED_COLUMNS, too_large};
use crate::model::{INPUT_BYTES_MAX, JsonText, NewRow};

/// Of the name of a column, where it is shown: it may be as long as a record.
const SHOWN_CHARACTERS: usize = 200;
/// The bytes of a column's key and empty value in JSON, without the name, and of the comma behind
/// it.
const COLUMN_BYTES: usize = 6;
/// The JSON of a larger record is measured before it is made: it may be six times as large.
const MEASURED_BYTES: usize = 128 << 10;

pub(super) struct CsvRows {
    records: Records,
    /// The columns that become keys.
    header: Vec<String>,
    /// For each column of the file its key as JSON, with a colon; none for a column that a list of
    /// failed rows added.
    keys: Vec<Option<String>>,
    list: Option<ListColumns>,
    /// Records so far.
    count: u64,
    /// Lines that are empty, before the record that was read and is not a row yet.
    blanks: Range<u64>,
    is_ahead: bool,
}

impl CsvRows {
    pub(super) fn open(window: Window) -> Result<CsvRows, IntakeError> {
        let mut records = Records::new(window, b',');
        let other_delimiter = find_other_delimiter(&mut records)?;
        loop {
            if !records.advance()? {
                return Err(if records.has_passed() { IntakeError::OnlyEmptyLines } else { IntakeError::Empty });
            }
            // Before the header nothing says what an empty line could be.
            if !records.is_blank() {
                break;
            }
        }
        let columns = read_header(&records)?;
        if let Some((delimiter, columns)) = other_delimiter.filter(|_| columns.len() == 1) {
            return Err(IntakeError::OtherDelimiter { delimiter, columns });
        }
        check_names(&columns)?;
        let list = ListColumns::of(&columns)?;
        if list.is_some() {
            records.allow_list();
        }
        let added = |name: &&String| FAILED_COLUMNS.contains(&name.as_str());
        let keys: Vec<_> = columns.iter().map(|name| (!added(&name)).then(|| json_string(name) + ":")).collect();
        let header = columns.iter().filter(|name| !added(name)).cloned().collect();
        Ok(CsvRows { records, header, keys, list, count: 0, blanks: 0..0, is_ahead: false })
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Returns true if rows have lines of their own.
    pub(super) fn has_own_lines(&self) -> bool {
        self.list.as_ref().is_some_and(ListColumns::has_lines)
    }

    pub(super) fn next_row(&mut self) -> Result<Option<NewRow>, IntakeError> {
        if !self.is_ahead && !self.read_ahead()? {
            return if self.count == 0 { Err(IntakeError::HeaderOnly) } else { Ok(None) };
        }
        self.count += 1;
        let line = u32::try_from(self.count).map_err(|_| IntakeError::TooMany)?;
        if let Some(file_line) = self.blanks.next() {
            let reason = format!("is an empty line, but the header has {} columns", self.keys.len());
            return self.rejected(line, file_line, &reason, "").map(Some);
        }
        self.is_ahead = false;
        self.row(line).map(Some)
    }

    /// Goes to the next record. In a file of several columns, empty lines before it are records
    /// with a fault; at the end of the file they are none.
    fn read_ahead(&mut self) -> Result<bool, IntakeError> {
        loop {
            if !self.records.advance()? {
                return Ok(false);
            }
            if self.keys.len() > 1 && self.records.is_blank() {
                let first = if self.blanks.is_empty() { self.records.line() } else { self.blanks.start };
                self.blanks = first..self.records.line() + 1;
            } else {
                self.is_ahead = true;
                return Ok(true);
            }
        }
    }

    /// A row of the record that was read.
    fn row(&self, line: u32) -> Result<NewRow, IntakeError> {
        let file_line = self.records.line();
        let text = self.records.text()?;
        if let Some(reason) = self.fault(text) {
            return self.rejected(line, file_line, &reason, text);
        }
        if let Some(list) = &self.list {
            return self.listed_row(list, line, text);
        }
        match self.as_object(text) {
            Ok(input) => Ok(NewRow::new(line, input)),
            Err(bytes) => self.rejected(line, file_line, &too_large(bytes), text),
        }
    }

    /// Why the record is no row.
    fn fault(&self, text: &str) -> Option<String> {
        let (fields, columns) = (self.records.field_count(), self.keys.len());
        if text.starts_with(BYTE_ORDER_MARK) {
            // Before all else: a quote behind it begins no field.
            Some("begins with a byte order mark, which stands only at the beginning of a file: were two files put together?".to_owned())
        } else if let Some((fault, line)) = self.records.fault() {
            let place = if line == self.records.line() { String::new() } else { format!(", in line {line}") };
            Some(format!("{fault}{place}"))
        } else if fields != columns {
            Some(format!("has {fields} fields, but the header has {columns}"))
        } else {
            None
        }
    }

    /// A row of a list of failed rows.
    fn listed_row(&self, list: &ListColumns, line: u32, text: &str) -> Result<NewRow, IntakeError> {
        let file_line = self.records.line();
        let fields: Vec<Cow<'_, str>> = self.records.fields(text).map(|(field, has_quotes)| unquoted(field, has_quotes)).collect();
        let line = list.line_of(&fields, file_line)?.unwrap_or(line);
        let own: Vec<&str> = self.keys.iter().zip(&fields).filter(|(key, _)| key.is_some()).map(|(_, field)| &**field).collect();
        list.check_sizes(&fields, &own, file_line)?;
        let place = format!("record {} (line {file_line} of the file)", self.count);
        if let Some((reason, text)) = list.rejection(&fields, &own) {
            return Ok(reject(line, format!("{place} {reason}"), text));
        }
        Ok(match self.as_object(text) {
            Ok(input) => NewRow::new(line, input),
            Err(bytes) => reject(line, format!("{place} {}", too_large(bytes)), &record_text(&own)),
        })
    }

    /// A record with a fault as a row that is not run. Its text is kept, so that nothing is lost.
    fn rejected(&self, line: u32, file_line: u64, reason: &str, text: &str) -> Result<NewRow, IntakeError> {
        if self.has_own_lines() {
            // The line of its row cannot be read.
            return Err(IntakeError::ListRecord { line: file_line, reason: reason.to_owned() });
        }
        Ok(reject(line, format!("record {} (line {file_line} of the file) {reason}", self.count), text))
    }

    /// The record as an object.
    ///
    /// # Errors
    /// Its bytes, if it is larger than an input can be.
    fn as_object(&self, text: &str) -> Result<JsonText, usize> {
        if text.len() > MEASURED_BYTES {
            let fields = self.keys.iter().zip(self.records.fields(text)).filter_map(|(key, field)| Some((key.as_ref()?, field)));
            // Of two quotes in a value one is written; a comma stands between fields.
            let parts = fields.map(|(key, (field, has_quotes))| key.len() + json_bytes(field) - if has_quotes { count(b'"', field) } else { 0 } + 3);
            let bytes = parts.sum::<usize>() + 1;
            if bytes > INPUT_BYTES_MAX {
                return Err(bytes);
            }
        }
        let mut object = String::with_capacity(text.len() + self.keys.iter().flatten().map(|key| key.len() + 4).sum::<usize>());
        object.push('{');
        for (key, (field, has_quotes)) in self.keys.iter().zip(self.records.fields(text)) {
            let Some(key) = key else { continue };
            if object.len() > 1 {
                object.push(',');
            }
            object.push_str(key);
            object.push('"');
            if has_quotes {
                // Each pair of quotes is one, which JSON writes with a backslash.
                for (part, text) in field.split("\"\"").enumerate() {
                    object.push_str(if part > 0 { "\\\"" } else { "" });
                    push_escaped(&mut object, text);
                }
            } else {
                push_escaped(&mut object, field);
            }
            object.push('"');
        }
        object.push('}');
        if object.len() > INPUT_BYTES_MAX { Err(object.len()) } else { Ok(JsonText::trusted(object)) }
    }
}

fn reject(line: u32, reason: String, text: &str) -> NewRow {
    NewRow { line: line.into(), input: JsonText::trusted(json_string(text)), rejected: Some(reason) }
}

/// Finds the character that separates columns instead of commas, if that is certain.
fn find_other_delimiter(records: &mut Records) -> Result<Option<(Delimiter, usize)>, IntakeError> {
    let (first, is_whole) = records.sample(SPLIT_BYTES)?;
    Ok(Delimiter::of(first, is_whole))
}

fn read_header(records: &Records) -> Result<Vec<String>, IntakeError> {
    let text = records.text()?;
    let line = records.line();
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err(IntakeError::HeaderMark { line, in_quotes: false });
    }
    if let Some((fault, line)) = records.fault() {
        return Err(IntakeError::HeaderFault { fault: FaultText(fault), line });
    }
    if text.len() <= "sep=,".len() && text.starts_with("sep=") {
        return Err(IntakeError::SepLine { line });
    }
    let columns = records.field_count();
    let names = || records.fields(text).map(|(name, has_quotes)| unquoted(name, has_quotes));
    if names().map(|name| name.len() + COLUMN_BYTES).sum::<usize>() > INPUT_BYTES_MAX {
        return Err(IntakeError::TooManyColumns { columns });
    }
    let names: Vec<String> = names().map(Cow::into_owned).collect();
    if names[0].starts_with(BYTE_ORDER_MARK) {
        return Err(IntakeError::HeaderMark { line, in_quotes: true });
    }
    Ok(names)
}

/// Names come once.
fn check_names(columns: &[String]) -> Result<(), IntakeError> {
    let mut places = HashMap::with_capacity(columns.len());
    for (second, name) in (1..).zip(columns) {
        if let Some(first) = places.insert(name, second) {
            let name = name.chars().take(SHOWN_CHARACTERS).collect();
            return Err(IntakeError::EqualNames { name, first, second });
        }
    }
    Ok(())
}

/// A text as a string of JSON. Memory is taken once: the text may be large.
pub(super) fn json_string(text: &str) -> String {
    let mut json = Vec::with_capacity(json_bytes(text) + 2);
    serde_json::to_writer(&mut json, text).expect("memory can be written");
    String::from_utf8(json).expect("JSON is text")
}

/// The bytes of a text in a string of JSON.
fn json_bytes(text: &str) -> usize {
    let bytes = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(bytes).sum()
}

fn count(byte: u8, text: &str) -> usize {
    memchr::memchr_iter(byte, text.as_bytes()).count()
}

/// Adds a text to a string of JSON that is open.
fn push_escaped(json: &mut String, text: &str) {
    // Most fields need no escapes.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        json.push_str(text);
    } else {
        let escaped = json_string(text);
        json.push_str(&escaped[1..escaped.len() - 1]);
    }
}

#[cfg(test)]
mod tests;
