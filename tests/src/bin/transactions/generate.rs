//! Files of transactions, the same for the same seed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use crate::expect::COLUMNS;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).expect("below a length")]
    }
}

const MEMOS: [&str; 6] = ["rent", "Straße 7, Köln", "say \"thanks\"", "two\nlines", "発注 42", "a,b;c"];

/// Writes the file and, beside it, what is known of it: rows, good, bad, and the sum of the changes of all good rows in cents.
pub fn write_file(path: &Path, rows: u64, bad_share: f64, seed: u64) -> anyhow::Result<String> {
    anyhow::ensure!((0.0..=1.0).contains(&bad_share), "--bad is a share between 0 and 1");
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut writer = csv::Writer::from_writer(BufWriter::with_capacity(1 << 20, file));
    writer.write_record(COLUMNS)?;
    let mut random = Random(seed);
    let (mut bad, mut balance_cents, mut owed) = (0_u64, 0_i64, 0.0);
    for row in 1..=rows {
        let (mut record, change_cents) = good_record(row, &mut random);
        // Spread evenly, so that their number is known for any count of rows.
        owed += bad_share;
        if owed >= 1.0 - 1e-9 {
            owed -= 1.0;
            spoil(&mut record, bad);
            bad += 1;
        } else {
            balance_cents += change_cents;
        }
        writer.write_record(&record)?;
    }
    writer.flush()?;
    let known = format!("{{\"rows\":{rows},\"good\":{},\"bad\":{bad},\"balance_cents\":{balance_cents}}}", rows - bad);
    let beside = format!("{}.expected.json", path.display());
    File::create(&beside).and_then(|mut file| writeln!(file, "{known}")).with_context(|| format!("cannot write {beside}"))?;
    Ok(known)
}

fn good_record(row: u64, random: &mut Random) -> ([String; 8], i64) {
    let kind = random.pick(&["deposit", "withdrawal", "transfer", "payment"]);
    let account = format!("{}{:010}", random.pick(&["DE", "FR", "GB"]), random.below(10_000_000_000));
    // Another country, so it is another account.
    let to_account = if kind == "transfer" { format!("NL{:010}", random.below(10_000_000_000)) } else { String::new() };
    let cents = 1 + random.below(100_000_000);
    let amount = match cents % 10 {
        0 if cents.is_multiple_of(100) => format!("{}", cents / 100),
        0 => format!("{}.{}", cents / 100, cents / 10 % 10),
        _ => format!("{}.{:02}", cents / 100, cents % 100),
    };
    let date = format!("20{:02}-{:02}-{:02}", random.below(40), 1 + random.below(12), 1 + random.below(28));
    let memo = if kind == "payment" || random.below(4) == 0 { random.pick(&MEMOS) } else { "" };
    let cents = i64::try_from(cents).expect("below a hundred million");
    let change_cents = if kind == "deposit" { cents } else { -cents };
    let currency = random.pick(&["EUR", "USD", "GBP"]);
    let record = [format!("T{row:08}"), date, kind.to_owned(), account, to_account, amount, currency.to_owned(), memo.to_owned()];
    (record, change_cents)
}

/// Makes a record bad, each time in another way.
fn spoil(record: &mut [String; 8], nth: u64) {
    let mut set = |column: &str, value: &str| {
        let at = COLUMNS.iter().position(|name| *name == column).expect("a column of the file");
        value.clone_into(&mut record[at]);
    };
    match nth % 16 {
        0 => set("id", " "),
        1 => set("date", "2025-02-29"),
        2 => set("type", "gift"),
        3 => set("account", "de0123456789"),
        4 => {
            set("type", "transfer");
            set("to_account", "");
        }
        5 => {
            set("type", "transfer");
            set("to_account", "NL1");
        }
        6 => {
            set("type", "transfer");
            set("account", "NL0000000001");
            set("to_account", "NL0000000001");
        }
        7 => {
            set("type", "deposit");
            set("to_account", "NL0000000001");
        }
        8 => set("amount", "1,000.00"),
        9 => set("amount", "-5"),
        10 => set("amount", "1000000.01"),
        11 => set("currency", "CHF"),
        12 => {
            set("type", "payment");
            set("to_account", "");
            set("memo", " ");
        }
        13 => set("amount", "99999999999999999999999"),
        14 => {
            set("id", "");
            set("date", "today");
            set("amount", "0.00");
        }
        _ => set("amount", "1.005"),
    }
}
