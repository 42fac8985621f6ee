//! The rows of a file go into a held batch, through its checker where it has one.

use std::io::Read;

use tokio_util::sync::CancellationToken;

use super::Reason;
use super::error::TakeError;
use crate::intake::{ChunkSize, Chunks, FileForm, FileSum, Fingerprint, InflateLimits, Place, RowReader};
use crate::jobs::JobManager;
use crate::model::{BatchId, Ending, JsonText, Limits, NewRow};
use crate::sandbox::{CheckError, CheckSession, CheckSpec, CheckedFile, Checker};

/// A file whose rows are to be read.
pub(super) struct RowFile {
    pub form: FileForm,
    pub inflate: InflateLimits,
    pub file: Box<dyn Read + Send>,
}

/// A file that is checked on its way.
pub(super) struct Check<'a> {
    pub checker: &'a Checker,
    pub app: &'a str,
    pub op: &'a str,
    pub file: CheckedFile,
    pub limits: Limits,
    pub cancel: CancellationToken,
}

impl RowFile {
    async fn open(self) -> Result<(Fingerprint, RowReader), TakeError> {
        let (fingerprint, file) = Fingerprint::of(self.file);
        // It reads the header, and may wait for the disk.
        let opened = tokio::task::spawn_blocking(move || RowReader::open(self.form, self.inflate, file)).await;
        let reader = opened.map_err(|error| TakeError::Read(std::io::Error::other(error)))??;
        Ok((fingerprint, reader))
    }
}

/// Appends the rows of a file behind those that the batch has of it. What was read of it.
pub(super) async fn append(jobs: &JobManager, id: BatchId, file: RowFile, skipped: u64) -> Result<FileSum, TakeError> {
    let (fingerprint, reader) = file.open().await?;
    let mut chunks = Chunks::of(reader, Place { skipped, ..Place::default() }, ChunkSize::APPEND);
    while let Some(chunk) = chunks.next().await {
        jobs.store().append_rows(id, chunk).await?;
    }
    chunks.end().await?;
    Ok(fingerprint.sum())
}

/// Appends what the checker makes of the rows of a file. What was read of it, and the batch's context.
pub(super) async fn append_checked(jobs: &JobManager, id: BatchId, file: RowFile, check: Check<'_>) -> Result<(FileSum, JsonText), TakeError> {
    let (fingerprint, reader) = file.open().await?;
    let Check { checker, app, op, file, limits, cancel } = check;
    let file = CheckedFile { columns: reader.header().to_vec(), ..file };
    let spec = CheckSpec { app: app.to_owned(), op: op.to_owned(), file, limits, cancel };
    let mut session = CheckSession::begin(checker, spec).await.map_err(not_passed)?;
    let mut chunks = Chunks::of(reader, Place::default(), ChunkSize::CALL);
    let mut collected = Collected::default();
    let mut total = 0;
    while let Some(chunk) = chunks.next().await {
        collected.add(session.check_records(&chunk).await.map_err(not_passed)?);
        if collected.is_full() {
            total = jobs.store().append_rows(id, collected.take()).await?;
        }
    }
    // Why the rows ended comes before what the checker says about their end.
    chunks.end().await?;
    let context = session.end().await.map_err(not_passed)?;
    if !collected.rows.is_empty() {
        total = jobs.store().append_rows(id, collected.take()).await?;
    }
    if total == 0 {
        return Err(TakeError::refused("check_failed", "its checker made no rows of it"));
    }
    Ok((fingerprint.sum(), context))
}

/// Rows for the next append.
#[derive(Default)]
struct Collected {
    rows: Vec<NewRow>,
    bytes: usize,
}

impl Collected {
    fn add(&mut self, rows: Vec<NewRow>) {
        self.bytes += rows.iter().map(|row| row.input.as_str().len()).sum::<usize>();
        self.rows.extend(rows);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ChunkSize::APPEND.rows || self.bytes >= ChunkSize::APPEND.bytes
    }

    fn take(&mut self) -> Vec<NewRow> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }
}

fn not_passed(error: CheckError) -> TakeError {
    match error {
        CheckError::Refused(findings) => {
            TakeError::Refused(findings.into_iter().map(|finding| Reason { line: finding.line, ..Reason::from(finding.message) }).collect())
        }
        CheckError::Stopped(Ending::Cancelled) => TakeError::Stopped,
        CheckError::Stopped(ending) => TakeError::refused("check_failed", format!("its checker came to no verdict: {}", ending.explain())),
    }
}
