//! What is to become of a transaction, by the documented rules.

/// The columns of the file.
pub const COLUMNS: [&str; 8] = ["id", "date", "type", "account", "to_account", "amount", "currency", "memo"];

/// What is to become of one record.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    Good {
        change_cents: i64,
        fee_cents: i64,
        /// Lines of postings.csv.
        postings: Vec<String>,
    },
    /// The codes, in the order of the columns.
    Bad(Vec<&'static str>),
}

/// `record` has the fields of [`COLUMNS`].
pub fn expect(line: u64, record: &csv::StringRecord) -> Expected {
    let [id, date, kind, account, to_account, amount, currency, memo] = std::array::from_fn(|column| &record[column]);
    let mut codes = Vec::new();
    if id.trim().is_empty() {
        codes.push("id-missing");
    }
    if !date_exists(date) {
        codes.push("date-malformed");
    }
    let known = ["deposit", "withdrawal", "transfer", "payment"].contains(&kind);
    if !known {
        codes.push("type-unknown");
    }
    if !account_fits(account) {
        codes.push("account-malformed");
    }
    if kind == "transfer" {
        if to_account.is_empty() {
            codes.push("to-account-missing");
        } else if !account_fits(to_account) {
            codes.push("to-account-malformed");
        } else if to_account == account {
            codes.push("to-account-same");
        }
    } else if known && !to_account.is_empty() {
        codes.push("to-account-unexpected");
    }
    let cents = cents_of(amount);
    match cents {
        None => codes.push("amount-malformed"),
        Some(..=0) => codes.push("amount-not-positive"),
        Some(100_000_001..) => codes.push("amount-too-large"),
        Some(_) => {}
    }
    if !["EUR", "USD", "GBP"].contains(&currency) {
        codes.push("currency-unknown");
    }
    if kind == "payment" && memo.trim().is_empty() {
        codes.push("memo-missing");
    }
    let (true, Some(cents)) = (codes.is_empty(), cents) else { return Expected::Bad(codes) };
    let change_cents = if kind == "deposit" { cents } else { -cents };
    let fee_cents = match kind {
        "transfer" => 25,
        // 0.25 %, half a cent rounded up.
        "payment" => (cents + 200) / 400,
        _ => 0,
    };
    let quoted = quote(id);
    let mut postings = vec![format!("{line},{quoted},{account},{change_cents},{currency}")];
    if kind == "transfer" {
        postings.push(format!("{line},{quoted},{to_account},{cents},{currency}"));
    }
    Expected::Good { change_cents, fee_cents, postings }
}

/// The line of rejects.csv for a bad record.
pub fn reject(line: u64, id: &str, codes: &[&str]) -> String {
    format!("{line},{},{}", quote(id), codes.join(";"))
}

fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

fn date_exists(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let right_digits =
        [(year, 4), (month, 2), (day, 2)].iter().all(|(part, length)| part.len() == *length && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !right_digits {
        return false;
    }
    let (year, month, day): (u32, u32, u32) = (year.parse().unwrap_or(0), month.parse().unwrap_or(0), day.parse().unwrap_or(0));
    let february = if year % 400 == 0 || (year % 4 == 0 && year % 100 != 0) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    year > 0 && (1..=12).contains(&month) && day >= 1 && day <= lengths[month as usize - 1]
}

fn account_fits(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    characters.len() == 12
        && characters.iter().enumerate().all(|(at, character)| if at < 2 { character.is_ascii_uppercase() } else { character.is_ascii_digit() })
}

/// An amount in cents; none when it is no amount.
fn cents_of(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, places) = match digits.split_once('.') {
        Some((whole, places)) if places.len() == 1 || places.len() == 2 => (whole, format!("{places:0<2}")),
        Some(_) => return None,
        None => (digits, "00".to_owned()),
    };
    let all = format!("{whole}{places}");
    if whole.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What does not fit is far above the largest amount.
    Some(sign * all.parse::<i64>().unwrap_or(i64::MAX))
}
