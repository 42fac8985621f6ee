//! A batch as a whole: all that is known of it, to be kept elsewhere.

use std::path::Path;

use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::io::Write;

use super::failed::write_failed_line;
use super::{FAILED_NDJSON, FILES, PAGE_ROWS, SUMMARY, Whole, on_one_line};
use crate::blobs::{BlobWriter, Blobs};
use crate::model::{
    Batch, BatchCounts, BatchFile, BatchId, BatchStatus, Message, Part, ProcessorKind, PrunedParts, RecordedOutcome, RowStatus, Timestamp, hex,
};
use crate::store::{ResultCursor, Store, StoreError};

/// Rows with their inputs and what became of them, a line of JSON each.
pub const ROWS: &str = "rows.ndjson";
/// Is written last: where it stands, everything does.
pub const MANIFEST: &str = "manifest.json";

/// So much is collected before it is written.
const BUFFER_BYTES: usize = 256 << 10;
/// Files that rows came from that are read at once.
const FILES_PER_PAGE: u32 = 1_000;
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

/// What an export holds, and that it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub batch: BatchId,
    /// What had been pruned before, and is not there.
    #[serde(default)]
    pub pruned: PrunedParts,
    pub files: Vec<ExportedFile>,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedFile {
    /// Below the place of the export.
    pub path: String,
    pub size_bytes: u64,
    /// The SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

/// All of a batch but its rows.
#[derive(Serialize)]
struct WholeSummary<'a> {
    id: BatchId,
    app: &'a str,
    op: &'a str,
    kind: ProcessorKind,
    version: u32,
    processor: &'a str,
    context: &'a RawValue,
    priority: i32,
    attempts_max: u32,
    start_at: Option<Timestamp>,
    deadline_at: Option<Timestamp>,
    status: BatchStatus,
    #[serde(flatten)]
    counts: BatchCounts,
    fuel: u64,
    abort_reason: Option<&'a str>,
    mark_error: Option<&'a str>,
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    files: Vec<SummaryFile<'a>>,
    /// Where its rows came from.
    input_files: Vec<BatchFile>,
}

#[derive(Serialize)]
struct SummaryFile<'a> {
    name: &'a str,
    path: String,
    size_bytes: u64,
}

/// A row with all that is known of it.
#[derive(Serialize)]
struct WholeRow<'a> {
    row: u32,
    line: u32,
    status: RowStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    messages: &'a [Message],
    attempts: u32,
    fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a str>,
}

/// The manifest of an export that is there and whole; none when there is none.
///
/// # Errors
/// What could not be read, or is no manifest.
pub async fn read_manifest(blobs: &Blobs, place: Place<'_>) -> anyhow::Result<Option<Manifest>> {
    let text = match place {
        Place::Directory(directory) => match std::fs::read(directory.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.join(MANIFEST).display())),
        },
        Place::Objects(prefix) => {
            check_prefix(prefix)?;
            match blobs.get(&format!("{prefix}/{MANIFEST}")).await {
                Ok(text) => text.to_vec(),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("{MANIFEST} is there and is not that of an export"))
}

/// Writes all of a batch that is done, the manifest last. Files appear whole or not at all, and writing again replaces them.
///
/// # Errors
/// What could not be read or written; that outcomes were pruned, or that there is the export of another batch.
pub async fn archive_batch(store: &dyn Store, blobs: &Blobs, batch: &Batch, place: Place<'_>) -> anyhow::Result<Manifest> {
    if let Some(at) = batch.pruned.outcomes {
        bail!(StoreError::Pruned { id: batch.id, part: Part::Outcomes, at });
    }
    if let Some(other) = read_manifest(blobs, place).await?.filter(|there| there.batch != batch.id) {
        bail!("there is an export of batch {} already: each needs a place of its own", other.batch);
    }
    let mut archive = Archive::open(blobs, place)?;
    write_rows(store, batch, &mut archive).await?;
    for file in &batch.files {
        let mut parts = blobs.read(&file.object).await.with_context(|| format!("cannot read the output file {}", file.name))?;
        let mut copy = archive.begin(&format!("{FILES}/{}", file.name))?;
        while let Some(part) = parts.try_next().await? {
            copy.write(&part).await?;
        }
        archive.written.push(copy.finish().await?);
    }
    let summary = summary(store, batch).await?;
    let mut file = archive.begin(SUMMARY)?;
    file.write(&serde_json::to_vec_pretty(&summary)?).await?;
    archive.written.push(file.finish().await?);
    let manifest = Manifest { batch: batch.id, pruned: batch.pruned, files: std::mem::take(&mut archive.written) };
    let mut file = archive.begin(MANIFEST)?;
    file.write(&serde_json::to_vec_pretty(&manifest)?).await?;
    file.finish().await?;
    archive.sync()?;
    Ok(manifest)
}

async fn write_rows(store: &dyn Store, batch: &Batch, archive: &mut Archive<'_>) -> anyhow::Result<()> {
    let mut rows = archive.begin(ROWS)?;
    let mut failed: Option<ArchiveFile> = None;
    let mut after = None;
    loop {
        let page = store.read_results(batch.id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = Some(ResultCursor { line: last.line, row_no: last.row_no });
        let (mut lines, mut failed_lines) = (Vec::new(), Vec::new());
        for row in &page {
            write_row(&mut lines, row)?;
            if row.status != Some(RowStatus::Success) {
                write_failed_line(&mut failed_lines, row)?;
            }
        }
        rows.write(&lines).await?;
        if !failed_lines.is_empty() {
            let failed = match &mut failed {
                Some(failed) => failed,
                none => none.insert(archive.begin(FAILED_NDJSON)?),
            };
            failed.write(&failed_lines).await?;
        }
    }
    archive.written.push(rows.finish().await?);
    if let Some(failed) = failed {
        archive.written.push(failed.finish().await?);
    }
    Ok(())
}

fn write_row(lines: &mut Vec<u8>, row: &RecordedOutcome) -> anyhow::Result<()> {
    let (input, output) = (on_one_line(&row.input), row.output.as_deref().map(on_one_line));
    let input = if input.is_empty() { None } else { Some(serde_json::from_str(&input)?) };
    let line = WholeRow {
        row: row.row_no,
        line: row.line,
        status: row.status.unwrap_or(RowStatus::Aborted),
        input,
        output: output.as_deref().map(serde_json::from_str).transpose()?,
        messages: &row.messages,
        attempts: row.attempts,
        fuel: row.fuel,
        log: row.log.as_deref(),
    };
    serde_json::to_writer(&mut *lines, &line)?;
    lines.push(b'\n');
    Ok(())
}

async fn summary<'a>(store: &dyn Store, batch: &'a Batch) -> anyhow::Result<WholeSummary<'a>> {
    let mut input_files: Vec<BatchFile> = Vec::new();
    loop {
        let page = store.list_batch_files(batch.id, input_files.last().map_or(0, |last| last.first_row), FILES_PER_PAGE).await?;
        if page.is_empty() {
            break;
        }
        input_files.extend(page);
    }
    let file =
        |file: &'a crate::model::OutputFile| SummaryFile { name: &file.name, path: format!("{FILES}/{}", file.name), size_bytes: file.size_bytes };
    Ok(WholeSummary {
        id: batch.id,
        app: &batch.app,
        op: &batch.op,
        kind: batch.kind,
        version: batch.processor_version,
        processor: &batch.processor_digest,
        context: serde_json::from_str(batch.context.as_str()).context("cannot read the context")?,
        priority: batch.terms.priority,
        attempts_max: batch.terms.attempts_max,
        start_at: batch.terms.start_at,
        deadline_at: batch.terms.deadline_at,
        status: batch.status,
        counts: batch.counts,
        fuel: batch.fuel,
        abort_reason: batch.abort_reason.as_deref(),
        mark_error: batch.mark_error.as_deref(),
        submitted_at: batch.submitted_at,
        started_at: batch.started_at,
        finished_at: batch.finished_at,
        files: batch.files.iter().map(file).collect(),
        input_files,
    })
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
struct Archive<'a> {
    target: Target<'a>,
    written: Vec<ExportedFile>,
}

enum Target<'a> {
    Directory { place: &'a Path, out: Dir, files: Option<Dir> },
    Objects { blobs: &'a Blobs, prefix: &'a str },
}

impl<'a> Archive<'a> {
    fn open(blobs: &'a Blobs, place: Place<'a>) -> anyhow::Result<Archive<'a>> {
        let target = match place {
            Place::Directory(directory) => {
                std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
                // Everything is written through this handle: no name leads out of the directory.
                let out = Dir::open_ambient_dir(directory, ambient_authority()).with_context(|| format!("cannot open {}", directory.display()))?;
                Target::Directory { place: directory, out, files: None }
            }
            Place::Objects(prefix) => {
                check_prefix(prefix)?;
                Target::Objects { blobs, prefix }
            }
        };
        Ok(Archive { target, written: Vec::new() })
    }

    fn begin(&mut self, path: &str) -> anyhow::Result<ArchiveFile> {
        let sink = match &mut self.target {
            Target::Objects { blobs, prefix } => Sink::Object(Box::new(blobs.begin_named(format!("{prefix}/{path}")))),
            Target::Directory { out, files, .. } => {
                let (directory, name) = match path.split_once('/') {
                    None => (&*out, path),
                    Some((_, name)) => {
                        let files = match files {
                            Some(files) => files,
                            none => {
                                out.create_dir_all(FILES).with_context(|| format!("cannot make the directory {FILES}"))?;
                                none.insert(out.open_dir(FILES).with_context(|| format!("cannot open the directory {FILES}"))?)
                            }
                        };
                        (&*files, name)
                    }
                };
                Sink::File(Whole::begin(&directory.try_clone()?, name)?)
            }
        };
        Ok(ArchiveFile { path: path.to_owned(), size_bytes: 0, digest: Sha256::new(), buffer: Vec::new(), sink })
    }

    /// Names are as safe as contents.
    fn sync(&self) -> anyhow::Result<()> {
        let Target::Directory { place, files, .. } = &self.target else { return Ok(()) };
        for directory in files.iter().map(|_| place.join(FILES)).chain([place.to_path_buf()]) {
            let synced = std::fs::File::open(&directory).and_then(|open| open.sync_all());
            synced.with_context(|| format!("cannot write the directory {}", directory.display()))?;
        }
        Ok(())
    }
}

/// A file of an export that is being written.
struct ArchiveFile {
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
    async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
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

    async fn finish(mut self) -> anyhow::Result<ExportedFile> {
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
