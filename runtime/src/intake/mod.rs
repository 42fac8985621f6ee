//! Files come in: CSV and NDJSON become rows, streamed.

mod chunks;
mod csv;
mod error;
mod fingerprint;
mod form;
mod gzip;
mod list;
mod nature;
mod ndjson;
mod quotes;
mod records;
mod source;
mod window;

use std::io::{Cursor, Read};

use serde::{Deserialize, Serialize};

pub use self::chunks::{ChunkSize, Chunks, FileLines, Place};
pub use self::error::{FaultText, IntakeError};
pub use self::fingerprint::{FileSum, Fingerprint, Fingerprinted};
pub use self::form::FileForm;
pub use self::gzip::InflateLimits;
pub use self::list::{FAILED_COLUMNS, REJECTED_CODE, fields_of_rejected, write_record};
pub use self::nature::{Delimiter, Nature};

use self::gzip::{Inflated, MAGIC};
use self::nature::FIRST_BYTES;
use self::source::explain;
use self::window::Window;
use crate::model::NewRow;

/// The mark that a file in UTF-8 may begin with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// How a file holds its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// With a header; RFC 4180. Each record becomes an object of the header's names and the record's values, as strings.
    Csv,
    /// One JSON value per line, taken as it is.
    Ndjson,
}

/// Reads the rows of a file one after the other. Lines are numbered from 1, by record; rows of a list of failed rows have the lines that they have there.
pub struct RowReader(Reader);

enum Reader {
    Csv(Box<csv::CsvRows>),
    Ndjson(ndjson::NdjsonRows),
}

impl RowReader {
    /// Begins to read, and reads the header where there is one. The limits are for what is compressed.
    ///
    /// # Errors
    /// [`IntakeError`] when it is not of this form, or the header cannot be taken.
    pub fn open(form: FileForm, limits: InflateLimits, file: impl Read + Send + 'static) -> Result<RowReader, IntakeError> {
        let (first, file) = begin(file)?;
        match (form.gzip, first.starts_with(&MAGIC)) {
            (true, false) => Err(IntakeError::NotGzip { nature: Nature::of(&first) }),
            (false, true) => Err(IntakeError::IsGzip),
            (false, false) => RowReader::open_text(form.format, first, file),
            (true, true) => {
                let (first, contents) = begin(Inflated::new(Cursor::new(first).chain(file), limits))?;
                RowReader::open_text(form.format, first, contents)
            }
        }
    }

    fn open_text(format: Format, mut first: Vec<u8>, file: impl Read + Send + 'static) -> Result<RowReader, IntakeError> {
        if let Some(nature) = Nature::of(&first) {
            return Err(IntakeError::OtherNature { nature });
        }
        let mark = BYTE_ORDER_MARK.to_string();
        let passed = if first.starts_with(mark.as_bytes()) { mark.len() } else { 0 };
        first.drain(..passed);
        if first.starts_with(mark.as_bytes()) {
            return Err(IntakeError::TwoByteOrderMarks);
        }
        let window = Window::new(first, passed as u64, Box::new(file));
        Ok(RowReader(match format {
            Format::Csv => Reader::Csv(Box::new(csv::CsvRows::open(window)?)),
            Format::Ndjson => Reader::Ndjson(ndjson::NdjsonRows::open(window)?),
        }))
    }

    /// The columns of the header, for CSV.
    pub fn header(&self) -> &[String] {
        match &self.0 {
            Reader::Csv(rows) => rows.header(),
            Reader::Ndjson(_) => &[],
        }
    }

    /// Returns true if the file is a list of failed rows whose rows have lines of their own.
    pub fn has_own_lines(&self) -> bool {
        match &self.0 {
            Reader::Csv(rows) => rows.has_own_lines(),
            Reader::Ndjson(rows) => rows.has_own_lines(),
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

/// Reads the first bytes of a file.
fn begin<R: Read>(mut file: R) -> Result<(Vec<u8>, R), IntakeError> {
    let mut first = Vec::new();
    file.by_ref().take(FIRST_BYTES as u64).read_to_end(&mut first).map_err(explain)?;
    if first.is_empty() { Err(IntakeError::Empty) } else { Ok((first, file)) }
}

/// Why a row is not run whose input has so many bytes.
fn too_large(bytes: usize) -> String {
    format!("is larger than 1 MiB: it has {bytes} bytes as JSON")
}

#[cfg(test)]
mod tests;
