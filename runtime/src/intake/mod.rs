//! Files come in: CSV and NDJSON become rows, streamed.

mod chunks;
mod csv;
mod fingerprint;
mod form;
mod gzip;
mod ndjson;
mod source;
mod text;

use std::io::Read;

use serde::{Deserialize, Serialize};

pub use self::chunks::{ChunkSize, Chunks, FileLines, Place};
pub use self::fingerprint::{FileSum, Fingerprint, Fingerprinted};
pub use self::form::FileForm;
pub use self::gzip::InflateLimits;

use self::gzip::{Inflated, check_beginning};
use self::text::Text;
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
    #[error("it is not compressed with gzip, though it is called so")]
    NotGzip,
    #[error("it is compressed with gzip, and not called so: its name should end in .gz, or its format be csv.gz or ndjson.gz")]
    IsGzip,
    #[error("its compressed data ends too early: it was cut off")]
    CutOff,
    #[error("its compressed data is damaged: {reason}")]
    Damaged { reason: String },
    #[error("there are more than {limit} bytes in its compressed data, which is the limit (intake.inflated_max)")]
    InflatedTooLarge { limit: u64 },
    #[error("its compressed data grows to more than {limit} times its size, which is the limit (intake.ratio_max)")]
    RatioTooHigh { limit: u64 },
    #[error("it is not text: byte {at} is NUL; if it is UTF-16, save it as UTF-8")]
    NotText { at: u64 },
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
    /// Begins to read, and reads the header where there is one. The limits are for what is compressed.
    ///
    /// # Errors
    /// [`IntakeError`] when it is not of this form, or the header cannot be taken.
    pub fn open(form: FileForm, limits: InflateLimits, file: impl Read + Send + 'static) -> Result<RowReader, IntakeError> {
        let file = check_beginning(file, form.gzip)?;
        let text: Box<dyn Read + Send> = if form.gzip { Box::new(Text::new(Inflated::new(file, limits))) } else { Box::new(Text::new(file)) };
        Ok(RowReader(match form.format {
            Format::Csv => Reader::Csv(csv::CsvRows::open(text)?),
            Format::Ndjson => Reader::Ndjson(ndjson::NdjsonRows::open(text)),
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

#[cfg(test)]
mod tests;
