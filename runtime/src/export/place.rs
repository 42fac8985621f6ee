//! Where an export goes: a directory, or the object store.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use sha2::{Digest, Sha256};

use super::Whole;
use super::archive::ExportedFile;
use crate::blobs::{BlobWriter, Blobs};
use crate::model::hex;

/// So much is collected before it is written.
const BUFFER_BYTES: usize = 256 << 10;
/// Where the object store has what is ours.
const OURS: [&str; 3] = ["batches", "files", "processors"];

/// Where an export goes.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A directory, which is made when it is missing.
    Directory(&'a Path),
    /// Objects whose names begin with this and a slash, in the object store that output files are in.
    Objects(&'a str),
}

/// A small file of an export; none when it is not there.
pub(super) async fn read_from(blobs: &Blobs, place: Place<'_>, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    match place {
        Place::Directory(directory) => match std::fs::read(directory.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.join(name).display())),
        },
        Place::Objects(prefix) => {
            check_prefix(prefix)?;
            match blobs.get(&format!("{prefix}/{name}")).await {
                Ok(text) => Ok(Some(text.to_vec())),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Names of objects are ours to give, but for those of an export.
fn check_prefix(prefix: &str) -> anyhow::Result<()> {
    let mut parts = prefix.split('/');
    let first = parts.clone().next().unwrap_or_default();
    if parts.any(|part| part.is_empty() || part == "." || part == "..") {
        bail!("{prefix:?} cannot be the beginning of objects' names: it looks like exports/2026-01");
    }
    if OURS.contains(&first) {
        bail!("objects that begin with {first}/ are those of batches and processors: an export needs a place of its own, such as exports/2026-01");
    }
    Ok(())
}

/// Where files of an export are written.
pub(super) struct Archive<'a> {
    target: Target<'a>,
    pub(super) written: Vec<ExportedFile>,
}

enum Target<'a> {
    /// Directories below the place are opened when their first file is written.
    Directory {
        place: &'a Path,
        out: Dir,
        below: BTreeMap<String, Dir>,
    },
    Objects {
        blobs: &'a Blobs,
        prefix: &'a str,
    },
}

impl<'a> Archive<'a> {
    pub(super) fn open(blobs: &'a Blobs, place: Place<'a>) -> anyhow::Result<Archive<'a>> {
        let target = match place {
            Place::Directory(directory) => {
                std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
                // Everything is written through this handle: no name leads out of the directory.
                let out = Dir::open_ambient_dir(directory, ambient_authority()).with_context(|| format!("cannot open {}", directory.display()))?;
                Target::Directory { place: directory, out, below: BTreeMap::new() }
            }
            Place::Objects(prefix) => {
                check_prefix(prefix)?;
                Target::Objects { blobs, prefix }
            }
        };
        Ok(Archive { target, written: Vec::new() })
    }

    pub(super) fn begin(&mut self, path: &str) -> anyhow::Result<ArchiveFile> {
        let sink = match &mut self.target {
            Target::Objects { blobs, prefix } => Sink::Object(Box::new(blobs.begin_named(format!("{prefix}/{path}")))),
            Target::Directory { out, below, .. } => {
                let (directory, name) = match path.rsplit_once('/') {
                    None => (&*out, path),
                    Some((directory, name)) => {
                        if !below.contains_key(directory) {
                            out.create_dir_all(directory).with_context(|| format!("cannot make the directory {directory}"))?;
                            let open = out.open_dir(directory).with_context(|| format!("cannot open the directory {directory}"))?;
                            below.insert(directory.to_owned(), open);
                        }
                        (&below[directory], name)
                    }
                };
                Sink::File(Whole::begin(directory, name)?)
            }
        };
        Ok(ArchiveFile { path: path.to_owned(), size_bytes: 0, digest: Sha256::new(), buffer: Vec::new(), sink })
    }

    /// Names are as safe as contents.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        let Target::Directory { place, below, .. } = &self.target else { return Ok(()) };
        for below in below.keys().map(String::as_str).chain([""]) {
            // With the directories that it is in, up to the place: they may be as new.
            for directory in Path::new(below).ancestors() {
                let directory = place.join(directory);
                let synced = std::fs::File::open(&directory).and_then(|open| open.sync_all());
                synced.with_context(|| format!("cannot write the directory {}", directory.display()))?;
            }
        }
        Ok(())
    }
}

/// A file of an export that is being written.
pub(super) struct ArchiveFile {
    path: String,
    size_bytes: u64,
    digest: Sha256,
    buffer: Vec<u8>,
    sink: Sink,
}

enum Sink {
    File(Whole),
    Object(Box<BlobWriter>),
}

impl ArchiveFile {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.digest.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        match &mut self.sink {
            Sink::File(file) => file.writer.write_all(&bytes).with_context(|| format!("cannot write {}", self.path)),
            Sink::Object(object) => object.write(&bytes).await.with_context(|| format!("cannot write {}", self.path)),
        }
    }

    pub(super) async fn finish(mut self) -> anyhow::Result<ExportedFile> {
        self.flush().await?;
        let ArchiveFile { path, size_bytes, digest, sink, .. } = self;
        match sink {
            Sink::File(file) => file.finish()?,
            Sink::Object(object) => {
                object.finish().await.with_context(|| format!("cannot write {path}"))?;
            }
        }
        Ok(ExportedFile { path, size_bytes, sha256: hex(&digest.finalize()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_does_not_mix_with_what_is_ours() {
        for prefix in ["exports", "exports/2026-01", "files-of-2026/a"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix}");
        }
        for prefix in ["", "/", "a/", "/a", "a//b", "a/../b", ".", "batches", "batches/a", "files", "processors/x"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
