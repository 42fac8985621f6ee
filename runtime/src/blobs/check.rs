//! Whether an object store can be used, before anything depends on it.

use bytes::Bytes;
use uuid::Uuid;

use super::error::Cause;
use super::{BlobError, Blobs};

/// Why an object store cannot be used, in a sentence that says what to look at.
#[derive(Debug, thiserror::Error)]
#[error("objects cannot be kept in {place}: {reason}")]
pub struct Unusable {
    place: String,
    reason: String,
    #[source]
    source: Option<BlobError>,
}

impl Blobs {
    /// Writes, reads and removes a small object.
    ///
    /// # Errors
    /// [`Unusable`].
    pub async fn check(&self) -> Result<(), Unusable> {
        let object = format!("check/{}", Uuid::now_v7());
        let written = Bytes::from(object.clone());
        self.put(&object, written.clone()).await.map_err(|error| self.unusable("write", error))?;
        let read = self.get(&object).await;
        // Also when it could not be read.
        let deleted = self.delete(&object).await;
        let read = read.map_err(|error| self.unusable("read", error))?;
        deleted.map_err(|error| self.unusable("remove", error))?;
        if read == written {
            return Ok(());
        }
        Err(Unusable { place: self.place.to_string(), reason: "it gave back another object than it was given".to_owned(), source: None })
    }

    fn unusable(&self, doing: &str, error: BlobError) -> Unusable {
        let reason = if error.is_unreachable() { "it cannot be reached, or does not answer".to_owned() } else { explain(doing, &error.cause) };
        Unusable { place: self.place.to_string(), reason, source: Some(error) }
    }
}

/// S3's errors have codes, which `object_store` passes on as text only.
const CODES: [(&str, &str); 9] = [
    ("NoSuchBucket", "there is no such bucket"),
    ("InvalidAccessKeyId", "it does not know the `access_key_id`"),
    ("NotSignedUp", "it does not know the `access_key_id`"),
    ("SignatureDoesNotMatch", "the `secret_access_key` is not that of the `access_key_id`"),
    ("AuthorizationHeaderMalformed", "it does not take requests for this `region`"),
    ("PermanentRedirect", "the bucket is in another `region`, or has another `endpoint`"),
    ("Received redirect", "the bucket is in another `region`, or has another `endpoint`"),
    ("RequestTimeTooSkewed", "this machine's clock is wrong"),
    ("ExpiredToken", "the keys have expired"),
];

fn explain(doing: &str, cause: &Cause) -> String {
    let text = cause.to_string();
    if let Some((_, reason)) = CODES.iter().find(|(code, _)| text.contains(code)) {
        return (*reason).to_owned();
    }
    match cause {
        Cause::Failed(object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }) => {
            format!("the keys may not {doing} objects there")
        }
        Cause::Failed(_) | Cause::Late(_) | Cause::Stopped(_) => format!("an object could not be {}", past(doing)),
    }
}

fn past(doing: &str) -> &'static str {
    match doing {
        "write" => "written",
        "read" => "read",
        _ => "removed",
    }
}
