//! The files in an output directory: whose they are, and whether they are as they were written.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use anyhow::Context;
use cap_std::fs::Dir;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::SUMMARY;
use super::directory::WORK;
use super::manifest::{ExportedFile, MANIFEST, Manifest};
use crate::files;
use crate::model::hex;

/// The largest manifest or other JSON of our own that is read: a manifest has some hundred bytes
/// for each file of a result.
pub(super) const JSON_BYTES_MAX: u64 = 64 << 20;

/// A file as compared with its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    Missing,
    AsWritten,
    /// It has other contents, or is a directory or a link now.
    Changed,
}

/// The manifest in a directory, if there is one.
pub(super) fn read_manifest(path: &Path, out: &Dir) -> anyhow::Result<Option<Manifest>> {
    let read = || -> anyhow::Result<Option<Manifest>> {
        let manifest: Option<Manifest> = read_json(out, MANIFEST)?;
        manifest.iter().try_for_each(Manifest::check)?;
        Ok(manifest)
    };
    read().with_context(|| {
        let manifest = path.join(MANIFEST);
        format!("{} is there and is not the manifest of a result: move it away, or choose another directory", manifest.display())
    })
}

/// A small file of JSON of our own, if it is there.
pub(super) fn read_json<T: DeserializeOwned>(directory: &Dir, name: &str) -> anyhow::Result<Option<T>> {
    match files::open(directory, name).and_then(|file| files::read(file, JSON_BYTES_MAX)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Compares a file with what its manifest says.
pub(super) fn state_of(out: &Dir, file: &ExportedFile) -> anyhow::Result<FileState> {
    let reading = || format!("cannot read {}", file.path);
    let metadata = match out.symlink_metadata(&file.path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(FileState::Missing),
        Err(error) => return Err(error).with_context(reading),
    };
    if !metadata.is_file() || metadata.len() != file.size_bytes {
        return Ok(FileState::Changed);
    }
    let sum = sum_of(out, &file.path).with_context(reading)?;
    Ok(if sum == *file { FileState::AsWritten } else { FileState::Changed })
}

/// Something in a directory that is none of these files, nor their manifest or the working area.
pub(super) fn find_foreign(out: &Dir, ours: &[ExportedFile]) -> anyhow::Result<Option<String>> {
    let ours = paths(ours);
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let open = if directory.is_empty() { out.try_clone()? } else { out.open_dir(&directory)? };
        for name in names(&open)? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if path == WORK || path == MANIFEST || ours.contains(path.as_str()) {
                continue;
            }
            let below = format!("{path}/");
            let next = ours.range(below.as_str()..).next();
            let holds_ours = next.is_some_and(|next| next.starts_with(&below));
            if !holds_ours || !out.symlink_metadata(&path)?.is_dir() {
                return Ok(Some(path));
            }
            directories.push(path);
        }
    }
    Ok(None)
}

/// The paths of files.
pub(super) fn paths(files: &[ExportedFile]) -> BTreeSet<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

/// All files below a directory with their sizes and digests, by name; the summary is the last.
pub(super) fn list_files(root: &Dir) -> anyhow::Result<Vec<ExportedFile>> {
    let mut files = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let open = if directory.is_empty() { root.try_clone()? } else { root.open_dir(&directory)? };
        for name in names(&open)? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if root.symlink_metadata(&path)?.is_dir() {
                directories.push(path);
            } else {
                files.push(sum_of(root, &path)?);
            }
        }
    }
    files.sort_by(|one, other| (one.path == SUMMARY, &one.path).cmp(&(other.path == SUMMARY, &other.path)));
    Ok(files)
}

fn sum_of(root: &Dir, path: &str) -> io::Result<ExportedFile> {
    let mut file = files::open(root, path)?;
    let mut digest = Sha256::new();
    let mut size_bytes = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                size_bytes += read as u64;
                digest.update(&buffer[..read]);
            }
        }
    }
    Ok(ExportedFile { path: path.to_owned(), size_bytes, sha256: hex(&digest.finalize()) })
}

/// The names in a directory, sorted.
pub(super) fn names(directory: &Dir) -> io::Result<Vec<String>> {
    let names = directory.entries()?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

/// Removes a file, or a directory with all that is in it. Succeeds if it is missing.
pub(super) fn remove(directory: &Dir, name: &str) -> io::Result<()> {
    let removed = match directory.symlink_metadata(name) {
        Ok(metadata) if metadata.is_dir() => directory.remove_dir_all(name),
        Ok(_) => directory.remove_file(name),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the directories that a file was in, from the innermost on, as far as they are empty.
pub(super) fn remove_empty_parents(root: &Dir, path: &str) {
    for parent in Path::new(path).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        if root.remove_dir(parent).is_err() {
            return;
        }
    }
}

/// Waits until the names in a directory are on the disk.
pub(super) fn sync(directory: &Dir) -> io::Result<()> {
    // The handle of a directory is for paths only; this opens it for reading.
    directory.open(".")?.sync_all()
}

/// The same for a directory and all directories below it.
pub(super) fn sync_tree(root: &Dir) -> io::Result<()> {
    for name in names(root)? {
        if root.symlink_metadata(&name)?.is_dir() {
            sync_tree(&root.open_dir(&name)?)?;
        }
    }
    sync(root)
}

/// The same for the directories that these files are in, with those around them.
pub(super) fn sync_parents<'a>(root: &Dir, paths: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let parents: BTreeSet<&Path> =
        paths.flat_map(|path| Path::new(path).ancestors().skip(1)).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents {
        sync(&root.open_dir(parent)?)?;
    }
    sync(root)
}
