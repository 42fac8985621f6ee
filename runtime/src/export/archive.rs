//! A batch as a whole: all that is known of it, to be kept elsewhere.

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;

use super::directory::read_output;
use super::failed::{rejected_text, write_failed_line};
use super::manifest::{ExportedFile, Manifest, ResultKind};
use super::objects;
use super::place::{Archive, ArchiveFile, Place};
use super::view::{BatchView, read_input_files, read_past_rounds};
use super::{FAILED_NDJSON, FILES, MARK, PAGE_ROWS, SUMMARY, on_one_line, write_mark_call};
use crate::blobs::Blobs;
use crate::model::{Batch, Message, OutputFile, Part, PastOutcome, PastRound, RecordedOutcome, RowStatus};
use crate::store::{ResultCursor, Store, StoreError};

/// Rows with their inputs and what became of them, a line of JSON each.
pub const ROWS: &str = "rows.ndjson";
/// What rows came to before they were run again, a line of JSON for each row and round.
pub const HISTORY: &str = "history.ndjson";
/// Output files of the rounds before the last, below the number of each.
pub const ROUNDS: &str = "rounds";
/// All of a batch but its rows.
#[derive(Serialize)]
struct WholeSummary<'a> {
    #[serde(flatten)]
    batch: BatchView<'a, SummaryFile<'a>>,
    processor: &'a str,
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
    /// In the place of the input, of a row that was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    output: Option<&'a RawValue>,
    messages: &'a [Message],
    attempts: u32,
    fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a str>,
}

/// The manifest of a result that is there and whole, whatever wrote it; none when there is none.
///
/// # Errors
/// The manifest cannot be read, or is not one.
pub async fn read_manifest(blobs: &Blobs, place: Place<'_>) -> anyhow::Result<Option<Manifest>> {
    match place {
        Place::Directory(directory) => read_output(directory),
        Place::Objects(prefix) => objects::read_manifest(blobs, prefix).await,
    }
}

/// Writes all of a batch that is done: every file of it, the manifest last. An earlier export of the
/// batch in this place is replaced, that of another batch with `overwrite` only.
///
/// # Errors
/// A part cannot be read or written; outcomes were pruned; the place holds something that is not
/// replaced.
pub async fn archive_batch(store: &dyn Store, blobs: &Blobs, batch: &Batch, place: Place<'_>, overwrite: bool) -> anyhow::Result<Manifest> {
    if let Some(at) = batch.pruned.outcomes {
        bail!(StoreError::Pruned { id: batch.id, part: Part::Outcomes, at });
    }
    let mut past = read_past_rounds(store, batch, u32::MAX).await?;
    if batch.pruned.files.is_some() {
        // Those of past rounds are going, too.
        past.iter_mut().for_each(|round| round.files.clear());
    }
    let planned = planned_paths(batch, &past);
    let mut archive = Archive::open(blobs, place, batch.id, planned, overwrite).await?;
    match write_all(store, blobs, batch, &past, &mut archive).await {
        Ok(files) => {
            let manifest = Manifest::new(batch.id, ResultKind::Export, files);
            archive.commit(Manifest { pruned: batch.pruned, ..manifest }).await
        }
        Err(error) => {
            archive.abandon();
            Err(error)
        }
    }
}

/// The paths of all files that an export may have.
fn planned_paths(batch: &Batch, past: &[PastRound]) -> Vec<String> {
    let fixed = [ROWS, FAILED_NDJSON, MARK, HISTORY, SUMMARY].map(str::to_owned);
    let files = all_files(batch, past).map(|(round, file)| path_of(batch, round, file));
    fixed.into_iter().chain(files).collect()
}

/// Writes all files but the manifest.
async fn write_all(
    store: &dyn Store,
    blobs: &Blobs,
    batch: &Batch,
    past: &[PastRound],
    archive: &mut Archive<'_>,
) -> anyhow::Result<Vec<ExportedFile>> {
    write_rows(store, batch, archive).await?;
    if !past.is_empty() {
        write_history(store, batch, archive).await?;
    }
    write_mark_calls(store, batch, archive).await?;
    for (round, file) in all_files(batch, past) {
        let reading = || format!("cannot read the output file {} of round {round}", file.name);
        let mut parts = blobs.read(&file.object).await.with_context(reading)?;
        let mut copy = archive.begin(&path_of(batch, round, file))?;
        while let Some(part) = parts.try_next().await? {
            copy.write(&part).await?;
        }
        archive.written.push(copy.finish().await?);
    }
    let input_files = read_input_files(store, batch.id).await?;
    let summary = WholeSummary {
        batch: BatchView::of(batch, &input_files, past, |round, file| SummaryFile {
            name: &file.name,
            path: path_of(batch, round, file),
            size_bytes: file.size_bytes,
        })
        .context("cannot read the context")?,
        processor: &batch.processor_digest,
    };
    let mut file = archive.begin(SUMMARY)?;
    file.write(&serde_json::to_vec_pretty(&summary)?).await?;
    archive.written.push(file.finish().await?);
    Ok(std::mem::take(&mut archive.written))
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
    let text = rejected_text(row);
    let input = if input.is_empty() || text.is_some() { None } else { Some(serde_json::from_str(&input)?) };
    let line = WholeRow {
        text: text.as_deref(),
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
        text: None,
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
