//! What apps are granted, made ready for their guests: the sandbox says what it needs (its traits), and this room has it.

mod http;
mod key_value;
mod objects;
mod secrets;
mod seldom;
mod sql;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use self::http::{Resolve, SystemResolver};

use self::http::HttpClient;
use self::key_value::{LocalValues, RedisValues, ValueStore};
use self::objects::{AppObjects, Turns};
use self::secrets::read_secret;
use self::sql::{PgDatabase, Places};
use crate::blobs::Blobs;
use crate::model::{DirectoryGrant, Grants, ObjectsGrant};
use crate::sandbox::{Capabilities, Directory, HttpCapability, Masks, Objects, Sql};

/// What this process has to grant from.
#[derive(Clone)]
pub struct GrantSettings {
    /// A directory with a file for each secret, named like it.
    pub secrets_directory: Option<PathBuf>,
    /// A directory with a file for each database, named like it, that holds its URL.
    pub databases_directory: Option<PathBuf>,
    /// Where keys and values are kept, with its password. None: in this process, as long as it lives.
    pub redis_url: Option<String>,
    /// Where objects are kept. A worker sets its own.
    pub objects: Option<Blobs>,
    /// Who finds the addresses of names.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for GrantSettings {
    fn default() -> GrantSettings {
        GrantSettings { secrets_directory: None, databases_directory: None, redis_url: None, objects: None, resolver: Arc::new(SystemResolver) }
    }
}

impl std::fmt::Debug for GrantSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let redis = self.redis_url.as_ref().map(|_| "***");
        f.debug_struct("GrantSettings")
            .field("secrets_directory", &self.secrets_directory)
            .field("databases_directory", &self.databases_directory)
            .field("redis_url", &redis)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

/// Makes the capabilities of apps. One per process.
pub struct Granter {
    settings: GrantSettings,
    /// Made when it is first needed.
    values: OnceLock<Result<Arc<dyn ValueStore>, String>>,
    /// For connections to databases, which all batches of an app share.
    places: Arc<Places>,
    turns: Turns,
}

impl Granter {
    pub fn new(settings: GrantSettings) -> Granter {
        Granter { settings, values: OnceLock::new(), places: Arc::default(), turns: Turns::default() }
    }

    /// What an app's guests get for its grants.
    ///
    /// # Errors
    /// A sentence: a secret is not there, or what is granted cannot be had in this process.
    pub async fn capabilities(&self, app: &str, grants: &Grants) -> Result<Capabilities, String> {
        if grants.is_empty() {
            return Ok(Capabilities::default());
        }
        let secrets = self.read_secrets(app, grants).await?;
        let masks = Masks::new(secrets.iter().map(|(_, value)| value.as_str()));
        let config = (!grants.values.is_empty() || !secrets.is_empty()).then(|| grants.values.clone().into_iter().chain(secrets).collect());
        let http = grants.http.as_ref().map(|grant| HttpCapability {
            client: Arc::new(HttpClient::new(grant.clone(), Arc::clone(&self.settings.resolver))),
            requests_max: grant.requests_max,
            at_once_max: grant.at_once_max,
        });
        let directory = |(guest, grant): (&String, &DirectoryGrant)| Directory {
            guest: guest.clone(),
            path: PathBuf::from(&grant.path),
            writable: grant.writable,
        };
        let directories = grants.directories.iter().map(directory).collect();
        let sql = self.open_databases(app, grants).await?;
        let key_value = match &grants.key_value {
            Some(grant) => Some(key_value::of_app(self.values()?, app, grant)),
            None => None,
        };
        let objects = match &grants.objects {
            Some(grant) => Some(self.objects(app, grant)?),
            None => None,
        };
        Ok(Capabilities { config, masks, directories, http, sql, key_value, objects })
    }

    async fn read_secrets(&self, app: &str, grants: &Grants) -> Result<Vec<(String, String)>, String> {
        if grants.secrets.is_empty() {
            return Ok(Vec::new());
        }
        let of_app = |reason: String| format!("a secret that app {app:?} was granted cannot be had: {reason}");
        let Some(directory) = self.settings.secrets_directory.clone() else {
            return Err(of_app("this worker has no secrets: set grants.secrets_directory".to_owned()));
        };
        let secrets = grants.secrets.clone();
        let read = move || secrets.into_iter().map(|(key, name)| Ok((key, read_secret(&directory, &name)?))).collect::<Result<Vec<_>, String>>();
        tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string()).and_then(|read| read).map_err(of_app)
    }

    async fn open_databases(&self, app: &str, grants: &Grants) -> Result<BTreeMap<String, Arc<dyn Sql>>, String> {
        if grants.sql.is_empty() {
            return Ok(BTreeMap::new());
        }
        let of_app = |reason: String| format!("a database that app {app:?} was granted cannot be had: {reason}");
        let Some(directory) = self.settings.databases_directory.clone() else {
            return Err(of_app("this worker knows no databases: set grants.databases_directory".to_owned()));
        };
        let (databases, places, app) = (grants.sql.clone(), Arc::clone(&self.places), app.to_owned());
        let open = move || {
            let mut opened: BTreeMap<String, Arc<dyn Sql>> = BTreeMap::new();
            for (name, grant) in databases {
                let database = PgDatabase::open(&directory, &name, &grant, &app, &places)?;
                opened.insert(name, Arc::new(database));
            }
            Ok(opened)
        };
        tokio::task::spawn_blocking(open).await.map_err(|error| error.to_string()).and_then(|open| open).map_err(of_app)
    }

    fn objects(&self, app: &str, grant: &ObjectsGrant) -> Result<Arc<dyn Objects>, String> {
        let blobs = self
            .settings
            .objects
            .clone()
            .ok_or_else(|| format!("the objects that app {app:?} was granted cannot be had: there is no object store here"))?;
        Ok(Arc::new(AppObjects::new(blobs, app, grant, &self.turns)))
    }

    fn values(&self) -> Result<Arc<dyn ValueStore>, String> {
        let made = self.values.get_or_init(|| match &self.settings.redis_url {
            Some(url) => Ok(Arc::new(RedisValues::open(url)?)),
            None => Ok(Arc::new(LocalValues::default())),
        });
        made.clone()
    }
}
