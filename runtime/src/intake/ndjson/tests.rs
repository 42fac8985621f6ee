use super::*;
use crate::intake::tests::line_of;

fn read(file: impl AsRef<[u8]>) -> Result<Vec<NewRow>, IntakeError> {
    let mut rows = NdjsonRows::open(Window::of_text(file.as_ref()))?;
    std::iter::from_fn(|| rows.next_row().transpose()).collect()
}

#[test]
fn values_are_taken_as_they_are_and_empty_lines_are_not_counted() {
    let rows = read(b"{\"a\": 1}\r\n\n [2]\n\"three\"").unwrap();
    let rows: Vec<(u32, &str)> = rows.iter().map(|row| (line_of(row), row.input.as_str())).collect();
    assert_eq!(rows, [(1, "{\"a\": 1}"), (2, "[2]"), (3, "\"three\"")]);
}

#[test]
fn a_line_that_is_no_json_is_rejected_with_its_place() {
    let rows = read(b"1\n\n{nope\n2\n").unwrap();
    let reason = rows[1].rejected.as_deref().unwrap();
    assert!(reason.starts_with("value 2 (line 3 of the file) is not valid JSON: "), "{reason}");
    assert_eq!(rows[1].input.as_str(), "\"{nope\"");
    assert!(rows[2].rejected.is_none());
}

#[test]
fn the_place_of_a_fault_is_one_line_and_its_column() {
    let reason = |text: &str| read(text).unwrap().pop().unwrap().rejected.unwrap();
    assert_eq!(reason("1\n\n{nope\n"), "value 2 (line 3 of the file) is not valid JSON: key must be a string at column 2");
    assert_eq!(reason("1\n{\"a\":\n"), "value 2 (line 2 of the file) is not valid JSON: EOF while parsing a value at column 5");
    // The column is that of the line, in characters.
    assert_eq!(reason(" \t{nope\n"), "value 1 (line 1 of the file) is not valid JSON: key must be a string at column 4");
    assert_eq!(reason("{\"ä€\":nope}\n"), "value 1 (line 1 of the file) is not valid JSON: expected ident at column 8");
    assert_eq!(reason("{\"a\":é}\n"), "value 1 (line 1 of the file) is not valid JSON: expected value at column 6");
    assert_eq!(
        reason("1\r2\r"),
        "value 1 (line 1 of the file) is not valid JSON: trailing characters at column 3; a carriage return without a line feed ends no line"
    );
}

/// JSON allows four characters as space.
#[test]
fn a_character_that_only_looks_like_space_is_no_empty_line() {
    for space in ["\u{a0}", "\u{2028}", "\u{b}", "\u{c}", "\u{85}"] {
        let rows = read(format!("1\n{space}\n2{space}\n \t\r\n")).unwrap();
        assert_eq!(rows.iter().map(|row| row.rejected.is_some()).collect::<Vec<_>>(), [false, true, true], "{space:?}");
    }
}

#[test]
fn failed_rows_come_back_as_they_were() {
    let rows = read(
        "{\"rowmill\":{\"line\":3},\"input\":{\"a\":1}}\n{\"rowmill\":{\"line\":9},\"text\":\"{nope\"}\n\
         { \"input\" : null ,\"rowmill\":{\"codes\":[],\"line\":4}}\n",
    )
    .unwrap();
    assert_eq!((line_of(&rows[0]), rows[0].input.as_str(), &rows[0].rejected), (3, "{\"a\":1}", &None));
    let again = "value 2 (line 2 of the file) was rejected before: correct it, and put \"input\" with the row in the place of \"text\"";
    assert_eq!((line_of(&rows[1]), rows[1].input.as_str(), rows[1].rejected.as_deref()), (9, "\"{nope\"", Some(again)));
    assert_eq!((line_of(&rows[2]), rows[2].input.as_str(), &rows[2].rejected), (4, "null", &None));
    // Without lines they are numbered.
    let rows = read("{\"rowmill\":{},\"input\":5}\n{\"rowmill\":1,\"input\":2,\"c\":3}\n{\"rowmill\":{},\"input\":6}\n").unwrap();
    let rows: Vec<(u32, &str)> = rows.iter().map(|row| (line_of(row), row.input.as_str())).collect();
    assert_eq!(rows, [(1, "5"), (2, "{\"rowmill\":1,\"input\":2,\"c\":3}"), (3, "6")]);
}

#[test]
fn a_list_in_which_a_row_has_no_line_is_refused() {
    let error = |second: &str| read(format!("{{\"rowmill\":{{\"line\":3}},\"input\":1}}\n{second}\n")).unwrap_err().to_string();
    let sentence = |found: &str| {
        format!(
            "it is a list of failed rows, and in line 2 the number of the row (rowmill.line) is {found}: it must be a whole number from 1 to 4294967295; to number \
             the rows anew, remove it from all of them"
        )
    };
    assert_eq!(error("{\"a\":1}"), sentence("missing"));
    assert_eq!(error("{\"rowmill\":{},\"input\":1}"), sentence("missing"));
    assert_eq!(error("{\"rowmill\":{\"line\":0},\"input\":1}"), sentence("\"0\""));
    let shape = "line 2 is not as the rows of a list of failed rows are:";
    assert_eq!(error("{nope"), format!("{shape} it is not valid JSON: key must be a string at column 2"));
}

/// A line that is nearly one of a list is not run as it is, and the sentence says the difference.
#[test]
fn a_line_that_is_nearly_one_of_a_list_is_refused() {
    let shape = |line: u64| format!("line {line} is not as the rows of a list of failed rows are:");
    let both = r#"{"rowmill":{"line":3},"input":1,"text":"x"}"#;
    let extra = r#"{"extra":1,"rowmill":{"line":3},"input":1}"#;
    for wrong in [both, extra, r#"{"rowmill":{"line":3,"codes":["trap"],"reason":"so"}}"#] {
        for (first, line) in [("", 1), ("{\"rowmill\":{\"line\":2},\"input\":1}\n", 2), ("{\"rowmill\":{},\"input\":1}\n", 2)] {
            let error = read(format!("{first}{wrong}\n")).unwrap_err().to_string();
            assert!(error.starts_with(&shape(line)), "{error}");
        }
        let error = read(format!("1\n{wrong}\n")).unwrap_err().to_string();
        assert!(error.starts_with("line 2 is a row of a list of failed rows with its line, but the first row of the file is not"), "{error}");
    }
    // Without a line it may be a row of people, where the first one is.
    let own = r#"{"rowmill":{},"input":1,"text":"x"}"#;
    assert_eq!(read(format!("1\n{own}\n")).unwrap()[1].input.as_str(), own);
    let error = read(format!("{}\n", r#"{"rowmill":{"line":1},"text":"\ud800"}"#)).unwrap_err().to_string();
    assert_eq!(error, format!("{} its \"text\" is no text", shape(1)));
}

/// The limit is that of the row, whatever stands around it in a list.
#[test]
fn the_size_of_a_row_is_that_of_its_input() {
    fn input(bytes: usize) -> String {
        format!("\"{}\"", "p".repeat(bytes - 2))
    }
    fn listed(bytes: usize) -> String {
        format!("{{\"rowmill\":{{\"line\":2,\"reason\":\"{}\"}},\"input\":{}}}", "r".repeat(5_000), input(bytes))
    }
    for row in [input as fn(usize) -> String, listed] {
        let rows = |bytes: usize| read(row(bytes)).unwrap().remove(0);
        let longest = rows(INPUT_BYTES_MAX);
        assert!(longest.rejected.is_none() && longest.input.as_str().len() == INPUT_BYTES_MAX);
        let rejected = rows(INPUT_BYTES_MAX + 1);
        assert_eq!(rejected.rejected.unwrap(), "value 1 (line 1 of the file) is larger than 1 MiB: it has 1048577 bytes as JSON");
    }
}

/// Rows of people may look like rows of a list.
#[test]
fn the_first_row_tells_whether_a_file_is_a_list() {
    let wrapper = r#"{"rowmill":{},"input":{"k":1}}"#;
    let rows = read(format!("1\n{wrapper}\n")).unwrap();
    assert_eq!((rows[1].input.as_str(), &rows[1].rejected), (wrapper, &None));
    let rows = read(format!("{wrapper}\n1\n")).unwrap();
    assert_eq!((rows[0].input.as_str(), rows[1].input.as_str()), (r#"{"k":1}"#, "1"));
    let with_line = r#"{"rowmill":{"line":7},"input":{"k":1}}"#;
    for first in ["{\"new\":1}", wrapper] {
        let error = read(format!("{first}\n{with_line}\n")).unwrap_err().to_string();
        assert!(error.starts_with("line 2 is a row of a list of failed rows with its line, but the first row of the file is not"), "{error}");
    }
}

/// A text of the largest record comes back from a list, however JSON writes it.
#[test]
fn a_line_of_a_list_may_be_as_long_as_the_text_in_it_needs() {
    let text = "\u{1}".repeat(RECORD_BYTES_MAX);
    let json = serde_json::to_string(&text).unwrap();
    let lists = [format!("{{\"rowmill\":{{\"line\":2}},\"text\":{json}}}\n"), format!("{{ \"text\":{json}, \"rowmill\":{{\"line\":2}}}}\n")];
    for list in lists {
        assert_eq!(read(list).unwrap()[0].input.as_str(), json);
    }
    for (name, json) in
        [("text", format!("\"{}\"", "x".repeat(RECORD_BYTES_MAX + 1))), ("input", format!("\"{}\"", "x".repeat(RECORD_BYTES_MAX - 1)))]
    {
        let error = read(format!("{{\"rowmill\":{{\"line\":2}},\"{name}\":{json}}}\n")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("it is a list of failed rows, and in the row in line 1 {name} is larger than 16 MiB")), "{error}");
    }
    let error = read(format!("1\n{{\"other\":{json}}}\n")).unwrap_err().to_string();
    assert_eq!(error, "the record that begins in line 2 is larger than 16 MiB");
    let error = read(format!("1\n[{json}]\n")).unwrap_err().to_string();
    assert_eq!(error, "the record that begins in line 2 is larger than 16 MiB");
}

#[test]
fn a_second_byte_order_mark_is_named() {
    let rows = read("{\"a\":1}\n\u{feff}{\"a\":2}\n").unwrap();
    let reason =
        "value 2 (line 2 of the file) begins with a byte order mark, which stands only at the beginning of a file: were two files put together?";
    assert_eq!(rows[1].rejected.as_deref(), Some(reason));
}

#[test]
fn json_over_several_lines_is_named() {
    let array = "it is one JSON array, and NDJSON has one value per line: jq -c '.[]' FILE makes NDJSON of it";
    for file in ["[\n  {\"a\":1},\n  {\"a\":2}\n]\n", "[{\"a\":1},\n{\"a\":2}]", "\n[\n1\n]", "["] {
        assert_eq!(read(file).unwrap_err().to_string(), array, "{file}");
    }
    let object = |line| {
        format!("the JSON value that line {line} begins goes on in the next line, and NDJSON has one value per line: jq -c . FILE makes NDJSON of it")
    };
    for (file, line) in [("{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n", 1), ("\n{\"a\": {\n\"b\": 1}}\n", 2)] {
        assert_eq!(read(file).unwrap_err().to_string(), object(line), "{file}");
    }
    // A value on one line is a row, and a line that was cut a rejected one.
    for (file, rejected) in [("[1,\n[2]\n", true), ("{\"a\":1,\n{\"a\":2}\n", true), ("[{\"a\":1}]\n[2]\n", false), ("{\"a\":", true), ("{", true)] {
        assert_eq!(read(file).unwrap()[0].rejected.is_some(), rejected, "{file}");
    }
}

#[test]
fn a_file_that_cannot_be_taken_says_what_and_where() {
    let error = |file: &[u8]| read(file).unwrap_err().to_string();
    assert_eq!(error(b""), "it is empty");
    assert_eq!(error(b"\n \n"), "it has no line with a value");
    assert_eq!(error(b"1\n\xff\n"), "it is not UTF-8: line 2 has a byte that cannot be read as text; save it as UTF-8");
    assert_eq!(error(b"1\n\n2\0\n"), "it is not text: byte 5, in line 3, is NUL; if it is UTF-16, save it as UTF-8");
}

/// No number is rounded, no key is dropped, no depth refused, alone or in a list.
#[test]
fn a_value_is_taken_to_the_letter() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let values = [r#"{"a":1,"a":2}"#, "1e400", "-0", "1.10", "123456789012345678901234567890", r#""\ud800 \u0000 \/""#, "{ }", &deep];
    for value in values {
        let rows = read(format!("{value}\n")).unwrap();
        let listed = read(format!("{{\"input\":{value},\"rowmill\":{{\"line\":1,\"codes\":[{{}}]}}}}\n")).unwrap();
        assert_eq!((rows[0].input.as_str(), &rows[0].rejected), (value, &None));
        assert_eq!(rows, listed);
    }
}
