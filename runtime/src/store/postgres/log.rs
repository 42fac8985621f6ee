//! What a database writes, for those who measure.

use super::connect::{PgSettings, PgStore};
use crate::store::StoreError;
use crate::store::columns::{count, failed};

/// How much a server has written to its log, and how many transactions its database has ended, since it began.
#[derive(Clone, Copy, Debug)]
pub struct LogPosition {
    bytes: u64,
    transactions: u64,
}

impl LogPosition {
    /// Bytes of the log and transactions since an earlier moment.
    pub fn since(self, earlier: LogPosition) -> (u64, u64) {
        (self.bytes.saturating_sub(earlier.bytes), self.transactions.saturating_sub(earlier.transactions))
    }
}

impl PgStore {
    /// Where the database's log is. Others who work in the same server write to it, too. Transactions may be counted up to a second late.
    ///
    /// # Errors
    /// `Failed` when the database cannot be reached.
    pub async fn log_position(settings: &PgSettings) -> Result<LogPosition, StoreError> {
        use sqlx::ConnectOptions;
        let reading = failed("read the position of the database's log");
        let mut db = settings.options()?.connect().await.map_err(reading)?;
        let (bytes, transactions): (i64, i64) = sqlx::query_as(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, (xact_commit + xact_rollback)::bigint FROM pg_stat_database
             WHERE datname = current_database()",
        )
        .persistent(false)
        .fetch_one(&mut db)
        .await
        .map_err(reading)?;
        Ok(LogPosition { bytes: count(bytes), transactions: count(transactions) })
    }
}
