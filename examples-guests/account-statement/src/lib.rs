//! Writes the statement of a bank account: a slow query.
//!
//! The question names the account, the first and the last day, the balance before the first day and the transactions, in any order; those of other
//! days are left out and counted. The answer has the closing balance and the counts; the statement itself is the output file `statement.txt`.
//! On the way it tells its progress, and it stops when the query is cancelled.

mod page;

use rowmill_guest::{AppInfo, Empty, Failure, Message, Outcome, Query, SlowQueryProcessor, Summary, host, output_files};
use serde::{Deserialize, Serialize};

/// After so many transactions it looks whether it is still wanted, and tells its progress.
const BLOCK: usize = 200;

/// Bytes that are read at once.
const PART_BYTES: u32 = 64 << 10;

/// The processor. It keeps nothing between queries.
pub struct AccountStatement;

/// The question.
#[derive(Debug, Deserialize)]
pub struct Question {
    /// Two capital letters and ten digits.
    account: String,
    /// The first day, `YYYY-MM-DD`.
    from: String,
    /// The last day, `YYYY-MM-DD`, not before the first.
    to: String,
    /// The balance before the first day.
    opening_cents: i64,
    transactions: Vec<Transaction>,
}

/// A change of the account.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    /// `YYYY-MM-DD`.
    date: String,
    /// More than zero comes in, less goes out.
    amount_cents: i64,
    #[serde(default)]
    memo: String,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Totals {
    account: String,
    opening_cents: i64,
    /// What came in.
    credit_cents: i64,
    /// What went out, zero or less.
    debit_cents: i64,
    closing_cents: i64,
    /// How many transactions the statement lists.
    transactions: usize,
    /// How many were left out because they are not of these days.
    outside: usize,
}

impl SlowQueryProcessor for AccountStatement {
    type Context = Empty;
    type Input = Question;
    type Output = Totals;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn run(&mut self, query: Query<Empty, Question>) -> Result<Outcome<Totals>, Failure> {
        let problems = problems(&query.input);
        if !problems.is_empty() {
            return Ok(Outcome::failed().messages(problems));
        }
        let Question { account, from, to, opening_cents, mut transactions } = query.input;
        let given = transactions.len();
        // Dates of this form are in the order of their text. The sort keeps the given order within a day.
        transactions.retain(|transaction| (&from..=&to).contains(&&transaction.date));
        transactions.sort_by(|a, b| a.date.cmp(&b.date));

        let mut totals = Totals {
            opening_cents,
            credit_cents: 0,
            debit_cents: 0,
            closing_cents: opening_cents,
            transactions: transactions.len(),
            outside: given - transactions.len(),
            account,
        };
        let mut statement = page::head(&totals.account, &from, &to, opening_cents);
        for (index, block) in transactions.chunks(BLOCK).enumerate() {
            if host::cancelled() {
                return Err(Failure::abort_batch("the statement is no longer wanted"));
            }
            for transaction in block {
                if totals.add(transaction.amount_cents).is_none() {
                    return Ok(Outcome::failed().message(Message::new("balance-too-large").id(5).value(&transaction.date)));
                }
                page::push_line(&mut statement, &transaction.date, &transaction.memo, Some(transaction.amount_cents), totals.closing_cents);
            }
            let done = index * BLOCK + block.len();
            let percent = u8::try_from(done * 100 / transactions.len()).expect("a part is at most 100 % of the whole");
            host::progress(percent, format!("{done} of {} transactions", transactions.len()));
        }
        page::push_line(&mut statement, &to, "Closing balance", None, totals.closing_cents);
        Ok(Outcome::success(totals).piece("statement.txt", statement))
    }

    /// Reads the statement in parts, as a processor does that sends it elsewhere, and logs what it read.
    fn mark_done(&mut self, summary: &Summary<Empty>) -> Result<(), Failure> {
        for file in output_files::list()? {
            let mut reader = output_files::open(&file.name)?;
            let (mut bytes, mut lines) = (0, 0);
            loop {
                let part = reader.read(PART_BYTES)?;
                if part.is_empty() {
                    break;
                }
                bytes += part.len();
                lines += part.iter().filter(|&&byte| byte == b'\n').count();
            }
            host::info(format!("{} of {}: {lines} lines, {bytes} bytes", file.name, summary.batch.id));
        }
        Ok(())
    }
}

impl Totals {
    /// Adds a change, unless a sum becomes too large for an i64.
    fn add(&mut self, amount_cents: i64) -> Option<()> {
        let sum = if amount_cents < 0 { &mut self.debit_cents } else { &mut self.credit_cents };
        *sum = sum.checked_add(amount_cents)?;
        self.closing_cents = self.closing_cents.checked_add(amount_cents)?;
        Some(())
    }
}

/// What is wrong with a question, in the order of its fields.
fn problems(question: &Question) -> Vec<Message> {
    let mut problems = Vec::new();
    let account = question.account.as_bytes();
    if account.len() != 12 || !account[..2].iter().all(u8::is_ascii_uppercase) || !account[2..].iter().all(u8::is_ascii_digit) {
        problems.push(Message::new("account-malformed").id(1).field("account").value(&question.account));
    }
    let mut dates_are_good = true;
    for (field, date) in [("from", &question.from), ("to", &question.to)] {
        if !is_date(date) {
            problems.push(Message::new("date-malformed").id(2).field(field).value(date));
            dates_are_good = false;
        }
    }
    if dates_are_good && question.to < question.from {
        problems.push(Message::new("range-reversed").id(3).field("to").value(&question.from).value(&question.to));
    }
    for (index, transaction) in question.transactions.iter().enumerate().filter(|(_, transaction)| !is_date(&transaction.date)) {
        problems.push(Message::new("transaction-date-malformed").id(4).field(format!("transactions[{index}].date")).value(&transaction.date));
    }
    problems
}

/// Whether the text is `YYYY-MM-DD` and names a day that exists.
fn is_date(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit())).and_then(|part| part.parse::<u32>().ok())
    };
    let separators = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    let (true, Some(year), Some(month), Some(day)) = (separators, digits(0..4), digits(5..7), digits(8..10)) else { return false };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

rowmill_guest::export_slow_query_processor!(AccountStatement);

#[cfg(test)]
mod tests;
