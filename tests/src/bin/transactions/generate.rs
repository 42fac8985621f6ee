//! Transactions of every kind, good and bad.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use crate::rules::{ACCOUNT, AMOUNT, COLUMNS, CURRENCY, DATE, ID, MEMO, TO_ACCOUNT, TYPE, effect};
use rowmill_tests::random::Random;

/// What a right run over the file comes to.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    pub rows: u64,
    pub good: u64,
    pub bad: u64,
    /// What the good rows change their accounts by, less the fees. The other account of a transfer does not count.
    pub balance_cents: i64,
}

/// In how many ways a row can be bad.
const FAULTS: u64 = 17;

const MEMOS: [&str; 12] = [
    "rent",
    "groceries, weekly",
    "he said \"thanks\"",
    "Überweisung für Jürgen",
    "家賃 三月",
    "☕ & cake",
    "two\nlines",
    "semicolon; tab\t; backslash \\",
    " padded ",
    "</script>",
    "=1+1",
    "\"",
];

/// Writes `rows` transactions, exactly `bad` of them bad, with a header.
///
/// # Errors
/// When they cannot be written.
pub fn write_transactions(out: impl Write, rows: u64, bad: u64, seed: u64) -> anyhow::Result<Expected> {
    let mut random = Random::new(seed);
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(out);
    writer.write_record(COLUMNS).context("cannot write the header")?;
    let mut bad_left = bad;
    let mut balance_cents = 0;
    for index in 0..rows {
        let (mut fields, cents) = good_row(&mut random, index + 1);
        // Picks exactly `bad` rows, each with the same chance, without knowing them beforehand.
        if random.below(rows - index) < bad_left {
            // In turn, so that a small file has as many kinds as it can.
            spoil(&mut fields, &mut random, (bad - bad_left) % FAULTS);
            bad_left -= 1;
        } else {
            let effect = effect(&fields[TYPE], cents);
            balance_cents += effect.change_cents - effect.fee_cents;
        }
        writer.write_record(&fields).with_context(|| format!("cannot write row {}", index + 1))?;
    }
    writer.flush().context("cannot write the rows")?;
    Ok(Expected { rows, good: rows - bad, bad, balance_cents })
}

/// The fields of a good row, and its amount.
fn good_row(random: &mut Random, number: u64) -> (Vec<String>, i64) {
    let kind = random.pick(&["deposit", "withdrawal", "transfer", "payment"]);
    let account = account(random);
    let mut to_account = String::new();
    if kind == "transfer" {
        to_account = other_account(random, &account);
    }
    let (amount, cents) = amount(random);
    let memo = if kind == "payment" || random.below(4) == 0 { format!("{} {number}", random.pick(&MEMOS)) } else { String::new() };
    let id = if random.below(200) == 0 { format!("T{number}, \"copy\"") } else { format!("T{number:09}") };
    let currency = random.pick(&["EUR", "USD", "GBP"]).to_owned();
    (vec![id, date(random), kind.to_owned(), account, to_account, amount, currency, memo], cents)
}

fn account(random: &mut Random) -> String {
    format!("{}{:010}", random.pick(&["DE", "FR", "GB", "US"]), random.below(10_000_000_000))
}

fn other_account(random: &mut Random, account: &str) -> String {
    let mut other = self::account(random);
    while other == account {
        other = self::account(random);
    }
    other
}

fn date(random: &mut Random) -> String {
    match random.below(20) {
        0 => random.pick(&["2024-02-29", "2000-02-29", "2023-12-31", "2024-01-01", "0001-01-01", "9999-12-31"]).to_owned(),
        _ => format!("20{:02}-{:02}-{:02}", random.below(27), 1 + random.below(12), 1 + random.below(28)),
    }
}

/// An amount in one of the ways it can be written, and its cents. Mostly small, some at the limits.
fn amount(random: &mut Random) -> (String, i64) {
    let cents = match random.below(50) {
        0 => 1,
        1 => 100_000_000,
        2 => 1 + random.below(100_000_000),
        _ => 1 + random.below(100_000),
    };
    let (whole, places) = (cents / 100, cents % 100);
    let text = match places {
        0 if random.below(2) == 0 => format!("{whole}"),
        _ if places.is_multiple_of(10) && random.below(2) == 0 => format!("{whole}.{}", places / 10),
        _ => format!("{whole}.{places:02}"),
    };
    (text, i64::try_from(cents).expect("it is at most 100,000,000"))
}

/// Makes a row bad, in the way of that number below [`FAULTS`].
fn spoil(fields: &mut Vec<String>, random: &mut Random, fault: u64) {
    let mut set = |column: usize, text: &str| text.clone_into(&mut fields[column]);
    match fault {
        0 => set(ID, random.pick(&["", "   ", "\t"])),
        1 => set(DATE, random.pick(&["2023-02-29", "1900-02-29", "2024-13-05", "2024-04-31", "2024-00-10", "2024-10-00"])),
        2 => set(DATE, random.pick(&["31.12.2024", "2024-1-5", "", "yesterday", "2024-01-01T00:00", "0000-01-01"])),
        3 => set(TYPE, random.pick(&["refund", "Deposit", "", "transfer "])),
        4 => set(ACCOUNT, random.pick(&["de0123456789", "DE012345678", "DE01234567890", "0123456789DE", "", "ÄÖ0123456789"])),
        5 => {
            set(TYPE, "transfer");
            set(TO_ACCOUNT, "");
        }
        6 => {
            set(TYPE, "transfer");
            set(TO_ACCOUNT, random.pick(&["FR12", "FR 123456789", "-"]));
        }
        7 => {
            set(TYPE, "transfer");
            fields[TO_ACCOUNT] = fields[ACCOUNT].clone();
        }
        8 => {
            set(TYPE, random.pick(&["deposit", "withdrawal"]));
            fields[TO_ACCOUNT] = other_account(random, &fields[ACCOUNT]);
        }
        9 => set(AMOUNT, random.pick(&["12.345", "1,000.00", "abc", "", "5.", ".5", "+5", "1e3", "12 "])),
        10 => set(AMOUNT, random.pick(&["0", "0.00", "-0.0"])),
        11 => set(AMOUNT, &format!("-{}.{:02}", random.below(1000), random.below(100))),
        12 => set(AMOUNT, random.pick(&["1000000.01", "2000000", "99999999999999999999999999"])),
        13 => set(CURRENCY, random.pick(&["CHF", "eur", "", "EURO"])),
        14 => {
            set(TYPE, "payment");
            set(TO_ACCOUNT, "");
            set(MEMO, random.pick(&["", "  ", "\n"]));
        }
        15 => {
            // Several at once.
            set(ID, "");
            set(DATE, "never");
            set(AMOUNT, "-1");
            set(CURRENCY, "XXX");
        }
        // Ragged: a field too few or too many.
        _ if random.below(2) == 0 => drop(fields.pop()),
        _ => fields.push("one too many".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rules::{Verdict, judge};

    fn generated(rows: u64, bad: u64, seed: u64) -> (Vec<u8>, Expected) {
        let mut file = Vec::new();
        let expected = write_transactions(&mut file, rows, bad, seed).unwrap();
        (file, expected)
    }

    fn verdicts(file: &[u8]) -> Vec<Verdict> {
        let reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
        reader.into_records().map(|record| judge(&record.unwrap().iter().collect::<Vec<_>>())).collect()
    }

    #[test]
    fn a_file_depends_on_its_numbers_only() {
        assert_eq!(generated(500, 20, 7), generated(500, 20, 7));
        assert_ne!(generated(500, 20, 7).0, generated(500, 20, 8).0);
    }

    #[test]
    fn the_rules_agree_with_what_is_expected() {
        for (rows, bad) in [(3000, 300), (10, 0), (10, 10), (0, 0)] {
            let (file, expected) = generated(rows, bad, 3);
            let mut found = Expected { rows: 0, good: 0, bad: 0, balance_cents: 0 };
            for verdict in verdicts(&file) {
                found.rows += 1;
                match verdict {
                    Verdict::Good(effect) => {
                        found.good += 1;
                        found.balance_cents += effect.change_cents - effect.fee_cents;
                    }
                    Verdict::Bad(_) | Verdict::Ragged => found.bad += 1,
                }
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn every_kind_of_bad_row_is_there() {
        let (file, _) = generated(100, FAULTS, 1);
        let mut codes = BTreeSet::new();
        for verdict in verdicts(&file) {
            match verdict {
                Verdict::Good(_) => {}
                Verdict::Bad(problems) => codes.extend(problems.iter().map(|problem| problem.code)),
                Verdict::Ragged => drop(codes.insert("bad_row")),
            }
        }
        let all = [
            "account-malformed",
            "amount-malformed",
            "amount-not-positive",
            "amount-too-large",
            "bad_row",
            "currency-unknown",
            "date-malformed",
            "id-missing",
            "memo-missing",
            "to-account-malformed",
            "to-account-missing",
            "to-account-same",
            "to-account-unexpected",
            "type-unknown",
        ];
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), all);
    }
}
