//! Files come in: CSV and NDJSON become rows, streamed.

mod csv;
mod ndjson;
mod source;

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::NewRow;

/// Columns that a list of failed rows has behind its own. They are left out when it is read, so that it can be corrected and run again.
pub const FAILED_COLUMNS: [&str; 3] = ["rowmill_line", "rowmill_codes", "rowmill_reason"];

/// A larger record is a failed row.
pub const ROW_BYTES_MAX: usize = 1 << 20;
/// A larger record is an error of the file: a quote that is never closed would take all of its rest for one field.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// How a file holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// With a header; RFC 4180. Each record becomes an object of the header's names and the record's values, as strings.
    Csv,
    /// One JSON value per line, taken as it is.
    Ndjson,
}

impl Format {
    /// By the end of a file's name.
    pub fn of_file(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            _ => None,
        }
    }
}

/// Why a file cannot be taken. Nothing of it is taken then.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("it is empty")]
    Empty,
    #[error("it has a header and no record")]
    HeaderOnly,
    #[error("it has no line with a value")]
    NoValue,
    #[error("columns {first} and {second} of its header are both named {name:?}: give them different names")]
    EqualNames { name: String, first: usize, second: usize },
    #[error("it is not UTF-8: line {line} has a byte that cannot be read as text; save it as UTF-8")]
    NotUtf8 { line: u64 },
    #[error("record {record}, which begins in line {line} of the file, has a quote that is never closed")]
    OpenQuote { record: u64, line: u64 },
    #[error("record {record}, which begins in line {line} of the file, is larger than 16 MiB: is a quote never closed?")]
    TooLarge { record: u64, line: u64 },
    #[error("it has more than {} records", u32::MAX)]
    TooMany,
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
}

/// Reads the rows of a file one after the other. Lines are numbered from 1, by record.
pub struct RowReader(Reader);

enum Reader {
    Csv(csv::CsvRows),
    Ndjson(ndjson::NdjsonRows),
}

impl RowReader {
    /// Begins to read, and reads the header where there is one.
    ///
    /// # Errors
    /// [`IntakeError`] when the header cannot be taken.
    pub fn open(format: Format, file: impl Read + Send + 'static) -> Result<RowReader, IntakeError> {
        Ok(RowReader(match format {
            Format::Csv => Reader::Csv(csv::CsvRows::open(Box::new(file))?),
            Format::Ndjson => Reader::Ndjson(ndjson::NdjsonRows::open(Box::new(file))),
        }))
    }

    /// The columns of the header, for CSV.
    pub fn header(&self) -> &[String] {
        match &self.0 {
            Reader::Csv(rows) => rows.header(),
            Reader::Ndjson(_) => &[],
        }
    }

    /// The next row; none at the end.
    ///
    /// # Errors
    /// [`IntakeError`] when the file as a whole cannot be taken. A record that cannot be an input is a row with `rejected`, and no error.
    pub fn next_row(&mut self) -> Result<Option<NewRow>, IntakeError> {
        match &mut self.0 {
            Reader::Csv(rows) => rows.next_row(),
            Reader::Ndjson(rows) => rows.next_row(),
        }
    }
}
