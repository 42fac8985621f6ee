//! `wasi:keyvalue` for guests: one bucket per app.

use async_trait::async_trait;
use wasmtime::component::Resource;

use super::bindings::key_value::wasi::keyvalue::{atomics, batch, store};
use super::capabilities::caught;
use super::guest::GuestState;

/// Keys of one call, at most.
const KEYS_PER_CALL_MAX: usize = 32;
/// A longer key is refused.
const KEY_BYTES_MAX: usize = 512;
/// Names of the one bucket that an app has.
const BUCKETS: [&str; 2] = ["", "default"];

/// The keys and values of one app. What cannot be done is told as a sentence.
#[async_trait]
pub trait KeyValue: Send + Sync {
    /// The values of keys, in their order.
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String>;
    /// Sets all, or none.
    async fn set(&self, entries: &[(String, Vec<u8>)]) -> Result<(), String>;
    /// Removes what is there of these.
    async fn delete(&self, keys: &[String]) -> Result<(), String>;
    async fn exists(&self, key: &str) -> Result<bool, String>;
    /// Some keys, in no order, and where to go on; 0 begins. A key that is there all the while comes at least once.
    async fn list_keys(&self, cursor: u64) -> Result<(Vec<String>, Option<u64>), String>;
    /// Adds to a number in decimal digits; what is not there is 0. Returns the sum.
    async fn increment(&self, key: &str, delta: u64) -> Result<u64, String>;
}

/// An open bucket: there is one, so it says nothing.
pub struct Bucket;

/// Why a call was not done.
pub(super) enum KeyValueError {
    NoSuchStore,
    AccessDenied,
    Other(String),
    Trap(wasmtime::Error),
}

impl From<wasmtime::component::ResourceTableError> for KeyValueError {
    fn from(error: wasmtime::component::ResourceTableError) -> KeyValueError {
        KeyValueError::Trap(error.into())
    }
}

type Done<T> = Result<T, KeyValueError>;

impl GuestState {
    fn key_value(&mut self, bucket: &Resource<Bucket>) -> Done<std::sync::Arc<dyn KeyValue>> {
        self.table.get(bucket)?;
        self.capabilities.key_value.clone().ok_or(KeyValueError::AccessDenied)
    }
}

fn check_keys<'k>(keys: impl ExactSizeIterator<Item = &'k str>) -> Done<()> {
    if keys.len() > KEYS_PER_CALL_MAX {
        return Err(KeyValueError::Other(format!("a call has {KEYS_PER_CALL_MAX} keys at most, and this one has {}", keys.len())));
    }
    for key in keys {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(KeyValueError::Other(format!("a key has 1 to {KEY_BYTES_MAX} bytes, and this one has {}", key.len())));
        }
    }
    Ok(())
}

async fn done<T>(work: impl Future<Output = Result<T, String>>) -> Done<T> {
    caught(work).await.and_then(|done| done).map_err(KeyValueError::Other)
}

impl store::Host for GuestState {
    async fn open(&mut self, identifier: String) -> Done<Resource<Bucket>> {
        if self.capabilities.key_value.is_none() {
            return Err(KeyValueError::AccessDenied);
        }
        if !BUCKETS.contains(&identifier.as_str()) {
            return Err(KeyValueError::NoSuchStore);
        }
        Ok(self.table.push(Bucket)?)
    }

    fn convert_error(&mut self, error: KeyValueError) -> wasmtime::Result<store::Error> {
        match error {
            KeyValueError::NoSuchStore => Ok(store::Error::NoSuchStore),
            KeyValueError::AccessDenied => Ok(store::Error::AccessDenied),
            KeyValueError::Other(reason) => Ok(store::Error::Other(reason)),
            KeyValueError::Trap(error) => Err(error),
        }
    }
}

impl store::HostBucket for GuestState {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Done<Option<Vec<u8>>> {
        let values = self.key_value(&bucket)?;
        check_keys([key.as_str()].into_iter())?;
        Ok(done(values.get(&[key])).await?.pop().flatten())
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Done<()> {
        let values = self.key_value(&bucket)?;
        check_keys([key.as_str()].into_iter())?;
        done(values.set(&[(key, value)])).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Done<()> {
        let values = self.key_value(&bucket)?;
        check_keys([key.as_str()].into_iter())?;
        done(values.delete(&[key])).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Done<bool> {
        let values = self.key_value(&bucket)?;
        check_keys([key.as_str()].into_iter())?;
        done(values.exists(&key)).await
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Done<store::KeyResponse> {
        let values = self.key_value(&bucket)?;
        let (keys, cursor) = done(values.list_keys(cursor.unwrap_or(0))).await?;
        Ok(store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for GuestState {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Done<u64> {
        let values = self.key_value(&bucket)?;
        check_keys([key.as_str()].into_iter())?;
        done(values.increment(&key, delta)).await
    }
}

impl batch::Host for GuestState {
    async fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Done<Vec<Option<(String, Vec<u8>)>>> {
        let values = self.key_value(&bucket)?;
        check_keys(keys.iter().map(String::as_str))?;
        let found = done(values.get(&keys)).await?;
        Ok(keys.into_iter().zip(found).map(|(key, value)| value.map(|value| (key, value))).collect())
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, entries: Vec<(String, Vec<u8>)>) -> Done<()> {
        let values = self.key_value(&bucket)?;
        check_keys(entries.iter().map(|(key, _)| key.as_str()))?;
        done(values.set(&entries)).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Done<()> {
        let values = self.key_value(&bucket)?;
        check_keys(keys.iter().map(String::as_str))?;
        done(values.delete(&keys)).await
    }
}
