//! The text of a statement.

use std::fmt::Write;

/// The memo's column, in characters. What is longer is cut, with a mark.
const MEMO_WIDTH: usize = 36;

/// The lines above the transactions.
pub fn head(account: &str, from: &str, to: &str, opening_cents: i64) -> String {
    let mut text = format!("Statement of {account}, {from} to {to}\n{:<10}  {:<MEMO_WIDTH$}  {:>16}  {:>16}\n", "Date", "Memo", "Amount", "Balance");
    push_line(&mut text, from, "Opening balance", None, opening_cents);
    text
}

/// Adds the line of a transaction, or of a balance, which has no amount.
pub fn push_line(text: &mut String, date: &str, memo: &str, amount_cents: Option<i64>, balance_cents: i64) {
    let amount = amount_cents.map(decimal).unwrap_or_default();
    writeln!(text, "{date}  {:<MEMO_WIDTH$}  {amount:>16}  {:>16}", column(memo), decimal(balance_cents)).expect("a String takes any text");
}

/// A memo that fits its column and stays on its line.
fn column(memo: &str) -> String {
    let mut column: String = memo.chars().take(MEMO_WIDTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if memo.chars().nth(MEMO_WIDTH).is_some() {
        column.pop();
        column.push('…');
    }
    column
}

/// Cents as a decimal number with thousands apart: `-1,234.05`.
fn decimal(cents: i64) -> String {
    let whole = (cents.unsigned_abs() / 100).to_string();
    let mut text = String::from(if cents < 0 { "-" } else { "" });
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    write!(text, ".{:02}", cents.unsigned_abs() % 100).expect("a String takes any text");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_are_shown_as_decimals() {
        let shown = [0, 5, -5, 99_999, -100_000, 123_456_789, i64::MIN].map(decimal);
        assert_eq!(shown, ["0.00", "0.05", "-0.05", "999.99", "-1,000.00", "1,234,567.89", "-92,233,720,368,547,758.08"]);
    }

    #[test]
    fn memos_stay_in_their_column() {
        assert_eq!(column("two\nlines"), "two lines");
        let long = column(&"é".repeat(50));
        assert_eq!((long.chars().count(), long.chars().last()), (MEMO_WIDTH, Some('…')));
    }
}
