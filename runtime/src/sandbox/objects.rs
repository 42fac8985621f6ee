//! `rowmill:objects` for guests: objects of one app.

use std::sync::Arc;

use async_trait::async_trait;

use super::bindings::objects::rowmill::objects::store;
use super::capabilities::caught;
use super::ending::check_file_name;
use super::guest::GuestState;

/// The objects of one app. Names that come here have been checked.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Writes an object as a whole, whether or not there is one.
    async fn put(&self, name: &str, contents: Vec<u8>) -> Result<(), ObjectsFailure>;
    /// An object as a whole, if it is there.
    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectsFailure>;
    /// Removes what is there of this name.
    async fn delete(&self, name: &str) -> Result<(), ObjectsFailure>;
    /// A page of those whose names begin with this, in the order of their names, behind one.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ObjectInfo>, ObjectsFailure>;
}

/// One object of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    pub name: String,
    pub size_bytes: u64,
}

/// Why something was not done with an object, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectsFailure {
    TooLarge(String),
    Full(String),
    Unavailable(String),
}

impl From<ObjectsFailure> for store::Error {
    fn from(failure: ObjectsFailure) -> store::Error {
        match failure {
            ObjectsFailure::TooLarge(reason) => store::Error::TooLarge(reason),
            ObjectsFailure::Full(reason) => store::Error::Full(reason),
            ObjectsFailure::Unavailable(reason) => store::Error::Unavailable(reason),
        }
    }
}

impl GuestState {
    fn objects(&self) -> Result<Arc<dyn Objects>, store::Error> {
        self.capabilities.objects.clone().ok_or(store::Error::Denied)
    }
}

fn check_name(name: &str) -> Result<(), store::Error> {
    check_file_name("an object", name).map_err(store::Error::BadName)
}

async fn done<T>(work: impl Future<Output = Result<T, ObjectsFailure>>) -> Result<T, store::Error> {
    Ok(caught(work).await.unwrap_or_else(|panic| Err(ObjectsFailure::Unavailable(panic)))?)
}

impl store::Host for GuestState {
    async fn put(&mut self, name: String, contents: Vec<u8>) -> Result<(), store::Error> {
        let objects = self.objects()?;
        check_name(&name)?;
        done(objects.put(&name, contents)).await
    }

    async fn get(&mut self, name: String) -> Result<Option<Vec<u8>>, store::Error> {
        let objects = self.objects()?;
        check_name(&name)?;
        done(objects.get(&name)).await
    }

    async fn delete(&mut self, name: String) -> Result<(), store::Error> {
        let objects = self.objects()?;
        check_name(&name)?;
        done(objects.delete(&name)).await
    }

    async fn list(&mut self, prefix: String, after: Option<String>) -> Result<Vec<store::Info>, store::Error> {
        let objects = self.objects()?;
        let found = done(objects.list(&prefix, after.as_deref())).await?;
        Ok(found.into_iter().map(|object| store::Info { name: object.name, size: object.size_bytes }).collect())
    }
}
