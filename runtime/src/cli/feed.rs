//! Rows go from a file into the store, streamed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use clap::ValueEnum;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::progress::ReadProgress;
use super::signals::Stop;
use crate::intake::{Format, IntakeError, RowReader};
use crate::model::{BatchId, NewRow, hex};
use crate::store::Store;

/// Rows of one append, at most, and their bytes.
const CHUNK_ROWS: usize = 10_000;
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 2;

/// [`Format`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON value per line.
    Ndjson,
}

/// A file of rows that was found and can be read.
pub(super) struct InputFile {
    /// For people.
    pub name: String,
    pub format: Format,
    pub reader: Box<dyn Read + Send>,
}

/// Opens a file, or stdin for `-`.
pub(super) fn open_file(input: &Path, format: Option<FormatArg>) -> anyhow::Result<InputFile> {
    let given = format.map(|format| match format {
        FormatArg::Csv => Format::Csv,
        FormatArg::Ndjson => Format::Ndjson,
    });
    let stdin = input == Path::new("-");
    let name = if stdin { "stdin".to_owned() } else { input.display().to_string() };
    let Some(format) = given.or_else(|| Format::of_file(input)) else {
        bail!("the format of {name} is not clear from its name: say --format csv or --format ndjson");
    };
    let reader: Box<dyn Read + Send> = if stdin {
        Box::new(std::io::stdin())
    } else {
        let file = File::open(input).with_context(|| format!("cannot read {name}"))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            bail!("cannot read {name}: it is a directory");
        }
        Box::new(file)
    };
    Ok(InputFile { name, format, reader })
}

/// Which rows of a file are appended, and as which lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The lines of the batch before the file's first.
    pub lines_before: u32,
    /// The file's first rows, which the batch has already.
    pub skipped: u64,
}

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn digest_file(path: &Path) -> anyhow::Result<String> {
    let reading = || format!("cannot read {}", path.display());
    let (mut file, mut digest) = (File::open(path).with_context(reading)?, Sha256::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer).with_context(reading)?;
        if read == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&buffer[..read]);
    }
}

/// Appends the rows of a file to a held batch. Reads on a thread of its own while the store writes. False when it was asked to stop.
pub(super) async fn append_all(mut reader: Box<RowReader>, store: &dyn Store, batch: BatchId, place: Place, stop: &Stop) -> anyhow::Result<bool> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        for _ in 0..place.skipped {
            reader.next_row()?;
        }
        loop {
            let chunk = next_chunk(&mut reader, place.lines_before)?;
            if chunk.is_empty() || sender.blocking_send(chunk).is_err() {
                return Ok::<(), IntakeError>(());
            }
        }
    });
    let progress = ReadProgress::begin();
    while let Some(chunk) = tokio::select! {
        chunk = chunks.recv() => chunk,
        () = stop.asked() => None,
    } {
        progress.set(store.append_rows(batch, chunk).await?);
    }
    progress.end();
    if stop.is_asked() {
        // The thread may wait for stdin for ever; it ends with the program.
        return Ok(false);
    }
    reading.await.context("the reading thread failed")??;
    Ok(true)
}

fn next_chunk(reader: &mut RowReader, lines_before: u32) -> Result<Vec<NewRow>, IntakeError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
        let Some(row) = reader.next_row()? else { break };
        let row = NewRow { line: row.line.saturating_add(lines_before), ..row };
        bytes += row.input.as_str().len();
        chunk.push(row);
    }
    Ok(chunk)
}
