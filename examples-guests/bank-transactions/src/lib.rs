//! Checks bank transactions and makes postings of them.
//!
//! A row is an object of strings, as a row of a CSV file is, with the fields `id`, `date`, `type`, `account`, `to_account`, `amount`, `currency` and
//! `memo`. The [`rules`] say what a good one is. Each problem of a bad one is told by a message of its own, and the row is listed in `rejects.csv`
//! (`line,id,codes`, the codes joined by `;`).
//!
//! A good row is answered with the change of the account and the fee, in cents, and posted to `postings.csv` (`line,id,account,cents,currency`): a
//! transfer twice, first out of the account, then into the other.
//!
//! The fee is 25 cents for a transfer, 0.25 % rounded half up for a payment, and nothing for a deposit or a withdrawal. It is not part of the change,
//! and not posted.

pub mod rules;

use rowmill_guest::{AppInfo, Batch, BatchProcessor, Failure, Outcome, Row, Summary, host};
use rules::{AMOUNT_MAX_CENTS, Kind, Transaction};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The processor. It keeps nothing between rows.
pub struct BankTransactions;

/// What may be set for a whole batch.
#[derive(Debug, Deserialize)]
pub struct Context {
    /// Lowers the largest amount that is accepted. It cannot raise it.
    max_amount_cents: Option<u64>,
}

/// The answer to a good row.
#[derive(Debug, Serialize)]
pub struct Posted {
    id: String,
    #[serde(rename = "type")]
    kind: Kind,
    account: String,
    change_cents: i64,
    fee_cents: i64,
}

impl BatchProcessor for BankTransactions {
    type Context = Context;
    type Input = Transaction;
    type Output = Posted;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn process_row(&mut self, batch: &Batch<Context>, row: Row<Transaction>) -> Result<Outcome<Posted>, Failure> {
        let (line, transaction) = (row.line, row.input);
        let cap = batch.context.max_amount_cents.map_or(AMOUNT_MAX_CENTS, |cents| cents.min(AMOUNT_MAX_CENTS));
        let (kind, cents) = match rules::check(&transaction, cap) {
            Ok(good) => good,
            Err(problems) => {
                let codes: Vec<_> = problems.iter().map(|problem| problem.code.as_str()).collect();
                let reject = [&*line.to_string(), &*csv_field(&transaction.id), &*codes.join(";")].join(",");
                return Ok(Outcome::failed().messages(problems).piece("rejects.csv", reject));
            }
        };
        let Transaction { id, account, to_account, currency, .. } = transaction;
        let change_cents = if kind == Kind::Deposit { cents } else { -cents };
        // Joined rather than formatted: that is half the work, and there is one for every row.
        let posting = |account: &str, cents: i64| [&*line.to_string(), &*csv_field(&id), account, &*cents.to_string(), &*currency].join(",");
        let change = posting(&account, change_cents);
        let counterpart = (kind == Kind::Transfer).then(|| posting(&to_account, cents));
        let outcome = Outcome::success(Posted { fee_cents: fee(kind, cents), id, kind, account, change_cents }).piece("postings.csv", change);
        Ok(match counterpart {
            Some(line) => outcome.piece("postings.csv", line),
            None => outcome,
        })
    }

    fn mark_done(&mut self, summary: &Summary<Context>) -> Result<(), Failure> {
        let Summary { rows, success, failed, aborted, .. } = summary;
        host::info(format!("{rows} transactions: {success} posted, {failed} rejected, {aborted} aborted"));
        Ok(())
    }
}

/// The fee for a transaction of this kind and amount, both in cents.
fn fee(kind: Kind, cents: i64) -> i64 {
    match kind {
        Kind::Transfer => 25,
        Kind::Payment => (cents * 25 + 5_000) / 10_000,
        Kind::Deposit | Kind::Withdrawal => 0,
    }
}

/// A field of a CSV line, quoted when it has to be. The other fields never have to.
fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) { Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))) } else { Cow::Borrowed(text) }
}

rowmill_guest::export_batch_processor!(BankTransactions);

#[cfg(test)]
mod tests;
