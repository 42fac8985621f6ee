//! What the example `bank-transactions` must say about a record, written from its documentation.

use jiff::civil::Date;

pub const COLUMNS: [&str; 8] = ["id", "date", "type", "account", "to_account", "amount", "currency", "memo"];
pub const ID: usize = 0;
pub const DATE: usize = 1;
pub const TYPE: usize = 2;
pub const ACCOUNT: usize = 3;
pub const TO_ACCOUNT: usize = 4;
pub const AMOUNT: usize = 5;
pub const CURRENCY: usize = 6;
pub const MEMO: usize = 7;

/// 1,000,000.00.
const AMOUNT_MAX_CENTS: i64 = 100_000_000;

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Good(Effect),
    /// Every problem, in the order of the columns.
    Bad(Vec<Problem>),
    /// It has not as many fields as the header, and is not run.
    Ragged,
}

/// What a good record does.
#[derive(Debug, PartialEq, Eq)]
pub struct Effect {
    /// Of the account.
    pub change_cents: i64,
    pub fee_cents: i64,
    /// Of the other account of a transfer.
    pub counter_cents: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    pub code: &'static str,
    /// The index of the column it is about.
    pub column: usize,
}

/// Judges the fields of a record.
pub fn judge(fields: &[&str]) -> Verdict {
    let &[id, date, kind, account, to_account, amount, currency, memo] = fields else { return Verdict::Ragged };
    let amount = read_amount(amount);
    let codes = [
        (ID, is_blank(id).then_some("id-missing")),
        (DATE, (!names_a_day(date)).then_some("date-malformed")),
        (TYPE, (!["deposit", "withdrawal", "transfer", "payment"].contains(&kind)).then_some("type-unknown")),
        (ACCOUNT, (!is_account(account)).then_some("account-malformed")),
        (TO_ACCOUNT, to_account_problem(kind, account, to_account)),
        (AMOUNT, amount.err()),
        (CURRENCY, (!["EUR", "USD", "GBP"].contains(&currency)).then_some("currency-unknown")),
        (MEMO, (kind == "payment" && is_blank(memo)).then_some("memo-missing")),
    ];
    let problems: Vec<_> = codes.into_iter().filter_map(|(column, code)| Some(Problem { code: code?, column })).collect();
    match amount {
        Ok(cents) if problems.is_empty() => Verdict::Good(effect(kind, cents)),
        _ => Verdict::Bad(problems),
    }
}

/// What a transaction of a known type and this amount does.
pub fn effect(kind: &str, cents: i64) -> Effect {
    match kind {
        "deposit" => Effect { change_cents: cents, fee_cents: 0, counter_cents: None },
        "transfer" => Effect { change_cents: -cents, fee_cents: 25, counter_cents: Some(cents) },
        // A quarter of a percent: one in 400, rounded half up.
        "payment" => Effect { change_cents: -cents, fee_cents: cents / 400 + i64::from(cents % 400 >= 200), counter_cents: None },
        _ => Effect { change_cents: -cents, fee_cents: 0, counter_cents: None },
    }
}

fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

fn names_a_day(text: &str) -> bool {
    let shape = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).eq("9999-99-99".chars());
    if !shape {
        return false;
    }
    let part = |range| text.get(range).and_then(|digits: &str| digits.parse::<i16>().ok()).unwrap_or(-1);
    let small = |number| i8::try_from(number).unwrap_or(-1);
    part(0..4) > 0 && Date::new(part(0..4), small(part(5..7)), small(part(8..10))).is_ok()
}

fn is_account(text: &str) -> bool {
    let letters = text.chars().take_while(char::is_ascii_uppercase).count();
    letters == 2 && text.len() == 12 && text.chars().skip(2).all(|c| c.is_ascii_digit())
}

fn to_account_problem(kind: &str, account: &str, to_account: &str) -> Option<&'static str> {
    match kind {
        "transfer" if to_account.is_empty() => Some("to-account-missing"),
        "transfer" if !is_account(to_account) => Some("to-account-malformed"),
        "transfer" if to_account == account => Some("to-account-same"),
        "deposit" | "withdrawal" | "payment" if !to_account.is_empty() => Some("to-account-unexpected"),
        _ => None,
    }
}

/// The amount in cents, or what is wrong with it.
fn read_amount(text: &str) -> Result<i64, &'static str> {
    const MALFORMED: &str = "amount-malformed";
    let unsigned = text.trim_start_matches('-');
    let signs = text.len() - unsigned.len();
    let parts: Vec<&str> = unsigned.split('.').collect();
    let (whole, places) = match parts[..] {
        [whole] => (whole, "00".to_owned()),
        [whole, places] if matches!(places.len(), 1 | 2) => (whole, format!("{places:0<2}")),
        _ => return Err(MALFORMED),
    };
    let digits = format!("{whole}{places}");
    if signs > 1 || whole.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(MALFORMED);
    }
    if signs == 1 || digits.chars().all(|c| c == '0') {
        return Err("amount-not-positive");
    }
    // What has more digits than an i64 is too large, too.
    digits.parse().ok().filter(|cents| *cents <= AMOUNT_MAX_CENTS).ok_or("amount-too-large")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(changes: &[(usize, &'static str)]) -> String {
        let mut fields = ["T1", "2024-02-29", "deposit", "DE0123456789", "", "12.3", "EUR", ""];
        for (column, text) in changes {
            fields[*column] = text;
        }
        match judge(&fields) {
            Verdict::Bad(problems) => {
                problems.iter().map(|problem| format!("{}:{}", COLUMNS[problem.column], problem.code)).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_good_record_has_an_effect() {
        assert_eq!(codes(&[]), "Good(Effect { change_cents: 1230, fee_cents: 0, counter_cents: None })");
        assert_eq!(
            codes(&[(TYPE, "transfer"), (TO_ACCOUNT, "FR0000000001")]),
            "Good(Effect { change_cents: -1230, fee_cents: 25, counter_cents: Some(1230) })"
        );
        assert_eq!(codes(&[(TYPE, "payment"), (MEMO, "x"), (AMOUNT, "2")]), "Good(Effect { change_cents: -200, fee_cents: 1, counter_cents: None })");
    }

    #[test]
    fn problems_are_found() {
        assert_eq!(codes(&[(ID, "\t"), (CURRENCY, "eur")]), "id:id-missing currency:currency-unknown");
        for date in ["2023-02-29", "2024-00-01", "2024-04-31", "0000-01-01", "24-01-01", "2024-01-011", "2024/01/01"] {
            assert_eq!(codes(&[(DATE, date)]), "date:date-malformed", "{date}");
        }
        for account in ["de0123456789", "DE012345678", "DEX123456789", "DE01234567890"] {
            assert_eq!(codes(&[(ACCOUNT, account)]), "account:account-malformed", "{account}");
        }
        assert_eq!(codes(&[(TYPE, "gift"), (TO_ACCOUNT, "x")]), "type:type-unknown");
        assert_eq!(codes(&[(TYPE, "transfer")]), "to_account:to-account-missing");
        assert_eq!(codes(&[(TYPE, "transfer"), (TO_ACCOUNT, "DE0123456789")]), "to_account:to-account-same");
        assert_eq!(codes(&[(TYPE, "transfer"), (TO_ACCOUNT, "DE")]), "to_account:to-account-malformed");
        assert_eq!(codes(&[(TO_ACCOUNT, "DE")]), "to_account:to-account-unexpected");
        assert_eq!(codes(&[(TYPE, "payment")]), "memo:memo-missing");
        for amount in ["", "x", "1.", ".5", "1.234", "+1", "1,0", "--1", "1.2.3", "1. 2"] {
            assert_eq!(codes(&[(AMOUNT, amount)]), "amount:amount-malformed", "{amount}");
        }
        for amount in ["0", "-0", "0.00", "-7.5"] {
            assert_eq!(codes(&[(AMOUNT, amount)]), "amount:amount-not-positive", "{amount}");
        }
        for amount in ["1000000.01", "99999999999999999999999"] {
            assert_eq!(codes(&[(AMOUNT, amount)]), "amount:amount-too-large", "{amount}");
        }
    }

    #[test]
    fn the_number_of_fields_comes_first() {
        assert_eq!(judge(&["T1"]), Verdict::Ragged);
        assert_eq!(judge(&[""; 9]), Verdict::Ragged);
    }
}
