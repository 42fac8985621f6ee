//! Where an export goes: a directory, or the object store.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use cap_std::fs::Dir;
use sha2::{Digest, Sha256};

use super::Whole;
use super::directory::OutputDirectory;
use super::manifest::{ExportedFile, Manifest, ResultKind};
use super::objects::ObjectExport;
use crate::blobs::{BlobWriter, Blobs};
use crate::model::{BatchId, hex};

/// So much is collected before it is written.
const BUFFER_BYTES: usize = 256 << 10;
/// Where an export goes.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A directory, which is made when it is missing.
    Directory(&'a Path),
    /// Objects whose names begin with this and a slash, in the object store that output files are in.
    Objects(&'a str),
}

/// Where files of an export are written.
pub(super) struct Archive<'a> {
    target: Target<'a>,
    pub(super) written: Vec<ExportedFile>,
}

enum Target<'a> {
    /// Directories below the place are opened when their first file is written.
    Directory {
        out: Box<OutputDirectory>,
        staged: Dir,
        below: BTreeMap<String, Dir>,
        overwrite: bool,
    },
    Objects {
        blobs: &'a Blobs,
        export: ObjectExport<'a>,
    },
}

impl<'a> Archive<'a> {
    /// Checks that an export may be written. `planned` names all files that it may write.
    pub(super) async fn open(
        blobs: &'a Blobs,
        place: Place<'a>,
        batch: BatchId,
        planned: Vec<String>,
        overwrite: bool,
    ) -> anyhow::Result<Archive<'a>> {
        let target = match place {
            Place::Directory(directory) => {
                let owner = (batch, ResultKind::Export);
                let out = OutputDirectory::open_for(directory, owner, overwrite)?;
                let staged = out.stage()?;
                Target::Directory { out: Box::new(out), staged, below: BTreeMap::new(), overwrite }
            }
            Place::Objects(prefix) => {
                let export = ObjectExport::begin(blobs, prefix, batch, planned, overwrite).await?;
                Target::Objects { blobs, export }
            }
        };
        Ok(Archive { target, written: Vec::new() })
    }

    pub(super) fn begin(&mut self, path: &str) -> anyhow::Result<ArchiveFile> {
        let sink = match &mut self.target {
            Target::Objects { blobs, export } => Sink::Object(Box::new(blobs.begin_named(export.name(path)))),
            Target::Directory { staged, below, .. } => {
                let (directory, name) = match path.rsplit_once('/') {
                    None => (&*staged, path),
                    Some((directory, name)) => {
                        if !below.contains_key(directory) {
                            staged.create_dir_all(directory).with_context(|| format!("cannot make the directory {directory}"))?;
                            let open = staged.open_dir(directory).with_context(|| format!("cannot open the directory {directory}"))?;
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

    /// Makes the files those of the place, with their manifest.
    pub(super) async fn commit(self, manifest: Manifest) -> anyhow::Result<Manifest> {
        match self.target {
            Target::Objects { export, .. } => export.commit(&manifest).await?,
            Target::Directory { out, overwrite, .. } => {
                if let Err(error) = out.commit(&manifest, overwrite) {
                    out.abandon();
                    return Err(error);
                }
                out.close()?;
            }
        }
        Ok(manifest)
    }

    /// Removes what was written into a directory. What is in the object store is left to the next
    /// export, which knows of it.
    pub(super) fn abandon(self) {
        if let Target::Directory { out, .. } = self.target {
            out.abandon();
        }
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
