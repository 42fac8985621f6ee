//! Objects (output files, processors) in a local directory or on S3. This is the only room that knows `object_store`.

mod check;
mod error;
mod s3;
mod settings;
mod writer;

pub use check::Unusable;
pub use error::BlobError;
pub use settings::{BlobSettings, SettingError};
pub use writer::BlobWriter;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
use uuid::Uuid;

use crate::model::BatchId;
use error::failed;
use settings::Place;

/// How much of a local file is collected before it is written. Many files may be open at once, so it is not more.
const LOCAL_PART_BYTES: usize = 1 << 20;

/// An object store. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// What it is, for people.
    place: Arc<str>,
    part_bytes: usize,
    /// How long one request may take, where requests are made.
    patience: Option<Duration>,
}

impl Blobs {
    /// Opens what the settings name. A local directory is made when it is missing; S3 is not asked anything yet ([`Blobs::check`] does).
    ///
    /// # Errors
    /// [`SettingError`] when a setting is wrong.
    pub fn open(settings: &BlobSettings) -> Result<Blobs, SettingError> {
        match settings.place()? {
            Place::Directory(directory) => {
                let unusable = |error: &dyn fmt::Display| SettingError::new("url", format!("names a directory that cannot be used: {error}"));
                fs::create_dir_all(&directory).map_err(|error| unusable(&error))?;
                Blobs::local(&directory).map_err(|error| unusable(&error))
            }
            Place::Bucket { bucket, prefix } => Ok(Blobs {
                store: s3::open(settings, &bucket, &prefix)?,
                place: s3::describe(settings, &bucket).into(),
                part_bytes: s3::PART_BYTES,
                patience: Some(settings.patience),
            }),
        }
    }

    /// Keeps objects as files under a directory, which must exist.
    ///
    /// # Errors
    /// [`BlobError`] when it does not.
    pub fn local(directory: &Path) -> Result<Blobs, BlobError> {
        let store = LocalFileSystem::new_with_prefix(directory).map_err(failed("open its directory"))?;
        let place = format!("the directory {}", directory.display()).into();
        Ok(Blobs { store: Arc::new(store), place, part_bytes: LOCAL_PART_BYTES, patience: None })
    }

    /// Begins an object of a batch under a fresh name. It exists once it was finished, and not before.
    pub fn begin(&self, batch: BatchId) -> BlobWriter {
        BlobWriter::new(self.clone(), format!("batches/{batch}/{}", Uuid::now_v7()))
    }

    /// Begins an object under a name of the caller's, who alone writes it. One that was there is replaced when it was finished, and not before.
    pub fn begin_named(&self, object: String) -> BlobWriter {
        BlobWriter::new(self.clone(), object)
    }

    /// Reads an object, in parts.
    ///
    /// # Errors
    /// [`BlobError`] when it is not there or cannot be read.
    pub async fn read(&self, object: &str) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let path = ObjectPath::from(object);
        let found = self.bounded("open an object", self.store.get(&path)).await?;
        Ok(found.into_stream().map_err(|error| failed("read an object")(error)).boxed())
    }

    /// Reads a whole object, which should be small: it is held in memory.
    ///
    /// # Errors
    /// [`BlobError`] when it is not there or cannot be read.
    pub async fn get(&self, object: &str) -> Result<Bytes, BlobError> {
        let path = ObjectPath::from(object);
        let found = self.bounded("open an object", self.store.get(&path)).await?;
        found.bytes().await.map_err(failed("read an object"))
    }

    /// The same, unless it is larger than this: then there is none.
    ///
    /// # Errors
    /// [`BlobError`] when it is not there or cannot be read.
    pub async fn get_at_most(&self, object: &str, bytes_max: u64) -> Result<Option<Bytes>, BlobError> {
        let path = ObjectPath::from(object);
        let found = self.bounded("open an object", self.store.get(&path)).await?;
        if found.meta.size > bytes_max {
            return Ok(None);
        }
        found.bytes().await.map(Some).map_err(failed("read an object"))
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// [`BlobError`] when that cannot be found out.
    pub async fn exists(&self, object: &str) -> Result<bool, BlobError> {
        let path = ObjectPath::from(object);
        match self.bounded("look for an object", self.store.head(&path)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of objects that begin with this, which ends with `/`; at most so many.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn list(&self, prefix: &str, count_max: usize) -> Result<Vec<String>, BlobError> {
        let path = ObjectPath::from(prefix);
        let found = self.store.list(Some(&path)).take(count_max).map_ok(|object| object.location.to_string());
        self.bounded("list objects", found.try_collect()).await
    }

    /// The same, each with its size in bytes.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn list_sized(&self, prefix: &str, count_max: usize) -> Result<Vec<(String, u64)>, BlobError> {
        let path = ObjectPath::from(prefix);
        let found = self.store.list(Some(&path)).take(count_max).map_ok(|object| (object.location.to_string(), object.size));
        self.bounded("list objects", found.try_collect()).await
    }

    /// Writes a whole object, which should be small: it is sent in one request. An object of this name is replaced; readers see the old or the new one.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn put(&self, object: &str, bytes: Bytes) -> Result<(), BlobError> {
        let path = ObjectPath::from(object);
        self.bounded("write an object", self.store.put(&path, bytes.into())).await?;
        Ok(())
    }

    /// Removes an object. That it was not there is fine.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn delete(&self, object: &str) -> Result<(), BlobError> {
        let path = ObjectPath::from(object);
        match self.bounded("remove an object", self.store.delete(&path)).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Waits for a request, and no longer than patience lasts.
    async fn bounded<T>(&self, doing: &'static str, request: impl Future<Output = object_store::Result<T>>) -> Result<T, BlobError> {
        let Some(patience) = self.patience else { return request.await.map_err(failed(doing)) };
        match tokio::time::timeout(patience, request).await {
            Ok(done) => done.map_err(failed(doing)),
            Err(_) => Err(BlobError::late(doing, patience)),
        }
    }
}

/// `object_store`'s own would show what it was made from.
impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blobs({})", self.place)
    }
}
