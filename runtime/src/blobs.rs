//! Output files, in an object store. This is the only room that knows `object_store`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::model::BatchId;

/// What is collected before it is written: 64 files may be open at once, so it is not more.
const BUFFER_BYTES: usize = 1 << 20;

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the object store failed while it was to {doing}")]
pub struct BlobError {
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> BlobError {
    move |source| BlobError { doing, source: Box::new(source) }
}

/// An object store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs(Arc<dyn ObjectStore>);

impl Blobs {
    /// Keeps objects as files under a directory, which must exist.
    ///
    /// # Errors
    /// [`BlobError`] when it does not.
    pub fn local(directory: &Path) -> Result<Blobs, BlobError> {
        let store = LocalFileSystem::new_with_prefix(directory).map_err(failed("open its directory"))?;
        Ok(Blobs(Arc::new(store)))
    }

    /// Begins an object of a batch under a fresh name. It exists once it was finished, and not before.
    pub fn begin(&self, batch: BatchId) -> BlobWriter {
        let object = format!("batches/{batch}/{}", Uuid::now_v7());
        let writer = BufWriter::with_capacity(Arc::clone(&self.0), ObjectPath::from(object.as_str()), BUFFER_BYTES);
        BlobWriter { object, size_bytes: 0, writer }
    }

    /// Reads an object, in parts.
    ///
    /// # Errors
    /// [`BlobError`] when it is not there or cannot be read.
    pub async fn read(&self, object: &str) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let found = self.0.get(&ObjectPath::from(object)).await.map_err(failed("open an object"))?;
        Ok(found.into_stream().map_err(|error| failed("read an object")(error)).boxed())
    }
}

/// An object that is being written.
pub struct BlobWriter {
    object: String,
    size_bytes: u64,
    writer: BufWriter,
}

impl BlobWriter {
    /// Appends to the object.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size_bytes += bytes.len() as u64;
        self.writer.write_all(bytes).await.map_err(failed("write an object"))
    }

    /// Makes the object appear. Returns its name and size in bytes.
    ///
    /// # Errors
    /// [`BlobError`]; then there is no object.
    pub async fn finish(mut self) -> Result<(String, u64), BlobError> {
        self.writer.shutdown().await.map_err(failed("finish an object"))?;
        Ok((self.object, self.size_bytes))
    }
}
