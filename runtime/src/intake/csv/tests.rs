use super::*;
use crate::intake::tests::line_of;

fn open(file: &[u8]) -> Result<CsvRows, IntakeError> {
    CsvRows::open(Window::of_text(file))
}

fn read(file: impl AsRef<[u8]>) -> Result<Vec<NewRow>, IntakeError> {
    let mut rows = open(file.as_ref())?;
    std::iter::from_fn(|| rows.next_row().transpose()).collect()
}

fn inputs(file: impl AsRef<[u8]>) -> Vec<String> {
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
fn a_last_line_without_a_break_is_a_record() {
    assert_eq!(inputs(b"a\n1\n2"), [r#"{"a":"1"}"#, r#"{"a":"2"}"#]);
    assert_eq!(inputs(b"a\n\"x\n\""), ["{\"a\":\"x\\n\"}"]);
}

#[test]
fn a_ragged_record_is_rejected_with_its_place_and_keeps_its_fields() {
    let rows = read(b"a,b\n\"1\n1\",2\n3\n4,5,6\n7,8\n").unwrap();
    assert_eq!(rows.iter().map(line_of).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(rows[1].rejected.as_deref(), Some("record 2 (line 4 of the file) has 1 fields, but the header has 2"));
    assert_eq!(rows[2].rejected.as_deref(), Some("record 3 (line 5 of the file) has 3 fields, but the header has 2"));
    assert_eq!(rows[2].input.as_str(), r#""4,5,6""#);
    assert!(rows[3].rejected.is_none());
}

/// Why each row is rejected, without its place; empty for one that is not.
fn faults(file: &str) -> Vec<String> {
    let reason = |row: NewRow| row.rejected.map(|reason| reason.split_once(") ").unwrap().1.to_owned());
    read(file).unwrap().into_iter().map(|row| reason(row).unwrap_or_default()).collect()
}

fn refusal(file: impl AsRef<[u8]>) -> String {
    read(file).unwrap_err().to_string()
}

#[test]
fn a_quote_inside_a_field_rejects_its_record_alone() {
    let file = "a,b\n1,5\" disk\n2,\"x\"\n3,y\" \"z\n\"4\",\n";
    let quote = "has a quote inside a field that does not begin with one: put the field in quotes, and write each quote in it twice";
    assert_eq!(faults(file), [quote, "", quote, ""]);
    assert_eq!(inputs(file), [r#""1,5\" disk""#, r#"{"a":"2","b":"x"}"#, r#""3,y\" \"z""#, r#"{"a":"4","b":""}"#]);
}

#[test]
fn text_behind_a_closing_quote_rejects_its_record_where_it_is_certain_where_that_ends() {
    let behind = "has text behind a closing quote: write each quote inside a value twice";
    let file = "col1,col2\n\"aaa\",\"size 32\" wide\"\n\"bbb\",\"a \\\"b\"\n\"x\" ,y\"\nc,d\n";
    assert_eq!(faults(file)[..2], [behind, behind]);
    let certain = "a,b\n\"say \"hi\" there\",2\n1,\"2\"\"\"3\"\r\n4,5\n\"\"\"x\"\" y\"z\",6";
    assert_eq!(faults(certain), [behind, behind, "", behind]);
    assert_eq!(inputs(certain)[1], "\"1,\\\"2\\\"\\\"\\\"3\\\"\"");
}

#[test]
fn a_file_is_refused_where_a_quote_leaves_it_open_where_a_record_ends() {
    let merged = "id,note,amt\n1,\"5\"\" disk,10\n2,plain,20\n3,\"say \"\"hi\"\"\",30\n4,z,40\n";
    let sentence = |line, opened| {
        format!(
            "line {line} has text behind the closing quote of a field that line {opened} opens, and it is not clear where the record ends: write each quote inside \
             a value twice, and close each field that is in quotes"
        )
    };
    assert_eq!(refusal(merged), sentence(4, 2));
    // The text behind the quote may go on in the next line: then "3,4" is no record.
    assert_eq!(refusal("a,b\n1,\"he said \"hi\n3,4\n\" and left\"\n"), sentence(2, 2));
    assert_eq!(refusal("a,b\n1,\"x\"y,\"z\n"), sentence(2, 2));
    assert_eq!(refusal("a,b\n1,\"x\"y"), sentence(2, 2));
    assert_eq!(refusal("a,b\n\"c\n\",\"x\ny \"z\" \"\n"), sentence(4, 3));
}

#[test]
fn a_lone_carriage_return_outside_quotes_cuts_nothing() {
    let lone = "has a carriage return without a line feed outside quotes";
    let file = "id,note\r\n1,one\rtwo\r\n2,ok\r\n\"3\",\"a\rb\"\r\n4,x\r";
    assert_eq!(faults(file), [lone, "", "", lone]);
    assert_eq!(inputs(file), [r#""1,one\rtwo""#, r#"{"id":"2","note":"ok"}"#, r#"{"id":"3","note":"a\rb"}"#, r#""4,x\r""#]);
    assert_eq!(faults("a\n1\r2\n3\n"), [lone, ""]);
}

#[test]
fn a_file_whose_lines_all_end_in_a_carriage_return_is_read() {
    assert_eq!(inputs("a,b\r1,\"x\ry\"\r2,z"), [r#"{"a":"1","b":"x\ry"}"#, r#"{"a":"2","b":"z"}"#]);
    let rows = read("a,b\r1,\"x\ry\"\r2\r").unwrap();
    assert_eq!(rows[1].rejected.as_deref(), Some("record 2 (line 4 of the file) has 1 fields, but the header has 2"));
    let mixed = "ends in a line feed, but the lines before it end in a carriage return alone: let all lines end alike";
    assert_eq!(refusal("a,b\r1,2\n3,4\n"), format!("line 2 {mixed}"));
    assert_eq!(refusal("a\rb,c\n1,2\n"), format!("line 2 {mixed}"));
}

#[test]
fn an_empty_line_is_a_value_of_one_column_and_no_record_of_several() {
    let one = read("a\n1\n\n\r\n2\n\n").unwrap();
    let one: Vec<(u32, &str)> = one.iter().map(|row| (line_of(row), row.input.as_str())).collect();
    assert_eq!(one, [(1, r#"{"a":"1"}"#), (2, r#"{"a":""}"#), (3, r#"{"a":""}"#), (4, r#"{"a":"2"}"#), (5, r#"{"a":""}"#)]);
    let several = read("\n\na,b\n\n1,2\n\n\n3\n\n\n").unwrap();
    let reasons: Vec<(u32, Option<&str>)> = several.iter().map(|row| (line_of(row), row.rejected.as_deref())).collect();
    let empty = |record, line| format!("record {record} (line {line} of the file) is an empty line, but the header has 2 columns");
    assert_eq!(
        reasons,
        [
            (1, Some(empty(1, 4).as_str())),
            (2, None),
            (3, Some(empty(3, 6).as_str())),
            (4, Some(empty(4, 7).as_str())),
            (5, Some("record 5 (line 8 of the file) has 1 fields, but the header has 2"))
        ]
    );
    assert_eq!(several[0].input.as_str(), "\"\"");
}

#[test]
fn the_size_of_a_row_is_that_of_its_input() {
    let record = |bytes: usize| format!("id,note\n1,{}\n2,x\n", "\\".repeat(bytes / 2));
    let longest = INPUT_BYTES_MAX - r#"{"id":"1","note":""}"#.len();
    assert_eq!(faults(&record(longest)), ["", ""]);
    assert_eq!(faults(&record(longest + 2)), ["is larger than 1 MiB: it has 1048578 bytes as JSON", ""]);
}

#[test]
fn columns_of_a_list_of_failed_rows_are_left_out() {
    assert_eq!(inputs("a,rowmill_codes,rowmill_text,rowmill_reason\n1,x,,because\n"), [r#"{"a":"1"}"#]);
    let rows = read("a,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n1,7,x,,because\n2,3,,old,so\n").unwrap();
    assert_eq!(rows.iter().map(|row| (line_of(row), row.rejected.is_none())).collect::<Vec<_>>(), [(7, true), (3, true)]);
}

#[test]
fn a_row_that_was_rejected_is_rejected_until_its_codes_are_emptied() {
    let header = "a,b,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason";
    let read_one = |record: &str| read(format!("{header}\n{record}\n")).unwrap().remove(0);
    let row = read_one("1,,7,bad_row,1,\"record 9 (line 3 of the file) has 1 fields, but the header has 2\"");
    let again = "record 1 (line 2 of the file) was rejected before: correct it, and empty its rowmill_codes; the first reason: record 9 (line 3 of the \
                 file) has 1 fields, but the header has 2";
    assert_eq!((line_of(&row), row.input.as_str(), row.rejected.as_deref()), (7, "\"1\"", Some(again)));
    // The text stays where fields were changed and the codes were forgotten.
    let row = read_one("1,\"2,5\",7,aborted;bad_row,1,so");
    let changed = "record 1 (line 2 of the file) was rejected before, and its fields were changed since: if it is corrected, empty its rowmill_codes; the \
                   first reason: so";
    assert_eq!((row.input.as_str(), row.rejected.as_deref()), ("\"1\"", Some(changed)));
    let row = read_one(",,7,bad_row,\"1,a\"\"b\",so");
    assert_eq!((row.input.as_str(), row.rejected.is_some()), (r#""1,a\"b""#, true));
    // A processor may have a code of this name: its rows are not kept as text. An empty line is, as an empty one.
    let row = read_one("1,2,7,bad_row,,so");
    assert_eq!((row.input.as_str(), row.rejected), (r#"{"a":"1","b":"2"}"#, None));
    assert!(read_one(",,7,bad_row,,so").rejected.is_some());
    // The text was corrected, and the codes were forgotten: it is not lost.
    let row = read_one(",,7,bad_row,\"1,\"\"5\"\"\"\" disk\"\"\",so");
    assert_eq!(row.input.as_str(), r#""1,\"5\"\" disk\"""#);
    // Codes that were emptied correct nothing.
    let row = read_one(",,7,,\"1,a\"\"b\",so");
    let empty = "record 1 (line 2 of the file) was rejected before, and its fields are empty, but its rowmill_text is not: fill in its fields, or empty its \
                 rowmill_text if they are to be empty; the first reason: so";
    assert_eq!((row.input.as_str(), row.rejected.as_deref()), (r#""1,a\"b""#, Some(empty)));
    assert_eq!(read_one(",,7,,,so").rejected, None);
    let row = read_one("1,2,7,,1,so");
    assert_eq!((line_of(&row), row.input.as_str(), row.rejected), (7, r#"{"a":"1","b":"2"}"#, None));
}

#[test]
fn a_value_that_begins_with_a_byte_order_mark_comes_back_from_a_list() {
    let mut list = b"a,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n".to_vec();
    crate::intake::write_record(&mut list, &["\u{feff}1", "3", "no", "", "so"]).unwrap();
    let row = read(String::from_utf8(list).unwrap()).unwrap().remove(0);
    assert_eq!((line_of(&row), row.input.as_str(), row.rejected), (3, "{\"a\":\"\u{feff}1\"}", None));
}

#[test]
fn a_list_whose_lines_cannot_be_read_is_refused() {
    let header = "a,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason";
    let error = |record: &str| refusal(format!("{header}\n{record}\n"));
    let number = "it must be a whole number from 1 to 4294967295; to number the rows anew, remove it from all of them";
    let list = "it is a list of failed rows, and";
    assert_eq!(error("1,,x,,y"), format!("{list} in line 2 the number of the row (rowmill_line) is empty: {number}"));
    for found in ["0", "1.0", "4294967296", "-1"] {
        assert_eq!(error(&format!("1,{found},x,,y")), format!("{list} in line 2 the number of the row (rowmill_line) is {found:?}: {number}"));
    }
    let short = format!("{list} the record in line 2 has 4 fields, but the header has 5: there each record has all columns of the header");
    assert_eq!(error("1,2,x,"), short);
    assert!(error("1,2,x,,a\"b").contains("the record in line 2 has a quote inside a field"));
}

#[test]
fn a_file_that_cannot_be_taken_says_what_and_where() {
    assert_eq!(refusal(""), "it is empty");
    assert_eq!(refusal("\n\n"), "it has only empty lines");
    assert_eq!(refusal("a,b\n"), "it has a header and no record");
    assert_eq!(refusal("a,b\n\n"), "it has a header and no record");
    assert_eq!(refusal("a,b,a\n1,2,3\n"), "columns 1 and 3 of its header are both named \"a\": give them different names");
    let utf8 = |line| format!("it is not UTF-8: line {line} has a byte that cannot be read as text; save it as UTF-8");
    assert_eq!(refusal(b"a\n1\n\xff\n"), utf8(3));
    assert_eq!(refusal(b"a\n1\n\"x\ny\n\xff\"\n"), utf8(5));
    assert_eq!(refusal("a\n1\n\"2\n3\n"), "it has a quote that is never closed: line 3 opens it");
    assert_eq!(refusal("a,b\n\"x\ny\",\"2\n3\n"), "it has a quote that is never closed: line 3 opens it");
    assert!(refusal("a\"b,c\n1,2\n").starts_with("its header, in line 1, has a quote inside a field"));
    assert!(refusal("\nsep=,\na,b\n1,2\n").starts_with("line 2 is sep=…"));
    assert!(refusal("sep=;\na;b\n1;2\n").starts_with("line 1 is sep=…"));
    assert_eq!(
        refusal("a;b;c\n1;2;3\n"),
        "its columns are separated by semicolons and not by commas: its header is 1 column with commas and 3 with semicolons; save it with commas, or convert it: \
         mlr --icsv --ifs semicolon --ocsv cat FILE"
    );
    let nul = |at, line| format!("it is not text: byte {at}, in line {line}, is NUL; if it is UTF-16, save it as UTF-8");
    for (file, at, line) in [("a\n1\0\n", 4, 2), ("a\n1\n\"x\ny\0\"\n", 9, 4), ("a\n1\nx\"\0\n", 7, 3), ("a\n1\n\"x\" \0\n", 9, 3)] {
        assert_eq!(refusal(file), nul(at, line), "{file:?}");
    }
}

#[test]
fn a_second_byte_order_mark_is_named() {
    let mark = "begins with a byte order mark, which stands only at the beginning of a file: were two files put together?";
    assert_eq!(faults("a,b\n1,2\n\u{feff}a,b\n3,4\n"), ["", mark, ""]);
    // A quote behind it begins no field, which is not the fault.
    assert_eq!(faults("a,b\n\u{feff}\"1\",2\n\u{feff}\n3,4\n"), [mark, mark, ""]);
    let header = |line| format!("its header, in line {line}, begins with a byte order mark, which stands only at the beginning of a file: remove it");
    for file in ["\n\u{feff}a,b\n1,2\n", "\r\n\u{feff}\"a\",b\r\n1,2\r\n", "\r\u{feff}a\r1\r", "\n\u{feff}\n1\n"] {
        assert_eq!(refusal(file), header(2), "{file:?}");
    }
    for (file, line) in [("\"\u{feff}a\",b\n1,2\n", 1), ("\n\n\"\u{feff}a\"\n1\n", 3)] {
        assert_eq!(refusal(file), format!("{} from the name of the first column", header(line)), "{file:?}");
    }
}

#[test]
fn a_header_has_all_columns_of_a_list_or_none() {
    let refused = |columns: &str| refusal(format!("a,{columns}\n1{}\n", ",1".repeat(columns.split(',').count())));
    let part = |found: &str, missing: &str| {
        format!(
            "its header has {found} of a list of failed rows, but not {missing}: put the columns of the list back, or, if the file is no such list, give its own \
             columns other names"
        )
    };
    assert_eq!(refused("rowmill_line"), part("rowmill_line", "rowmill_codes and rowmill_text and rowmill_reason"));
    assert_eq!(refused("rowmill_text"), part("rowmill_text", "rowmill_codes and rowmill_reason"));
    assert_eq!(refused("rowmill_reason,b"), part("rowmill_reason", "rowmill_codes and rowmill_text"));
    assert_eq!(refused("rowmill_reason,rowmill_line,rowmill_codes"), part("rowmill_line and rowmill_codes and rowmill_reason", "rowmill_text"));
    let near = |found: &str, meant: &str| {
        format!(
            "its header has the column {found:?}, which is nearly {meant}: name it {meant} if the file is a list of failed rows, else give it a name that is not \
             like it"
        )
    };
    assert_eq!(refused("Rowmill_Text"), near("Rowmill_Text", "rowmill_text"));
    assert_eq!(refused("rowmill_line,rowmill_code,rowmill_text,rowmill_reason"), near("rowmill_code", "rowmill_codes"));
    // The order is of no importance, and the lines may be missing.
    let rows = read("rowmill_reason,rowmill_text,a,rowmill_codes\nso,,1,x\nso,x\"y,,bad_row\n".replace("x\"y", "\"x\"\"y\"")).unwrap();
    assert_eq!((rows[0].input.as_str(), rows[1].input.as_str(), rows[1].rejected.is_some()), (r#"{"a":"1"}"#, r#""x\"y""#, true));
}

/// No part of a record of a list is larger than those that are written; each limit is reached.
#[test]
fn the_parts_of_a_record_of_a_list_have_limits() {
    const MIB: usize = 1 << 20;
    let record = |own: usize, codes: usize, text: usize, reason: usize| {
        let quotes = |count: usize| "\"\"".repeat(count);
        let [own, codes, text] = [own, codes, text].map(quotes);
        let reason = "r".repeat(reason);
        format!("a,rowmill_line,rowmill_codes,rowmill_text,rowmill_reason\n\"{own}\",3,\"bad_row;{codes}\",\"{text}\",\"{reason}\"\n")
    };
    let codes_max = 4 * MIB - "bad_row;".len();
    let rows = read(record(16 * MIB, codes_max, 16 * MIB, 4 * MIB)).unwrap();
    assert_eq!((line_of(&rows[0]), rows[0].input.as_str().len()), (3, 32 * MIB + 2));
    assert!(rows[0].rejected.as_ref().unwrap().len() < 5_000);
    for (own, codes, text, reason, said) in [
        (16 * MIB + 1, 0, 1, 0, "in the row in line 2 all of its own columns is larger than 16 MiB"),
        (1, 0, 16 * MIB + 1, 0, "in the row in line 2 rowmill_text is larger than 16 MiB"),
        (1, codes_max + 1, 1, 0, "in the row in line 2 rowmill_codes is larger than 4 MiB"),
        (1, 0, 1, 4 * MIB + 1, "in the row in line 2 rowmill_reason is larger than 4 MiB"),
    ] {
        let error = refusal(record(own, codes, text, reason));
        assert!(error.contains(said), "{error}");
    }
    // A row that is too large is measured without being made.
    let rows = read(format!("a\n\"{}\u{1}\u{7f}\\é\n\"\n", "\"\"".repeat(MIB))).unwrap();
    let bytes = r#"{"a":""}"#.len() + 2 * MIB + 6 + 1 + 2 + 2 + 2;
    assert!(rows[0].rejected.as_ref().unwrap().ends_with(&format!("it has {bytes} bytes as JSON")), "{:?}", rows[0].rejected);
}

#[test]
fn a_quote_or_record_that_swallows_a_large_file_is_found_early() {
    let open = |text: &'static [u8]| {
        let source = std::io::Read::chain(text, std::io::repeat(b'x'));
        CsvRows::open(Window::new(Vec::new(), 0, Box::new(source))).unwrap()
    };
    let mut rows = open(b"a\n1\n\"\n");
    rows.next_row().unwrap();
    let error = rows.next_row().unwrap_err().to_string();
    assert_eq!(error, "the quote that line 3 opens is not closed within 16 MiB: is its closing quote missing?");
    for text in [b"a\n1\n2".as_slice(), b"a\n1\n\"2\"\"", b"a\n1\n2\""] {
        let mut rows = open(text);
        rows.next_row().unwrap();
        let error = rows.next_row().unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("16 MiB"), "{error}");
    }
}

/// Each column is compared with all others at once. A header that is larger than a row can be is
/// refused.
#[test]
fn a_header_may_have_as_many_columns_as_fit_into_a_row() {
    let names = |count: usize| (0..count).map(|column| format!("c{column}")).collect::<Vec<_>>().join(",");
    let file = |count: usize| format!("{}\n{}\n", names(count), ",".repeat(count - 1));
    assert_eq!(read(file(50_000)).unwrap().len(), 1);
    let error = refusal(file(300_000));
    assert_eq!(error, "its header has 300000 columns, and a row with all their names would be larger than 1 MiB");
    // A record of more fields than are kept has them all in its text.
    let wide = format!("a,b\n{}\n", ",".repeat(300_000));
    let rows = read(&wide).unwrap();
    assert!(rows[0].rejected.as_deref().unwrap().contains("has 300001 fields") && rows[0].input.as_str().len() == 300_002);
}

#[test]
fn the_end_stays_the_end() {
    for file in ["a\n1\n", "a,b\n1,2\n\n\n"] {
        let mut rows = open(file.as_bytes()).unwrap();
        assert!(rows.next_row().unwrap().is_some());
        assert!(rows.next_row().unwrap().is_none() && rows.next_row().unwrap().is_none());
    }
}
