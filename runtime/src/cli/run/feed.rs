//! Rows go from the file into the store, streamed.

use std::sync::Arc;

use anyhow::Context;

use super::args::{RunArgs, Source};
use super::directory::{Manifest, RunDirectory};
use super::{APP, VERSION};
use crate::cli::feed::{InputFile, append_all, open_rows};
use crate::cli::signals::Stop;
use crate::intake::{Format, InflateLimits, Place, RowReader};
use crate::model::{BatchId, NewBatch, NewRow, ProcessorKind, Terms};
use crate::sandbox::Processor;
use crate::store::{SqliteStore, Store};

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
        Source::File(InputFile { name, form, reader, .. }) => {
            let Some(reader) = open_rows(form, InflateLimits::default(), reader, &name, stop).await? else { return Ok(None) };
            let header = reader.header().to_vec();
            (Rows::File { name, reader: Box::new(reader) }, form.format, header)
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
        processor_version: VERSION,
        processor_digest: processor.digest.clone(),
        context: args.context()?,
        terms: Terms { attempts_max: args.attempts, ..Terms::default() },
        hold: is_file,
        after: None,
        group: None,
        request_digest: None,
        as_found: None,
    };
    match rows {
        Rows::Query(row) => store.submit_batch(batch, vec![row]).await?,
        Rows::File { name, reader } => {
            store.submit_batch(batch, Vec::new()).await?;
            if !append_all(*reader, &*store, manifest.batch, Place::default(), stop).await.with_context(|| format!("cannot take {name}"))? {
                store.close().await;
                return Ok(None);
            }
            store.release_batch(manifest.batch).await?;
        }
    }
    directory.write_manifest(manifest)?;
    Ok(Some(store))
}
