//! Files that are appended to held batches, in parts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BatchFile, NewRow, Timestamp};

/// The token of one append: only its holder adds parts to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendToken(pub(crate) i64);

impl AppendToken {
    /// A new token, made by chance.
    pub fn generate() -> AppendToken {
        // The low half of a UUIDv7 is random, but for its first two bits.
        AppendToken(i64::from_ne_bytes(Uuid::now_v7().as_u64_pair().1.to_ne_bytes()))
    }
}

/// A name for an append: an append that is made again with its key, after a lost answer or a crash, comes in once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendKey {
    /// Unique in the batch.
    pub name: String,
    /// The digest of the file: with another one the key is refused.
    pub digest: String,
}

/// A part of a file that is appended to a held batch. The rows of all parts become rows of the batch with the last part, in its transaction.
#[derive(Clone, Debug)]
pub struct AppendPart {
    pub token: AppendToken,
    pub key: Option<AppendKey>,
    /// True for the first part.
    pub begins: bool,
    /// True for the last part.
    pub ends: bool,
    /// A part without rows only moves the expiry forward.
    pub rows: Vec<NewRow>,
    /// With the last part: the file, to be recorded. The store sets its first row.
    pub file: Option<BatchFile>,
    /// How long the append lives from this part on.
    pub ttl: Duration,
}

/// The state of an append after a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendState {
    /// Rows of the batch, with those of the file so far.
    pub rows: u64,
    /// True when an append with this key was completed before: nothing was added, and `rows` is its result.
    pub was_there: bool,
}

/// A file that is being appended to a batch, and whose rows do not belong to it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAppend {
    /// Rows of the file that are stored so far.
    pub rows: u64,
    /// From this moment on they are removed by the next operation on the batch, unless another part comes in before.
    pub expires_at: Timestamp,
}
