//! What an app was granted, as its guests get it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;

use super::bindings::config::wasi::config::store;
use super::guest::GuestState;
use super::http::HttpCapability;
use super::key_value::KeyValue;
use super::mask::Masks;
use super::objects::Objects;
use super::sql::Sql;

/// What the guests of one app may use beyond what every guest has. What is none is denied at the call.
#[derive(Clone, Default)]
pub struct Capabilities {
    /// What `wasi:config` tells, the values of secrets among it.
    pub config: Option<BTreeMap<String, String>>,
    /// Hides these secrets in all that a guest says.
    pub masks: Masks,
    pub directories: Vec<Directory>,
    pub http: Option<HttpCapability>,
    /// Databases, by name.
    pub sql: BTreeMap<String, Arc<dyn Sql>>,
    pub key_value: Option<Arc<dyn KeyValue>>,
    pub objects: Option<Arc<dyn Objects>>,
}

/// A directory of this machine that guests find.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where guests find it.
    pub guest: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether they may change what is in it.
    pub writable: bool,
}

/// A panic of what the host does for a guest, as a text: it ends a call, and never the host.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text");
        tracing::error!("the host failed in what a guest asked for: {text}");
        "the host failed; its log says more".to_owned()
    })
}

impl store::Host for GuestState {
    fn get(&mut self, key: String) -> Result<Option<String>, store::Error> {
        Ok(config_of(self)?.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, store::Error> {
        Ok(config_of(self)?.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn config_of(state: &GuestState) -> Result<&BTreeMap<String, String>, store::Error> {
    state.capabilities.config.as_ref().ok_or_else(|| store::Error::Upstream("no configuration is granted to this app".to_owned()))
}
