use super::*;
use rowmill_guest::testing::SlowQuery;
use serde_json::{Value, json};

fn question(transactions: &Value) -> Value {
    json!({"account": "DE0123456789", "from": "2026-01-01", "to": "2026-01-31", "opening_cents": 100_000, "transactions": transactions})
}

fn statement() -> SlowQuery<AccountStatement> {
    SlowQuery::new().app("bank", "statement")
}

#[test]
fn a_statement_is_written() {
    let result = statement().run(question(&json!([
        {"date": "2026-01-31", "amount_cents": -120_050, "memo": "Rent, für Januar"},
        {"date": "2026-01-02", "amount_cents": 350, "memo": "Refund"},
        {"date": "2026-01-31", "amount_cents": 1_000_000},
        {"date": "2026-02-01", "amount_cents": 1, "memo": "next month"},
    ])));
    let expected = json!({
        "account": "DE0123456789", "opening_cents": 100_000, "credit_cents": 1_000_350, "debit_cents": -120_050,
        "closing_cents": 980_300, "transactions": 3, "outside": 1,
    });
    assert_eq!(result.answer().output, expected);
    assert_eq!(
        result.file("statement.txt"),
        "\
Statement of DE0123456789, 2026-01-01 to 2026-01-31
Date        Memo                                            Amount           Balance
2026-01-01  Opening balance                                                 1,000.00
2026-01-02  Refund                                            3.50          1,003.50
2026-01-31  Rent, für Januar                             -1,200.50           -197.00
2026-01-31                                               10,000.00          9,803.00
2026-01-31  Closing balance                                                 9,803.00
"
    );
    assert_eq!(result.progress, [(100, "3 of 3 transactions".to_owned())]);
}

#[test]
fn nothing_happened() {
    let result = statement().run(question(&json!([])));
    assert_eq!(result.answer().output["closing_cents"], 100_000);
    assert_eq!(result.file("statement.txt").lines().count(), 4);
}

#[test]
fn a_bad_question_is_answered_with_messages() {
    let mut bad = question(&json!([{"date": "2026-01-32", "amount_cents": 1}]));
    bad["account"] = json!("DE01");
    bad["from"] = json!("2026-02-30");
    let result = statement().run(&bad);
    assert_eq!(result.codes(), ["account-malformed", "date-malformed", "transaction-date-malformed"]);
    assert_eq!(result.answer().messages[2].field.as_deref(), Some("transactions[0].date"));

    let mut reversed = question(&json!([]));
    reversed["to"] = json!("2025-12-31");
    assert_eq!(statement().run(&reversed).codes(), ["range-reversed"]);

    reversed["opening_cents"] = json!("12");
    let result = statement().run(&reversed);
    assert_eq!(result.codes(), ["bad_input"]);
    assert_eq!(result.answer().messages[0].field.as_deref(), Some("opening_cents"));
}

#[test]
fn dates_must_exist() {
    assert!(["2024-02-29", "2026-12-31"].into_iter().all(is_date));
    assert!(!["2026-02-29", "2026-1-01", "2026-01-1x", "+026-01-01", "2026-01-001", "", "2026-0é-1"].into_iter().any(is_date));
}

#[test]
fn a_sum_that_is_too_large_is_told() {
    let result = statement().run(question(&json!([{"date": "2026-01-02", "amount_cents": i64::MAX}])));
    assert_eq!(result.codes(), ["balance-too-large"]);
}

#[test]
fn progress_is_told_until_it_is_cancelled() {
    let many: Vec<_> = (0..500).map(|n| json!({"date": "2026-01-05", "amount_cents": n})).collect();
    let progress: Vec<u8> = statement().run(question(&json!(many))).progress.iter().map(|(percent, _)| *percent).collect();
    assert_eq!(progress, [40, 80, 100]);

    let result = statement().cancelled_after(2).run(question(&json!(many)));
    assert_eq!(result.progress.len(), 2);
    assert!(matches!(result.result, Err(Failure::AbortBatch(_))));
}

#[test]
fn the_statement_is_read_back_when_the_query_is_done() {
    let result = statement().run(question(&json!([])));
    let text = result.file("statement.txt");
    let done = statement().mark_done(&result);
    assert_eq!(done.result, Ok(()));
    let said = format!(": {} lines, {} bytes", text.lines().count(), text.len());
    assert!(done.logs[0].text.starts_with("statement.txt of ") && done.logs[0].text.ends_with(&said), "{:?}", done.logs);
}
