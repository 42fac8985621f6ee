//! Files that are compressed, and files that are not what they are called.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::model::Line;

mod properties;

const CSV: FileForm = FileForm::plain(Format::Csv);
const CSV_GZ: FileForm = FileForm::compressed(Format::Csv);
const NDJSON: FileForm = FileForm::plain(Format::Ndjson);

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn line_of(row: &NewRow) -> u32 {
    match row.line {
        Line::Given(line) => line,
        Line::Next => panic!("a reader gives each row a line"),
    }
}

/// The inputs of a file, or why it is not taken.
fn read_within(form: FileForm, limits: InflateLimits, file: impl Read + Send + 'static) -> Result<Vec<String>, String> {
    let mut rows = RowReader::open(form, limits, file).map_err(|error| error.to_string())?;
    let mut inputs = Vec::new();
    while let Some(row) = rows.next_row().map_err(|error| error.to_string())? {
        inputs.push(row.input.into_string());
    }
    Ok(inputs)
}

fn read(form: FileForm, file: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
    read_within(form, InflateLimits::default(), std::io::Cursor::new(file.into()))
}

fn refused(form: FileForm, file: impl Into<Vec<u8>>) -> String {
    read(form, file).unwrap_err()
}

#[test]
fn what_is_compressed_is_read_like_what_is_not() {
    let plain = read(CSV, "a,b\n1,2\n3,4\n").unwrap();
    assert_eq!(read(CSV_GZ, gzip(b"a,b\n1,2\n3,4\n")).unwrap(), plain);
    // Two files behind each other are one, as gzip has it.
    assert_eq!(read(CSV_GZ, [gzip(b"a,b\n1,2\n"), gzip(b"3,4\n")].concat()).unwrap(), plain);
    assert_eq!(read(FileForm::compressed(Format::Ndjson), gzip(b"1\n2\n")).unwrap(), ["1", "2"]);
}

/// Gives a byte at a time.
struct Slow(std::io::Cursor<Vec<u8>>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_column() {
    let text = b"\xef\xbb\xbfa,b\n1,2\n".to_vec();
    let expected = [r#"{"a":"1","b":"2"}"#];
    assert_eq!(read(CSV, text.clone()).unwrap(), expected);
    assert_eq!(read(CSV_GZ, gzip(&text)).unwrap(), expected);
    assert_eq!(read_within(CSV, InflateLimits::default(), Slow(std::io::Cursor::new(text))).unwrap(), expected);
    assert_eq!(read(NDJSON, "\u{feff}{\"a\": 1}\r\n\n2").unwrap(), [r#"{"a": 1}"#, "2"]);
    // Alone it is nothing.
    assert!(read(CSV, "\u{feff}").is_err());
}

#[test]
fn a_file_that_is_not_what_it_is_called_is_refused() {
    assert_eq!(refused(CSV_GZ, "a,b\n1,2\n"), "it is not compressed with gzip, though it is called so");
    assert!(refused(CSV, gzip(b"a\n1\n")).starts_with("it is compressed with gzip, and not called so"));
    assert!(refused(NDJSON, gzip(b"1\n")).starts_with("it is compressed with gzip, and not called so"));
    assert_eq!((refused(CSV_GZ, ""), refused(CSV_GZ, gzip(b""))), ("it is empty".to_owned(), "it is empty".to_owned()));
    let binary = "it is not text: byte 6, in line 2, is NUL; if it is UTF-16, save it as UTF-8";
    assert_eq!((refused(CSV, "a,b\n1\0,2\n"), refused(NDJSON, "1\n\"xy\0\"\n")), (binary.to_owned(), binary.to_owned()));
    // Where the byte stands in the file, its byte order mark included.
    assert_eq!(refused(CSV, "\u{feff}a\n\0\n"), binary);
    assert_eq!(refused(CSV_GZ, gzip(b"a,b\n1\0,2\n")), binary);
    let utf16: Vec<u8> = "a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(refused(CSV, utf16).contains("if it is UTF-16, save it as UTF-8"));
    assert!(refused(CSV, b"a\n\xff\n".as_slice()).starts_with("it is not UTF-8: line 2"));
}

#[test]
fn a_file_of_another_kind_is_named() {
    let zip = "it is a zip archive, as .xlsx, .ods and .docx files are, and no text with rows: export its rows as CSV, or unpack it";
    assert_eq!((refused(CSV, b"PK\x03\x04\x14\0\x06\0"), refused(CSV_GZ, gzip(b"PK\x03\x04\x14\0"))), (zip.to_owned(), zip.to_owned()));
    let not_gzip = "it is not compressed with gzip, though it is called so";
    assert_eq!(refused(CSV_GZ, b"\x28\xb5\x2f\xfd\0"), format!("{not_gzip}: it is compressed with zstd"));
    let utf16: Vec<u8> = "\u{feff}a,b\n1,2\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(refused(CSV, utf16), "it is text in UTF-16, and no text with rows: save it as UTF-8");
    assert!(refused(NDJSON, "<!DOCTYPE html><html>").starts_with("it is an HTML page"));
    let two_marks = "it begins with two byte order marks: remove one";
    assert_eq!((refused(CSV, "\u{feff}\u{feff}a\n1\n"), refused(NDJSON, "\u{feff}\u{feff}1\n")), (two_marks.to_owned(), two_marks.to_owned()));
}

/// A NUL is no text wherever it stands: what is refused depends neither on its place nor on the pieces that a file comes in.
#[test]
fn a_nul_is_refused_wherever_it_stands_and_in_whatever_pieces_it_comes() {
    for text_bytes in [0, 100, 8_191, 8_192, 20_000, 200_001] {
        let file = [b"a\n".repeat(text_bytes / 2), b"a".repeat(text_bytes % 2), b"\0\n".to_vec()].concat();
        let at_once = refused(CSV, file.clone());
        let slowly = read_within(CSV, InflateLimits::default(), Slow(std::io::Cursor::new(file))).unwrap_err();
        let nul = format!("it is not text: byte {}, in line {}, is NUL; if it is UTF-16, save it as UTF-8", text_bytes + 1, text_bytes / 2 + 1);
        assert_eq!((at_once, slowly), (nul.clone(), nul));
    }
}

#[test]
fn what_is_told_of_equal_columns_is_short() {
    let name = "n".repeat(100_000);
    assert!(refused(CSV, format!("{name},{name}\n1,2\n")).len() < 400);
}

#[test]
fn compressed_data_that_is_cut_off_or_damaged_is_refused() {
    let whole = gzip("a,b\n1,2\n".repeat(1_000).as_bytes());
    for cut in [3, 12, whole.len() / 2, whole.len() - 1] {
        assert_eq!(refused(CSV_GZ, &whole[..cut]), "its compressed data ends too early: it was cut off", "{cut}");
    }
    let mut damaged = whole.clone();
    let checksum = damaged.len() - 6;
    damaged[checksum] ^= 1;
    assert!(refused(CSV_GZ, damaged).starts_with("its compressed data is damaged: "));
}

/// Tapes and block devices fill what is left of a block with zeros, which gzip leaves out, too.
#[test]
fn zeros_behind_compressed_data_are_padding_and_other_data_is_named() {
    let whole = gzip(b"a,b\n1,2\n");
    let expected = [r#"{"a":"1","b":"2"}"#];
    for zeros in [1, 511, 200_000] {
        assert_eq!(read(CSV_GZ, [&whole[..], &vec![0; zeros]].concat()).unwrap(), expected, "{zeros}");
    }
    let trailing = |bytes: &[u8], at: usize| {
        let sentence = format!("behind its compressed data, at byte {}, there is data that is not gzip: remove it", whole.len() + at);
        assert_eq!(refused(CSV_GZ, [&whole[..], bytes].concat()), sentence);
    };
    trailing(b"\n", 1);
    trailing(b"and more that is not compressed", 1);
    trailing(b"\0\0x", 3);
    trailing(&[&[0; 100_000][..], &whole].concat(), 100_001);
    let cut = [&whole[..], &whole[..5]].concat();
    assert_eq!(refused(CSV_GZ, cut), "its compressed data ends too early: it was cut off");
}

/// So many bytes of one line again and again, compressed as they are read.
fn bomb(bytes: u64) -> impl Read + Send {
    let line = [&[b'x'; 63][..], b"\n"].concat().repeat(1 << 14);
    let times = bytes / line.len() as u64;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(b"a\n").unwrap();
    for _ in 0..times {
        encoder.write_all(&line).unwrap();
    }
    std::io::Cursor::new(encoder.finish().unwrap())
}

#[test]
fn a_bomb_is_stopped_at_the_limit_that_it_reaches_first() {
    let error = |limits, bytes| match RowReader::open(CSV_GZ, limits, bomb(bytes)) {
        Err(error) => error.to_string(),
        Ok(mut rows) => loop {
            match rows.next_row() {
                Ok(Some(_)) => {}
                Ok(None) => return "taken".to_owned(),
                Err(error) => break error.to_string(),
            }
        },
    };
    let limits = InflateLimits::default();
    assert_eq!(
        error(InflateLimits { bytes_max: 1 << 20, ..limits }, 4 << 20),
        "there are more than 1048576 bytes in its compressed data, which is the limit (intake.inflated_max)"
    );
    assert_eq!(error(limits, 80 << 20), "its compressed data grows to more than 200 times its size, which is the limit (intake.ratio_max)");
    assert_eq!(error(limits, 4 << 20), "taken");
    assert_eq!(error(InflateLimits { ratio_max: 2_000, ..limits }, 66 << 20), "taken");
}

#[test]
fn a_fingerprint_is_that_of_the_bytes_as_they_came() {
    let file = gzip(b"a\n1\n");
    let (fingerprint, reader) = Fingerprint::of(std::io::Cursor::new(file.clone()));
    assert_eq!(read_within(CSV_GZ, InflateLimits::default(), reader).unwrap(), [r#"{"a":"1"}"#]);
    let (whole, mut plain) = Fingerprint::of(file.as_slice());
    std::io::copy(&mut plain, &mut std::io::sink()).unwrap();
    assert_eq!(fingerprint.sum(), whole.sum());
    assert_eq!(fingerprint.sum().size_bytes, file.len() as u64);
    let empty = Fingerprint::default().sum();
    assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
