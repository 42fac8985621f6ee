//! A claimed file becomes a batch, or is refused.

use std::io::ErrorKind;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::FileType;
use super::claim::Claim;
use super::error::TakeError;
use super::look::Mark;
use super::reasons::Reasons;
use super::report::{FileReport, Outcome};
use super::rows::{Check, RowFile, append, append_checked};
use super::watcher::{Inbox, WatchSettings};
use crate::intake::{FileForm, FileSum};
use crate::jobs::{BatchRequest, JobError, JobManager, KeptFile};
use crate::model::{BatchFile, BatchId, BatchStatus, JsonText};
use crate::sandbox::CheckedFile;
use crate::store::StoreError;

/// What is taken, and with what.
pub(super) struct Taking<'a> {
    pub jobs: &'a JobManager,
    pub inbox: &'a Inbox,
    pub settings: &'a WatchSettings,
    pub cancel: &'a CancellationToken,
}

impl Taking<'_> {
    /// Takes a file to its end. It stays claimed, for the next one, when there is an error.
    pub(super) async fn take(&self, claim: Claim, mark: Option<Mark>) -> Result<FileReport, TakeError> {
        let name = claim.name().to_string_lossy().into_owned();
        let directory = self.inbox.places.paths.incoming.display().to_string();
        let report = |outcome, moved_to: &std::path::Path| FileReport {
            file: name.clone(),
            directory: directory.clone(),
            outcome,
            moved_to: moved_to.display().to_string(),
            batch: None,
            rows: None,
            reasons: Vec::new(),
        };
        let places = &self.inbox.places;
        match self.submit(&claim, mark).await {
            Ok(id) => {
                let rows = self.jobs.store().read_batch(id).await?.counts.rows;
                let moved = claim.succeed(places).map_err(TakeError::Place)?;
                let report = report(Outcome::Submitted, &places.paths.done.join(moved));
                Ok(FileReport { batch: Some(id), rows: Some(rows), ..report })
            }
            Err(TakeError::Refused(reasons)) => {
                self.leave_nothing(&claim).await?;
                let reasons = Reasons { file: name.clone(), reasons };
                let moved = claim.fail(places, &reasons).map_err(TakeError::Place)?;
                Ok(FileReport { reasons: reasons.reasons, ..report(Outcome::Failed, &places.paths.failed.join(moved)) })
            }
            Err(error) => Err(error),
        }
    }

    /// The file as a whole batch, which may be there already.
    async fn submit(&self, claim: &Claim, mark: Option<Mark>) -> Result<BatchId, TakeError> {
        let name = claim.name().to_str().ok_or_else(|| TakeError::refused("unknown_file", "its name is not UTF-8"))?;
        let begun = claim.batch().map_err(TakeError::Place)?;
        if let Some(id) = begun
            && self.status(id).await?.is_some_and(|status| status != BatchStatus::Wait)
        {
            return Ok(id);
        }
        let file_type =
            self.inbox.find_type(name).ok_or_else(|| TakeError::refused("unknown_file", "no type of this directory has a pattern for its name"))?;
        let form = file_type.form.or_else(|| FileForm::of_name(name)).ok_or_else(|| {
            let text = "its name does not tell how it holds its rows: it should end in .csv, .ndjson or .jsonl, or these with .gz, or its type should say a format";
            TakeError::refused("unknown_file", text)
        })?;
        self.wait_until_unchanged(claim, mark).await?;
        let kept = self.jobs.keep_file(&claim.id.to_string(), open(claim)?).await?;
        let context = file_type.context.of_file(name, &kept);
        let id = match self.begin(claim, file_type, form, &kept, &context, begun).await? {
            Begun::Whole(id) => return Ok(id),
            Begun::Held(id) => id,
        };
        let rows = RowFile { form, inflate: self.settings.inflate, file: Box::new(open(claim)?) };
        let (sum, context) = match &file_type.checker {
            None => {
                let skipped = self.jobs.store().read_batch(id).await?.counts.rows;
                (append(self.jobs, id, rows, skipped).await?, None)
            }
            Some(checker) => {
                let file = CheckedFile {
                    name: name.to_owned(),
                    size_bytes: kept.size_bytes,
                    sha256: kept.sha256.clone(),
                    form: form.as_str().to_owned(),
                    columns: Vec::new(),
                    context: context.clone(),
                };
                let FileType { app, op, .. } = file_type;
                let limits = self.jobs.limits_of(app).await?;
                let check = Check { checker, app, op, file, limits, cancel: self.cancel.clone() };
                let (sum, context) = append_checked(self.jobs, id, rows, check).await?;
                (sum, Some(context))
            }
        };
        let KeptFile { object, size_bytes, sha256 } = kept;
        if sum != (FileSum { size_bytes, sha256: sha256.clone() }) {
            self.jobs.store().discard_batch(id).await?;
            return Err(TakeError::Changed);
        }
        let file = BatchFile {
            first_row: 1,
            name: name.to_owned(),
            form: form.as_str().to_owned(),
            size_bytes,
            sha256,
            object: Some(object),
            source_object: None,
        };
        self.jobs.record_batch_file(id, &file, context.as_ref()).await?;
        self.jobs.release(id).await?;
        Ok(id)
    }

    /// A held batch for the file, with what is there of it; or that it is whole.
    async fn begin(
        &self,
        claim: &Claim,
        file_type: &FileType,
        form: FileForm,
        kept: &KeptFile,
        context: &JsonText,
        begun: Option<BatchId>,
    ) -> Result<Begun, TakeError> {
        // Rows that another checker made, or none, are other rows.
        let checker = file_type.checker.as_ref().map_or("", |checker| checker.digest.as_str());
        let request = || BatchRequest {
            context: context.clone(),
            terms: file_type.terms.clone(),
            key: Some(format!("file {}", claim.id)),
            rows_digest: Some(format!("{} {} {checker}", form.as_str(), kept.sha256)),
            ..BatchRequest::new(&file_type.app, &file_type.op).held()
        };
        let id = match self.jobs.batch_submit(request()).await {
            Ok(id) => id,
            // It was begun by another configuration, or from what the file was before.
            Err(JobError::KeyReused { id, .. }) => match self.status(id).await? {
                Some(BatchStatus::Wait) | None => {
                    self.discard(id).await?;
                    self.jobs.batch_submit(request()).await?
                }
                Some(_) => return Ok(Begun::Whole(id)),
            },
            Err(error) => return Err(error.into()),
        };
        match begun.filter(|begun| *begun != id) {
            // The same, by a configuration that gave it to another app.
            Some(other) => self.discard(other).await?,
            // What a checker makes of a file is made from its beginning.
            None if begun.is_some() && file_type.checker.is_some() && self.status(id).await? == Some(BatchStatus::Wait) => {
                self.discard(id).await?;
                self.jobs.batch_submit(request()).await?;
            }
            None => {}
        }
        match self.status(id).await? {
            Some(BatchStatus::Wait) => {}
            Some(_) => return Ok(Begun::Whole(id)),
            // Somebody discarded it just now: the file is taken again.
            None => return Err(TakeError::Jobs(JobError::NoBatch { id, app: None })),
        }
        if begun != Some(id) {
            claim.set_batch(id).map_err(TakeError::Place)?;
        }
        Ok(Begun::Held(id))
    }

    /// A file that changed between the look at it and its claim is waited for, until it is as old as others are when they are taken.
    async fn wait_until_unchanged(&self, claim: &Claim, mark: Option<Mark>) -> Result<(), TakeError> {
        let look = || open(claim)?.metadata().map(|metadata| Mark::of(&metadata)).map_err(TakeError::Read);
        let mut seen = mark;
        loop {
            let now = look()?;
            if seen == Some(now) {
                return Ok(());
            }
            seen = Some(now);
            // One that was claimed by another may have been changing then.
            let wait = self.inbox.age.max(Duration::from_millis(10));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.cancelled() => return Err(TakeError::Stopped),
            }
        }
    }

    async fn status(&self, id: BatchId) -> Result<Option<BatchStatus>, TakeError> {
        match self.jobs.store().read_batch(id).await {
            Ok(batch) => Ok(Some(batch.status)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Discards a batch that is held. One that is gone or was released is left alone.
    async fn discard(&self, id: BatchId) -> Result<(), TakeError> {
        match self.jobs.store().discard_batch(id).await {
            Ok(()) | Err(StoreError::NotFound(_) | StoreError::WrongStatus { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What was begun with a file that is refused now.
    async fn leave_nothing(&self, claim: &Claim) -> Result<(), TakeError> {
        if let Some(id) = claim.batch().map_err(TakeError::Place)? {
            self.discard(id).await?;
        }
        Ok(self.jobs.remove_kept_file(&claim.id.to_string()).await?)
    }
}

enum Begun {
    /// It is to be filled.
    Held(BatchId),
    /// It was submitted before.
    Whole(BatchId),
}

/// The claimed file.
fn open(claim: &Claim) -> Result<cap_std::fs::File, TakeError> {
    crate::files::open(claim.dir(), claim.name()).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => TakeError::refused("bad_file", "it is no regular file"),
        ErrorKind::PermissionDenied => TakeError::refused("bad_file", "it cannot be read: permission denied"),
        _ => TakeError::Read(error),
    })
}
