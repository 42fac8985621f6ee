//! The places of a watched directory, through handles that do not lead out of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use uuid::Uuid;

use super::WatchError;

/// A name has so many bytes at most, on the file systems that there are.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Where the places of a watched directory are. All are on one file system.
#[derive(Clone, Debug)]
pub struct PlacePaths {
    pub incoming: PathBuf,
    pub work: PathBuf,
    pub done: PathBuf,
    pub failed: PathBuf,
}

/// The places of a watched directory.
pub struct Places {
    pub(super) paths: PlacePaths,
    pub(super) incoming: Dir,
    pub(super) work: Dir,
    pub(super) done: Dir,
    pub(super) failed: Dir,
}

impl Places {
    /// Opens them, and makes those that are missing.
    ///
    /// # Errors
    /// [`WatchError::Unusable`], [`WatchError::OtherFileSystem`].
    pub fn open(paths: PlacePaths) -> Result<Places, WatchError> {
        let open = |path: &PathBuf| {
            let opened = std::fs::create_dir_all(path).and_then(|()| Dir::open_ambient_dir(path, ambient_authority()));
            let device = |dir: Dir| Ok((dir.dir_metadata()?.dev(), dir));
            opened.and_then(device).map_err(|source| WatchError::Unusable { path: path.clone(), source })
        };
        let (device, incoming) = open(&paths.incoming)?;
        let beside = |path: &PathBuf| match open(path)? {
            (other, dir) if other == device => Ok(dir),
            _ => Err(WatchError::OtherFileSystem { path: paths.incoming.clone(), other: path.clone() }),
        };
        let (work, done, failed) = (beside(&paths.work)?, beside(&paths.done)?, beside(&paths.failed)?);
        Ok(Places { incoming, work, done, failed, paths })
    }

    /// What tells this incoming directory from all others.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.incoming.dir_metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

/// Moves a file out of a claim: under its name, or, where another has that, under one that only this claim gives. Nothing is ever replaced.
pub(super) fn settle(from: &Dir, name: &OsStr, to: &Dir, claim: Uuid) -> io::Result<OsString> {
    match renameat_with(from.as_fd(), name, to.as_fd(), name, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(name.to_owned()),
        // Not every file system can look and rename at once; then the name that nobody else has is taken at once.
        Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    let unique = unique_name(name, claim);
    from.rename(name, to, &unique)?;
    Ok(unique)
}

/// A name with the claim's id before its endings, which stay: `a.csv.gz` becomes `a~ID.csv.gz`.
pub(super) fn unique_name(name: &OsStr, claim: Uuid) -> OsString {
    let bytes = name.as_bytes();
    let id = format!("~{claim}");
    let stem_end = bytes.iter().skip(1).position(|&byte| byte == b'.').map_or(bytes.len(), |at| at + 1);
    let (stem, ends) = bytes.split_at(stem_end);
    let room = NAME_BYTES_MAX.saturating_sub(id.len());
    let ends = &ends[..ends.len().min(room)];
    let stem = &stem[..stem.len().min(room - ends.len())];
    OsString::from_vec([stem, id.as_bytes(), ends].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_the_id_of_the_claim_and_keeps_its_endings() {
        let id = Uuid::nil();
        let unique = |name: &str| unique_name(OsStr::new(name), id).into_string().unwrap();
        assert_eq!(unique("a.csv.gz"), format!("a~{id}.csv.gz"));
        assert_eq!(unique("a"), format!("a~{id}"));
        assert_eq!(unique(&"x".repeat(255)).len(), 255);
        let long = unique(&format!("{}.csv", "x".repeat(251)));
        assert!(long.len() == 255 && long.ends_with(".csv"), "{long}");
        assert_eq!(unique(&format!("a.{}", "x".repeat(253))).len(), 255);
    }

    #[test]
    fn nothing_is_replaced_when_a_file_is_moved() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        for place in ["one", "two", "done"] {
            dir.create_dir(place).unwrap();
        }
        let [one, two, done] = ["one", "two", "done"].map(|place| dir.open_dir(place).unwrap());
        one.write("a.csv", "1").unwrap();
        two.write("a.csv", "2").unwrap();
        let name = OsStr::new("a.csv");
        assert_eq!(settle(&one, name, &done, Uuid::nil()).unwrap(), name);
        let second = settle(&two, name, &done, Uuid::nil()).unwrap();
        assert_eq!(second, unique_name(name, Uuid::nil()));
        assert_eq!((done.read("a.csv").unwrap(), done.read(second).unwrap()), (b"1".to_vec(), b"2".to_vec()));
    }
}
