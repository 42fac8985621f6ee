use super::*;
use rowmill_guest::testing::{self, RowResult};
use serde_json::{Value, json};

fn deposit() -> Value {
    json!({
        "id": "T1", "date": "2026-02-28", "type": "deposit", "account": "DE0123456789", "to_account": "",
        "amount": "12.3", "currency": "EUR", "memo": "",
    })
}

/// A deposit with some fields changed.
fn row(changes: &Value) -> Value {
    let mut row = deposit();
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row
}

fn run(rows: impl IntoIterator<Item = Value>) -> Vec<RowResult> {
    testing::Batch::<BankTransactions>::new().app("bank", "post").run_rows(rows)
}

#[test]
fn good_rows_are_posted() {
    let rows = run([
        deposit(),
        row(&json!({"id": "T,2", "type": "transfer", "to_account": "FR0000000001", "amount": "0.01", "currency": "USD"})),
        row(&json!({"type": "withdrawal", "amount": "1000000.00"})),
        row(&json!({"type": "payment", "amount": "2", "memo": "rent"})),
    ]);
    let answer = |kind, change: i64, fee: i64| json!({"id": "T1", "type": kind, "account": "DE0123456789", "change_cents": change, "fee_cents": fee});
    assert_eq!(rows[0].answer().output, answer("deposit", 1230, 0));
    let mut transfer = answer("transfer", -1, 25);
    transfer["id"] = json!("T,2");
    assert_eq!(rows[1].answer().output, transfer);
    assert_eq!(rows[2].answer().output, answer("withdrawal", -100_000_000, 0));
    assert_eq!(rows[3].answer().output, answer("payment", -200, 1));
    assert_eq!(
        testing::file(&rows, "postings.csv"),
        "1,T1,DE0123456789,1230,EUR\n\
         2,\"T,2\",DE0123456789,-1,USD\n\
         2,\"T,2\",FR0000000001,1,USD\n\
         3,T1,DE0123456789,-100000000,EUR\n\
         4,T1,DE0123456789,-200,EUR\n"
    );
    assert_eq!(testing::file(&rows, "rejects.csv"), "");
}

#[test]
fn every_problem_has_its_code() {
    let cases = [
        (json!({"id": " "}), "id-missing"),
        (json!({"date": "2026-02-29"}), "date-malformed"),
        (json!({"date": "1900-02-29"}), "date-malformed"),
        (json!({"date": "2026-13-01"}), "date-malformed"),
        (json!({"date": "2026-04-31"}), "date-malformed"),
        (json!({"date": "2026-00-10"}), "date-malformed"),
        (json!({"date": "0000-01-01"}), "date-malformed"),
        (json!({"date": "2026-1-1"}), "date-malformed"),
        (json!({"date": "2026-01-0é"}), "date-malformed"),
        (json!({"type": "Deposit"}), "type-unknown"),
        (json!({"type": "gift", "to_account": "anything"}), "type-unknown"),
        (json!({"account": "de0123456789"}), "account-malformed"),
        (json!({"account": "DE012345678"}), "account-malformed"),
        (json!({"type": "transfer"}), "to-account-missing"),
        (json!({"type": "transfer", "to_account": "X"}), "to-account-malformed"),
        (json!({"type": "transfer", "to_account": "DE0123456789"}), "to-account-same"),
        (json!({"to_account": "FR0000000001"}), "to-account-unexpected"),
        (json!({"amount": ""}), "amount-malformed"),
        (json!({"amount": "1.234"}), "amount-malformed"),
        (json!({"amount": "1."}), "amount-malformed"),
        (json!({"amount": ".5"}), "amount-malformed"),
        (json!({"amount": "+1"}), "amount-malformed"),
        (json!({"amount": "1e3"}), "amount-malformed"),
        (json!({"amount": "1,000"}), "amount-malformed"),
        (json!({"amount": "--1"}), "amount-malformed"),
        (json!({"amount": "0.00"}), "amount-not-positive"),
        (json!({"amount": "-0"}), "amount-not-positive"),
        (json!({"amount": "-5.5"}), "amount-not-positive"),
        (json!({"amount": "1000000.01"}), "amount-too-large"),
        (json!({"amount": "99999999999999999999999999"}), "amount-too-large"),
        (json!({"currency": "CHF"}), "currency-unknown"),
        (json!({"type": "payment", "memo": "\t"}), "memo-missing"),
    ];
    let rows = run(cases.iter().map(|(changes, _)| row(changes)));
    for ((changes, code), row) in cases.iter().zip(&rows) {
        assert_eq!(row.codes(), [*code], "{changes}");
        assert_ne!(row.answer().messages[0].id, 0);
    }
}

#[test]
fn all_problems_of_a_row_are_told() {
    let rows = run([row(&json!({"id": "", "date": "x", "type": "payment", "to_account": "y", "account": "z", "amount": "-1", "currency": "eur"}))]);
    let codes = rows[0].codes();
    assert_eq!(
        codes,
        ["id-missing", "date-malformed", "account-malformed", "to-account-unexpected", "amount-not-positive", "currency-unknown", "memo-missing"]
    );
    let amount = &rows[0].answer().messages[4];
    assert_eq!((amount.id, amount.field.as_deref(), amount.values.as_slice()), (10, Some("amount"), &["-1".to_owned()][..]));
    assert_eq!(testing::file(&rows, "rejects.csv"), format!("1,,{}\n", codes.join(";")));
    assert_eq!(rows[0].answer().output, json!({}));
}

#[test]
fn a_leap_day_is_a_day() {
    let rows = run([row(&json!({"date": "2024-02-29"})), row(&json!({"date": "2000-02-29"}))]);
    assert!(rows.iter().all(|row| row.codes().is_empty()));
}

#[test]
fn fees_are_rounded_half_up() {
    assert_eq!([199, 200, 599, 600, 100_000_000].map(|cents| fee(Kind::Payment, cents)), [0, 1, 1, 2, 250_000]);
}

#[test]
fn the_context_lowers_the_cap_only() {
    let batch = |cap: u64| testing::Batch::<BankTransactions>::new().context(json!({"max_amount_cents": cap}));
    let rows = [row(&json!({"amount": "10.00"})), row(&json!({"amount": "10.01"})), row(&json!({"amount": "1000000.01"}))];
    let codes = |rows: Vec<RowResult>| rows.iter().map(|row| row.codes().join(";")).collect::<Vec<_>>();
    assert_eq!(codes(batch(1000).run_rows(&rows)), ["", "amount-too-large", "amount-too-large"]);
    assert_eq!(codes(batch(u64::MAX).run_rows(&rows)), ["", "", "amount-too-large"]);
}

#[test]
fn a_row_that_is_not_a_transaction_is_bad_input() {
    let rows = run([json!({"id": 7}), json!(["T1"])]);
    assert_eq!(rows[0].codes(), ["bad_input"]);
    assert_eq!(rows[0].answer().messages[0].field.as_deref(), Some("id"));
    assert_eq!(rows[1].codes(), ["bad_input"]);
}

#[test]
fn the_end_is_logged() {
    let batch = testing::Batch::<BankTransactions>::new();
    let rows = batch.run_rows([deposit(), row(&json!({"id": ""}))]);
    let done = batch.mark_done(&rows);
    assert_eq!(done.result, Ok(()));
    assert_eq!(done.logs[0].text, "2 transactions: 1 posted, 1 rejected, 0 aborted");
}
