//! Claims: a file in a directory of its own, and the lock of the one who works on it.
//!
//! Whoever makes the directory locks it before the file is renamed into it, and whoever removes it holds the lock: so a file is never in a directory that somebody
//! else believes to be empty. The lock is that of a file, which works over NFS as well.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{Mode, OFlags, fsync, openat};
use uuid::Uuid;

use super::look::Ripe;
use super::places::{NAME_BYTES_MAX, Places, settle, unique_name};
use super::reasons::Reasons;
use crate::files;
use crate::model::BatchId;

/// Names beside the file. Files whose names begin with a dot are not taken, so that none has these.
const LOCK: &str = ".lock";
const BATCH: &str = ".batch";
const REASONS: &str = ".reasons.json";
/// The name of a file that is being refused, as its bytes are.
const NAME: &str = ".name";
const PART: &str = ".part";
/// What the name of a refused file gets behind it for its reasons.
pub(super) const REASONS_END: &str = ".reasons.json";
/// Reasons are fewer bytes than this; a larger file is none.
const REASONS_BYTES_MAX: u64 = 16 << 20;

/// A file that this process works on, and nobody else.
pub(super) struct Claim {
    pub id: Uuid,
    dir: Dir,
    /// None once it was moved on.
    file: Option<OsString>,
    _lock: File,
}

impl Claim {
    /// Claims a file that came in. None when somebody else was faster.
    pub(super) fn begin(places: &Places, ripe: &Ripe) -> io::Result<Option<Claim>> {
        let id = Uuid::now_v7();
        places.work.create_dir(id.to_string())?;
        let Some(mut claim) = Claim::lock(places, id)? else { return Ok(None) };
        match places.incoming.rename(&ripe.name, &claim.dir, &ripe.name) {
            Ok(()) => {
                // Should the machine lose its power when the batch is there and the claim is not, the file would be taken again. A file system that cannot promise
                // it does not.
                let _ = openat(&claim.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).and_then(fsync);
                claim.file = Some(ripe.name.clone());
                Ok(Some(claim))
            }
            Err(error) => {
                claim.remove(places)?;
                if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) }
            }
        }
    }

    /// The claims that are there, the oldest first, whoever works on them.
    pub(super) fn list(places: &Places) -> io::Result<Vec<Uuid>> {
        let names: Vec<OsString> = places.work.entries()?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        let mut ids: Vec<Uuid> = names.iter().filter_map(|name| Uuid::parse_str(name.to_str()?).ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Goes on with a claim whose owner is gone. None when somebody works on it, or nothing is left to do.
    pub(super) fn adopt(places: &Places, id: Uuid) -> io::Result<Option<Claim>> {
        let Some(mut claim) = Claim::lock(places, id)? else { return Ok(None) };
        let names: Vec<OsString> = claim.dir.entries()?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        claim.file = names.into_iter().find(|name| !name.as_bytes().starts_with(b"."));
        if claim.file.is_some() {
            return Ok(Some(claim));
        }
        // The file had been moved on, and what was left to do is done now.
        claim.finish(places)?;
        Ok(None)
    }

    /// The directory with its lock. None when it is gone, or somebody else has it.
    fn lock(places: &Places, id: Uuid) -> io::Result<Option<Claim>> {
        let gone = |error: io::Error| if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) };
        let dir = match places.work.open_dir(id.to_string()) {
            Ok(dir) => dir,
            Err(error) => return gone(error),
        };
        let lock = match files::open_lock(&dir, LOCK) {
            Ok(lock) => lock,
            Err(error) => return gone(error),
        };
        let inode = std::os::unix::fs::MetadataExt::ino(&lock.metadata()?);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Who had it before may have removed it, and the directory with it.
        match dir.symlink_metadata(LOCK) {
            Ok(metadata) if metadata.ino() == inode => Ok(Some(Claim { id, dir, file: None, _lock: lock })),
            Ok(_) => Ok(None),
            Err(error) => gone(error),
        }
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The file's name.
    pub(super) fn name(&self) -> &OsStr {
        self.file.as_deref().unwrap_or_default()
    }

    /// The batch that was begun with the file, if one was.
    pub(super) fn batch(&self) -> io::Result<Option<BatchId>> {
        match read(&self.dir, BATCH) {
            Ok(text) => Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes down which batch was begun with the file.
    pub(super) fn set_batch(&self, id: BatchId) -> io::Result<()> {
        self.write(BATCH, id.to_string().as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut part = files::create(&self.dir, PART)?;
        io::Write::write_all(&mut part, bytes)?;
        self.dir.rename(PART, &self.dir, name)
    }

    /// Moves the file to `done`, and ends the claim. The name that it has there.
    pub(super) fn succeed(mut self, places: &Places) -> io::Result<OsString> {
        // A claim that was adopted may have reasons of a refusal that did not come to pass.
        match self.dir.remove_file(REASONS) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let moved = settle(&self.dir, self.name(), &places.done, self.id)?;
        self.file = None;
        self.finish(places)?;
        Ok(moved)
    }

    /// Moves the file to `failed`, its reasons beside it, and ends the claim. The name that it has there.
    pub(super) fn fail(mut self, places: &Places, reasons: &Reasons) -> io::Result<OsString> {
        // First the reasons, then the file, then its reasons beside it: whatever comes in between, the next one finds what is left to do.
        self.write(NAME, self.name().as_bytes())?;
        self.write(REASONS, &serde_json::to_vec_pretty(reasons)?)?;
        let moved = settle(&self.dir, self.name(), &places.failed, self.id)?;
        self.file = None;
        self.finish(places)?;
        Ok(moved)
    }

    /// Ends a claim whose file was moved on.
    fn finish(self, places: &Places) -> io::Result<()> {
        if self.dir.symlink_metadata(REASONS).is_ok() {
            let name = self.name_of_refused()?;
            let unique = unique_name(&name, self.id);
            let moved = if places.failed.symlink_metadata(&unique).is_ok() { unique } else { name };
            let beside = reasons_name(&moved, self.id);
            // Reasons that are there are those of a file that was called so before and is not there
            // any more. Anything else is a file that was refused, and stays.
            let beside = if is_free(&places.failed, &beside, &self.dir)? { beside } else { cut_reasons_name(&moved, self.id) };
            self.dir.rename(REASONS, &places.failed, beside)?;
        }
        self.remove(places)
    }

    /// The name of a file that was moved on. Claims of an older version say it in the reasons
    /// alone.
    fn name_of_refused(&self) -> io::Result<OsString> {
        match read(&self.dir, NAME) {
            Ok(name) => Ok(OsString::from_vec(name)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(serde_json::from_slice::<Reasons>(&read(&self.dir, REASONS)?)?.file.into()),
            Err(error) => Err(error),
        }
    }

    /// Removes the directory, which holds no file any more, while its lock is held.
    fn remove(self, places: &Places) -> io::Result<()> {
        for name in [PART, BATCH, REASONS, NAME, LOCK] {
            match self.dir.remove_file(name) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match places.work.remove_dir(self.id.to_string()) {
            // Somebody who found it without a lock just now has made one, and removes it after this.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(()),
            removed => removed,
        }
    }
}

/// A file of a claim.
fn read(dir: &Dir, name: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    files::read(files::open(dir, name)?, REASONS_BYTES_MAX)
}

/// Where the reasons of a refused file stand: beside it, under its whole name. A name that is too
/// long for that is cut, and gets the id of the claim, since another one may begin like it.
fn reasons_name(name: &OsStr, claim: Uuid) -> OsString {
    if name.len() + REASONS_END.len() > NAME_BYTES_MAX {
        return cut_reasons_name(name, claim);
    }
    let mut reasons = name.to_owned();
    reasons.push(REASONS_END);
    reasons
}

fn cut_reasons_name(name: &OsStr, claim: Uuid) -> OsString {
    let end = format!("~{claim}{REASONS_END}");
    let room = NAME_BYTES_MAX - end.len();
    let cut = match name.to_str() {
        // Between two letters.
        Some(name) => &name.as_bytes()[..name.floor_char_boundary(room)],
        None => &name.as_bytes()[..name.len().min(room)],
    };
    OsString::from_vec([cut, end.as_bytes()].concat())
}

/// Returns true if reasons can be written to this place: there is nothing, or there are reasons of
/// a file of the same name.
fn is_free(failed: &Dir, place: &OsStr, claim: &Dir) -> io::Result<bool> {
    let file_of = |text: io::Result<Vec<u8>>| Some(serde_json::from_slice::<Reasons>(&text.ok()?).ok()?.file);
    match failed.symlink_metadata(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(there) if !there.is_file() || there.len() > REASONS_BYTES_MAX => Ok(false),
        Ok(_) => Ok(file_of(read(failed, place)).is_some_and(|file| Some(file) == file_of(read(claim, REASONS)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refused_file_has_reasons_of_its_own() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let name = |name: &str, claim: Uuid| reasons_name(OsStr::new(name), claim).into_string().unwrap();
        assert_eq!(name("a.csv", one), "a.csv.reasons.json");
        let whole = "x".repeat(NAME_BYTES_MAX - REASONS_END.len());
        assert_eq!(name(&whole, one), format!("{whole}.reasons.json"));
        for long in [format!("{whole}x"), "ä".repeat(127)] {
            let (first, second) = (name(&long, one), name(&long, other));
            assert!(first != second && first.len() <= NAME_BYTES_MAX && first.ends_with(&format!("~{one}.reasons.json")), "{first}");
            assert!(long.starts_with(first.split('~').next().unwrap()));
        }
        assert!(reasons_name(OsStr::from_bytes(&[0xff; 250]), one).len() <= NAME_BYTES_MAX);
    }
}
