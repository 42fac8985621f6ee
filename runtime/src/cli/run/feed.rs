//! Rows go from the file into the store, streamed.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use super::args::{RunArgs, Source};
use super::directory::{Manifest, RunDirectory};
use super::{APP, VERSION};
use crate::cli::progress::ReadProgress;
use crate::cli::signals::Stop;
use crate::intake::{Format, IntakeError, RowReader};
use crate::model::{BatchId, NewBatch, NewRow, ProcessorKind};
use crate::sandbox::Processor;
use crate::store::{SqliteStore, Store};

/// Rows of one append, at most, and their bytes.
const CHUNK_ROWS: usize = 10_000;
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 2;

/// Submits the input as one batch, which nothing runs before all of it is there. None when it was asked to stop.
///
/// # Errors
/// The input cannot be taken; then nothing is left of it.
pub(super) async fn submit(
    source: Source,
    args: &RunArgs,
    processor: &Processor,
    directory: &RunDirectory,
    stop: &Stop,
) -> anyhow::Result<Option<(Arc<SqliteStore>, Manifest)>> {
    let (rows, format, header) = match source {
        Source::File { name, format, reader } => {
            let reader = RowReader::open(format, reader).with_context(|| format!("cannot take {name}"))?;
            let header = reader.header().to_vec();
            (Rows::File { name, reader: Box::new(reader) }, format, header)
        }
        Source::Query(input) => (Rows::Query(NewRow { line: 0, input, rejected: None }), Format::Ndjson, Vec::new()),
    };
    directory.create()?;
    let manifest = Manifest { batch: BatchId::generate(), processor_digest: processor.digest.clone(), format, header };
    let submitted = submit_rows(rows, args, processor, directory, &manifest, stop).await;
    match submitted {
        Ok(Some(store)) => Ok(Some((store, manifest))),
        Ok(None) => {
            directory.discard();
            Ok(None)
        }
        Err(error) => {
            directory.discard();
            Err(error)
        }
    }
}

enum Rows {
    File { name: String, reader: Box<RowReader> },
    Query(NewRow),
}

async fn submit_rows(
    rows: Rows,
    args: &RunArgs,
    processor: &Processor,
    directory: &RunDirectory,
    manifest: &Manifest,
    stop: &Stop,
) -> anyhow::Result<Option<Arc<SqliteStore>>> {
    let store = directory.open_store().await?;
    let is_file = matches!(rows, Rows::File { .. });
    let batch = NewBatch {
        id: manifest.batch,
        app: APP.to_owned(),
        op: args.op(),
        kind: if is_file { ProcessorKind::Batch } else { ProcessorKind::SlowQuery },
        priority: 0,
        processor_version: VERSION,
        processor_digest: processor.digest.clone(),
        context: args.context()?,
        attempts_max: args.attempts,
        hold: is_file,
    };
    match rows {
        Rows::Query(row) => store.submit_batch(batch, vec![row]).await?,
        Rows::File { name, reader } => {
            store.submit_batch(batch, Vec::new()).await?;
            if !append_all(reader, &store, manifest.batch, stop).await.with_context(|| format!("cannot take {name}"))? {
                store.close().await;
                return Ok(None);
            }
            store.release_batch(manifest.batch).await?;
        }
    }
    directory.write_manifest(manifest)?;
    Ok(Some(store))
}

/// Reads on a thread of its own while the store writes. False when it was asked to stop.
async fn append_all(mut reader: Box<RowReader>, store: &SqliteStore, batch: BatchId, stop: &Stop) -> anyhow::Result<bool> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        loop {
            let chunk = next_chunk(&mut reader)?;
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

fn next_chunk(reader: &mut RowReader) -> Result<Vec<NewRow>, IntakeError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
        let Some(row) = reader.next_row()? else { break };
        bytes += row.input.as_str().len();
        chunk.push(row);
    }
    Ok(chunk)
}
