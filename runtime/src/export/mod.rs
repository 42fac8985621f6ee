//! Results go out: what a finished batch leaves in a directory.

mod archive;
mod contents;
mod directory;
mod failed;
mod failure_counts;
mod manifest;
mod objects;
mod place;
mod results;
mod summary;
mod view;

use std::io::Write;

use anyhow::{Context, bail};
use cap_std::fs::Dir;
use futures_util::TryStreamExt;

pub use archive::{HISTORY, ROUNDS, ROWS, archive_batch, read_manifest};
pub use directory::{OutputDirectory, WORK, check_output, check_whole, read_output, read_own_json};
pub use manifest::{ExportedFile, MANIFEST, Manifest, ResultKind};
pub use place::Place;
pub use results::{on_one_line, write_failed as write_failed_row, write_past as write_past_outcome, write_row as write_result};
pub use summary::Summary;
pub use view::{BatchView, MarkCallView, read_input_files, read_past_rounds};

pub use self::failed::rejected_text;

use self::failed::FailedRows;
pub use self::failure_counts::{FailureCount, FailureCounts};
use crate::blobs::Blobs;
use crate::files;
use crate::intake::Format;
use crate::model::{Batch, MarkCall, Part, RowStatus};
use crate::store::{ResultCursor, Store, StoreError};

/// Names in the directory of a run.
pub const RESULTS: &str = "results.ndjson";
pub const FAILED_CSV: &str = "failed.csv";
pub const FAILED_NDJSON: &str = "failed.ndjson";
pub const FILES: &str = "files";
/// The logs of the calls of `mark-done` and how they failed, a line of JSON for each call.
pub const MARK: &str = "mark.ndjson";
pub const SUMMARY: &str = "summary.json";

/// Rows that are read at once.
const PAGE_ROWS: u32 = 5_000;

/// Writes all that a finished batch leaves into a directory: every file of it, or none. A result that
/// is there is replaced if it is of the same batch and kind, or with `overwrite`. The working area of
/// the directory is left to the caller.
///
/// `format` and `header` are those of the file that the rows came from, for the list of failed rows.
///
/// # Errors
/// A part cannot be read or written; the directory holds something that is not replaced.
pub async fn export_batch(
    store: &dyn Store,
    blobs: &Blobs,
    batch: &Batch,
    source: RowSource<'_>,
    out: &OutputDirectory,
    result: ResultOptions,
) -> anyhow::Result<Summary> {
    let staged = out.stage()?;
    let failures = export_rows(store, batch, source.format, source.header, &staged).await?;
    export_mark_calls(store, batch, &staged).await?;
    export_files(blobs, batch, &staged).await?;
    let summary = Summary { failures, ..Summary::of(batch, read_input_files(store, batch.id).await?) };
    let mut file = Whole::begin(&staged, SUMMARY)?;
    serde_json::to_writer_pretty(&mut file.writer, &summary).context("cannot write the summary")?;
    file.writer.write_all(b"\n")?;
    file.finish()?;
    let manifest = Manifest::new(batch.id, result.kind, out.staged_files()?);
    out.commit(&Manifest { run: result.run, ..manifest }, result.overwrite)?;
    Ok(summary)
}

/// The form of the file that rows came from.
#[derive(Clone, Copy, Debug)]
pub struct RowSource<'a> {
    pub format: Format,
    /// The columns of a CSV file.
    pub header: &'a [String],
}

impl RowSource<'_> {
    /// Rows of any file, shown as JSON.
    pub const JSON: RowSource<'static> = RowSource { format: Format::Ndjson, header: &[] };
}

/// How a result is written into its directory.
#[derive(Clone, Debug)]
pub struct ResultOptions {
    pub kind: ResultKind,
    /// For a run: see [`Manifest::run`].
    pub run: Option<serde_json::Value>,
    /// The result of another batch may be replaced.
    pub overwrite: bool,
}

async fn export_rows(store: &dyn Store, batch: &Batch, format: Format, header: &[String], out: &Dir) -> anyhow::Result<FailureCounts> {
    let mut results = Whole::begin(out, RESULTS)?;
    let mut failed: Option<FailedRows> = None;
    let mut failures = FailureCounts::default();
    let mut after = None;
    loop {
        let page = store.read_results(batch.id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = Some(ResultCursor { line: last.line, row_no: last.row_no });
        for row in &page {
            results::write_row(&mut results.writer, row).with_context(|| format!("cannot write {RESULTS}"))?;
            if row.status != Some(RowStatus::Success) {
                failures.count(row);
                let failed = match &mut failed {
                    Some(failed) => failed,
                    none => none.insert(FailedRows::begin(out, format, header)?),
                };
                failed.write(row)?;
            }
        }
    }
    results.finish()?;
    failed.map_or(Ok(()), FailedRows::finish)?;
    Ok(failures.sorted())
}

/// The calls of `mark-done` in the round that the batch is in. Where none wrote anything or failed, there is no file.
async fn export_mark_calls(store: &dyn Store, batch: &Batch, out: &Dir) -> anyhow::Result<()> {
    let mut file: Option<Whole> = None;
    let mut last = 0;
    loop {
        let page = store.read_mark_calls(batch.id, batch.round, last, PAGE_ROWS).await?;
        let Some(call) = page.last() else { break };
        last = call.call;
        let file = match &mut file {
            Some(file) => file,
            none => none.insert(Whole::begin(out, MARK)?),
        };
        for call in &page {
            write_mark_call(&mut file.writer, batch.round, call).with_context(|| format!("cannot write {MARK}"))?;
        }
    }
    file.map_or(Ok(()), Whole::finish)
}

fn write_mark_call(mut to: impl Write, round: u32, call: &MarkCall) -> anyhow::Result<()> {
    serde_json::to_writer(&mut to, &MarkCallView::of(round, call))?;
    to.write_all(b"\n")?;
    Ok(())
}

async fn export_files(blobs: &Blobs, batch: &Batch, out: &Dir) -> anyhow::Result<()> {
    if let Some(at) = batch.pruned.files {
        bail!(StoreError::Pruned { id: batch.id, part: Part::Files, at });
    }
    if batch.files.is_empty() {
        return Ok(());
    }
    out.create_dir_all(FILES).with_context(|| format!("cannot make the directory {FILES}"))?;
    let files = out.open_dir(FILES).with_context(|| format!("cannot open the directory {FILES}"))?;
    for file in &batch.files {
        let mut parts = blobs.read(&file.object).await?;
        let mut copy = Whole::begin(&files, &file.name)?;
        while let Some(part) = parts.try_next().await? {
            copy.writer.write_all(&part).with_context(|| format!("cannot write {}", file.name))?;
        }
        copy.finish()?;
    }
    Ok(())
}

/// A file that gets its name when it is complete.
struct Whole {
    directory: Dir,
    name: String,
    writer: std::io::BufWriter<cap_std::fs::File>,
}

impl Whole {
    fn begin(directory: &Dir, name: &str) -> anyhow::Result<Whole> {
        let file = files::create(directory, &part(name)).with_context(|| format!("cannot make {name}"))?;
        let directory = directory.try_clone().with_context(|| format!("cannot make {name}"))?;
        Ok(Whole { directory, name: name.to_owned(), writer: std::io::BufWriter::with_capacity(256 << 10, file) })
    }

    fn finish(self) -> anyhow::Result<()> {
        let Whole { directory, name, writer } = self;
        let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(|| format!("cannot write {name}"))?;
        file.sync_all().with_context(|| format!("cannot write {name}"))?;
        directory.rename(part(&name), &directory, &name).with_context(|| format!("cannot name {name}"))
    }
}

/// No output file's name begins with a dot.
fn part(name: &str) -> String {
    format!(".{name}.part")
}
