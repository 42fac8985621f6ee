use super::*;
use rowmill_guest::testing::{CheckedFile, FileCheck};
use serde_json::json;

fn transaction(id: &str, kind: &str, amount: &str) -> Value {
    json!({"id": id, "date": "2026-01-31", "type": kind, "account": "A", "to_account": "", "amount": amount, "currency": "eur", "memo": ""})
}

fn check(records: impl IntoIterator<Item = Value>) -> Result<CheckedFile, Rejection> {
    FileCheck::<TransactionsCheck>::new().context(json!({"branch": "north"})).check(records)
}

/// Lines, codes and values of a refusal.
fn findings(records: impl IntoIterator<Item = Value>) -> Vec<(Option<u32>, String, Vec<String>)> {
    check(records).unwrap_err().findings.into_iter().map(|finding| (finding.line, finding.message.code, finding.message.values)).collect()
}

#[test]
fn a_file_that_matches_its_trailer_becomes_rows_without_it() {
    let records = [
        transaction("1", "deposit", "10.50"),
        transaction("2", "payment", "-0.5"),
        transaction("3", "deposit", "much"),
        transaction("3", "total", "10.00"),
    ];
    let checked = check(records).unwrap();
    assert_eq!(
        checked.rows.iter().map(|(line, row)| (*line, &row["currency"])).collect::<Vec<_>>(),
        [(1, &"EUR".into()), (2, &"EUR".into()), (3, &"EUR".into())]
    );
    assert_eq!(checked.context, json!({"branch": "north", "transactions": 3, "total": "10.00"}));
}

#[test]
fn a_file_that_does_not_match_is_refused_with_what_was_said_and_found() {
    let found = findings([transaction("1", "deposit", "1"), transaction("2", "deposit", "2"), transaction("3", "total", "3.01")]);
    let differs = |code: &str, said: &str, found: &str| (Some(3), code.to_owned(), vec![said.to_owned(), found.to_owned()]);
    assert_eq!(found, [differs("count-differs", "3", "2"), differs("total-differs", "3.01", "3.00")]);
}

#[test]
fn a_file_that_was_cut_off_or_goes_on_is_refused() {
    assert_eq!(findings([transaction("1", "deposit", "1")]), [(None, "trailer-missing".to_owned(), vec![])]);
    let behind = findings([transaction("0", "total", "0"), transaction("1", "deposit", "1")]);
    assert_eq!(behind, [(Some(2), "behind-trailer".to_owned(), vec!["1".to_owned()])]);
}

#[test]
fn a_header_with_other_columns_is_refused() {
    let mut record = transaction("1", "deposit", "1");
    record.as_object_mut().unwrap().remove("memo");
    record["remark"] = "".into();
    let found = findings([record]);
    assert_eq!(found, [(None, "column-missing".to_owned(), vec!["memo".to_owned()]), (None, "column-unknown".to_owned(), vec!["remark".to_owned()])]);
}

#[test]
fn a_record_that_cannot_be_read_refuses_the_file() {
    let records = [Ok(transaction("1", "deposit", "1")), Err("record 2 has 3 fields".to_owned())];
    let refused = FileCheck::<TransactionsCheck>::new().check_some(records).unwrap_err();
    assert_eq!((refused.findings[0].line, refused.findings[0].message.code.as_str()), (Some(2), "unreadable"));
}

#[test]
fn amounts_are_read_to_the_cent() {
    assert_eq!(["1", "1.2", "-1.23", "0.05"].map(cents), [Some(100), Some(120), Some(-123), Some(5)]);
    assert_eq!(["", ".5", "1.234", "1e3", "+1", "1,0"].map(cents), [None; 6]);
    assert_eq!([5, -5, 12_345].map(amount), ["0.05", "-0.05", "123.45"]);
}
