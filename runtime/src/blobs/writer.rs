//! Objects that are written piece by piece.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStoreExt, Result as StoreResult, path::Path as ObjectPath};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::error::failed;
use super::{BlobError, Blobs};

/// The last part of an upload that was given up is waited for this long, at most, where the object store has no limit of its own.
const PART_PATIENCE: Duration = Duration::from_secs(60);

/// An object that is being written: at most two parts of it are in memory. One that is dropped before it was finished leaves nothing that can be read, and is cleaned
/// up beside.
pub struct BlobWriter {
    blobs: Blobs,
    object: String,
    size_bytes: u64,
    buffer: BytesMut,
    upload: Upload,
    /// The part that is on its way. There is one at a time, since many objects may be written at once.
    part: Option<JoinHandle<StoreResult<()>>>,
    /// Whether the object may already be there.
    finishing: bool,
    finished: bool,
}

/// An upload in parts, which begins when there is more than one part.
enum Upload {
    None,
    /// In a task of its own: who drops the writer meanwhile would lose the upload's id, and with it the way to end it.
    Beginning(JoinHandle<StoreResult<Box<dyn MultipartUpload>>>),
    Begun(Box<dyn MultipartUpload>),
}

impl BlobWriter {
    pub(super) fn new(blobs: Blobs, object: String) -> BlobWriter {
        BlobWriter { blobs, object, size_bytes: 0, buffer: BytesMut::new(), upload: Upload::None, part: None, finishing: false, finished: false }
    }

    /// Appends to the object.
    ///
    /// # Errors
    /// [`BlobError`]; then the object can only be dropped.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        self.size_bytes += bytes.len() as u64;
        while self.buffer.len() + bytes.len() > self.blobs.part_bytes {
            let (fits, rest) = bytes.split_at(self.blobs.part_bytes - self.buffer.len());
            self.buffer.extend_from_slice(fits);
            bytes = rest;
            let part = self.buffer.split().freeze();
            self.send_part(part).await?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes the object appear. Returns its name and size in bytes.
    ///
    /// # Errors
    /// [`BlobError`]; then there is no object.
    pub async fn finish(mut self) -> Result<(String, u64), BlobError> {
        let last = self.buffer.split().freeze();
        if matches!(self.upload, Upload::None) {
            self.finishing = true;
            self.blobs.put(&self.object, last).await?;
        } else {
            self.send_part(last).await?;
            self.wait_for_part().await?;
            self.finishing = true;
            if let Upload::Begun(upload) = &mut self.upload {
                self.blobs.bounded("finish an object", upload.complete()).await?;
            }
        }
        self.finished = true;
        Ok((std::mem::take(&mut self.object), self.size_bytes))
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), BlobError> {
        self.wait_for_part().await?;
        let sent = self.upload().await?.put_part(part.into());
        self.part = Some(tokio::spawn(sent));
        Ok(())
    }

    async fn wait_for_part(&mut self) -> Result<(), BlobError> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let doing = "write an object";
        let sent = match self.blobs.patience {
            None => part.await,
            Some(patience) => tokio::time::timeout(patience, &mut *part).await.map_err(|_| BlobError::late(doing, patience))?,
        };
        // What was waited for to its end is never waited for again.
        self.part = None;
        sent.map_err(failed(doing))?.map_err(failed(doing))
    }

    /// The upload in parts, begun when it was not.
    async fn upload(&mut self) -> Result<&mut Box<dyn MultipartUpload>, BlobError> {
        let doing = "begin an object";
        if let Upload::None = self.upload {
            let (store, path) = (self.blobs.store.clone(), self.path());
            self.upload = Upload::Beginning(tokio::spawn(async move { store.put_multipart(&path).await }));
        }
        if let Upload::Beginning(beginning) = &mut self.upload {
            let begun = match self.blobs.patience {
                None => beginning.await,
                Some(patience) => tokio::time::timeout(patience, &mut *beginning).await.map_err(|_| BlobError::late(doing, patience))?,
            };
            self.upload = Upload::None;
            self.upload = Upload::Begun(begun.map_err(failed(doing))?.map_err(failed(doing))?);
        }
        match &mut self.upload {
            Upload::Begun(upload) => Ok(upload),
            Upload::None | Upload::Beginning(_) => unreachable!("it was begun just now"),
        }
    }

    fn path(&self) -> ObjectPath {
        ObjectPath::from(self.object.as_str())
    }
}

/// Waits until a part was written. A request that is cut off may still be carried out by the server, after the upload was ended: then the part would stay.
async fn end_part(mut part: JoinHandle<StoreResult<()>>, patience: Duration) {
    if tokio::time::timeout(patience, &mut part).await.is_err() {
        part.abort();
        let _ = part.await;
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.finished || matches!(self.upload, Upload::None) && !self.finishing {
            return;
        }
        // When the runtime is gone nothing can be cleaned up. Nothing can be read either; S3 drops parts by a rule of the bucket.
        let Ok(runtime) = Handle::try_current() else { return };
        let upload = std::mem::replace(&mut self.upload, Upload::None);
        let (blobs, path, part, finishing) = (self.blobs.clone(), self.path(), self.part.take(), self.finishing);
        runtime.spawn(async move {
            if let Some(part) = part {
                end_part(part, blobs.patience.unwrap_or(PART_PATIENCE)).await;
            }
            let begun = match upload {
                Upload::None => None,
                Upload::Beginning(beginning) => beginning.await.ok().and_then(Result::ok),
                Upload::Begun(upload) => Some(upload),
            };
            if let Some(mut upload) = begun
                && let Err(error) = upload.abort().await
                && !finishing
            {
                tracing::warn!("an upload that was given up could not be ended ({path}): {error}");
            }
            if finishing {
                // It may have appeared after all. Nobody knows its name.
                let _ = blobs.bounded("remove an object", blobs.store.delete(&path)).await;
            }
        });
    }
}
