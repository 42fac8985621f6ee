//! Where objects are kept, as it is configured.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use object_store::path::Path as ObjectPath;

/// How long an object store may be silent before it is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where objects are kept.
#[derive(Clone)]
pub struct BlobSettings {
    /// `file:///directory` (taken as it is written: nothing in it is decoded) or `s3://bucket/prefix`, of which the prefix may be left out.
    pub url: String,
    /// The URL of a server that speaks S3, without the bucket. Amazon's own when it is not given. `http://` is not encrypted.
    pub endpoint: Option<String>,
    /// Amazon's endpoints need it; `us-east-1` where an endpoint is given.
    pub region: Option<String>,
    /// Both keys or none. Without keys those of the environment (`AWS_…`) or of the machine's role are used.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    /// Whether the bucket is named in the path of requests, and not in the host's name. Not given: yes where an endpoint is given, else no.
    pub path_style: Option<bool>,
    /// How long one request may take, its retries included.
    pub patience: Duration,
}

/// A setting that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the object store's setting `{setting}` {problem}")]
pub struct SettingError {
    /// The name of the field of [`BlobSettings`].
    pub setting: &'static str,
    /// What is wrong with it, and what it should be.
    pub problem: String,
}

impl SettingError {
    pub(super) fn new(setting: &'static str, problem: impl Into<String>) -> SettingError {
        SettingError { setting, problem: problem.into() }
    }
}

#[derive(Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Bucket { bucket: String, prefix: ObjectPath },
}

impl BlobSettings {
    /// Settings with a URL alone.
    pub fn new(url: impl Into<String>) -> BlobSettings {
        BlobSettings {
            url: url.into(),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            path_style: None,
            patience: PATIENCE,
        }
    }

    pub(super) fn path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    /// What the settings name. All of them are checked.
    pub(super) fn place(&self) -> Result<Place, SettingError> {
        if let Some(path) = self.url.strip_prefix("file://") {
            self.check_nothing_is_s3s()?;
            return if path.starts_with('/') {
                Ok(Place::Directory(path.into()))
            } else {
                Err(SettingError::new("url", format!("must hold a path from the root on, as in file:///var/lib/rowmill; it is {}", self.url)))
            };
        }
        let Some(place) = self.url.strip_prefix("s3://") else {
            // Not shown: it may hold a password, which ours never do.
            return Err(SettingError::new("url", "must begin with file:/// or s3://"));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        check_bucket(bucket)?;
        let prefix = ObjectPath::parse(prefix).map_err(|error| SettingError::new("url", format!("has a prefix that cannot be used: {error}")))?;
        self.check_endpoint()?;
        self.check_keys()?;
        if self.endpoint.is_none() && self.region.is_none() {
            return Err(SettingError::new("region", "is missing: without an `endpoint` Amazon's own is used, and it depends on the region"));
        }
        if self.region.as_ref().is_some_and(|region| !is_name(region, "-")) {
            return Err(SettingError::new("region", "must be a name such as eu-central-1"));
        }
        if self.patience.is_zero() {
            return Err(SettingError::new("patience", "must be more than nothing"));
        }
        Ok(Place::Bucket { bucket: bucket.to_owned(), prefix })
    }

    fn check_nothing_is_s3s(&self) -> Result<(), SettingError> {
        let settings = [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("access_key_id", self.access_key_id.is_some()),
            ("secret_access_key", self.secret_access_key.is_some()),
            ("path_style", self.path_style.is_some()),
        ];
        match settings.iter().find(|(_, given)| *given) {
            Some((setting, _)) => Err(SettingError::new(setting, "is for S3, but `url` names a directory: leave one of them out")),
            None => Ok(()),
        }
    }

    fn check_endpoint(&self) -> Result<(), SettingError> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let Some(host) = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://")) else {
            return Err(SettingError::new("endpoint", "must begin with https:// or http://"));
        };
        let host = host.trim_end_matches('/');
        if host.contains('@') {
            return Err(SettingError::new("endpoint", "must not hold a user or a password: there are `access_key_id` and `secret_access_key`"));
        }
        // A bracketed host is an IPv6 address.
        if host.is_empty() || !is_name(host, ".-_:[]") {
            let problem = format!("must be a host, and a port where it has one, as in https://s3.example.com:9000; it is {endpoint}");
            return Err(SettingError::new("endpoint", problem));
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<(), SettingError> {
        for (setting, other, given, other_given) in [
            ("access_key_id", "secret_access_key", &self.access_key_id, &self.secret_access_key),
            ("secret_access_key", "access_key_id", &self.secret_access_key, &self.access_key_id),
        ] {
            if given.is_none() && other_given.is_some() {
                return Err(SettingError::new(setting, format!("is missing: `{other}` is given, and is of no use alone")));
            }
            if given.as_ref().is_some_and(String::is_empty) {
                return Err(SettingError::new(setting, "is empty"));
            }
        }
        Ok(())
    }
}

fn check_bucket(bucket: &str) -> Result<(), SettingError> {
    if (3..=63).contains(&bucket.len()) && is_name(bucket, ".-") && bucket.to_lowercase() == bucket {
        return Ok(());
    }
    let problem = format!("must name a bucket after s3://, 3 to 63 lower-case letters, digits, dots and hyphens; it names {bucket:?}");
    Err(SettingError::new("url", problem))
}

fn is_name(text: &str, also: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

/// Keys are shown to nobody: settings end up in logs.
impl fmt::Debug for BlobSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobSettings")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id.as_ref().map(|_| "…"))
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "…"))
            .field("path_style", &self.path_style)
            .field("patience", &self.patience)
            .finish()
    }
}
