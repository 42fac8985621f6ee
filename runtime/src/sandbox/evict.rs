//! The bound of the cache of compiled code.
//!
//! Removing a file harms no process. A process that has loaded the code has it mapped, and the
//! mapping keeps the code on disk until the process drops it. A process that comes later finds no
//! file, and fetches or compiles the code again.

use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that is being written has this extension.
pub(super) const PART: &str = "part";
/// A process that writes a part for longer than this was killed, and left it.
const PART_MAX_AGE: Duration = Duration::from_secs(3_600);

/// Sets the access time of a file to now, since file systems keep access times coarsely or not at all.
pub(super) fn mark_used(file: &File) {
    if let Err(error) = file.set_times(FileTimes::new().set_accessed(SystemTime::now())) {
        tracing::debug!("the use of compiled code is not noted: {error}");
    }
}

/// Removes the least recently used compiled code of a directory until the rest has at most
/// `max_bytes`. It never removes `kept`. Code of other versions of this program counts, too: it is
/// not used any more, and so removed first.
pub(super) fn evict(directory: &Path, max_bytes: u64, kept: Option<&Path>) {
    let (found, mut bytes) = match list(directory) {
        Ok(found) => found,
        Err(error) => return tracing::warn!("the size of {} is not bounded, since it cannot be read: {error}", directory.display()),
    };
    for Compiled { path, size, .. } in found {
        if bytes <= max_bytes {
            break;
        }
        if kept != Some(&path) && remove(&path) {
            bytes -= size;
            tracing::info!(bytes = size, limit_bytes = max_bytes, "removed the least recently used compiled code, {}", path.display());
        }
    }
}

struct Compiled {
    used: SystemTime,
    path: PathBuf,
    size: u64,
}

/// The files of compiled code, least recently used first, and their size together. Removes parts
/// that a killed process left.
fn list(directory: &Path) -> std::io::Result<(Vec<Compiled>, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !matches!(extension, Some("cwasm" | PART)) {
            continue;
        }
        // Another process may have removed or renamed the file since.
        let Ok(metadata) = entry.metadata() else { continue };
        if extension == Some("cwasm") {
            found.push(Compiled { used: metadata.accessed()?, path, size: metadata.len() });
        } else if metadata.modified()?.elapsed().is_ok_and(|age| age > PART_MAX_AGE) {
            remove(&path);
        }
    }
    found.sort_by(|one, other| (one.used, &one.path).cmp(&(other.used, &other.path)));
    let bytes = found.iter().map(|compiled| compiled.size).sum();
    Ok((found, bytes))
}

/// Returns true if the file is not there any more.
fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!("{} cannot be removed from the cache of compiled code: {error}", path.display());
            false
        }
    }
}
