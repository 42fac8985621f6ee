//! Files that are not what they are called, by their first bytes and records.

use std::fmt;

use super::records::Records;
use super::window::Window;

/// The first bytes that tell what a file is.
pub(super) const FIRST_BYTES: usize = 16;
/// Records that are split to find out how a file separates its columns, and the bytes that they may
/// have.
const SPLIT_RECORDS: usize = 100;
pub(super) const SPLIT_BYTES: usize = 64 << 10;

/// A kind of file that is no text in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Zip,
    OldOffice,
    Pdf,
    Parquet,
    Avro,
    SqliteDatabase,
    Zstd,
    Bzip2,
    Xz,
    SevenZip,
    Utf16,
    Utf32,
    Html,
    Xml,
}

impl Nature {
    const SIGNATURES: [(&[u8], Nature); 18] = [
        (b"PK\x03\x04", Nature::Zip),
        (b"PK\x05\x06", Nature::Zip),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Nature::OldOffice),
        (b"%PDF-", Nature::Pdf),
        (b"PAR1\x15", Nature::Parquet),
        (b"Obj\x01", Nature::Avro),
        (b"SQLite format 3\0", Nature::SqliteDatabase),
        (b"\x28\xb5\x2f\xfd", Nature::Zstd),
        (b"BZh", Nature::Bzip2),
        (b"\xfd7zXZ\0", Nature::Xz),
        (b"7z\xbc\xaf\x27\x1c", Nature::SevenZip),
        // The byte order mark of UTF-32 begins with that of UTF-16.
        (b"\xff\xfe\0\0", Nature::Utf32),
        (b"\0\0\xfe\xff", Nature::Utf32),
        (b"\xff\xfe", Nature::Utf16),
        (b"\xfe\xff", Nature::Utf16),
        (b"<!doctype html", Nature::Html),
        (b"<html", Nature::Html),
        (b"<?xml", Nature::Xml),
    ];

    /// The kind of a file that begins with these bytes; none if it may be text.
    pub(super) fn of(first: &[u8]) -> Option<Nature> {
        let lower = first.to_ascii_lowercase();
        let (_, nature) = Nature::SIGNATURES.iter().find(|(signature, nature)| match nature {
            Nature::Html | Nature::Xml => lower.starts_with(signature),
            _ => first.starts_with(signature),
        })?;
        match nature {
            // The mark of its first block: the letters before it could begin a text.
            Nature::Bzip2 => first.get(4..).filter(|rest| rest.starts_with(b"1AY&SY")).map(|_| Nature::Bzip2),
            nature => Some(*nature),
        }
    }

    /// The kind, and what to do with such a file.
    pub(super) fn and_how_to_convert(self) -> String {
        let how = match self {
            Nature::Utf16 | Nature::Utf32 => "save it as UTF-8",
            Nature::Zstd | Nature::Bzip2 | Nature::Xz => "decompress it, or compress it with gzip instead",
            Nature::Zip | Nature::SevenZip => "export its rows as CSV, or unpack it",
            Nature::Html => "is it the answer of a web server that refused a request?",
            _ => "export its rows as CSV or NDJSON",
        };
        format!("{self}, and no text with rows: {how}")
    }
}

impl fmt::Display for Nature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Nature::Zip => "a zip archive, as .xlsx, .ods and .docx files are",
            Nature::OldOffice => "an old Office file, such as .xls",
            Nature::Pdf => "a PDF",
            Nature::Parquet => "a Parquet file",
            Nature::Avro => "an Avro file",
            Nature::SqliteDatabase => "a SQLite database",
            Nature::Zstd => "compressed with zstd",
            Nature::Bzip2 => "compressed with bzip2",
            Nature::Xz => "compressed with xz",
            Nature::SevenZip => "a 7-Zip archive",
            Nature::Utf16 => "text in UTF-16",
            Nature::Utf32 => "text in UTF-32",
            Nature::Html => "an HTML page",
            Nature::Xml => "an XML file",
        })
    }
}

/// The character that separates columns instead of commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    Semicolon,
    Tab,
    Bar,
}

impl Delimiter {
    const ALL: [(Delimiter, u8); 3] = [(Delimiter::Semicolon, b';'), (Delimiter::Tab, b'\t'), (Delimiter::Bar, b'|')];

    /// The separator of the columns of a file that begins with these bytes, and their number, if that
    /// is certain: the header and each record that is looked at split into the same number of
    /// columns, more than one.
    pub(super) fn of(first: &[u8], is_whole: bool) -> Option<(Delimiter, usize)> {
        Delimiter::ALL.into_iter().find_map(|(delimiter, byte)| Some((delimiter, columns_with(first, is_whole, byte)?)))
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Delimiter::Semicolon => "semicolons",
            Delimiter::Tab => "tabs",
            Delimiter::Bar => "vertical bars",
        }
    }

    pub(super) fn for_miller(self) -> &'static str {
        match self {
            Delimiter::Semicolon => "semicolon",
            Delimiter::Tab => "tab",
            Delimiter::Bar => "pipe",
        }
    }
}

fn columns_with(first: &[u8], is_whole: bool, delimiter: u8) -> Option<usize> {
    let mut records = Records::new(Window::of_text(first), delimiter);
    let mut columns = 0;
    let mut count = 0;
    while count < SPLIT_RECORDS && records.advance().ok()? {
        if !is_whole && records.is_last() {
            break;
        }
        if records.is_blank() {
            continue;
        }
        count += 1;
        if count == 1 {
            columns = records.field_count();
        }
        if records.fault().is_some() || records.field_count() != columns {
            return None;
        }
    }
    (columns > 1 && count > 1).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_is_no_text() {
        assert_eq!(Nature::of(b"PK\x03\x04\x14\0\x06\0"), Some(Nature::Zip));
        assert_eq!(Nature::of(b"BZh91AY&SY\xaa\xbb"), Some(Nature::Bzip2));
        assert_eq!((Nature::of(b"\xff\xfea\0"), Nature::of(b"\xff\xfe\0\0a")), (Some(Nature::Utf16), Some(Nature::Utf32)));
        assert_eq!((Nature::of(b"<!DOCTYPE HTML>"), Nature::of(b"<?xml version=")), (Some(Nature::Html), Some(Nature::Xml)));
        for text in ["", "PK,Objective,PAR1\n", "BZh9,a\n", "PAR1,b\n", "7z\n", "<a>,b\n", "1AY\n"] {
            assert_eq!(Nature::of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn another_delimiter_is_named_when_it_is_certain() {
        let of = |text: &str| Delimiter::of(text.as_bytes(), true);
        assert_eq!(of("a;b\n1,5;2\n3;\"x;y\"\n\n"), Some((Delimiter::Semicolon, 2)));
        assert_eq!(of("a\tb\tc\n1\t2\t3"), Some((Delimiter::Tab, 3)));
        assert_eq!(of("a|b\r\n1|2\r\n"), Some((Delimiter::Bar, 2)));
        for text in ["a;b\n", "a;b\n1\n", "\"a;b\"\n\"1;2\"\n", "a\n1;2\n", "a;b\n1;2\n3;4;5\n", "a;b\n1;\"2\n"] {
            assert_eq!(of(text), None, "{text}");
        }
        // The last record of a part may be cut.
        assert_eq!(Delimiter::of(b"a;b\n1;2\n3", false), Some((Delimiter::Semicolon, 2)));
        assert_eq!(Delimiter::of(b"a;b\n1;2\n3", true), None);
    }
}
