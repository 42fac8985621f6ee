//! Random files: what is well-formed is read as the `csv` crate reads it, and what is not changes
//! nothing else.

use std::io::Cursor;

use fastrand::Rng;

use super::*;
use crate::model::NewRow;

const FILES: u64 = 3_000;

/// Gives a file in random pieces.
struct InPieces {
    file: Cursor<Vec<u8>>,
    rng: Rng,
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.rng.usize(1..=64).min(buffer.len());
        self.file.read(&mut buffer[..most])
    }
}

/// Rows, and why reading ended.
fn rows_of(file: impl Read + Send + 'static) -> (Vec<NewRow>, Option<String>) {
    let mut reader = match RowReader::open(CSV, InflateLimits::default(), file) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut rows = Vec::new();
    loop {
        match reader.next_row() {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => return (rows, None),
            Err(error) => return (rows, Some(error.to_string())),
        }
    }
}

/// The same rows, and the same end, in random pieces.
fn read_both_ways(file: &str, rng: &mut Rng) -> (Vec<NewRow>, Option<String>) {
    let whole = rows_of(Cursor::new(file.as_bytes().to_vec()));
    let pieces = rows_of(InPieces { file: Cursor::new(file.as_bytes().to_vec()), rng: rng.fork() });
    assert_eq!(whole, pieces, "{file:?}");
    whole
}

fn pick<'a>(rng: &mut Rng, parts: &[&'a str]) -> &'a str {
    parts[rng.usize(..parts.len())]
}

fn field(rng: &mut Rng) -> String {
    (0..rng.usize(..5)).map(|_| pick(rng, &["a", "bc", " ", "\"", ",", "\n", "\r\n", "\r", "ä€", ";", "'", "\\", "\u{1}", "\t", "0"])).collect()
}

/// A field as it stands in a file: in quotes where it must be, and sometimes where it need not.
fn written(field: &str, rng: &mut Rng) -> String {
    if field.contains(['"', ',', '\n', '\r']) || rng.u8(..4) == 0 { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

struct WellFormed {
    text: String,
    records: Vec<Vec<String>>,
}

fn well_formed(rng: &mut Rng) -> WellFormed {
    let columns = rng.usize(1..5);
    let line_break = pick(rng, &["\n", "\r\n"]);
    let records: Vec<Vec<String>> = (0..rng.usize(1..8)).map(|_| (0..columns).map(|_| field(rng)).collect()).collect();
    let header: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
    let mut text = header.join(",");
    for record in &records {
        text.push_str(line_break);
        let fields: Vec<String> = record.iter().map(|field| written(field, rng)).collect();
        text.push_str(&fields.join(","));
    }
    // The last line break may be missing, but not behind an empty line, which would be no record
    // without it.
    if rng.bool() || text.ends_with(line_break) {
        text.push_str(line_break);
    }
    WellFormed { text, records }
}

#[test]
fn well_formed_files_are_read_as_they_were_written_and_as_the_csv_crate_reads_them() {
    let mut rng = Rng::with_seed(15);
    for _ in 0..FILES {
        let WellFormed { text, records } = well_formed(&mut rng);
        let (rows, end) = read_both_ways(&text, &mut rng);
        assert_eq!(end, None, "{text:?}");
        let read: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                assert_eq!(row.rejected, None, "{text:?}");
                let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row.input.as_str()).unwrap();
                object.values().map(|value| value.as_str().unwrap().to_owned()).collect()
            })
            .collect();
        assert_eq!(read, records, "{text:?}");
        // The crate leaves out empty lines, which are values of a file of one column.
        if records[0].len() > 1 {
            let by_crate = ::csv::Reader::from_reader(text.as_bytes()).into_records();
            let by_crate: Vec<Vec<String>> = by_crate.map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
            assert_eq!(by_crate, records, "{text:?}");
        }
    }
}

/// Of a file with faults each row is a record as it is written, or says why it is none, and no byte
/// is left out: their texts together are the file.
#[test]
fn a_fault_neither_joins_records_nor_loses_a_part_of_the_file() {
    let mut rng = Rng::with_seed(16);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..FILES {
        let body: String = (0..rng.usize(1..40)).map(|_| pick(&mut rng, &["a", "b", "\"", "\"", ",", ",", "\n", "\n", "\"\"", "x y"])).collect();
        let text = format!("c,d\n{body}\n");
        let (rows, end) = read_both_ways(&text, &mut rng);
        if end.is_some() {
            refused += 1;
            continue;
        }
        read += 1;
        let mut rest = body.trim_end_matches('\n');
        for row in &rows {
            let stands = match &row.rejected {
                Some(_) => serde_json::from_str::<String>(row.input.as_str()).unwrap(),
                None => stands_as(row, rest).unwrap_or_else(|| panic!("{row:?} does not stand at {rest:?} in {text:?}")),
            };
            rest = rest.strip_prefix(&stands).unwrap_or_else(|| panic!("{stands:?} does not stand at {rest:?} in {text:?}"));
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        assert_eq!(rest, "", "{text:?}");
    }
    assert!(read > FILES / 10 && refused > FILES / 10, "{read} {refused}");
}

/// A row as it stands at the beginning of a text; none if it does not.
fn stands_as(row: &NewRow, text: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row.input.as_str()).unwrap();
    let ways: Vec<[String; 2]> = object
        .values()
        .map(|value| {
            let value = value.as_str().unwrap();
            [value.to_owned(), format!("\"{}\"", value.replace('"', "\"\""))]
        })
        .collect();
    let both = ways[0].iter().flat_map(|first| ways[1].iter().map(move |second| format!("{first},{second}")));
    both.into_iter().find(|record| text.strip_prefix(record.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('\n')))
}
