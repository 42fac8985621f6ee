//! The directory of a run: results in sight, and beside them, until the run is finished, its state.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use super::SystemClock;
use super::begun::{Begun, RunSettings};
use crate::export::{Manifest, OutputDirectory, ResultKind, SUMMARY, Summary, WORK, check_output, check_whole, read_output, read_own_json};
use crate::files;
use crate::intake::Format;
use crate::model::BatchId;
use crate::store::SqliteStore;

const RECORD: &str = "run.json";
const PART: &str = "run.part";
const STORE: &str = "store.sqlite";
const OBJECTS: &str = "objects";

pub(super) struct RunDirectory {
    out: PathBuf,
    /// Results of another run may be replaced.
    overwrite: bool,
    /// Locked from the moment on that something is done in the state: the lock keeps a second process
    /// out.
    locked: OnceLock<OutputDirectory>,
}

/// The state of a run that is needed to go on with it. It is written when all rows are in the store,
/// and not before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunRecord {
    pub batch: BatchId,
    pub begun: Begun,
    pub format: Format,
    /// Columns of the CSV file.
    pub header: Vec<String>,
    /// The run replaces results that are in the directory.
    pub overwrite: bool,
}

/// The contents of the directory.
pub(super) enum Opened {
    Nothing,
    Started(Box<RunRecord>),
    Finished { begun: Box<Begun>, summary: Box<Summary> },
}

impl RunDirectory {
    pub(super) fn new(out: PathBuf, overwrite: bool) -> RunDirectory {
        RunDirectory { out, overwrite, locked: OnceLock::new() }
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.out.join(WORK).join(OBJECTS)
    }

    /// Checks that a new run may be begun.
    pub(super) fn check_free(&self) -> anyhow::Result<Opened> {
        if OutputDirectory::has_work(&self.out) {
            let locked = self.lock()?;
            if locked.has_state()? && !self.overwrite {
                bail!(
                    "{} holds another run, which is not finished{}: go on with that one with --resume, \
                     begin anew with --overwrite, or choose another directory with --out",
                    self.out.display(),
                    self.read_record()?.map(|record| begun_with(&record.begun)).unwrap_or_default()
                );
            }
            locked.check(None, self.overwrite)?;
        } else {
            check_output(&self.out, None, self.overwrite)?;
        }
        Ok(Opened::Nothing)
    }

    /// Opens a run to go on with it: one with these settings.
    pub(super) fn resume(&self, settings: &RunSettings) -> anyhow::Result<Opened> {
        let out = self.out.display().to_string();
        if OutputDirectory::has_work(&self.out) {
            let locked = self.lock()?;
            if let Some(record) = self.read_record()? {
                record.begun.check_settings(settings, &out)?;
                return Ok(Opened::Started(Box::new(record)));
            }
            if locked.has_state()? {
                say!("the input was not read to its end: it is read anew");
                locked.clear()?;
                locked.check(None, self.overwrite)?;
                return Ok(Opened::Nothing);
            }
        }
        let finished = read_output(&self.out)?.filter(|there| there.kind == ResultKind::Run);
        let Some((manifest, begun)) = finished.and_then(|mut manifest: Manifest| manifest.run.take().map(|begun| (manifest, begun))) else {
            bail!("there is no run in {out} to go on with: leave --resume out to begin one");
        };
        let begun: Begun = serde_json::from_value(begun).with_context(|| format!("the manifest in {out} is not one that this version wrote"))?;
        begun.check_settings(settings, &out)?;
        check_whole(&self.out, &manifest)?;
        let summary = Box::new(read_own_json(&self.out.join(SUMMARY))?);
        Ok(Opened::Finished { begun: Box::new(begun), summary })
    }

    fn read_record(&self) -> anyhow::Result<Option<RunRecord>> {
        let path = self.out.join(WORK).join(RECORD);
        if path.symlink_metadata().is_ok() { read_own_json(&path).map(Some) } else { Ok(None) }
    }

    /// Makes the state of a new run, in place of one that is overwritten.
    pub(super) fn create(&self) -> anyhow::Result<()> {
        self.lock()?.clear()?;
        fs::create_dir_all(self.objects()).with_context(|| format!("cannot make {}", self.objects().display()))
    }

    fn lock(&self) -> anyhow::Result<&OutputDirectory> {
        if let Some(locked) = self.locked.get() {
            return Ok(locked);
        }
        let locked = OutputDirectory::open(&self.out)?;
        Ok(self.locked.get_or_init(|| locked))
    }

    /// The directory, which [`RunDirectory::create`] or [`RunDirectory::resume`] has locked.
    pub(super) fn output(&self) -> anyhow::Result<&OutputDirectory> {
        self.lock()
    }

    pub(super) async fn open_store(&self) -> anyhow::Result<Arc<SqliteStore>> {
        let store = SqliteStore::open(&self.out.join(WORK).join(STORE), Arc::new(SystemClock)).await?;
        Ok(Arc::new(store))
    }

    pub(super) fn write_record(&self, record: &RunRecord) -> anyhow::Result<()> {
        let work = self.out.join(WORK);
        let text = serde_json::to_vec_pretty(record)?;
        let write = || -> std::io::Result<()> {
            let work = Dir::open_ambient_dir(&work, ambient_authority())?;
            files::create(&work, PART)?.write_all(&text)?;
            work.rename(PART, &work, RECORD)
        };
        write().with_context(|| format!("cannot write {}", work.join(RECORD).display()))
    }

    pub(super) fn overwrite(&self) -> bool {
        self.overwrite
    }

    /// Removes the state of a run that is finished.
    pub(super) fn close(&mut self) -> anyhow::Result<()> {
        self.locked.take().map_or(Ok(()), OutputDirectory::close)
    }

    /// Leaves nothing behind when the input could not be taken.
    pub(super) fn discard(&mut self) {
        if let Some(locked) = self.locked.take() {
            locked.abandon();
        }
    }
}

fn begun_with(begun: &Begun) -> String {
    format!(" (of {})", begun.input_in_words())
}
