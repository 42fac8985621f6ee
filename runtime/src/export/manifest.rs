//! The manifest of a result: the files that Rowmill wrote, so that it can tell them from others.

use serde::{Deserialize, Serialize};

use crate::model::{BatchId, PrunedParts};

/// The manifest is written last: where it stands, all its files do.
pub const MANIFEST: &str = "manifest.json";

/// The command that wrote a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultKind {
    /// `rowmill run`.
    Run,
    /// `rowmill results --out`.
    Results,
    /// `rowmill export`.
    #[default]
    Export,
}

/// The files of a result, which is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub batch: BatchId,
    #[serde(default)]
    pub kind: ResultKind,
    /// The parts of the batch that had been pruned before, and are not there.
    #[serde(default)]
    pub pruned: PrunedParts,
    /// For a run: its processor, settings and input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<serde_json::Value>,
    pub files: Vec<ExportedFile>,
}

/// A file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Below the place of the result.
    pub path: String,
    pub size_bytes: u64,
    /// The SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of files that are written already.
    pub fn new(batch: BatchId, kind: ResultKind, files: Vec<ExportedFile>) -> Manifest {
        Manifest { batch, kind, pruned: PrunedParts::default(), run: None, files }
    }

    /// Returns true if this is the same result of the same batch, which may replace itself.
    pub(super) fn is_of(&self, owner: Option<(BatchId, ResultKind)>) -> bool {
        owner == Some((self.batch, self.kind))
    }

    /// The result in a few words.
    pub(super) fn in_words(&self) -> String {
        match self.kind {
            ResultKind::Run => format!("another run, which is finished (batch {})", self.batch),
            ResultKind::Results => format!("the results of batch {}", self.batch),
            ResultKind::Export => format!("an export of batch {}", self.batch),
        }
    }
}
