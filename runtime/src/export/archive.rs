//! A batch as a whole: all that is known of it, to be kept elsewhere.

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::failed::write_failed_line;
use super::place::{Archive, ArchiveFile, Place, read_from};
use super::view::{BatchView, read_input_files, read_past_rounds};
use super::{FAILED_NDJSON, FILES, MARK, PAGE_ROWS, SUMMARY, on_one_line, write_mark_call};
use crate::blobs::Blobs;
use crate::model::{Batch, BatchId, Message, OutputFile, Part, PastOutcome, PastRound, PrunedParts, RecordedOutcome, RowStatus};
use crate::store::{ResultCursor, Store, StoreError};

/// Rows with their inputs and what became of them, a line of JSON each.
pub const ROWS: &str = "rows.ndjson";
/// What rows came to before they were run again, a line of JSON for each row and round.
pub const HISTORY: &str = "history.ndjson";
/// Output files of the rounds before the last, below the number of each.
pub const ROUNDS: &str = "rounds";
/// Is written last: where it stands, everything does.
pub const MANIFEST: &str = "manifest.json";

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
    #[serde(flatten)]
    batch: BatchView<'a, SummaryFile<'a>>,
    processor: &'a str,
    context: &'a RawValue,
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
    /// Of one that was run again afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
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
    let Some(text) = read_from(blobs, place, MANIFEST).await? else { return Ok(None) };
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
    let mut past = read_past_rounds(store, batch, u32::MAX).await?;
    if batch.pruned.files.is_some() {
        // Those of past rounds are going, too.
        past.iter_mut().for_each(|round| round.files.clear());
    }
    let mut archive = Archive::open(blobs, place)?;
    write_rows(store, batch, &mut archive).await?;
    if !past.is_empty() {
        write_history(store, batch, &mut archive).await?;
    }
    write_mark_calls(store, batch, &mut archive).await?;
    for (round, file) in all_files(batch, &past) {
        let mut parts = blobs.read(&file.object).await.with_context(|| format!("cannot read the output file {} of round {round}", file.name))?;
        let mut copy = archive.begin(&path_of(batch, round, file))?;
        while let Some(part) = parts.try_next().await? {
            copy.write(&part).await?;
        }
        archive.written.push(copy.finish().await?);
    }
    let input_files = read_input_files(store, batch.id).await?;
    let summary = WholeSummary {
        batch: BatchView::of(batch, &input_files, &past, |round, file| SummaryFile {
            name: &file.name,
            path: path_of(batch, round, file),
            size_bytes: file.size_bytes,
        }),
        processor: &batch.processor_digest,
        context: serde_json::from_str(batch.context.as_str()).context("cannot read the context")?,
    };
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

/// The calls of `mark-done` in all rounds. Where none wrote anything or failed, there is no file.
async fn write_mark_calls(store: &dyn Store, batch: &Batch, archive: &mut Archive<'_>) -> anyhow::Result<()> {
    let mut file = None;
    for round in 1..=batch.round {
        let mut last = 0;
        loop {
            let page = store.read_mark_calls(batch.id, round, last, PAGE_ROWS).await?;
            let Some(call) = page.last() else { break };
            last = call.call;
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(archive.begin(MARK)?),
            };
            let mut lines = Vec::new();
            for call in &page {
                write_mark_call(&mut lines, round, call)?;
            }
            file.write(&lines).await?;
        }
    }
    if let Some(file) = file {
        archive.written.push(file.finish().await?);
    }
    Ok(())
}

/// The output files of all rounds, each with its round.
fn all_files<'a>(batch: &'a Batch, past: &'a [PastRound]) -> impl Iterator<Item = (u32, &'a OutputFile)> {
    let past = past.iter().flat_map(|round| round.files.iter().map(|file| (round.round, file)));
    past.chain(batch.files.iter().map(|file| (batch.round, file)))
}

/// Where an output file of a round is in the export.
fn path_of(batch: &Batch, round: u32, file: &OutputFile) -> String {
    if round == batch.round { format!("{FILES}/{}", file.name) } else { format!("{ROUNDS}/{round}/{}", file.name) }
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
    // One that was pruned is empty.
    let input = if input.is_empty() { None } else { Some(serde_json::from_str(&input)?) };
    let line = WholeRow {
        round: None,
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

/// In the order in which rows came in, and then by round.
async fn write_history(store: &dyn Store, batch: &Batch, archive: &mut Archive<'_>) -> anyhow::Result<()> {
    let mut history = archive.begin(HISTORY)?;
    let mut after = None;
    loop {
        let page = store.read_past_outcomes(batch.id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        let mut lines = Vec::new();
        for outcome in &page {
            write_past(&mut lines, outcome)?;
        }
        history.write(&lines).await?;
    }
    archive.written.push(history.finish().await?);
    Ok(())
}

fn write_past(lines: &mut Vec<u8>, past: &PastOutcome) -> anyhow::Result<()> {
    let output = past.output.as_deref().map(on_one_line);
    let line = WholeRow {
        round: Some(past.round),
        row: past.row_no,
        line: past.line,
        status: RowStatus::Failed,
        input: None,
        output: output.as_deref().map(serde_json::from_str).transpose()?,
        messages: &past.messages,
        attempts: past.attempts,
        fuel: past.fuel,
        log: past.log.as_deref(),
    };
    serde_json::to_writer(&mut *lines, &line)?;
    lines.push(b'\n');
    Ok(())
}
