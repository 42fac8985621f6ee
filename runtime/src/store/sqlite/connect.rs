//! The file, and connections to it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::files;
use crate::model::{AppBounds, Clock, Timestamp};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::events::Events;

/// Readers: leases are read while others are recorded.
const READERS: u32 = 4;

/// Rows that SQLite's thread reads ahead of ours: each time it waits for us costs a switch of threads.
const ROW_BUFFER: usize = 2_000;

/// A [`Store`](crate::store::Store) in one SQLite file.
///
/// Commits survive the end of the process. When the machine itself fails the last moments may be missing, but what is there is consistent (write-ahead
/// log, `synchronous = NORMAL`).
pub struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bounds: AppBounds,
    pub(super) events: Events,
    /// Held as long as the store is open: it keeps other processes out.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store in `file`, and makes it when there is none. Leases that a process left behind when it died count as ended.
    ///
    /// # Errors
    /// `InUse` when another process has it open; `Failed` when the file cannot be used.
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<SqliteStore, StoreError> {
        let lock = lock_beside(file)?;
        check_regular(file)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10))
            .row_buffer_size(ROW_BUFFER)
            .pragma("cache_size", "-16384")
            .pragma("wal_autocheckpoint", "4000");
        let opening = failed("open its database");
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(opening)?;
        sqlx::migrate!("../migrations/sqlite").run(&writer).await.map_err(failed("migrate its database"))?;
        // Nobody else has the store open, so whoever held a lease is gone.
        for end in [
            "UPDATE leases SET expires_at = 0 WHERE token <> 0",
            "UPDATE batches SET finish_expires_at = 0 WHERE finish_token IS NOT NULL",
            "DELETE FROM workers",
        ] {
            sqlx::query(end).execute(&writer).await.map_err(opening)?;
        }
        // Readers go through rows once, in order, and need no cache to speak of.
        let options = options.read_only(true).pragma("cache_size", "-2048");
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(opening)?;
        Ok(SqliteStore { writer, readers, clock, bounds: AppBounds::open(), events: Events::new(), _lock: lock })
    }

    /// The same store, where apps may hold and be given no more than this.
    #[must_use]
    pub fn with_bounds(mut self, bounds: AppBounds) -> SqliteStore {
        self.bounds = bounds;
        self
    }

    /// Closes all connections, so that the files can be removed.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed("begin a transaction"))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn lock_beside(file: &Path) -> Result<File, StoreError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let lock = files::open_lock_at(Path::new(&name)).map_err(failed("make its lock file"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { place: file.display().to_string() }),
        Err(std::fs::TryLockError::Error(error)) => Err(failed("lock its file")(error)),
    }
}

/// Checks that the files of the database are regular ones where they are there: SQLite would wait
/// for a FIFO.
fn check_regular(file: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        if std::fs::metadata(&name).is_ok_and(|there| !there.is_file()) {
            let problem = format!("{} is not a regular file: move it away", Path::new(&name).display());
            return Err(failed("open its database")(std::io::Error::new(ErrorKind::InvalidInput, problem)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::model::SystemClock;

    #[tokio::test]
    async fn a_fifo_in_the_place_of_a_file_of_the_store_is_not_waited_for() {
        for end in ["", "-wal", "-shm", "-journal", ".lock"] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("store.sqlite");
            let place = directory.path().join(format!("store.sqlite{end}"));
            mknodat(CWD, &place, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let Err(error) = SqliteStore::open(&file, Arc::new(SystemClock)).await else { panic!("{end} was taken") };
            let text = format!("{:#}", anyhow::Error::new(error));
            assert!(text.contains("is not a regular file"), "{end}: {text}");
        }
    }
}
