//! Rows go from the file into the store, streamed.

use std::sync::Arc;

use anyhow::Context;

use super::args::{RunArgs, Source};
use super::begun::{Begun, RunSettings};
use super::directory::{RunDirectory, RunRecord};
use super::{APP, VERSION};
use crate::cli::feed::{Appended, InputFile, append_all, batch_file, open_rows};
use crate::cli::signals::Stop;
use crate::intake::{FileForm, Fingerprint, Format, InflateLimits, Place, RowReader};
use crate::model::{BatchId, NewBatch, NewRow, ProcessorKind, Terms};
use crate::store::{SqliteStore, Store};

/// Submits the input as one batch, which nothing runs before all of it is there. None when it was asked to stop.
///
/// # Errors
/// The input cannot be taken; then nothing is left of it.
pub(super) async fn submit(
    source: Source,
    args: &RunArgs,
    settings: RunSettings,
    directory: &mut RunDirectory,
    stop: &Stop,
) -> anyhow::Result<Option<(Arc<SqliteStore>, RunRecord)>> {
    let (rows, format, header) = match source {
        Source::File(InputFile { name, form, reader, fingerprint, .. }) => {
            let Some(reader) = open_rows(form, InflateLimits::default(), reader, &name, stop).await? else { return Ok(None) };
            let header = reader.header().to_vec();
            let file = RowsFile { name, form, fingerprint, reader: Box::new(reader) };
            (Rows::File(file), form.format, header)
        }
        Source::Query(input) => (Rows::Query(NewRow::new(0, input)), Format::Ndjson, Vec::new()),
    };
    directory.create()?;
    let begun = Begun { settings, input: None };
    let overwrite = directory.overwrite();
    let record = RunRecord { batch: BatchId::generate(), begun, format, header, overwrite };
    match submit_rows(rows, args, directory, record, stop).await {
        Ok(Some(submitted)) => Ok(Some(submitted)),
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
    File(RowsFile),
    Query(NewRow),
}

struct RowsFile {
    name: String,
    form: FileForm,
    /// Of what was read of it.
    fingerprint: Fingerprint,
    reader: Box<RowReader>,
}

async fn submit_rows(
    rows: Rows,
    args: &RunArgs,
    directory: &RunDirectory,
    mut record: RunRecord,
    stop: &Stop,
) -> anyhow::Result<Option<(Arc<SqliteStore>, RunRecord)>> {
    let store = directory.open_store().await?;
    let is_file = matches!(rows, Rows::File(_));
    let id = record.batch;
    let batch = NewBatch {
        id,
        app: APP.to_owned(),
        op: args.op(),
        kind: if is_file { ProcessorKind::Batch } else { ProcessorKind::SlowQuery },
        processor_version: VERSION,
        processor_digest: record.begun.settings.processor.clone(),
        context: args.context()?,
        terms: Terms { attempts_max: args.attempts, failures_max: args.failures_max, ..Terms::default() },
        hold: is_file,
        after: None,
        group: None,
        request_digest: None,
        as_found: None,
    };
    match rows {
        Rows::Query(row) => store.submit_batch(batch, vec![row]).await?,
        Rows::File(RowsFile { name, form, fingerprint, reader }) => {
            store.submit_batch(batch, Vec::new()).await?;
            let mut appended = Appended::default();
            let taken = append_all(*reader, &*store, id, Place::default(), stop, &mut appended).await;
            taken.with_context(|| format!("cannot take {name}"))?;
            if !appended.whole {
                store.close().await;
                return Ok(None);
            }
            let file = batch_file(&name, form, fingerprint.sum(), 1, None);
            store.record_batch_file(id, &file, None).await?;
            record.begun.input = Some(file);
            store.release_batch(id).await?;
        }
    }
    directory.write_record(&record)?;
    Ok(Some((store, record)))
}
