//! Looking for files that nobody writes to any more.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, Metadata, MetadataExt};

use super::Patterns;

/// Files that are looked at together, at most. Others have their turn when these are gone.
const SEEN_MAX: usize = 10_000;

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    inode: u64,
    size: u64,
    seconds: i64,
    nanos: i64,
}

impl Mark {
    pub(super) fn of(metadata: &Metadata) -> Mark {
        Mark { inode: metadata.ino(), size: metadata.size(), seconds: metadata.mtime(), nanos: metadata.mtime_nsec() }
    }
}

/// What was seen of a directory.
#[derive(Default)]
pub(super) struct Looks {
    seen: HashMap<OsString, (Mark, Instant)>,
    /// What is no file, and was told.
    told: HashSet<OsString>,
}

/// A file that has not changed for long enough.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ripe {
    pub name: OsString,
    pub mark: Mark,
}

impl Looks {
    /// The files that have not changed for `age`, the oldest first. Hidden ones and those of these patterns are left alone.
    pub(super) fn look(&mut self, dir: &Dir, ignored: &Patterns, age: Duration, now: Instant) -> io::Result<Vec<Ripe>> {
        let mut there = HashSet::new();
        for entry in dir.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            if is_left_alone(&name, ignored) {
                continue;
            }
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Somebody was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_file() {
                if self.told.insert(name.clone()) {
                    tracing::warn!("{:?} is no regular file: it is left where it is", name.display());
                }
                there.insert(name);
                continue;
            }
            let mark = Mark::of(&metadata);
            let is_full = self.seen.len() >= SEEN_MAX;
            match self.seen.get_mut(&name) {
                Some((seen, _)) if *seen == mark => {}
                Some(changed) => *changed = (mark, now),
                None if is_full => continue,
                None => drop(self.seen.insert(name.clone(), (mark, now))),
            }
            there.insert(name);
        }
        self.seen.retain(|name, _| there.contains(name));
        self.told.retain(|name| there.contains(name));
        let old = self.seen.iter().filter(|(_, (_, since))| now.duration_since(*since) >= age);
        let mut ripe: Vec<Ripe> = old.map(|(name, (mark, _))| Ripe { name: name.clone(), mark: *mark }).collect();
        ripe.sort_by(|one, other| (one.mark.seconds, one.mark.nanos, &one.name).cmp(&(other.mark.seconds, other.mark.nanos, &other.name)));
        Ok(ripe)
    }
}

fn is_left_alone(name: &OsStr, ignored: &Patterns) -> bool {
    name.as_bytes().starts_with(b".") || name.to_str().is_some_and(|name| ignored.first_match(name).is_some())
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    const AGE: Duration = Duration::from_secs(5);

    #[test]
    fn a_file_is_ripe_when_it_has_not_changed_for_long_enough() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        let ignored = Patterns::of(["*.part"]).unwrap();
        let (mut looks, began) = (Looks::default(), Instant::now());
        let mut ripe = |seconds: u64| -> Vec<String> {
            let ripe = looks.look(&dir, &ignored, AGE, began + Duration::from_secs(seconds)).unwrap();
            ripe.into_iter().map(|ripe| ripe.name.into_string().unwrap()).collect()
        };
        for name in ["a.csv", "b.csv.part", ".c.csv", "d.csv"] {
            dir.write(name, "1").unwrap();
        }
        dir.create_dir("directory").unwrap();
        std::os::unix::fs::symlink("a.csv", directory.path().join("link.csv")).unwrap();
        assert!(ripe(0).is_empty() && ripe(4).is_empty());
        dir.write("d.csv", "12").unwrap();
        dir.write("e.csv", "1").unwrap();
        assert_eq!(ripe(5), ["a.csv"]);
        assert_eq!(ripe(9), ["a.csv"]);
        dir.remove_file("a.csv").unwrap();
        assert_eq!(ripe(10), ["d.csv", "e.csv"]);
        // What comes under the name of one that went is another file.
        dir.write("a.csv", "1").unwrap();
        assert_eq!(ripe(11), ["d.csv", "e.csv"]);
    }

    #[test]
    fn without_an_age_a_file_is_taken_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        dir.write("a.csv", "1").unwrap();
        let ripe = Looks::default().look(&dir, &Patterns::of([]).unwrap(), Duration::ZERO, Instant::now()).unwrap();
        assert_eq!(ripe.len(), 1);
    }
}
