//! Keys and values in the process, as long as it lives.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{ENTRY_BYTES, PAGE_KEYS, ValueStore, full, no_number};

#[derive(Default)]
pub(in crate::grants) struct LocalValues(Mutex<HashMap<String, Values>>);

/// What one app has.
#[derive(Clone, Default)]
struct Values {
    entries: HashMap<String, Entry>,
    /// By the number of their entry, which grows: a page goes on behind the last one, whatever was removed meanwhile.
    order: BTreeMap<u64, String>,
    numbered: u64,
    bytes: u64,
}

#[derive(Clone)]
struct Entry {
    number: u64,
    value: Vec<u8>,
}

impl LocalValues {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Values>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(key: &str, value: &[u8]) -> u64 {
    ENTRY_BYTES + key.len() as u64 + value.len() as u64
}

impl Values {
    fn set(&mut self, key: &str, value: Vec<u8>) {
        self.bytes += weight(key, &value);
        match self.entries.get_mut(key) {
            Some(entry) => {
                self.bytes -= weight(key, &entry.value);
                entry.value = value;
            }
            None => {
                self.numbered += 1;
                self.order.insert(self.numbered, key.to_owned());
                self.entries.insert(key.to_owned(), Entry { number: self.numbered, value });
            }
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= weight(key, &entry.value);
            self.order.remove(&entry.number);
        }
    }

    /// What it would weigh with these.
    fn bytes_with(&self, entries: &[(String, Vec<u8>)]) -> u64 {
        // Of a key that comes twice the last value stays.
        let last: HashMap<&str, &[u8]> = entries.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let old: u64 = last.keys().filter_map(|key| self.entries.get(*key).map(|entry| weight(key, &entry.value))).sum();
        self.bytes - old + last.iter().map(|(key, value)| weight(key, value)).sum::<u64>()
    }
}

#[async_trait]
impl ValueStore for LocalValues {
    async fn get(&self, app: &str, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String> {
        let apps = self.lock();
        let values = apps.get(app);
        Ok(keys.iter().map(|key| values.and_then(|values| values.entries.get(key)).map(|entry| entry.value.clone())).collect())
    }

    async fn set(&self, app: &str, entries: &[(String, Vec<u8>)], total_max: u64) -> Result<(), String> {
        let mut apps = self.lock();
        let values = apps.entry(app.to_owned()).or_default();
        if values.bytes_with(entries) > total_max {
            return Err(full(total_max));
        }
        for (key, value) in entries {
            values.set(key, value.clone());
        }
        Ok(())
    }

    async fn delete(&self, app: &str, keys: &[String]) -> Result<(), String> {
        if let Some(values) = self.lock().get_mut(app) {
            keys.iter().for_each(|key| values.remove(key));
        }
        Ok(())
    }

    async fn exists(&self, app: &str, key: &str) -> Result<bool, String> {
        Ok(self.lock().get(app).is_some_and(|values| values.entries.contains_key(key)))
    }

    async fn list_keys(&self, app: &str, cursor: u64) -> Result<(Vec<String>, Option<u64>), String> {
        let apps = self.lock();
        let Some(values) = apps.get(app) else { return Ok((Vec::new(), None)) };
        let page: Vec<(&u64, &String)> = values.order.range(cursor.saturating_add(1)..).take(PAGE_KEYS).collect();
        let next = page.last().map(|(number, _)| **number).filter(|last| values.order.range(last + 1..).next().is_some());
        Ok((page.into_iter().map(|(_, key)| key.clone()).collect(), next))
    }

    async fn increment(&self, app: &str, key: &str, delta: u64, total_max: u64) -> Result<u64, String> {
        let mut apps = self.lock();
        let values = apps.entry(app.to_owned()).or_default();
        let old = match values.entries.get(key) {
            None => 0,
            Some(entry) => std::str::from_utf8(&entry.value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .filter(|old| *old >= 0)
                .ok_or_else(|| no_number(key))?,
        };
        // As far as Redis can count.
        let sum = i64::try_from(delta).ok().and_then(|delta| old.checked_add(delta)).ok_or_else(|| no_number(key))?;
        let entry = [(key.to_owned(), sum.to_string().into_bytes())];
        if values.bytes_with(&entry) > total_max {
            return Err(full(total_max));
        }
        let [(_, value)] = entry;
        values.set(key, value);
        Ok(sum.unsigned_abs())
    }
}
