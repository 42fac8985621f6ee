//! Rows go from a file into the store, streamed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::progress::ReadProgress;
use super::signals::Stop;
use crate::intake::{ChunkSize, Chunks, FileForm, FileLines, FileSum, Fingerprint, Format, InflateLimits, Place, RowReader};
use crate::jobs::{FileAppend, RENEW_APPEND_EVERY};
use crate::model::{AppendState, BatchFile, BatchId};
use crate::store::Store;

/// [`FileForm`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON value per line.
    Ndjson,
    /// CSV, compressed with gzip.
    #[value(name = "csv.gz")]
    CsvGz,
    /// NDJSON, compressed with gzip.
    #[value(name = "ndjson.gz")]
    NdjsonGz,
}

impl FormatArg {
    fn form(self) -> FileForm {
        match self {
            FormatArg::Csv => FileForm::plain(Format::Csv),
            FormatArg::Ndjson => FileForm::plain(Format::Ndjson),
            FormatArg::CsvGz => FileForm::compressed(Format::Csv),
            FormatArg::NdjsonGz => FileForm::compressed(Format::Ndjson),
        }
    }
}

/// A file of rows that was found and can be read.
pub(super) struct InputFile {
    /// For people.
    pub name: String,
    pub form: FileForm,
    pub reader: Box<dyn Read + Send>,
    /// Of what was read of it.
    pub fingerprint: Fingerprint,
    /// The object of the object store that it is, if it is one.
    pub object: Option<String>,
}

impl InputFile {
    pub(super) fn new(name: String, form: FileForm, file: impl Read + Send + 'static) -> InputFile {
        let (fingerprint, reader) = Fingerprint::of(file);
        InputFile { name, form, reader: Box::new(reader), fingerprint, object: None }
    }
}

/// How the file of this name holds its rows.
pub(super) fn form_of(name: &str, format: Option<FormatArg>) -> anyhow::Result<FileForm> {
    let form = format.map(FormatArg::form).or_else(|| FileForm::of_name(name));
    form.with_context(|| format!("the format of {name} is not clear from its name: say --format csv or --format ndjson, or csv.gz or ndjson.gz"))
}

/// Opens a file, or stdin for `-`.
pub(super) fn open_file(input: &Path, format: Option<FormatArg>) -> anyhow::Result<InputFile> {
    if input == Path::new("-") {
        return Ok(InputFile::new("stdin".to_owned(), form_of("stdin", format)?, std::io::stdin()));
    }
    let name = input.display().to_string();
    let form = form_of(&name, format)?;
    let file = File::open(input).with_context(|| format!("cannot read {name}"))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        bail!("cannot read {name}: it is a directory");
    }
    Ok(InputFile::new(name, form, file))
}

/// Reads a file to its end.
pub(super) fn sum_of(mut file: InputFile) -> anyhow::Result<FileSum> {
    std::io::copy(&mut file.reader, &mut std::io::sink()).with_context(|| format!("cannot read {}", file.name))?;
    Ok(file.fingerprint.sum())
}

/// A file's name without the directories before it.
pub(super) fn base_name(name: &str) -> String {
    PathBuf::from(name).file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What is recorded of a file whose rows begin with this one.
pub(super) fn batch_file(name: &str, form: FileForm, sum: FileSum, first_row: u32, source_object: Option<String>) -> BatchFile {
    let FileSum { size_bytes, sha256 } = sum;
    BatchFile { first_row, name: base_name(name), form: form.as_str().to_owned(), size_bytes, sha256, object: None, source_object }
}

/// Begins to read the rows of a file, on a thread of its own: its header may be long, and its source slow. None when the program was asked to stop.
pub(super) async fn open_rows(
    form: FileForm,
    limits: InflateLimits,
    reader: Box<dyn Read + Send>,
    name: &str,
    stop: &Stop,
) -> anyhow::Result<Option<RowReader>> {
    let opened = until_stop(stop, move || RowReader::open(form, limits, reader)).await?;
    opened.transpose().with_context(|| format!("cannot take {name}"))
}

/// Reads on a thread of its own. None when the program was asked to stop: the thread ends with the program.
pub(super) async fn until_stop<T: Send + 'static>(stop: &Stop, read: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<Option<T>> {
    tokio::select! {
        read = tokio::task::spawn_blocking(read) => Ok(Some(read.context("the reading thread failed")?)),
        () = stop.asked() => Ok(None),
    }
}

/// The part of a file that was appended to a batch.
#[derive(Default)]
pub(super) struct Appended {
    /// False when it was asked to stop before the end of the file.
    pub whole: bool,
    pub rows: u64,
    /// The place of its first row in the batch; none without a row.
    pub first_row: Option<u32>,
}

/// Appends the rows of a file to a held batch: all of them with the last part, or none. None when the program was asked to stop. Reads on a thread of its own while the store
/// writes.
pub(super) async fn append_whole(
    reader: RowReader,
    mut append: FileAppend,
    lines: FileLines,
    file: impl FnOnce() -> BatchFile,
    stop: &Stop,
) -> anyhow::Result<Option<AppendState>> {
    let mut chunks = Chunks::of(reader, Place { lines, skipped: 0 }, ChunkSize::APPEND);
    let progress = ReadProgress::begin();
    let mut rows = 0;
    loop {
        let step = async {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = tokio::time::sleep(RENEW_APPEND_EVERY) => return append.renew().await.map(|()| true),
            };
            let Some(chunk) = chunk else { return Ok(false) };
            rows += chunk.len() as u64;
            append.push(chunk).await?;
            progress.set(rows);
            Ok(true)
        };
        tokio::select! {
            more = step => if !more? { break },
            () = stop.asked() => break,
        }
    }
    progress.end();
    if stop.is_asked() {
        append.undo().await?;
        return Ok(None);
    }
    if let Err(error) = chunks.end().await {
        // The fault of the file is the one to tell. Rows that cannot be removed now never run.
        if let Err(undone) = append.undo().await {
            tracing::warn!("the rows of the file that were stored cannot be removed yet: {:#}", anyhow::Error::from(undone));
        }
        return Err(error.into());
    }
    Ok(Some(append.end(Some(file())).await?))
}

/// Appends the rows of a file to a held batch, and counts them in `appended`, also where it fails. Reads on a thread of its own while the store writes. Each chunk is a transaction:
/// others may append between two chunks, and the rows of the file keep their order.
pub(super) async fn append_all(
    reader: RowReader,
    store: &dyn Store,
    batch: BatchId,
    place: Place,
    stop: &Stop,
    appended: &mut Appended,
) -> anyhow::Result<()> {
    let mut chunks = Chunks::of(reader, place, ChunkSize::APPEND);
    let progress = ReadProgress::begin();
    while let Some(chunk) = tokio::select! {
        chunk = chunks.next() => chunk,
        () = stop.asked() => None,
    } {
        let rows = chunk.len() as u64;
        let total = store.append_rows(batch, chunk).await?;
        // The rows of this chunk are the last of the batch, as of its transaction.
        appended.first_row = appended.first_row.or(u32::try_from(total - rows + 1).ok());
        appended.rows += rows;
        progress.set(total);
    }
    progress.end();
    if stop.is_asked() {
        // The thread may wait for stdin for ever; it ends with the program.
        return Ok(());
    }
    chunks.end().await?;
    appended.whole = true;
    Ok(())
}
