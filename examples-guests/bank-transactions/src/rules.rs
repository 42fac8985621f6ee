//! What a good transaction is.

use rowmill_guest::Message;
use serde::{Deserialize, Serialize};

/// The largest amount, in cents: 1,000,000.00.
pub const AMOUNT_MAX_CENTS: u64 = 100_000_000;

const CURRENCIES: [&str; 3] = ["EUR", "USD", "GBP"];

/// A transaction as it was submitted.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    /// The submitter's own name for it; not blank.
    pub id: String,
    /// A day of the calendar, `YYYY-MM-DD`.
    pub date: String,
    /// One of the [`Kind`]s.
    #[serde(rename = "type")]
    pub kind: String,
    /// Two capital letters and ten digits.
    pub account: String,
    /// For a transfer another account, else empty.
    #[serde(default)]
    pub to_account: String,
    /// Digits, then up to two places behind a point. More than zero, at most [`AMOUNT_MAX_CENTS`] or the batch's own limit.
    pub amount: String,
    /// `EUR`, `USD` or `GBP`.
    pub currency: String,
    /// Any text; a payment must have one.
    #[serde(default)]
    pub memo: String,
}

/// The kinds of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Money comes in.
    Deposit,
    /// Money goes out.
    Withdrawal,
    /// Money goes to another account.
    Transfer,
    /// Money goes to someone who is named in the memo.
    Payment,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "deposit" => Some(Self::Deposit),
            "withdrawal" => Some(Self::Withdrawal),
            "transfer" => Some(Self::Transfer),
            "payment" => Some(Self::Payment),
            _ => None,
        }
    }
}

/// Checks a transaction against every rule. `cap` is the largest amount in cents, at most [`AMOUNT_MAX_CENTS`].
///
/// # Errors
/// One message for each problem, in the order of the fields. The rules that depend on the kind are left out when the kind is unknown.
pub fn check(transaction: &Transaction, cap: u64) -> Result<(Kind, i64), Vec<Message>> {
    let Transaction { id, date, kind, account, to_account, amount, currency, memo } = transaction;
    let mut problems = Vec::new();
    let mut problem = |id, code: &str, field: &str, value: &str| problems.push(Message::new(code).id(id).field(field).value(value));

    if id.trim().is_empty() {
        problem(1, "id-missing", "id", id);
    }
    if !is_date(date) {
        problem(2, "date-malformed", "date", date);
    }
    let parsed_kind = Kind::parse(kind);
    if parsed_kind.is_none() {
        problem(3, "type-unknown", "type", kind);
    }
    if !is_account(account) {
        problem(4, "account-malformed", "account", account);
    }
    match parsed_kind {
        Some(Kind::Transfer) if to_account.is_empty() => problem(5, "to-account-missing", "to_account", to_account),
        Some(Kind::Transfer) if !is_account(to_account) => problem(6, "to-account-malformed", "to_account", to_account),
        Some(Kind::Transfer) if to_account == account => problem(7, "to-account-same", "to_account", to_account),
        Some(Kind::Deposit | Kind::Withdrawal | Kind::Payment) if !to_account.is_empty() => {
            problem(8, "to-account-unexpected", "to_account", to_account);
        }
        _ => {}
    }
    let parsed_amount = parse_cents(amount);
    match parsed_amount {
        None => problem(9, "amount-malformed", "amount", amount),
        Some(Amount { negative, cents }) if negative || cents == 0 => problem(10, "amount-not-positive", "amount", amount),
        Some(Amount { cents, .. }) if cents > cap => problem(11, "amount-too-large", "amount", amount),
        Some(_) => {}
    }
    if !CURRENCIES.contains(&currency.as_str()) {
        problem(12, "currency-unknown", "currency", currency);
    }
    if parsed_kind == Some(Kind::Payment) && memo.trim().is_empty() {
        problem(13, "memo-missing", "memo", memo);
    }

    match (parsed_kind, parsed_amount) {
        // Below the cap, so far below the largest i64.
        (Some(kind), Some(amount)) if problems.is_empty() => Ok((kind, amount.cents.cast_signed())),
        _ => Err(problems),
    }
}

/// The digits of `YYYY-MM-DD`, when they name a day that exists. The first year is 1.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *bytes else { return false };
    let digits = [y1, y2, y3, y4, m1, m2, d1, d2];
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    let (year, month, day) = (number(&digits[..4]), number(&digits[4..6]), number(&digits[6..]));
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    year >= 1 && (1..=days).contains(&day)
}

fn is_account(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 12 && bytes[..2].iter().all(u8::is_ascii_uppercase) && bytes[2..].iter().all(u8::is_ascii_digit)
}

#[derive(Debug, Clone, Copy)]
struct Amount {
    negative: bool,
    cents: u64,
}

/// Reads an amount without going through floating point, which cannot hold cents. What is beyond u64 stays at its end, which is too large anyway.
fn parse_cents(text: &str) -> Option<Amount> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, places) = text.split_once('.').unwrap_or((text, "00"));
    if whole.is_empty() || !matches!(places.len(), 1 | 2) {
        return None;
    }
    let mut cents = 0_u64;
    for byte in whole.bytes().chain(places.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        cents = cents.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    }
    if places.len() == 1 {
        cents = cents.saturating_mul(10);
    }
    Some(Amount { negative, cents })
}
