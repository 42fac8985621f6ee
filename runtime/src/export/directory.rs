//! A directory that one result is written into.
//!
//! All files of a result are written into a working area inside the directory first. A journal then
//! says which earlier result they replace, and they are moved to their places. A process that is
//! killed before the journal leaves the earlier result as it was; one that is killed behind it leaves
//! a replacement that the next process completes.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::contents::{self, FileState};
use super::manifest::{MANIFEST, Manifest, ResultKind};
use crate::files;
use crate::model::BatchId;

/// The working area: the lock, files that are not complete, and the state of a run.
pub const WORK: &str = ".rowmill";
/// In the working area: the files of the new result.
const STAGED: &str = "new";
/// In the working area: the result that the staged one replaces.
const JOURNAL: &str = "journal.json";
const LOCK: &str = "lock";

/// An output directory that this process has locked.
pub struct OutputDirectory {
    path: PathBuf,
    /// The directory was missing before.
    is_new: bool,
    /// Every name is opened through this handle: none leads out of the directory.
    out: Dir,
    work: Dir,
    /// Locked until this is dropped.
    _lock: File,
}

/// Written before the first file of the earlier result is touched.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    replaces: Option<Manifest>,
}

/// Checks that a result may be written into a directory, which may be missing. `owner` is the batch
/// and kind of the new result, where they are known: it may replace itself. Another result needs
/// `overwrite`.
///
/// # Errors
/// The directory holds another result, or a file that Rowmill did not write, or that was changed
/// since.
pub fn check_output(directory: &Path, owner: Option<(BatchId, ResultKind)>, overwrite: bool) -> anyhow::Result<()> {
    match Dir::open_ambient_dir(directory, ambient_authority()) {
        Ok(out) => judge(directory, &out, owner, overwrite).map(drop),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", directory.display())),
    }
}

/// The manifest of the result in a directory, if there is one.
///
/// # Errors
/// The manifest cannot be read.
pub fn read_output(directory: &Path) -> anyhow::Result<Option<Manifest>> {
    match Dir::open_ambient_dir(directory, ambient_authority()) {
        Ok(out) => contents::read_manifest(directory, &out),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", directory.display())),
    }
}

/// Checks that all files of a result are there as they were written.
///
/// # Errors
/// The file that is missing or was changed; a file cannot be read.
pub fn check_whole(directory: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let out = Dir::open_ambient_dir(directory, ambient_authority()).with_context(|| format!("cannot open {}", directory.display()))?;
    let shown = directory.display();
    for file in &manifest.files {
        match contents::state_of(&out, file)? {
            FileState::AsWritten => {}
            FileState::Missing => {
                bail!("{} is missing in {shown}, whose run is finished: put it back, or run anew with --overwrite and without --resume", file.path)
            }
            FileState::Changed => bail!(
                "{} in {shown} was changed since the run, which is finished: put it back as it was, or move it away and run anew with --overwrite \
                 and without --resume",
                file.path
            ),
        }
    }
    Ok(())
}

/// A small file of JSON of our own, by its path.
///
/// # Errors
/// It cannot be read, is not a regular file, or is not what this version writes.
pub fn read_own_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let reading = || format!("cannot read {}", path.display());
    let text = files::open_at(path).and_then(|file| files::read(file, contents::JSON_BYTES_MAX)).with_context(reading)?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not one that this version wrote", path.display()))
}

/// The result that a new one may replace; none in an empty directory.
fn judge(path: &Path, out: &Dir, owner: Option<(BatchId, ResultKind)>, overwrite: bool) -> anyhow::Result<Option<Manifest>> {
    let shown = path.display();
    let there = contents::read_manifest(path, out)?;
    let ours = there.as_ref().map_or(&[][..], |there| &there.files);
    if let Some(name) = contents::find_foreign(out, ours)? {
        bail!(
            "{shown} holds {name}, which is not of a result that rowmill wrote there: choose another \
             directory, or move it away"
        );
    }
    let Some(there) = there else { return Ok(None) };
    if !there.is_of(owner) && !overwrite {
        bail!("{shown} holds {}: choose another directory, or replace what is there with --overwrite", there.in_words());
    }
    for file in &there.files {
        if contents::state_of(out, file)? == FileState::Changed {
            bail!(changed(path, &file.path));
        }
    }
    Ok(Some(there))
}

fn changed(path: &Path, name: &str) -> String {
    format!("{name} in {} was changed since rowmill wrote it: move it away, or choose another directory", path.display())
}

impl OutputDirectory {
    /// Makes a directory where it is missing, and locks it. A replacement that another process did not
    /// complete is completed.
    ///
    /// # Errors
    /// Another process has locked it; it cannot be made or written.
    pub fn open(path: &Path) -> anyhow::Result<OutputDirectory> {
        let making = || format!("cannot make {}", path.display());
        let is_new = !path.exists();
        std::fs::create_dir_all(path.join(WORK)).with_context(making)?;
        let out = Dir::open_ambient_dir(path, ambient_authority()).with_context(making)?;
        let work = out.open_dir(WORK).with_context(making)?;
        let lock = lock(path, &work)?;
        let directory = OutputDirectory { path: path.to_owned(), is_new, out, work, _lock: lock };
        directory.recover()?;
        Ok(directory)
    }

    /// Opens a directory for a result that is written at once: it may hold no run that is not finished.
    /// A directory that is refused stays as it was.
    ///
    /// # Errors
    /// As for [`check_output`] and [`OutputDirectory::open`].
    pub fn open_for(path: &Path, owner: (BatchId, ResultKind), overwrite: bool) -> anyhow::Result<OutputDirectory> {
        if !OutputDirectory::has_work(path) {
            check_output(path, Some(owner), overwrite)?;
        }
        let out = OutputDirectory::open(path)?;
        if out.has_state()? {
            bail!(
                "{} holds a run that is not finished: go on with it (rowmill run --resume), remove it, \
                 or choose another directory",
                path.display()
            );
        }
        match out.check(Some(owner), overwrite) {
            Ok(()) => Ok(out),
            Err(error) => {
                out.abandon();
                Err(error)
            }
        }
    }

    /// Returns true if there is a working area, of a process that works or was stopped.
    pub fn has_work(path: &Path) -> bool {
        path.join(WORK).exists()
    }

    /// Returns true if the working area holds the state of a run that is not finished.
    ///
    /// # Errors
    /// The working area cannot be read.
    pub fn has_state(&self) -> anyhow::Result<bool> {
        let own = |name: &str| [LOCK, STAGED, JOURNAL].contains(&name) || name.ends_with(".part");
        Ok(self.names_of_work()?.iter().any(|name| !own(name)))
    }

    /// Checks that a result may be written: see [`check_output`].
    ///
    /// # Errors
    /// Why it may not be.
    pub fn check(&self, owner: Option<(BatchId, ResultKind)>, overwrite: bool) -> anyhow::Result<()> {
        judge(&self.path, &self.out, owner, overwrite).map(drop)
    }

    /// An empty directory for the files of a new result.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn stage(&self) -> anyhow::Result<Dir> {
        self.remove_staged()?;
        self.work.create_dir(STAGED).with_context(|| self.writing())?;
        self.work.open_dir(STAGED).with_context(|| self.writing())
    }

    /// The staged files as they are, the summary last.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn staged_files(&self) -> anyhow::Result<Vec<super::ExportedFile>> {
        let staged = self.work.open_dir(STAGED).with_context(|| self.writing())?;
        contents::list_files(&staged).with_context(|| self.writing())
    }

    /// Puts the staged files into their places, and removes those of the result that they replace. The
    /// working area stays until [`OutputDirectory::close`].
    ///
    /// # Errors
    /// As for [`check_output`]; then nothing is replaced. A file cannot be moved; then the next process
    /// that opens the directory goes on.
    pub fn commit(&self, manifest: &Manifest, overwrite: bool) -> anyhow::Result<()> {
        let owner = Some((manifest.batch, manifest.kind));
        let replaces = judge(&self.path, &self.out, owner, overwrite)?;
        let staged = self.work.open_dir(STAGED).with_context(|| self.writing())?;
        write_whole(&staged, MANIFEST, manifest).with_context(|| self.writing())?;
        contents::sync_tree(&staged).with_context(|| self.writing())?;
        write_whole(&self.work, JOURNAL, &Journal { replaces }).with_context(|| self.writing())?;
        contents::sync(&self.work).with_context(|| self.writing())?;
        self.replace()
    }

    /// Removes the working area with all that is in it, and the directory if it was missing before and is
    /// empty now.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn close(self) -> anyhow::Result<()> {
        self.clear()?;
        let removing = || format!("cannot remove {}", self.path.join(WORK).display());
        self.work.remove_file(LOCK).with_context(removing)?;
        self.out.remove_dir(WORK).with_context(removing)?;
        if self.is_new {
            // It is not empty where a result is.
            let _ = std::fs::remove_dir(&self.path);
        }
        Ok(())
    }

    /// Closes a directory into which no result was written. A replacement that was begun is left to
    /// the next process, which completes it.
    pub fn abandon(self) {
        if self.has_journal() {
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!("{error:#}");
        }
    }

    /// Removes all of the working area but the lock. The journal goes last: as long as it is there, the
    /// result is in its place.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&self) -> anyhow::Result<()> {
        let removing = || format!("cannot remove {}", self.path.join(WORK).display());
        for name in self.names_of_work()? {
            if name != LOCK && name != JOURNAL {
                contents::remove(&self.work, &name).with_context(removing)?;
            }
        }
        contents::remove(&self.work, JOURNAL).with_context(removing)
    }

    /// Completes a replacement that was begun, or removes staged files that no journal names.
    fn recover(&self) -> anyhow::Result<()> {
        if !self.has_journal() {
            return self.remove_staged();
        }
        self.replace()?;
        self.clear()
    }

    /// Returns true if there is a journal, or something in its place.
    fn has_journal(&self) -> bool {
        self.work.symlink_metadata(JOURNAL).is_ok()
    }

    /// Replaces the earlier result by the staged one, from whatever point on. Everything is checked
    /// before anything is changed.
    fn replace(&self) -> anyhow::Result<()> {
        let Some(Journal { replaces }) =
            self.read_work(&self.work, JOURNAL, |journal: &Journal| journal.replaces.iter().try_for_each(Manifest::check))?
        else {
            bail!("{} is missing", self.path.join(WORK).join(JOURNAL).display());
        };
        let Some(staged) = self.open_staged()? else { return Ok(()) };
        // The manifest is moved last: without it all is done.
        let Some(new) = self.read_work(&staged, MANIFEST, Manifest::check)? else { return Ok(()) };
        let old = replaces.map(|replaces| replaces.files).unwrap_or_default();
        let (old_paths, new_paths) = (contents::paths(&old), contents::paths(&new.files));
        let is_moved = |path: &str| new_paths.contains(path) && !staged.exists(path);
        for file in old.iter().filter(|file| !is_moved(&file.path)) {
            if contents::state_of(&self.out, file)? == FileState::Changed {
                bail!(changed(&self.path, &file.path));
            }
        }
        for file in new.files.iter().filter(|file| !is_moved(&file.path)) {
            if !old_paths.contains(file.path.as_str()) && self.out.symlink_metadata(&file.path).is_ok() {
                bail!("{} was made in {} meanwhile: move it away", file.path, self.path.display());
            }
        }
        self.move_files(&staged, &old, &new).with_context(|| self.writing())
    }

    fn move_files(&self, staged: &Dir, old: &[super::ExportedFile], new: &Manifest) -> anyhow::Result<()> {
        // From here on the earlier result is not whole any more.
        contents::remove(&self.out, MANIFEST)?;
        contents::sync(&self.out)?;
        let stays = contents::paths(&new.files);
        for file in old.iter().filter(|file| !stays.contains(file.path.as_str())) {
            contents::remove(&self.out, &file.path)?;
        }
        for file in new.files.iter().filter(|file| staged.exists(&file.path)) {
            if let Some(parent) = Path::new(&file.path).parent() {
                self.out.create_dir_all(parent)?;
            }
            staged.rename(&file.path, &self.out, &file.path)?;
        }
        for file in old {
            contents::remove_empty_parents(&self.out, &file.path);
        }
        contents::sync_parents(&self.out, new.files.iter().map(|file| file.path.as_str()))?;
        staged.rename(MANIFEST, &self.out, MANIFEST)?;
        contents::sync(&self.out)?;
        Ok(())
    }

    /// A file of a replacement that was begun, if it is there.
    fn read_work<T: DeserializeOwned>(&self, directory: &Dir, name: &str, check: impl Fn(&T) -> anyhow::Result<()>) -> anyhow::Result<Option<T>> {
        let read = || -> anyhow::Result<Option<T>> {
            let value: Option<T> = contents::read_json(directory, name)?;
            value.iter().try_for_each(check)?;
            Ok(value)
        };
        read().with_context(|| {
            format!(
                "a replacement of the result in {out} was begun and cannot be completed, since {name} in {work} is not one that rowmill wrote: see \
                 whether the files in {out} are those that you need, and remove {work}",
                out = self.path.display(),
                work = self.path.join(WORK).display()
            )
        })
    }

    fn open_staged(&self) -> anyhow::Result<Option<Dir>> {
        match self.work.open_dir(STAGED) {
            Ok(staged) => Ok(Some(staged)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| self.writing()),
        }
    }

    fn remove_staged(&self) -> anyhow::Result<()> {
        contents::remove(&self.work, STAGED).with_context(|| self.writing())
    }

    fn names_of_work(&self) -> anyhow::Result<Vec<String>> {
        contents::names(&self.work).with_context(|| format!("cannot read {}", self.path.join(WORK).display()))
    }

    fn writing(&self) -> String {
        format!("cannot write to {}", self.path.display())
    }
}

/// Takes the lock of a working area.
fn lock(path: &Path, work: &Dir) -> anyhow::Result<File> {
    let taken = || format!("cannot use {}: another process works on it", path.display());
    let locking = || format!("cannot lock {}", path.display());
    let file = files::open_lock(work, LOCK).with_context(locking)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(taken()),
        Err(TryLockError::Error(error)) => return Err(error).with_context(locking),
    }
    // The process that had the lock may have removed the working area with it meanwhile.
    let locked = file.metadata().with_context(locking)?;
    let there = std::fs::metadata(path.join(WORK).join(LOCK));
    if there.is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino())) {
        return Ok(file);
    }
    bail!(taken())
}

/// Writes a small file that appears whole or not at all.
fn write_whole(directory: &Dir, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let part = format!("{name}.part");
    let mut file = files::create(directory, &part)?;
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    directory.rename(&part, directory, name)?;
    Ok(())
}

#[cfg(test)]
mod tests;
