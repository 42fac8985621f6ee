//! One JSON value per line.

use std::collections::VecDeque;

use super::csv::json_string;
use super::list::{JSON_LINE, Listed, ListedValue};
use super::records::RECORD_BYTES_MAX;
use super::source::explain;
use super::window::Window;
use super::{BYTE_ORDER_MARK, IntakeError, too_large};
use crate::model::{INPUT_BYTES_MAX, JsonText, NewRow, NotJson};

/// The largest line of a list of failed rows: the text in it may be as large as a record, and JSON
/// writes some characters with six.
const LIST_LINE_BYTES_MAX: usize = 6 * RECORD_BYTES_MAX + (16 << 20);
/// Space around a value of JSON. Other characters that look like space are no part of it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

pub(super) struct NdjsonRows {
    window: Window,
    /// The bytes of the last line, with its line break.
    last_line: usize,
    /// Lines that were read ahead.
    ahead: VecDeque<Line<String>>,
    /// Values, and lines of the file, so far.
    count: u64,
    file_line: u64,
    kind: Kind,
}

/// A line with something in it, without the space around that.
struct Line<T> {
    /// In the file.
    number: u64,
    /// The characters of space before the text.
    indent: usize,
    text: T,
}

/// The kind of a file's rows. The first row decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each value is a row, whatever its shape.
    Ordinary,
    /// A list of failed rows, from which the lines were removed. Other values among them are new rows.
    List,
    /// A list of failed rows, each with its line.
    ListWithLines,
}

impl NdjsonRows {
    pub(super) fn open(window: Window) -> Result<NdjsonRows, IntakeError> {
        let mut rows = NdjsonRows { window, last_line: 0, ahead: VecDeque::new(), count: 0, file_line: 0, kind: Kind::Ordinary };
        let Some(Line { number: line, indent, text }) = rows.next_line()? else {
            return Err(if rows.file_line == 0 { IntakeError::Empty } else { IntakeError::NoValue });
        };
        let (kind, goes_on) = match Listed::of(text) {
            Listed::Row(listed) if listed.line(line)?.is_some() => (Kind::ListWithLines, false),
            Listed::Row(_) => (Kind::List, false),
            Listed::Wrong { problem, .. } => return Err(IntakeError::ListShape { line, problem }),
            Listed::No => (Kind::Ordinary, goes_on(text)),
        };
        let first = goes_on.then(|| Line { number: line, indent, text: text.to_owned() });
        rows.kind = kind;
        if let Some(first) = first {
            rows.ahead.push_back(first);
            rows.refuse_json_over_lines()?;
        } else {
            rows.unread_line();
        }
        Ok(rows)
    }

    /// Returns true if rows have lines of their own.
    pub(super) fn has_own_lines(&self) -> bool {
        self.kind == Kind::ListWithLines
    }

    pub(super) fn next_row(&mut self) -> Result<Option<NewRow>, IntakeError> {
        self.count += 1;
        let (count, kind) = (self.count, self.kind);
        let ahead = self.ahead.pop_front();
        let next = match &ahead {
            Some(line) => Some(Line { number: line.number, indent: line.indent, text: line.text.as_str() }),
            None => self.next_line()?,
        };
        next.map(|line| row(count, &line, kind)).transpose()
    }

    /// The next line with something in it.
    fn next_line(&mut self) -> Result<Option<Line<&str>>, IntakeError> {
        let length = loop {
            self.window.pass(std::mem::take(&mut self.last_line));
            let Some((length, with_break)) = self.find_line()? else { return Ok(None) };
            self.file_line += 1;
            self.last_line = with_break;
            if self.window.bytes()[..length].iter().any(|byte| !SPACE.contains(&char::from(*byte))) {
                break length;
            }
        };
        let (line, bytes) = (self.file_line, &self.window.bytes()[..length]);
        if let Some(at) = memchr::memchr(0, bytes) {
            return Err(IntakeError::Nul { at: self.window.passed() + at as u64 + 1, line });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| IntakeError::NotUtf8 { line })?;
        // A line of a list is known by its shape, in whatever order its keys stand.
        if length > RECORD_BYTES_MAX && matches!(Listed::of(text.trim_matches(SPACE)), Listed::No) {
            return Err(too_large_line(line, RECORD_BYTES_MAX));
        }
        let trimmed = text.trim_start_matches(SPACE);
        Ok(Some(Line { number: line, indent: length - trimmed.len(), text: trimmed.trim_end_matches(SPACE) }))
    }

    /// Lets the line that was read be the next one again: a large one is not copied.
    fn unread_line(&mut self) {
        self.last_line = 0;
        self.file_line -= 1;
    }

    /// The length of the next line, without and with its line break; none at the end of the file.
    fn find_line(&mut self) -> Result<Option<(usize, usize)>, IntakeError> {
        let mut at = 0;
        loop {
            let bytes = self.window.bytes();
            let limit = if bytes.starts_with(b"{") { LIST_LINE_BYTES_MAX } else { RECORD_BYTES_MAX };
            let found = memchr::memchr(b'\n', &bytes[at..]);
            at += found.unwrap_or(bytes.len() - at);
            if at > limit {
                return Err(too_large_line(self.file_line + 1, limit));
            }
            if found.is_some() {
                return Ok(Some((at, at + 1)));
            }
            if !self.window.read_more().map_err(explain)? {
                return Ok((at > 0).then_some((at, at)));
            }
        }
    }

    /// Refuses a file whose first line begins a value that goes on in the next lines: a bracket
    /// alone, or a value that the next line continues and that is none by itself. A line that was
    /// cut is not continued.
    fn refuse_json_over_lines(&mut self) -> Result<(), IntakeError> {
        let Some(Line { number: line, text, .. }) = self.ahead.front() else { return Ok(()) };
        let (line, first) = (*line, text.clone());
        let Some(Line { number, indent, text: second }) = self.next_line()? else {
            return if first == "[" { Err(IntakeError::JsonArray) } else { Ok(()) };
        };
        let is_certain = matches!(first.as_str(), "[" | "{") || {
            let both = format!("{first}\n{second}");
            !is_json(second) && (is_json(&both) || goes_on(&both))
        };
        let second = Line { number, indent, text: second.to_owned() };
        self.ahead.push_back(second);
        match first.as_bytes()[0] {
            _ if !is_certain => Ok(()),
            b'[' => Err(IntakeError::JsonArray),
            _ => Err(IntakeError::JsonOverLines { line }),
        }
    }
}

/// The row of a value, which has this number in the file and stands in this line.
fn row(count: u64, whole: &Line<&str>, kind: Kind) -> Result<NewRow, IntakeError> {
    let Line { number: file_line, text, .. } = *whole;
    let line = u32::try_from(count).map_err(|_| IntakeError::TooMany)?;
    // A text that is no row is kept as a string, so that nothing is lost.
    let reject = |line: u32, text: &str, reason: &str| {
        let reason = format!("value {count} (line {file_line} of the file) {reason}");
        NewRow { line: line.into(), input: JsonText::trusted(json_string(text)), rejected: Some(reason) }
    };
    let mut line = line;
    let mut text = text;
    match (kind, Listed::of(text)) {
        (Kind::Ordinary, Listed::Row(listed)) if listed.line(file_line)?.is_none() => {}
        (Kind::Ordinary, Listed::Row(_) | Listed::Wrong { has_line: true, .. }) => return Err(IntakeError::MixedList { line: file_line }),
        (Kind::List | Kind::ListWithLines, Listed::Wrong { problem, .. }) => return Err(IntakeError::ListShape { line: file_line, problem }),
        (Kind::List | Kind::ListWithLines, Listed::Row(listed)) => {
            match (kind, listed.line(file_line)?) {
                (Kind::List, Some(_)) => return Err(IntakeError::MixedList { line: file_line }),
                (Kind::ListWithLines, None) => return Err(missing_line(file_line)),
                (_, own) => line = own.unwrap_or(line),
            }
            match listed.value(file_line)? {
                ListedValue::Text { text, reason } => return Ok(reject(line, &text, &reason)),
                ListedValue::Input(input) => text = input,
            }
        }
        (Kind::ListWithLines, Listed::No) => return Err(not_listed(whole)),
        (Kind::Ordinary, Listed::Wrong { .. }) | (Kind::Ordinary | Kind::List, Listed::No) => {}
    }
    if text.len() > INPUT_BYTES_MAX {
        return Ok(reject(line, text, &too_large(text.len())));
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        let reason = "begins with a byte order mark, which stands only at the beginning of a file: were two files put together?";
        return Ok(reject(line, text, reason));
    }
    Ok(match JsonText::check(text) {
        Ok(input) => NewRow::new(line, input),
        Err(error) => reject(line, text, &format!("is {}", not_json(&error, whole))),
    })
}

fn too_large_line(line: u64, limit: usize) -> IntakeError {
    IntakeError::TooLarge { line, limit_mib: limit >> 20 }
}

fn missing_line(file_line: u64) -> IntakeError {
    IntakeError::ListLine { line: file_line, name: JSON_LINE, found: "missing".to_owned() }
}

/// Why a value in a list whose rows have lines is none of its rows.
fn not_listed(line: &Line<&str>) -> IntakeError {
    match JsonText::check(line.text) {
        Ok(_) => missing_line(line.number),
        Err(error) => IntakeError::ListShape { line: line.number, problem: format!("it is {}", not_json(&error, line)) },
    }
}

/// The fault of the JSON in a line, and its place.
fn not_json(error: &NotJson, line: &Line<&str>) -> String {
    let cr = if line.text.contains('\r') { "; a carriage return without a line feed ends no line" } else { "" };
    format!("{}{cr}", error.in_one_line(line.text, line.indent))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Returns true if a text is the beginning of an array or object that goes on.
fn goes_on(text: &str) -> bool {
    text.starts_with(['[', '{']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

#[cfg(test)]
mod tests;
