//! S3, Amazon's or another's.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::settings::{BlobSettings, SettingError};

/// The least that S3 takes as a part that is not the last. An object has at most 10,000 parts, so 50 GiB.
pub const PART_BYTES: usize = 5 << 20;

const CONNECT: Duration = Duration::from_secs(5);

pub fn open(settings: &BlobSettings, bucket: &str, prefix: &ObjectPath) -> Result<Arc<dyn ObjectStore>, SettingError> {
    let mut builder = match (&settings.access_key_id, &settings.secret_access_key) {
        (Some(id), Some(secret)) => AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret),
        _ => AmazonS3Builder::from_env(),
    };
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(host_of(endpoint, bucket, settings.path_style()));
    }
    // Half of the time is for the first try, half for others.
    let half = settings.patience / 2;
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(3), base: 2.0 },
        max_retries: 10,
        retry_timeout: half,
    };
    // What is read may take as long as it needs while bytes come in.
    let client = ClientOptions::new()
        .with_allow_http(settings.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")))
        .with_connect_timeout(CONNECT.min(half))
        .with_read_timeout(half)
        .with_timeout_disabled();
    let store = builder
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!settings.path_style())
        .with_client_options(client)
        .with_retry(retry)
        .build()
        // What is left to be wrong was not checked in `settings`: keys from the environment, say.
        .map_err(|error| SettingError::new("url", format!("names an S3 that cannot be used: {error}")))?;
    Ok(if prefix.is_root() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix.clone())) })
}

/// The URL that requests go to. What `object_store` takes as endpoint holds the bucket where its name is part of the host's.
fn host_of(endpoint: &str, bucket: &str, path_style: bool) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !path_style => format!("{scheme}://{bucket}.{host}"),
        _ => endpoint.to_owned(),
    }
}

/// For people.
pub fn describe(settings: &BlobSettings, bucket: &str) -> String {
    let server = settings.endpoint.as_deref().or(settings.region.as_deref()).unwrap_or("Amazon's S3");
    format!("the bucket {bucket} at {server}")
}
