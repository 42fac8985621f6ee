//! Compares a file of bank transactions with its control total before it becomes a batch.
//!
//! The file is CSV with the columns `id`, `date`, `type`, `account`, `to_account`, `amount`, `currency` and `memo`, in any order and with no others. Its last record is the
//! *trailer*: its `type` is `total`, its `id` the number of transactions and its `amount` the sum of their amounts. A file without a trailer was cut off on its way; one
//! whose trailer does not match was changed.
//!
//! The transactions become rows as they are, but for the trailer, and for their currency, which is in capitals in the rows. The batch's context gets `transactions` and
//! `total` beside what the file's type gives.

use rowmill_guest::{AppInfo, File, FileChecker, Message, Record, Rejection, Rows};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const COLUMNS: [&str; 8] = ["id", "date", "type", "account", "to_account", "amount", "currency", "memo"];
/// The type of the trailer.
const TOTAL: &str = "total";

/// The checker: what it has seen of the file so far.
#[derive(Default)]
pub struct TransactionsCheck {
    transactions: u64,
    cents: i128,
    trailer: Option<u32>,
}

/// One record, and one row.
#[derive(Debug, Deserialize, Serialize)]
pub struct Transaction {
    id: String,
    date: String,
    #[serde(rename = "type")]
    kind: String,
    account: String,
    to_account: String,
    amount: String,
    currency: String,
    memo: String,
}

impl FileChecker for TransactionsCheck {
    type Context = Map<String, Value>;
    type Record = Transaction;
    type Input = Transaction;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self::default())
    }

    fn begin(&mut self, file: &File<Self::Context>) -> Result<(), Rejection> {
        let has = |name: &str| file.columns.iter().any(|column| column == name);
        let missing = COLUMNS.into_iter().filter(|name| !has(name)).map(|name| Message::new("column-missing").value(name));
        let unknown = file.columns.iter().filter(|name| !COLUMNS.contains(&name.as_str())).map(|name| Message::new("column-unknown").value(name));
        missing.chain(unknown).map(Rejection::of_file).reduce(Rejection::and).map_or(Ok(()), Err)
    }

    fn check(&mut self, _: &File<Self::Context>, record: Record<Transaction>, rows: &mut Rows<Transaction>) -> Result<(), Rejection> {
        let Record { line, value: transaction } = record;
        if let Some(trailer) = self.trailer {
            return Err(Rejection::of_record(line, Message::new("behind-trailer").value(trailer)));
        }
        if transaction.kind == TOTAL {
            self.trailer = Some(line);
            return self.compare(line, &transaction);
        }
        // What is no amount is the row's own fault, and adds nothing.
        self.cents += cents(&transaction.amount).unwrap_or(0);
        self.transactions += 1;
        rows.push(line, Transaction { currency: transaction.currency.to_uppercase(), ..transaction });
        Ok(())
    }

    fn unreadable(&mut self, _: &File<Self::Context>, line: u32, reason: &str) -> Result<(), Rejection> {
        // Whether the total matches nobody could tell.
        Err(Rejection::of_record(line, Message::new("unreadable").value(reason)))
    }

    fn end(&mut self, file: &File<Self::Context>) -> Result<Option<Value>, Rejection> {
        if self.trailer.is_none() {
            return Err(Rejection::of_file("trailer-missing"));
        }
        let mut context = file.context.clone();
        context.insert("transactions".to_owned(), self.transactions.into());
        context.insert("total".to_owned(), amount(self.cents).into());
        Ok(Some(Value::Object(context)))
    }
}

impl TransactionsCheck {
    /// The trailer against what came before it.
    fn compare(&self, line: u32, trailer: &Transaction) -> Result<(), Rejection> {
        let differs =
            |code: &str, field: &str, said: &str, found: String| Rejection::of_record(line, Message::new(code).field(field).value(said).value(found));
        let count = (trailer.id.parse() != Ok(self.transactions)).then(|| differs("count-differs", "id", &trailer.id, self.transactions.to_string()));
        let total = (cents(&trailer.amount) != Some(self.cents)).then(|| differs("total-differs", "amount", &trailer.amount, amount(self.cents)));
        count.into_iter().chain(total).reduce(Rejection::and).map_or(Ok(()), Err)
    }
}

/// An amount with at most two decimals, in cents.
fn cents(amount: &str) -> Option<i128> {
    let (negative, digits) = amount.strip_prefix('-').map_or((false, amount), |digits| (true, digits));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 30 || decimals.len() > 2 || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let cents = whole.parse::<i128>().ok()? * 100 + format!("{decimals:0<2}").parse::<i128>().ok()?;
    Some(if negative { -cents } else { cents })
}

fn amount(cents: i128) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

rowmill_guest::export_file_checker!(TransactionsCheck);

#[cfg(test)]
mod tests;
