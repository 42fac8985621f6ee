//! The directory of a run: results in sight, and beside them, until the run is finished, its state.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::SystemClock;
use crate::export::{FAILED_CSV, FAILED_NDJSON, FILES, RESULTS, SUMMARY, Summary};
use crate::intake::Format;
use crate::model::BatchId;
use crate::store::SqliteStore;

/// The state: the store, its objects, and the manifest.
const STATE: &str = ".rowmill";
const MANIFEST: &str = "run.json";
const STORE: &str = "store.sqlite";
const OBJECTS: &str = "objects";
const LOCK: &str = "lock";

pub(super) struct RunDirectory {
    out: PathBuf,
    /// Held from the moment on that something is done in the state: it keeps a second process out.
    lock: OnceLock<File>,
}

/// What a run needs to know of itself when it goes on. Written when all rows are in the store, and not before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub batch: BatchId,
    pub processor_digest: String,
    pub format: Format,
    /// Columns of the CSV file.
    pub header: Vec<String>,
}

/// What there is in the directory.
pub(super) enum Opened {
    Nothing,
    Started(Manifest),
    Finished(Box<Summary>),
}

impl RunDirectory {
    pub(super) fn new(out: PathBuf) -> RunDirectory {
        RunDirectory { out, lock: OnceLock::new() }
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.out.join(STATE).join(OBJECTS)
    }

    /// For a new run: nothing of another may be there.
    pub(super) fn check_free(&self) -> anyhow::Result<Opened> {
        let taken = [STATE, RESULTS, FAILED_CSV, FAILED_NDJSON, FILES, SUMMARY].into_iter().find(|name| self.out.join(name).exists());
        match taken {
            Some(name) => bail!(
                "{} holds another run ({name} is there): choose another directory with --out, remove it, or go on with --resume",
                self.out.display()
            ),
            None => Ok(Opened::Nothing),
        }
    }

    /// For a run that goes on.
    pub(super) fn resume(&self, processor_digest: &str) -> anyhow::Result<Opened> {
        let manifest_path = self.out.join(STATE).join(MANIFEST);
        if self.out.join(STATE).exists() {
            self.lock()?;
        }
        if manifest_path.exists() {
            let manifest: Manifest = read_json(&manifest_path)?;
            if manifest.processor_digest != processor_digest {
                bail!("the run in {} was begun with another processor: a run goes on with the code that it began with", self.out.display());
            }
            return Ok(Opened::Started(manifest));
        }
        if self.out.join(STATE).exists() {
            say!("the input was not read to its end: it is read anew");
            self.remove_state()?;
            return Ok(Opened::Nothing);
        }
        let summary = self.out.join(SUMMARY);
        if summary.exists() {
            return Ok(Opened::Finished(Box::new(read_json(&summary)?)));
        }
        bail!("there is no run in {} to go on with: leave --resume out to begin one", self.out.display())
    }

    /// Makes the state of a new run.
    pub(super) fn create(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.objects()).with_context(|| format!("cannot make {}", self.out.display()))?;
        self.lock()
    }

    fn lock(&self) -> anyhow::Result<()> {
        let path = self.out.join(STATE).join(LOCK);
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if let Err(error) = file.try_lock() {
            let reason = match error {
                TryLockError::WouldBlock => "another process works on it".to_owned(),
                TryLockError::Error(error) => error.to_string(),
            };
            bail!("cannot use {}: {reason}", self.out.display());
        }
        self.lock.set(file).ok();
        Ok(())
    }

    pub(super) async fn open_store(&self) -> anyhow::Result<Arc<SqliteStore>> {
        let store = SqliteStore::open(&self.out.join(STATE).join(STORE), Arc::new(SystemClock)).await?;
        Ok(Arc::new(store))
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let path = self.out.join(STATE).join(MANIFEST);
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(manifest)?)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn remove_state(&self) -> anyhow::Result<()> {
        let state = self.out.join(STATE);
        fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))
    }

    /// Leaves nothing behind when the input could not be taken.
    pub(super) fn discard(&self) {
        if let Err(error) = self.remove_state() {
            tracing::warn!("{error:#}");
        }
        // Only when it is empty, and no matter if not.
        let _ = fs::remove_dir(&self.out);
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what this program wrote", path.display()))
}
