//! An export in the object store, under a prefix of its own.
//!
//! Objects cannot be moved, so the files of an export are written to their final names. A note lists
//! all names that may have been written before the first is; it goes when the manifest is there and
//! the objects of the earlier export are removed. So the next process knows what a killed one left.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::manifest::{ExportedFile, MANIFEST, Manifest, ResultKind};
use crate::blobs::Blobs;
use crate::model::{BatchId, hex};

/// The note of an export that is being written.
const UNFINISHED: &str = "unfinished.json";
/// The names of objects that hold what is not an export.
const OURS: [&str; 3] = ["batches", "files", "processors"];

/// An export that is being written.
pub(super) struct ObjectExport<'a> {
    blobs: &'a Blobs,
    prefix: &'a str,
    note: Note,
}

/// The names that an export may have written.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    batch: BatchId,
    paths: BTreeSet<String>,
}

/// The manifest of an export that is whole.
pub(super) async fn read_manifest(blobs: &Blobs, prefix: &str) -> anyhow::Result<Option<Manifest>> {
    check_prefix(prefix)?;
    let manifest: Option<Manifest> = read_json(blobs, prefix, MANIFEST).await?;
    let checked = manifest.iter().try_for_each(Manifest::check);
    checked.with_context(|| format!("the object {prefix}/{MANIFEST} is there and is not the manifest of an export"))?;
    Ok(manifest)
}

async fn read_json<T: DeserializeOwned>(blobs: &Blobs, prefix: &str, name: &str) -> anyhow::Result<Option<T>> {
    let object = format!("{prefix}/{name}");
    match blobs.get(&object).await {
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("the object {object} is there and is not one of an export")),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Names of objects are ours to give, except those of an export.
fn check_prefix(prefix: &str) -> anyhow::Result<()> {
    let mut parts = prefix.split('/');
    let first = parts.clone().next().unwrap_or_default();
    if parts.any(|part| part.is_empty() || part == "." || part == "..") {
        bail!("{prefix:?} cannot be the beginning of objects' names: it looks like exports/2026-01");
    }
    if OURS.contains(&first) {
        bail!(
            "objects that begin with {first}/ are those of batches and processors: an export needs a \
             place of its own, such as exports/2026-01"
        );
    }
    Ok(())
}

impl<'a> ObjectExport<'a> {
    /// Checks that an export may be written, and writes the note.
    pub async fn begin(blobs: &'a Blobs, prefix: &'a str, batch: BatchId, planned: Vec<String>, overwrite: bool) -> anyhow::Result<ObjectExport<'a>> {
        check_prefix(prefix)?;
        let there = read_manifest(blobs, prefix).await?;
        let left: Option<Note> = read_json(blobs, prefix, UNFINISHED).await?;
        let other = there.as_ref().filter(|there| !there.is_of(Some((batch, ResultKind::Export)))).map(Manifest::in_words).or_else(|| {
            let left = left.as_ref().filter(|left| left.batch != batch)?;
            Some(format!("an export of batch {} that was not completed", left.batch))
        });
        if let Some(other) = other.filter(|_| !overwrite) {
            bail!(
                "object:{prefix} holds {other}: choose another place, or replace what is there with \
                 --overwrite"
            );
        }
        let written: &[ExportedFile] = there.as_ref().map_or(&[], |there| &there.files);
        let mut paths: BTreeSet<String> = written.iter().map(|file| file.path.clone()).collect();
        paths.extend(left.iter().flat_map(|left| left.paths.iter().cloned()));
        refuse_foreign(blobs, prefix, &paths).await?;
        // A process that was killed has overwritten some of them.
        if left.is_none() {
            refuse_changed(blobs, prefix, written).await?;
        }
        paths.extend(planned);
        let export = ObjectExport { blobs, prefix, note: Note { batch, paths } };
        blobs.put(&export.name(UNFINISHED), serde_json::to_vec_pretty(&export.note)?.into()).await?;
        // The objects are overwritten from here on: the earlier export is not whole any more.
        blobs.delete(&export.name(MANIFEST)).await?;
        Ok(export)
    }

    /// The name of the object of a file.
    pub fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.prefix)
    }

    /// Writes the manifest, and removes the objects of an earlier export that are not in it.
    pub async fn commit(self, manifest: &Manifest) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(manifest)?;
        self.blobs.put(&self.name(MANIFEST), text.into()).await?;
        let written: BTreeSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
        for path in self.note.paths.iter().filter(|path| !written.contains(path.as_str())) {
            self.blobs.delete(&self.name(path)).await?;
        }
        Ok(self.blobs.delete(&self.name(UNFINISHED)).await?)
    }
}

/// Objects that no export wrote may not be mixed with those of one.
async fn refuse_foreign(blobs: &Blobs, prefix: &str, paths: &BTreeSet<String>) -> anyhow::Result<()> {
    let below = format!("{prefix}/");
    // The manifest, the note, and one more.
    let names = blobs.list(&below, paths.len() + 3).await?;
    let is_ours = |name: &String| {
        let path = name.strip_prefix(&below).unwrap_or(name);
        path == MANIFEST || path == UNFINISHED || paths.contains(path)
    };
    match names.into_iter().find(|name| !is_ours(name)) {
        Some(name) => bail!(
            "object:{prefix} holds the object {name}, which is not of an export: choose another place, \
             or move it away"
        ),
        None => Ok(()),
    }
}

/// An object that somebody changed since is not overwritten.
async fn refuse_changed(blobs: &Blobs, prefix: &str, written: &[ExportedFile]) -> anyhow::Result<()> {
    for file in written {
        let name = format!("{prefix}/{}", file.path);
        let mut parts = match blobs.read(&name).await {
            Ok(parts) => parts,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let (mut digest, mut size_bytes) = (Sha256::new(), 0);
        while let Some(part) = parts.try_next().await? {
            size_bytes += part.len() as u64;
            digest.update(&part);
        }
        if (size_bytes, hex(&digest.finalize())) != (file.size_bytes, file.sha256.clone()) {
            bail!("the object {name} was changed since it was exported: move it away, or choose another place");
        }
    }
    Ok(())
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
