//! Objects of apps, in the installation's object store: each app has a prefix of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::seldom::Seldom;
use crate::blobs::{BlobError, Blobs};
use crate::model::{ObjectsGrant, hex};
use crate::sandbox::{ObjectInfo, Objects, ObjectsFailure};

/// Objects that are listed at a time.
const PAGE: usize = 1_000;
/// So many are looked at. An app has fewer: writers in different processes may pass its limit by one each, and the limit may have been lowered.
const SEEN_MAX: usize = 2 * ObjectsGrant::COUNT_MAX as usize;

/// Whose turn it is to add to what an app has: who counts must know that nobody adds at the same time.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn of(&self, app: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(app.to_owned()).or_default())
    }
}

/// The objects of one app.
pub(super) struct AppObjects {
    blobs: Blobs,
    /// Ends with `/`.
    prefix: String,
    grant: ObjectsGrant,
    turn: Arc<tokio::sync::Mutex<()>>,
    told: Seldom,
}

impl AppObjects {
    pub fn new(blobs: Blobs, app: &str, grant: &ObjectsGrant, turns: &Turns) -> AppObjects {
        AppObjects { blobs, prefix: prefix_of(app), grant: grant.clone(), turn: turns.of(app), told: Seldom::default() }
    }

    fn object(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// All that there are, in the order of their names.
    async fn all(&self) -> Result<Vec<ObjectInfo>, ObjectsFailure> {
        let found = self.blobs.list_sized(&self.prefix, SEEN_MAX).await.map_err(|error| self.unavailable(error))?;
        let info = |(object, size_bytes): (String, u64)| Some(ObjectInfo { name: object.strip_prefix(&self.prefix)?.to_owned(), size_bytes });
        let mut found: Vec<ObjectInfo> = found.into_iter().filter_map(info).collect();
        found.sort();
        Ok(found)
    }

    /// The guest hears nothing of where objects are; the host's log does.
    fn unavailable(&self, error: BlobError) -> ObjectsFailure {
        if self.told.is_due() {
            tracing::warn!("objects of apps cannot be reached: {:#}", anyhow::Error::new(error));
        }
        ObjectsFailure::Unavailable("the objects cannot be reached at the moment".to_owned())
    }

    fn check_size(&self, what: &str, bytes: u64) -> Result<(), ObjectsFailure> {
        let most = self.grant.object_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        Err(ObjectsFailure::TooLarge(format!("{what} has {bytes} bytes, and may have {most} at most")))
    }

    /// Whether one more fits, or another one instead of that of its name.
    async fn check_room(&self, name: &str, bytes: u64) -> Result<(), ObjectsFailure> {
        let ObjectsGrant { total_bytes_max, count_max, .. } = self.grant;
        let others: Vec<ObjectInfo> = self.all().await?.into_iter().filter(|object| object.name != name).collect();
        if others.len() >= count_max as usize {
            return Err(ObjectsFailure::Full(format!("the app may have {count_max} objects, and this would be one more")));
        }
        let total = others.iter().map(|object| object.size_bytes).fold(bytes, u64::saturating_add);
        if total > total_bytes_max {
            return Err(ObjectsFailure::Full(format!("the app's objects may have {total_bytes_max} bytes together, and would have {total}")));
        }
        Ok(())
    }
}

/// The place of an app. Names that are plain are their own place; others, which may hold anything, or differ from a plain one in capitals only, have a digest behind a character that no plain
/// one holds. So two apps never have the same, on any file system.
fn prefix_of(app: &str) -> String {
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '_');
    if !app.is_empty() && app.len() <= 64 && app.chars().all(plain) {
        format!("apps/{app}/")
    } else {
        format!("apps/={}/", hex(&Sha256::digest(app)))
    }
}

#[async_trait]
impl Objects for AppObjects {
    async fn put(&self, name: &str, contents: Vec<u8>) -> Result<(), ObjectsFailure> {
        let bytes = contents.len() as u64;
        self.check_size("the object", bytes)?;
        let _turn = self.turn.lock().await;
        self.check_room(name, bytes).await?;
        self.blobs.put(&self.object(name), contents.into()).await.map_err(|error| self.unavailable(error))
    }

    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectsFailure> {
        match self.blobs.get_at_most(&self.object(name), self.grant.object_bytes_max).await {
            Ok(Some(contents)) => Ok(Some(contents.into())),
            Ok(None) => Err(ObjectsFailure::TooLarge(format!("{name:?} has more than {} bytes", self.grant.object_bytes_max))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.unavailable(error)),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), ObjectsFailure> {
        self.blobs.delete(&self.object(name)).await.map_err(|error| self.unavailable(error))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, ObjectsFailure> {
        let wanted = |object: &ObjectInfo| object.name.starts_with(prefix) && after.is_none_or(|after| object.name.as_str() > after);
        Ok(self.all().await?.into_iter().filter(wanted).take(PAGE).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_apps_have_the_same_place() {
        let apps = [
            "bank",
            "Bank",
            "BANK",
            "",
            "..",
            ".",
            "../bank",
            "bank/",
            "/bank",
            "bank\0",
            "bank/other",
            "=",
            "b\u{e4}nk",
            &"x".repeat(64),
            &"x".repeat(65),
        ];
        let places: HashSet<String> = apps.iter().map(|app| prefix_of(app).to_lowercase()).collect();
        assert_eq!(places.len(), apps.len());
        for place in &places {
            assert!(place.starts_with("apps/") && place.matches('/').count() == 2 && !place.contains(".."), "{place}");
        }
        assert_eq!(prefix_of("bank"), "apps/bank/");
    }
}
