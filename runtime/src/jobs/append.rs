//! Files are appended to held batches: whole, or not at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batches::check_inputs;
use super::{JobError, JobManager};
use crate::model::{AppendKey, AppendPart, AppendState, AppendToken, BatchFile, BatchId, NewRow, check_name};
use crate::store::{Store, StoreError};

/// How long an append lives without a further part.
const APPEND_TTL: Duration = Duration::from_secs(30);
/// An append without a part for this time is to be renewed.
pub const RENEW_APPEND_EVERY: Duration = Duration::from_secs(10);
/// An append waits for another one this long, at most.
const TURN_WAIT_MAX: Duration = Duration::from_secs(300);
/// Between two attempts: the first time, doubled up to the second.
const TURN_PAUSE: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// A file that is appended to a held batch in parts. Its rows become rows of the batch with [`FileAppend::end`], all at once. One that is dropped before
/// expires after half a minute: its rows never run, and the next append, release, abort or discard of the batch removes them.
pub struct FileAppend {
    store: Arc<dyn Store>,
    id: BatchId,
    token: AppendToken,
    key: Option<AppendKey>,
    /// The last part that came, which may be the last of the file.
    held_back: Option<Vec<NewRow>>,
    begun: bool,
    /// A part was refused: nothing of the file can come in any more.
    failed: bool,
    /// The result of an append with this key that was completed before.
    known: Option<u64>,
}

impl JobManager {
    /// Begins to append a file to a held batch, in parts. With a key it can be appended again when the answer was lost: its rows are there once.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId, parts: Vec<Vec<rowmill::model::NewRow>>) -> anyhow::Result<()> {
    /// let mut append = jobs.append_file(id, None).await?;
    /// for rows in parts {
    ///     append.push(rows).await?;
    /// }
    /// println!("{} rows", append.end(None).await?.rows);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::BadKey`].
    pub async fn append_file(&self, id: BatchId, key: Option<AppendKey>) -> Result<FileAppend, JobError> {
        self.check_batch(id).await?;
        if let Some(key) = &key {
            check_name("the key of an append", &key.name).map_err(JobError::BadKey)?;
        }
        let store = Arc::clone(self.store());
        Ok(FileAppend { store, id, token: AppendToken::generate(), key, held_back: None, begun: false, failed: false, known: None })
    }
}

impl FileAppend {
    /// Adds rows. They are written with the next call. Waits, for some minutes at most, while another file is appended to the batch.
    ///
    /// # Errors
    /// [`JobError::InputTooLarge`]; [`JobError::Store`] as for [`Store::append_part`]. Then nothing of the file is in the batch.
    pub async fn push(&mut self, rows: Vec<NewRow>) -> Result<(), JobError> {
        self.check_alive()?;
        if let Err(error) = check_inputs(&rows) {
            self.failed = true;
            self.take_back().await;
            return Err(error);
        }
        match self.held_back.replace(rows) {
            Some(rows) => self.write(rows, false, None).await,
            None => Ok(()),
        }
    }

    /// Lets the append live on, while the next rows are waited for. To be called every [`RENEW_APPEND_EVERY`].
    ///
    /// # Errors
    /// As for [`FileAppend::push`].
    pub async fn renew(&mut self) -> Result<(), JobError> {
        self.check_alive()?;
        if self.begun { self.write(Vec::new(), false, None).await } else { Ok(()) }
    }

    /// Completes the append, and records the file with it; the store sets the file's first row. Returns how many rows the batch has, and true if an append with the key was
    /// completed before.
    ///
    /// # Errors
    /// As for [`FileAppend::push`]. Where the answer of the store was lost the file may be in the batch: append it again with its key.
    pub async fn end(mut self, file: Option<BatchFile>) -> Result<AppendState, JobError> {
        self.check_alive()?;
        let rows = self.held_back.take().unwrap_or_default();
        let total = self.write_part(rows, true, file).await?;
        Ok(AppendState { rows: self.known.unwrap_or(total), was_there: self.known.is_some() })
    }

    /// Takes back what was written of the file.
    ///
    /// # Errors
    /// [`JobError::Store`]: then the append expires after half a minute, and the next operation on the batch removes its rows.
    pub async fn undo(self) -> Result<(), JobError> {
        match self.store.undo_append(self.id, self.token).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&mut self, rows: Vec<NewRow>, ends: bool, file: Option<BatchFile>) -> Result<(), JobError> {
        self.write_part(rows, ends, file).await.map(|_| ())
    }

    async fn write_part(&mut self, rows: Vec<NewRow>, ends: bool, file: Option<BatchFile>) -> Result<u64, JobError> {
        if let Some(known) = self.known {
            return Ok(known);
        }
        let part = AppendPart { token: self.token, key: self.key.clone(), begins: !self.begun, ends, rows, file, ttl: APPEND_TTL };
        let written = if self.begun {
            self.store.append_part(self.id, part).await
        } else {
            in_turn(async || self.store.append_part(self.id, part.clone()).await).await
        };
        match written {
            Ok(state) => {
                self.begun = true;
                self.known = state.was_there.then_some(state.rows);
                Ok(state.rows)
            }
            Err(error) => {
                self.failed = true;
                self.take_back().await;
                Err(error.into())
            }
        }
    }

    /// Refuses what comes after a part that was refused.
    fn check_alive(&self) -> Result<(), JobError> {
        if self.failed { Err(StoreError::AppendLost(self.id).into()) } else { Ok(()) }
    }

    /// Removes the rows. If that fails, the append expires, and the next operation on the batch removes them.
    async fn take_back(&self) {
        if let Err(error) = self.store.undo_append(self.id, self.token).await {
            tracing::warn!(batch = %self.id, error = &error as &dyn std::error::Error, "cannot take back an append; its rows are removed when it has expired");
        }
    }
}

/// Tries again while another file is appended to the batch, with pauses that grow.
pub(super) async fn in_turn<T>(mut attempt: impl AsyncFnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let since = Instant::now();
    let [mut pause, longest] = TURN_PAUSE;
    loop {
        match attempt().await {
            Err(StoreError::AppendUnderWay(_)) if since.elapsed() < TURN_WAIT_MAX => {
                tokio::time::sleep(pause).await;
                pause = longest.min(pause * 2);
            }
            done => return done,
        }
    }
}
