use super::*;
use rowmill_guest::testing;
use serde_json::{Value, json};

/// The output of each row, or the code and the field of its message.
fn merge(rows: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let context = json!({"subject": "News for {name}", "text": "Dear {name},\nyou have {balance}."});
    let rows = testing::Batch::<MailMerge>::new().context(context).run_rows(rows);
    let told = |row: &testing::Answer| row.messages.first().map(|message| json!([message.code, message.field]));
    rows.iter().map(|row| told(row.answer()).unwrap_or_else(|| row.answer().output.clone())).collect()
}

#[test]
fn a_mail_is_made_from_the_templates_and_the_row() {
    let made = merge([json!({"email": "a@example.com", "name": "Jürgen", "balance": "{3}"})]);
    assert_eq!(made, [json!({"to": "a@example.com", "subject": "News for Jürgen", "text": "Dear Jürgen,\nyou have {3}."})]);
}

#[test]
fn a_row_without_what_a_mail_needs_fails() {
    let rows = [
        json!({"name": "A", "balance": "1"}),
        json!({"email": "", "name": "A", "balance": "1"}),
        json!({"email": "a@example.com", "name": "A"}),
        json!({"email": "a@example.com", "balance": "1"}),
    ];
    let codes = [json!(["address-missing", "email"]), json!(["field-missing", "balance"]), json!(["field-missing", "name"])];
    assert_eq!(merge(rows), [&codes[0], &codes[0], &codes[1], &codes[2]].map(Clone::clone));
}

#[test]
fn addresses_are_looked_at() {
    for address in ["a@example.com", "a.b+c@mail.example.com", "A_1@x-y.org"] {
        assert!(is_address(address), "{address}");
    }
    for address in [
        "a",
        "a@b",
        "@example.com",
        "a@",
        "a@@example.com",
        "a b@example.com",
        "a@example.com\r\nBcc: b@example.com",
        "a@.com",
        "a..b@x.de",
        "ü@x.de",
    ] {
        assert!(!is_address(address), "{address}");
    }
}
