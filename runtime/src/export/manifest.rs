//! The manifest of a result: the files that Rowmill wrote, so that it can tell them from others.

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::{FAILED_CSV, FAILED_NDJSON, FILES, HISTORY, MARK, RESULTS, ROUNDS, ROWS, SUMMARY};
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

    /// Checks that its paths are those of files that a result can have: what is named here may be
    /// removed when the result is replaced.
    ///
    /// # Errors
    /// A path that no result has.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.files.iter().find(|file| !is_of_a_result(&file.path)) {
            Some(file) => bail!("it names {:?}, which is no file of a result", file.path.chars().take(80).collect::<String>()),
            None => Ok(()),
        }
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

/// Returns true if a file of a result can have this path.
fn is_of_a_result(path: &str) -> bool {
    let is_plain = |names: &str| names.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'));
    match path.split_once('/') {
        None => [RESULTS, FAILED_CSV, FAILED_NDJSON, MARK, SUMMARY, ROWS, HISTORY].contains(&path),
        Some((FILES, below)) => is_plain(below),
        Some((ROUNDS, below)) => below.split_once('/').is_some_and(|(round, below)| round.parse::<u32>().is_ok() && is_plain(below)),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_a_result_are_taken() {
        for path in ["results.ndjson", "failed.csv", "summary.json", "rows.ndjson", "files/a b.csv", "files/a/b.csv", "rounds/2/a.csv"] {
            assert!(is_of_a_result(path), "{path}");
        }
        for path in [
            "",
            "notes.txt",
            "manifest.json",
            ".rowmill",
            ".rowmill/lock",
            "/etc/passwd",
            "../results.ndjson",
            "files",
            "files/",
            "files/../notes.txt",
            "files/./a",
            "files//a",
            "files/a/",
            "rounds/a.csv",
            "rounds/x/a.csv",
            "rounds/1/../../notes.txt",
            "files/a\0",
        ] {
            assert!(!is_of_a_result(path), "{path}");
        }
    }
}
