//! What people write: files of rows, and grants, limits and rules as JSON or text.

use std::io::{Cursor, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use rowmill::intake::{FileForm, InflateLimits, IntakeError, RowReader};
use rowmill::model::{Grants, HttpRule, JsonText, Limits, Line, Net, NewRow};

use super::check_told;

const FORMS: [&str; 4] = ["csv", "ndjson", "csv.gz", "ndjson.gz"];
/// Small, so that files come to them.
const INFLATE: InflateLimits = InflateLimits { bytes_max: 1 << 20, ratio_max: 2 };
/// Texts of settings are shown cut by whoever shows them; those that are refused here repeat what was written.
const LINE_BYTES_MAX: usize = 1_000;

/// The first byte tells what the rest is.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 8 {
        form @ 0..=3 => check_file(FORMS[usize::from(form)], rest.to_vec()),
        form @ 4..=5 => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(rest).expect("memory can be written");
            let packed = packed.finish().expect("memory can be written");
            check_file(FORMS[usize::from(form) - 2], packed);
        }
        6 => check_settings(rest),
        _ => check_lines(rest),
    }
}

/// For a corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    let csv: &[u8] = b"id,amount,\"no te\"\n1,2.50,\"a \"\"b\"\"\r\nc\"\n2,,x\r\n3,4\n";
    let ndjson: &[u8] = b"{\"id\":1}\n\n[1,\"\\u0000\"] \r\nnope\n\"\xc3\xa4\"\n";
    let grants = Grants { values: [("k".to_owned(), "v".to_owned())].into(), ..Grants::default() }.to_json();
    let limits = serde_json::to_string(&Limits::default()).expect("limits are JSON");
    let whole = r#"{"http":{"allow":["GET,POST https://*.example.com:8443"],"nets":["10.0.0.0/8"]},"directories":{"/a":{"path":"/b","writable":true}},"sql":{"db":{}},"key_value":{},"objects":{},"secrets":{"a":"b"}}"#;
    let long = [csv, &[b'x'; 10_000], b"\n\0,\n"].concat();
    let faults: &[u8] = b"a,b\r\n1,5\" disk\r\n\r\n\"say \"hi\" there\",2\r\nx\ry,3\r\n\"4\",\"5\r\n6\"\r\n";
    let list: &[u8] = b"a,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n1,7,x,,so\n,3,bad_row,\"1,\"\"2\",so\n";
    let json_list: &[u8] = b"{\"rowmill\":{\"line\":3},\"input\":1}\n{\"text\":\"{nope\",\"rowmill\":{\"line\":9}}\n";
    let lines = b"GET,POST https://*.example.com:8443 \nhttp://[::1]:80\nfd00:1::/32\n10.1.2.3\n";
    [
        (0, csv),
        (1, ndjson),
        (4, csv),
        (5, ndjson),
        (6, grants.as_bytes()),
        (6, limits.as_bytes()),
        (6, whole.as_bytes()),
        (7, lines),
        (0, &long),
        (1, &long),
        (0, faults),
        (0, list),
        (1, json_list),
        (0, b"a,b\r1,\"x\ry\"\r2,z"),
    ]
    .iter()
    .map(|(kind, rest)| [&[*kind], *rest].concat())
    .collect()
}

fn check_file(form: &str, file: Vec<u8>) {
    let form = FileForm::parse(form).expect("it is a form");
    let step = 1 + file.len() % 7;
    let whole = rows(form, Cursor::new(file.clone()));
    let pieces = rows(form, InPieces { file: Cursor::new(file), step });
    // However a file comes in, it is the same. Where it cannot be taken, how far its reader got and what it saw first is of no interest: nothing of it is taken.
    if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
        assert_eq!(whole, pieces);
    } else {
        assert_eq!(whole.is_err(), pieces.is_err(), "{whole:?}\n{pieces:?}");
    }
}

/// A line, its input, and why it is none.
type Row = (Line, String, Option<String>);

/// The rows of a file, or why it cannot be taken.
fn rows(form: FileForm, file: impl Read + Send + 'static) -> Result<Vec<Row>, String> {
    let mut found = Vec::new();
    let ended = read(form, file, &mut found);
    for (at, row) in (1..).zip(&found) {
        // A list of failed rows says which lines its rows have.
        assert!(
            row.line == Line::Given(at) || (matches!(row.line, Line::Given(1..)) && matches!(ended, Ok(Lines::Own) | Err(_))),
            "lines are numbered: {row:?}"
        );
        JsonText::check(row.input.as_str()).unwrap_or_else(|error| panic!("{error}: {row:?}"));
    }
    match ended {
        Ok(_) => Ok(found.into_iter().map(|row| (row.line, row.input.into_string(), row.rejected)).collect()),
        Err(error) => {
            let text = format!("{:#}", anyhow::Error::new(error));
            check_told(&text);
            Err(text)
        }
    }
}

/// Where the lines of rows come from.
enum Lines {
    Counted,
    Own,
}

fn read(form: FileForm, file: impl Read + Send + 'static, found: &mut Vec<NewRow>) -> Result<Lines, IntakeError> {
    let mut reader = RowReader::open(form, INFLATE, file)?;
    while let Some(row) = reader.next_row()? {
        found.push(row);
    }
    assert!(reader.next_row()?.is_none(), "behind the end there is another row");
    Ok(if reader.has_own_lines() { Lines::Own } else { Lines::Counted })
}

/// Gives some bytes at a time.
struct InPieces {
    file: Cursor<Vec<u8>>,
    step: usize,
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(self.step);
        self.file.read(&mut buffer[..most])
    }
}

/// What is read from JSON is the same when it is written and read again; what cannot be is told.
fn check_settings(json: &[u8]) {
    if let Ok(grants) = serde_json::from_slice::<Grants>(json) {
        if let Err(reason) = grants.check() {
            check_told(&reason);
        }
        assert_eq!(serde_json::from_str::<Grants>(&grants.to_json()).expect("it was written by us"), grants);
    }
    if let Ok(limits) = serde_json::from_slice::<Limits>(json) {
        let written = serde_json::to_string(&limits).expect("limits are JSON");
        assert_eq!(serde_json::from_str::<Limits>(&written).expect("it was written by us"), limits);
        let most = limits.at_most(&Limits::most());
        assert_eq!(most.at_most(&Limits::most()), most);
    }
}

/// A rule or a net that is read is the same when its text is read again.
fn check_lines(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for line in text.lines().filter(|line| line.len() <= LINE_BYTES_MAX) {
        match line.parse::<HttpRule>() {
            Ok(rule) => assert_eq!(rule.to_string().parse::<HttpRule>().expect("it was written by us"), rule),
            Err(error) => check_told(&error.to_string()),
        }
        match line.parse::<Net>() {
            Ok(net) => assert_eq!(net.to_string().parse::<Net>().expect("it was written by us"), net),
            Err(error) => check_told(&error.to_string()),
        }
    }
}
