//! CSV with a header, as RFC 4180 has it.

use std::io::{Chain, Cursor, Read};

use csv::{ByteRecord, ReaderBuilder};

use super::source::{Budgeted, RecordBudget, Refusal};
use super::{FAILED_COLUMNS, IntakeError, ROW_BYTES_MAX};
use crate::model::{JsonText, NewRow};

/// Read behind the file: it comes back as a record of its own, unless an open quote has swallowed it.
const SENTINEL: &[u8] = b"\n\x01";

/// Of the name of a column, where it is told: it may be as long as a record.
const SHOWN_CHARACTERS: usize = 200;

type Source = Budgeted<Chain<Box<dyn Read + Send>, Cursor<&'static [u8]>>>;

pub(super) struct CsvRows {
    records: Records,
    /// The columns that become keys.
    header: Vec<String>,
    /// For each column of the file its key as JSON, with a colon; none for a column that a list of failed rows added.
    keys: Vec<Option<String>>,
}

impl CsvRows {
    pub(super) fn open(file: Box<dyn Read + Send>) -> Result<CsvRows, IntakeError> {
        let mut records = Records::new(file);
        if !records.advance()? {
            return Err(IntakeError::Empty);
        }
        let columns: Vec<String> = records.fields()?.into_iter().map(str::to_owned).collect();
        for (second, name) in columns.iter().enumerate() {
            if let Some(first) = columns[..second].iter().position(|earlier| earlier == name) {
                let name = name.chars().take(SHOWN_CHARACTERS).collect();
                return Err(IntakeError::EqualNames { name, first: first + 1, second: second + 1 });
            }
        }
        let added = |name: &&String| FAILED_COLUMNS.contains(&name.as_str());
        let keys = columns.iter().map(|name| (!added(&name)).then(|| json_string(name) + ":")).collect();
        let header = columns.iter().filter(|name| !added(name)).cloned().collect();
        records.count = 0;
        Ok(CsvRows { records, header, keys })
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    pub(super) fn next_row(&mut self) -> Result<Option<NewRow>, IntakeError> {
        if !self.records.advance()? {
            return if self.records.count == 0 { Err(IntakeError::HeaderOnly) } else { Ok(None) };
        }
        let line = u32::try_from(self.records.count).map_err(|_| IntakeError::TooMany)?;
        let file_line = self.records.line;
        let fields = self.records.fields()?;
        let rejected = if fields.len() != self.keys.len() {
            Some(format!("record {line} (line {file_line} of the file) has {} fields, but the header has {}", fields.len(), self.keys.len()))
        } else if fields.iter().map(|field| field.len()).sum::<usize>() > ROW_BYTES_MAX {
            Some(format!("record {line} (line {file_line} of the file) is larger than 1 MiB"))
        } else {
            None
        };
        // What cannot be an object is kept as the list of its fields, so that nothing is lost.
        let input = if rejected.is_some() { fields_as_array(&fields) } else { fields_as_object(&self.keys, &fields) };
        Ok(Some(NewRow { line: line.into(), input: JsonText::trusted(input), rejected }))
    }
}

/// The records of a file, without the sentinel.
struct Records {
    reader: csv::Reader<Source>,
    budget: RecordBudget,
    record: ByteRecord,
    /// A record behind one that looked like the sentinel.
    ahead: Option<ByteRecord>,
    /// The sentinel was seen: callers may ask again.
    ended: bool,
    /// The last record's number and the line in which it begins.
    count: u64,
    line: u64,
}

impl Records {
    fn new(file: Box<dyn Read + Send>) -> Records {
        let budget = RecordBudget::default();
        let source = Budgeted::new(file.chain(Cursor::new(SENTINEL)), budget.clone());
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(source);
        Records { reader, budget, record: ByteRecord::new(), ahead: None, ended: false, count: 0, line: 1 }
    }

    /// Goes to the next record. False at the end.
    fn advance(&mut self) -> Result<bool, IntakeError> {
        if self.ended {
            return Ok(false);
        }
        if let Some(record) = self.ahead.take() {
            self.record = record;
        } else if !self.read()? {
            // The sentinel was not seen.
            return Err(IntakeError::OpenQuote { record: self.count, line: self.line });
        }
        if self.record.len() == 1 && self.record.get(0) == Some(&SENTINEL[1..]) {
            let looks_like_it = self.record.clone();
            if !self.read()? {
                self.ended = true;
                return Ok(false);
            }
            self.ahead = Some(std::mem::replace(&mut self.record, looks_like_it));
        }
        self.count += 1;
        self.line = self.record.position().map_or(self.line, csv::Position::line);
        Ok(true)
    }

    fn read(&mut self) -> Result<bool, IntakeError> {
        self.budget.reset();
        self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => Refusal::explain(error, self.count + 1, self.reader.position().line()),
            other => IntakeError::Read(std::io::Error::other(format!("{other:?}"))),
        })
    }

    fn fields(&self) -> Result<Vec<&str>, IntakeError> {
        self.record.iter().map(|field| std::str::from_utf8(field).map_err(|_| IntakeError::NotUtf8 { line: self.line })).collect()
    }
}

fn fields_as_object(keys: &[Option<String>], fields: &[&str]) -> String {
    let mut object = String::with_capacity(fields.iter().map(|field| field.len() + 16).sum());
    object.push('{');
    for (key, field) in keys.iter().zip(fields) {
        let Some(key) = key else { continue };
        if object.len() > 1 {
            object.push(',');
        }
        object.push_str(key);
        push_json_string(&mut object, field);
    }
    object.push('}');
    object
}

fn fields_as_array(fields: &[&str]) -> String {
    serde_json::to_string(fields).expect("strings are always JSON")
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

fn push_json_string(json: &mut String, text: &str) {
    // Most fields need no escapes.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&json_string(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Line;

    fn read(file: &'static [u8]) -> Result<Vec<NewRow>, IntakeError> {
        let mut rows = CsvRows::open(Box::new(file))?;
        std::iter::from_fn(|| rows.next_row().transpose()).collect()
    }

    fn inputs(file: &'static [u8]) -> Vec<String> {
        read(file).unwrap().into_iter().map(|row| row.input.into_string()).collect()
    }

    #[test]
    fn names_become_keys_and_values_become_strings() {
        assert_eq!(inputs(b"a,b\n1,x\n2,\n"), [r#"{"a":"1","b":"x"}"#, r#"{"a":"2","b":""}"#]);
    }

    #[test]
    fn quotes_hold_commas_quotes_and_line_breaks() {
        assert_eq!(inputs(b"a,b\r\n\"1,5\",\"say \"\"hi\"\"\r\nthere\"\r\n"), [r#"{"a":"1,5","b":"say \"hi\"\r\nthere"}"#]);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_name() {
        assert_eq!(inputs(b"\xef\xbb\xbfa\n1\n"), [r#"{"a":"1"}"#]);
    }

    #[test]
    fn a_last_line_without_a_break_is_a_record() {
        assert_eq!(inputs(b"a\n1\n2"), [r#"{"a":"1"}"#, r#"{"a":"2"}"#]);
        assert_eq!(inputs(b"a\n\"x\n\""), ["{\"a\":\"x\\n\"}"]);
    }

    #[test]
    fn a_ragged_record_is_rejected_with_its_place_and_keeps_its_fields() {
        let rows = read(b"a,b\n\"1\n1\",2\n3\n4,5,6\n7,8\n").unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 3, 4].map(Line::Given));
        assert_eq!(rows[1].rejected.as_deref(), Some("record 2 (line 4 of the file) has 1 fields, but the header has 2"));
        assert_eq!(rows[2].rejected.as_deref(), Some("record 3 (line 5 of the file) has 3 fields, but the header has 2"));
        assert_eq!(rows[2].input.as_str(), r#"["4","5","6"]"#);
        assert!(rows[3].rejected.is_none());
    }

    #[test]
    fn columns_of_a_list_of_failed_rows_are_left_out() {
        assert_eq!(inputs(b"a,rowmill_line,rowmill_codes,rowmill_reason\n1,7,x,because\n"), [r#"{"a":"1"}"#]);
    }

    #[test]
    fn a_file_that_cannot_be_taken_says_what_and_where() {
        let error = |file| read(file).unwrap_err().to_string();
        assert_eq!(error(b""), "it is empty");
        assert_eq!(error(b"\n\n"), "it is empty");
        assert_eq!(error(b"a,b\n"), "it has a header and no record");
        assert_eq!(error(b"a,b,a\n1,2,3\n"), "columns 1 and 3 of its header are both named \"a\": give them different names");
        assert_eq!(error(b"a\n1\n\xff\n"), "it is not UTF-8: line 3 has a byte that cannot be read as text; save it as UTF-8");
        assert_eq!(error(b"a\n1\n\"2\n3\n"), "record 2, which begins in line 3 of the file, has a quote that is never closed");
    }

    #[test]
    fn a_quote_that_swallows_a_large_file_is_found_early() {
        let file = std::io::Cursor::new(b"a\n1\n\"".to_vec()).chain(std::io::repeat(b'x'));
        let mut rows = CsvRows::open(Box::new(file)).unwrap();
        rows.next_row().unwrap();
        let error = rows.next_row().unwrap_err().to_string();
        assert_eq!(error, "record 2, which begins in line 3 of the file, is larger than 16 MiB: is a quote never closed?");
    }

    #[test]
    fn the_end_stays_the_end() {
        let mut rows = CsvRows::open(Box::new(b"a\n1\n".as_slice())).unwrap();
        assert!(rows.next_row().unwrap().is_some());
        assert!(rows.next_row().unwrap().is_none() && rows.next_row().unwrap().is_none());
    }

    #[test]
    fn a_value_that_looks_like_the_sentinel_is_a_value() {
        assert_eq!(inputs(b"a\n\x01\n2\n\x01\n"), ["{\"a\":\"\\u0001\"}", r#"{"a":"2"}"#, "{\"a\":\"\\u0001\"}"]);
    }
}
