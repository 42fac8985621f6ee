//! The files that batches are made from.

use std::io::Read;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::batches::check_context;
use super::{JobError, JobManager};
use crate::blobs::BlobWriter;
use crate::model::{BatchFile, BatchId, JsonText, Limits, canonical_name, hex};
use crate::sandbox::Checker;

/// So much is read of a file at once.
const PART_BYTES: usize = 256 << 10;

/// A file that the object store has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    pub object: String,
    pub size_bytes: u64,
    /// The SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

/// Why a file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    #[error(transparent)]
    Jobs(#[from] JobError),
}

impl JobManager {
    /// Keeps a file in the object store, under a name that is made from `id` and nothing else: kept again it is the same object. A part of it at a time is in
    /// memory.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// let kept = jobs.keep_file("0198c2f0", std::fs::File::open("transactions.csv")?).await?;
    /// println!("{} bytes in {}", kept.size_bytes, kept.object);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`KeepError`]; nothing is kept then.
    pub async fn keep_file(&self, id: &str, file: impl Read + Send + 'static) -> Result<KeptFile, KeepError> {
        self.check_all_apps()?;
        self.write_object(self.shared.blobs.begin_named(kept_file_name(id)), file).await
    }

    /// Names of objects say nothing of apps.
    pub(super) fn check_all_apps(&self) -> Result<(), JobError> {
        match &self.only_app {
            Some(allowed) => Err(JobError::FilesOfAllApps { allowed: allowed.clone() }),
            None => Ok(()),
        }
    }

    async fn write_object(&self, mut writer: BlobWriter, mut file: impl Read + Send + 'static) -> Result<KeptFile, KeepError> {
        let (sender, mut parts) = mpsc::channel::<Bytes>(1);
        let reading = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            loop {
                let mut part = Vec::with_capacity(PART_BYTES);
                file.by_ref().take(PART_BYTES as u64).read_to_end(&mut part)?;
                if part.is_empty() || sender.blocking_send(part.into()).is_err() {
                    return Ok(());
                }
            }
        });
        let mut digest = Sha256::new();
        while let Some(part) = parts.recv().await {
            digest.update(&part);
            writer.write(&part).await.map_err(JobError::from)?;
        }
        let read = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        read.map_err(KeepError::Read)?;
        let (object, size_bytes) = writer.finish().await.map_err(JobError::from)?;
        Ok(KeptFile { object, size_bytes, sha256: hex(&digest.finalize()) })
    }

    /// Removes a file that is kept as `id`, and that no batch has.
    ///
    /// # Errors
    /// [`JobError::FilesOfAllApps`], [`JobError::Blobs`].
    pub async fn remove_kept_file(&self, id: &str) -> Result<(), JobError> {
        self.check_all_apps()?;
        Ok(self.shared.blobs.delete(&kept_file_name(id)).await?)
    }

    /// Checks and compiles a checker of files.
    ///
    /// # Errors
    /// [`JobError::Unusable`].
    pub async fn load_checker(&self, wasm: impl Into<Bytes>) -> Result<Checker, JobError> {
        self.shared.registry.load_checker(wasm.into()).await.map_err(JobError::Unusable)
    }

    /// What one call of a guest may use for an app.
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn limits_of(&self, app: &str) -> Result<Limits, JobError> {
        let app = &*self.check_app(app)?;
        let app = self.shared.store.read_app(app).await?;
        Ok(self.shared.worker.limits_of(app.and_then(|app| app.limits)))
    }

    /// An object of the object store as a file, which a thread of its own can read. It is read in parts.
    ///
    /// # Errors
    /// [`JobError::FilesOfAllApps`], [`JobError::Blobs`].
    pub async fn open_object(&self, object: &str) -> Result<impl Read + Send + 'static, JobError> {
        use futures_util::TryStreamExt;
        self.check_all_apps()?;
        let parts = self.shared.blobs.read(object).await?.map_err(std::io::Error::other);
        Ok(SyncIoBridge::new(StreamReader::new(parts)))
    }

    /// Records a file that rows of a held batch came from, and with it the context that was made from the file, if one was.
    ///
    /// # Errors
    /// [`JobError::NoBatch`]; [`JobError::ContextTooLarge`]; [`JobError::Store`] when the batch is not held any more.
    pub async fn record_batch_file(&self, id: BatchId, file: &BatchFile, context: Option<&JsonText>) -> Result<(), JobError> {
        if let Some(context) = context {
            check_context(context)?;
        }
        self.check_batch(id).await?;
        // A name is found however a file system composes its letters.
        let file = BatchFile { name: canonical_name(&file.name).into_owned(), ..file.clone() };
        Ok(self.shared.store.record_batch_file(id, &file, context).await?)
    }

    /// The files that a batch's rows came from, by their first rows, at most `limit`, from behind the file that begins with `after_row` (0 for all).
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// for file in jobs.batch_files(id, 0, 100).await? {
    ///     println!("{}: {} bytes, SHA-256 {}", file.name, file.size_bytes, file.sha256);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::Store`].
    pub async fn batch_files(&self, id: BatchId, after_row: u32, limit: u32) -> Result<Vec<BatchFile>, JobError> {
        self.check_batch(id).await?;
        Ok(self.shared.store.list_batch_files(id, after_row, limit).await?)
    }
}

/// The object of a file that is kept as `id`.
fn kept_file_name(id: &str) -> String {
    format!("files/{id}")
}
