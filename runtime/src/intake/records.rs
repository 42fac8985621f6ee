//! Records of CSV as RFC 4180 defines them, and nothing else: the csv crate also reads what is not,
//! in a way of its own, and cannot be told not to.
//!
//! An opening quote stands at the beginning of a field, and behind a closing quote only a delimiter
//! or a line break. Lines end in LF or CRLF, or all of them in CR alone. A record with a fault is
//! reported and ends at its line break, where that is certain; where it is not, the file is
//! refused. So no fault joins records, and none changes a value.

use std::fmt;

use super::error::IntakeError;
use super::quotes::{Reading, count, ends_in_quotes, find_quote_or_nul};
use super::source::explain;
use super::window::Window;

/// A larger record is an error of the file.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;
/// The same where a record stands in a list of failed rows: beside the fields is the text that they
/// came from, whose quotes are doubled there.
pub(super) const LIST_RECORD_BYTES_MAX: usize = 80 << 20;
/// Fields of a record that are kept. A row of more columns would be larger than an input can be.
pub(super) const FIELDS_MAX: usize = 200_000;

/// How the lines of a file end. Its first line decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Unknown,
    /// LF, or CR and LF.
    Lf,
    /// CR alone, as on old Macs.
    Cr,
}

/// Why a record cannot be split into fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    QuoteInField,
    TextBehindQuote,
    LoneCr,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::QuoteInField => {
                "has a quote inside a field that does not begin with one: put the field in quotes, and write each quote in it twice"
            }
            Fault::TextBehindQuote => "has text behind a closing quote: write each quote inside a value twice",
            Fault::LoneCr => "has a carriage return without a line feed outside quotes",
        })
    }
}

/// Where a field stands in its record, without its quotes.
#[derive(Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    /// Quotes in it are written twice.
    has_quotes: bool,
}

/// The bytes behind a field.
enum Then {
    /// Another field, at this place.
    Field(usize),
    /// The end of the record: its length, and how long it is with its line break.
    End(usize, usize),
}

/// Reads the records of a file one after the other.
pub(super) struct Records {
    window: Window,
    delimiter: u8,
    special: [bool; 256],
    line_end: LineEnd,
    bytes_max: usize,
    fields: Vec<Field>,
    /// All fields of the record, also those that were not kept.
    field_count: usize,
    length: usize,
    length_with_break: usize,
    /// The line of the file in which the record begins, and that in which the next one does.
    line: u64,
    next_line: u64,
    fault: Option<(Fault, u64)>,
    /// The line that opens the quote that is being read.
    open_quote: Option<u64>,
}

impl Records {
    pub(super) fn new(window: Window, delimiter: u8) -> Records {
        let mut special = [false; 256];
        for byte in [delimiter, b'"', b'\r', b'\n', 0] {
            special[usize::from(byte)] = true;
        }
        Records {
            window,
            delimiter,
            special,
            line_end: LineEnd::Unknown,
            bytes_max: RECORD_BYTES_MAX,
            fields: Vec::new(),
            field_count: 0,
            length: 0,
            length_with_break: 0,
            line: 1,
            next_line: 1,
            fault: None,
            open_quote: None,
        }
    }

    /// Lets records be as large as those of a list of failed rows.
    pub(super) fn allow_list(&mut self) {
        self.bytes_max = LIST_RECORD_BYTES_MAX;
    }

    /// The first bytes behind the record, and true if the file ends there.
    pub(super) fn sample(&mut self, bytes_max: usize) -> Result<(&[u8], bool), IntakeError> {
        self.window.sample(bytes_max).map_err(explain)
    }

    /// Goes to the next record. Returns false at the end of the file.
    pub(super) fn advance(&mut self) -> Result<bool, IntakeError> {
        self.window.pass(self.length_with_break);
        self.fields.clear();
        (self.field_count, self.length, self.length_with_break) = (0, 0, 0);
        (self.line, self.fault) = (self.next_line, None);
        let mut at = 0;
        let Some(mut first) = self.byte(0)? else { return Ok(false) };
        loop {
            let then = if first == b'"' { self.quoted_field(at)? } else { self.plain_field(at)? };
            match then {
                Then::Field(next) => at = next,
                Then::End(length, with_break) => {
                    (self.length, self.length_with_break) = (length, with_break);
                    break;
                }
            }
            // At the end of the file there is an empty field behind the delimiter.
            first = self.byte(at)?.unwrap_or(b'\n');
        }
        if self.length > self.bytes_max {
            return Err(self.too_large());
        }
        if self.length_with_break > self.length {
            self.next_line += 1;
        }
        Ok(true)
    }

    /// Reads a field that does not begin with a quote.
    fn plain_field(&mut self, start: usize) -> Result<Then, IntakeError> {
        let mut at = start;
        loop {
            let rest = &self.window.bytes()[at..];
            match rest.iter().position(|byte| self.special[usize::from(*byte)]) {
                Some(found) => {
                    at += found;
                    break;
                }
                None => {
                    at += rest.len();
                    if !self.read_more()? {
                        break;
                    }
                }
            }
        }
        match self.byte(at)? {
            Some(b'"') => self.faulty(Fault::QuoteInField, at),
            Some(0) => Err(self.not_text(at)),
            Some(byte) if byte != self.delimiter && self.break_at(at)?.is_none() => self.faulty(Fault::LoneCr, at),
            _ => self.end_field(Field { start, end: at, has_quotes: false }, at),
        }
    }

    /// Reads a field whose quote is opened at this place.
    fn quoted_field(&mut self, open: usize) -> Result<Then, IntakeError> {
        let opened = self.next_line;
        self.open_quote = Some(opened);
        let mut has_quotes = false;
        let mut at = open + 1;
        loop {
            let quote = self.find_quote(at)?;
            match self.byte(quote + 1)? {
                Some(b'"') => {
                    has_quotes = true;
                    at = quote + 2;
                }
                Some(byte) if byte != self.delimiter && self.break_at(quote + 1)?.is_none() => {
                    return self.text_behind_quote(quote, opened);
                }
                _ => {
                    self.open_quote = None;
                    return self.end_field(Field { start: open + 1, end: quote, has_quotes }, quote + 1);
                }
            }
        }
    }

    /// The next quote from this place on. Counts the lines before it.
    fn find_quote(&mut self, from: usize) -> Result<usize, IntakeError> {
        let mut at = from;
        // A carriage return and its line feed are one line break, and may come in two pieces: lines
        // are counted by one of them.
        let end = if self.line_end == LineEnd::Cr { b'\r' } else { b'\n' };
        loop {
            let rest = &self.window.bytes()[at..];
            let found = find_quote_or_nul(rest);
            let passed = &rest[..found.unwrap_or(rest.len())];
            self.next_line += count(end, passed);
            at += passed.len();
            match found {
                Some(_) if self.window.bytes()[at] == 0 => return Err(self.not_text(at)),
                Some(_) => return Ok(at),
                None => {
                    if !self.read_more()? {
                        return Err(IntakeError::OpenQuote { line: self.open_quote.unwrap_or(self.line) });
                    }
                }
            }
        }
    }

    /// Keeps a field that ends before this place, where a delimiter stands, a line break, or
    /// nothing.
    fn end_field(&mut self, field: Field, at: usize) -> Result<Then, IntakeError> {
        if self.fields.len() < FIELDS_MAX {
            self.fields.push(field);
        }
        self.field_count += 1;
        match self.byte(at)? {
            Some(byte) if byte == self.delimiter => Ok(Then::Field(at + 1)),
            Some(_) => {
                let length = self.break_at(at)?.unwrap_or(0);
                self.see_break(at)?;
                Ok(Then::End(at, at + length))
            }
            None => Ok(Then::End(at, at)),
        }
    }

    /// The length of the line break at this place; none if there is another byte, or a carriage
    /// return that is no line break here.
    fn break_at(&mut self, at: usize) -> Result<Option<usize>, IntakeError> {
        Ok(match self.byte(at)? {
            Some(b'\n') => Some(1),
            Some(b'\r') if self.byte(at + 1)? == Some(b'\n') => Some(2),
            Some(b'\r') if self.line_end != LineEnd::Lf => Some(1),
            _ => None,
        })
    }

    /// Lets the first line break of a file decide how its lines end.
    fn see_break(&mut self, at: usize) -> Result<(), IntakeError> {
        let is_cr = self.byte(at)? == Some(b'\r') && self.byte(at + 1)? != Some(b'\n');
        match (self.line_end, is_cr) {
            (LineEnd::Unknown, true) => self.line_end = LineEnd::Cr,
            (LineEnd::Unknown, false) => self.line_end = LineEnd::Lf,
            (LineEnd::Cr, false) => return Err(IntakeError::MixedLineEnds { line: self.next_line }),
            (LineEnd::Cr, true) | (LineEnd::Lf, _) => {}
        }
        Ok(())
    }

    /// Ends the record with its line: a quote that does not begin a field opens nothing.
    fn faulty(&mut self, fault: Fault, at: usize) -> Result<Then, IntakeError> {
        self.fault = Some((fault, self.next_line));
        let (length, with_break) = self.line_from(at)?;
        Ok(Then::End(length, with_break))
    }

    /// A quote was closed, and text stands behind it. Either the field ends there, or that quote is
    /// part of the value and should have been written twice. The record ends with its line if both
    /// readings say so, and if the field begins in it; else another quote is missing somewhere, and
    /// nothing is certain.
    fn text_behind_quote(&mut self, quote: usize, opened: u64) -> Result<Then, IntakeError> {
        let ambiguous = IntakeError::AmbiguousQuote { opened, line: self.next_line };
        if opened != self.next_line {
            return Err(ambiguous);
        }
        self.open_quote = None;
        let (length, with_break) = self.line_from(quote)?;
        let rest = &self.window.bytes()[quote + 1..length];
        if ends_in_quotes(rest, self.delimiter, Reading::QuoteCloses) || ends_in_quotes(rest, self.delimiter, Reading::QuoteIsText) {
            return Err(ambiguous);
        }
        self.fault = Some((Fault::TextBehindQuote, self.next_line));
        Ok(Then::End(length, with_break))
    }

    /// Where the line ends that this place is in, without and with its line break.
    fn line_from(&mut self, from: usize) -> Result<(usize, usize), IntakeError> {
        let end = if self.line_end == LineEnd::Cr { b'\r' } else { b'\n' };
        let mut at = from;
        loop {
            let rest = &self.window.bytes()[at..];
            let found = memchr::memchr2(end, 0, rest);
            at += found.unwrap_or(rest.len());
            if found.is_some() || !self.read_more()? {
                break;
            }
        }
        match self.byte(at)? {
            Some(0) => return Err(self.not_text(at)),
            None => return Ok((at, at)),
            Some(_) => {}
        }
        let has_cr = end == b'\n' && at > from && self.window.bytes()[at - 1] == b'\r';
        Ok((at - usize::from(has_cr), at + 1))
    }

    fn byte(&mut self, at: usize) -> Result<Option<u8>, IntakeError> {
        match self.window.bytes().get(at) {
            Some(byte) => Ok(Some(*byte)),
            None => self.window.byte(at).map_err(explain),
        }
    }

    fn read_more(&mut self) -> Result<bool, IntakeError> {
        // Not before the line break, of which two bytes may be behind the record.
        if self.window.bytes().len() > self.bytes_max + 2 {
            return Err(self.too_large());
        }
        self.window.read_more().map_err(explain)
    }

    fn too_large(&self) -> IntakeError {
        let limit_mib = self.bytes_max >> 20;
        match self.open_quote {
            Some(line) => IntakeError::OpenQuoteTooLarge { line, limit_mib },
            None => IntakeError::TooLarge { line: self.line, limit_mib },
        }
    }

    fn not_text(&self, at: usize) -> IntakeError {
        IntakeError::Nul { at: self.window.passed() + at as u64 + 1, line: self.next_line }
    }

    /// The record as it stands in the file, without its line break.
    pub(super) fn text(&self) -> Result<&str, IntakeError> {
        let bytes = &self.window.bytes()[..self.length];
        std::str::from_utf8(bytes).map_err(|error| {
            let valid = &bytes[..error.valid_up_to()];
            let end = if self.line_end == LineEnd::Cr { b'\r' } else { b'\n' };
            IntakeError::NotUtf8 { line: self.line + count(end, valid) }
        })
    }

    /// The line of the file in which the record begins.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Why the record cannot be split into fields, and the line of the fault.
    pub(super) fn fault(&self) -> Option<(Fault, u64)> {
        self.fault
    }

    pub(super) fn field_count(&self) -> usize {
        self.field_count
    }

    /// Returns true if there was something in the file before the record.
    pub(super) fn has_passed(&self) -> bool {
        self.line > 1
    }

    /// Returns true if the record is an empty line.
    pub(super) fn is_blank(&self) -> bool {
        self.length == 0
    }

    /// Returns true if all that was read of the file is part of the record or before it.
    pub(super) fn is_last(&self) -> bool {
        self.window.bytes().len() == self.length_with_break
    }

    /// The fields of a record whose text is this: each as it stands there, and true if its quotes
    /// are written twice.
    pub(super) fn fields<'a>(&self, text: &'a str) -> impl Iterator<Item = (&'a str, bool)> {
        self.fields.iter().map(move |field| (&text[field.start..field.end], field.has_quotes))
    }
}
