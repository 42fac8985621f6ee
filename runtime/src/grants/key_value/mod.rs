//! Keys and values of apps: each app has its own, and cannot name another's.

mod local;
mod redis;

use std::sync::Arc;

use async_trait::async_trait;

pub(super) use self::local::LocalValues;
pub(super) use self::redis::RedisValues;

use crate::model::KeyValueGrant;
use crate::sandbox::KeyValue;

/// What an entry counts beside its key and its value.
const ENTRY_BYTES: u64 = 64;
/// A number has so many digits at most.
const NUMBER_BYTES: u64 = 20;
/// Keys that are listed at a time, about.
const PAGE_KEYS: usize = 100;

/// Keys and values of all apps. The rest is as for [`KeyValue`]; `total_max` bounds what an app has, [`ENTRY_BYTES`] for each entry included.
#[async_trait]
pub(super) trait ValueStore: Send + Sync {
    async fn get(&self, app: &str, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String>;
    async fn set(&self, app: &str, entries: &[(String, Vec<u8>)], total_max: u64) -> Result<(), String>;
    async fn delete(&self, app: &str, keys: &[String]) -> Result<(), String>;
    async fn exists(&self, app: &str, key: &str) -> Result<bool, String>;
    async fn list_keys(&self, app: &str, cursor: u64) -> Result<(Vec<String>, Option<u64>), String>;
    async fn increment(&self, app: &str, key: &str, delta: u64, total_max: u64) -> Result<u64, String>;
}

fn full(total_max: u64) -> String {
    format!("the app's keys and values may have {total_max} bytes together, each entry counting {ENTRY_BYTES} bytes more, and this would be more")
}

fn no_number(key: &str) -> String {
    format!("the value of {key:?} is no whole number that can be added to")
}

/// The part of one app.
pub(super) fn of_app(values: Arc<dyn ValueStore>, app: &str, grant: &KeyValueGrant) -> Arc<dyn KeyValue> {
    Arc::new(AppValues { values, app: app.to_owned(), grant: grant.clone() })
}

struct AppValues {
    values: Arc<dyn ValueStore>,
    app: String,
    grant: KeyValueGrant,
}

#[async_trait]
impl KeyValue for AppValues {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String> {
        self.values.get(&self.app, keys).await
    }

    async fn set(&self, entries: &[(String, Vec<u8>)]) -> Result<(), String> {
        let max = self.grant.value_bytes_max as usize;
        if let Some((key, value)) = entries.iter().find(|(_, value)| value.len() > max) {
            return Err(format!("the value of {key:?} has {} bytes, and may have {max} at most", value.len()));
        }
        self.values.set(&self.app, entries, self.grant.total_bytes_max).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), String> {
        self.values.delete(&self.app, keys).await
    }

    async fn exists(&self, key: &str) -> Result<bool, String> {
        self.values.exists(&self.app, key).await
    }

    async fn list_keys(&self, cursor: u64) -> Result<(Vec<String>, Option<u64>), String> {
        self.values.list_keys(&self.app, cursor).await
    }

    async fn increment(&self, key: &str, delta: u64) -> Result<u64, String> {
        self.values.increment(&self.app, key, delta, self.grant.total_bytes_max).await
    }
}
