//! Checkers of files.

use rowmill::model::{Ending, JsonText, Limits, Line, NewRow};
use rowmill::sandbox::{CheckError, CheckSession, CheckSpec, CheckedFile, Checker, LoadError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::guests;
use crate::support::sessions::{bare, limits, sandbox};
use crate::support::wat::{RETURNED, Wat};

const COLUMNS: [&str; 8] = ["id", "date", "type", "account", "to_account", "amount", "currency", "memo"];

pub fn checker(wasm: &[u8]) -> Checker {
    sandbox().load_checker(wasm).unwrap()
}

pub fn spec(limits: Limits) -> CheckSpec {
    let file = CheckedFile {
        name: "t.csv".to_owned(),
        size_bytes: 1 << 40,
        sha256: "0".repeat(64),
        form: "csv".to_owned(),
        columns: COLUMNS.map(str::to_owned).to_vec(),
        context: JsonText::check(r#"{"branch":"north"}"#).unwrap(),
    };
    CheckSpec { app: "bank".to_owned(), op: "validate".to_owned(), file, limits, cancel: CancellationToken::new() }
}

async fn begin(checker: &Checker) -> CheckSession {
    CheckSession::begin(checker, spec(limits())).await.unwrap()
}

fn row(line: u32, kind: &str, id: &str, amount: &str) -> NewRow {
    let record = json!({"id": id, "date": "", "type": kind, "account": "", "to_account": "", "amount": amount, "currency": "eur", "memo": ""});
    NewRow::new(line, JsonText::check(record.to_string()).unwrap())
}

#[tokio::test]
async fn a_checker_makes_rows_and_a_context_of_a_file() {
    let mut session = begin(&checker(&guests::read("transactions-check"))).await;
    let first = session.check_records(&[row(1, "deposit", "a", "1.50"), row(2, "payment", "b", "2")]).await.unwrap();
    let second = session.check_records(&[row(3, "total", "2", "3.5")]).await.unwrap();
    assert_eq!((first.len(), first[1].line, second.len()), (2, Line::Given(2), 0));
    let input: Value = serde_json::from_str(first[0].input.as_str()).unwrap();
    assert_eq!((&input["currency"], &input["id"]), (&"EUR".into(), &"a".into()));
    let context: Value = serde_json::from_str(session.end().await.unwrap().as_str()).unwrap();
    assert_eq!(context, json!({"branch": "north", "transactions": 2, "total": "3.50"}));
}

#[tokio::test]
async fn a_checker_refuses_a_file_at_its_beginning_in_its_middle_and_at_its_end() {
    let checker = checker(&guests::read("transactions-check"));
    let refused = |error: CheckError| match error {
        CheckError::Refused(findings) => findings.into_iter().map(|finding| (finding.line, finding.message.code)).collect::<Vec<_>>(),
        CheckError::Stopped(ending) => panic!("{ending:?}"),
    };
    let mut other = spec(limits());
    other.file.columns.pop();
    assert_eq!(refused(CheckSession::begin(&checker, other).await.err().unwrap()), [(None, "column-missing".to_owned())]);
    let mut session = begin(&checker).await;
    assert_eq!(refused(session.check_records(&[row(7, "total", "1", "0")]).await.unwrap_err()), [(Some(7), "count-differs".to_owned())]);
    let session = begin(&checker).await;
    assert_eq!(refused(session.end().await.unwrap_err()), [(None, "trailer-missing".to_owned())]);
    let mut session = begin(&checker).await;
    let ragged = NewRow { rejected: Some("3 fields".to_owned()), ..row(1, "", "", "") };
    assert_eq!(refused(session.check_records(&[ragged]).await.unwrap_err()), [(Some(1), "unreadable".to_owned())]);
}

/// Zeros are a success: no rows, and no context of its own.
#[tokio::test]
async fn a_checker_that_says_nothing_leaves_the_context_as_it_is() {
    let mut session = begin(&checker(&Wat::file_check().module())).await;
    assert!(session.check_records(&[row(1, "", "", "")]).await.unwrap().is_empty());
    assert_eq!(session.end().await.unwrap().as_str(), r#"{"branch":"north"}"#);
}

#[tokio::test]
async fn a_checker_is_bounded_like_any_other_guest() {
    let endless = "(loop $again (br $again))";
    let little = Limits { fuel: 1_000_000, ..limits() };
    let stopped = |error: CheckError| match error {
        CheckError::Stopped(ending) => ending,
        CheckError::Refused(findings) => panic!("{findings:?}"),
    };
    let looping = checker(&Wat::file_check().body("check-records", endless).module());
    let mut session = CheckSession::begin(&looping, spec(little.clone())).await.unwrap();
    let ending = stopped(session.check_records(&[row(1, "", "", "")]).await.unwrap_err());
    assert_eq!(bare(ending), Ending::OutOfFuel { used: 1_000_000, limit: 1_000_000, frames: vec![] });
    let looping = checker(&Wat::file_check().body("end", endless).module());
    let session = CheckSession::begin(&looping, spec(little.clone())).await.unwrap();
    assert_eq!(bare(stopped(session.end().await.unwrap_err())), Ending::OutOfFuel { used: 10_000_000, limit: 10_000_000, frames: vec![] });
    let looping = checker(&Wat::file_check().body("begin", endless).module());
    assert!(matches!(stopped(CheckSession::begin(&looping, spec(little)).await.err().unwrap()), Ending::OutOfFuel { .. }));
    let trapping = checker(&Wat::file_check().body("check-records", "(unreachable)").module());
    let ending = stopped(begin(&trapping).await.check_records(&[]).await.unwrap_err());
    assert!(matches!(&ending, Ending::Trap { frames, .. } if frames == &["file-check/check-records"]), "{ending:?}");
    let greedy = checker(&Wat::file_check().body("begin", "(drop (memory.grow (i32.const 2048)))").module());
    let ending = stopped(CheckSession::begin(&greedy, spec(limits())).await.err().unwrap());
    assert!(matches!(ending, Ending::Memory { limit_bytes: 67_108_864, .. }), "{ending:?}");
}

#[tokio::test]
async fn rows_and_contexts_that_cannot_be_kept_are_refused() {
    let store = |offset: u32, value: u32| format!("(i32.store (i32.const {}) (i32.const {value}))", RETURNED + offset);
    // One row at address 0, where there are zeros: line 0.
    let rows = checker(&Wat::file_check().body("check-records", &format!("{} {}", store(4, 1024), store(8, 1))).module());
    let error = begin(&rows).await.check_records(&[]).await.unwrap_err();
    assert_eq!(error, CheckError::Stopped(Ending::BadOutput { reason: "a row that it made has line 0; lines are 1 to 2147483647".to_owned() }));
    // A finding at address 1024 with this number at an offset: its line, which is there, or the id of its message.
    let finding = async |offset: u32| {
        let number = format!("(i32.store (i32.const {}) (i32.const -1)) (i32.store (i32.const 1024) (i32.const 1))", 1024 + offset);
        let body = format!("{number} {} {} {}", store(0, 1), store(4, 1024), store(8, 1));
        begin(&checker(&Wat::file_check().body("check-records", &body).module())).await.check_records(&[]).await.unwrap_err()
    };
    let refusal = |reason: &str| CheckError::Stopped(Ending::BadOutput { reason: reason.to_owned() });
    assert_eq!(finding(4).await, refusal("a finding has line 4294967295; lines are 1 to 2147483647"));
    assert_eq!(finding(8).await, refusal("the id of a message is 4294967295 (-1 in JavaScript); an id is 0 to 2147483647"));
    let context =
        checker(&Wat::file_check().fields("(data (i32.const 2048) \"{oops\")").body("end", &format!("{} {}", store(4, 2048), store(8, 5))).module());
    let CheckError::Stopped(Ending::BadOutput { reason }) = begin(&context).await.end().await.unwrap_err() else { panic!() };
    assert!(reason.starts_with("the context that it made is not valid JSON"), "{reason}");
}

#[test]
fn a_checker_is_no_processor_and_a_processor_no_checker() {
    let wasm = guests::read("transactions-check");
    let error = sandbox().load(&wasm).err().unwrap().to_string();
    assert!(error.contains("this component is no processor") && error.contains("rowmill:jobs/file-check@0.1.0"), "{error}");
    let error = sandbox().load_checker(&guests::read("bank-transactions")).err().unwrap();
    assert!(matches!(&error, LoadError::NoChecker { exports } if exports.contains("rowmill:jobs/batch@0.1.0")), "{error}");
}
