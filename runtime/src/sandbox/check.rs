//! Files through a checker.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmtime::{Engine, Store};

use super::bindings::file_check::exports::rowmill::jobs::file_check as contract;
use super::bindings::file_check::{FileChecker, FileCheckerPre};
use super::bindings::types;
use super::ending::{check_message_id, ending_of_init};
use super::guest::{GuestState, make_store};
use super::load::{check_imports, exports_of, list, take};
use super::mask::Masks;
use super::session::{Allowance, Guarded, arm, guard, started, stopped_ending, within_fuel};
use super::turns::Turns;
use super::{Inner, LoadError};
use crate::model::{Ending, INPUT_BYTES_MAX, JsonText, Limits, Line, Message, NewRow};

const FILE_CHECK: &str = "rowmill:jobs/file-check@0.1.0";
/// The largest line of a row. A language with signed numbers passes -1 as 4294967295.
const LINE_MAX: u32 = i32::MAX.unsigned_abs();
/// Reasons of one refusal that are kept.
const FINDINGS_MAX: usize = 100;

/// A checker of files that can be instantiated.
#[derive(Clone)]
pub struct Checker {
    /// SHA-256 of its component, in hexadecimal.
    pub digest: String,
    engine: Engine,
    pre: FileCheckerPre<GuestState>,
}

/// A file, as it is told to its checker.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    pub name: String,
    pub size_bytes: u64,
    pub sha256: String,
    /// `csv`, `csv.gz`, `ndjson` or `ndjson.gz`.
    pub form: String,
    /// The columns of a CSV file.
    pub columns: Vec<String>,
    /// What its type gives to the batch.
    pub context: JsonText,
}

/// What a file is checked for.
pub struct CheckSpec {
    pub app: String,
    pub op: String,
    pub file: CheckedFile,
    /// For one call; `begin` and `end` may use as much as the start of an instance.
    pub limits: Limits,
    /// Stops the guest.
    pub cancel: CancellationToken,
}

/// A reason to refuse a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// None for the file as a whole.
    pub line: Option<u32>,
    pub message: Message,
}

/// Why a file did not pass.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckError {
    /// The checker refuses it. At least one reason.
    Refused(Vec<Finding>),
    /// The checker came to no verdict.
    Stopped(Ending),
}

/// One file in an instance of its own.
pub struct CheckSession {
    store: Store<GuestState>,
    guest: FileChecker,
    limits: Limits,
    cancel: CancellationToken,
    context: JsonText,
}

pub(super) fn load(sandbox: &Inner, wasm: &[u8]) -> Result<Checker, LoadError> {
    let (component, digest) = take(sandbox, wasm)?;
    let Inner { engine, linker, .. } = sandbox;
    let exports = exports_of(engine, &component);
    if !exports.iter().any(|name| name == FILE_CHECK) {
        return Err(LoadError::NoChecker { exports: list(&exports) });
    }
    if let Some((import, _)) = check_imports(engine, &component)?.first() {
        return Err(LoadError::UnknownImport { imports: import.clone() });
    }
    super::contract::compare(engine, &component, "file-checker").map_err(LoadError::Mismatch)?;
    let mismatch = |error: wasmtime::Error| LoadError::Mismatch(format!("{error:#}"));
    let pre = FileCheckerPre::new(linker.instantiate_pre(&component).map_err(mismatch)?).map_err(mismatch)?;
    Ok(Checker { digest, engine: engine.clone(), pre })
}

impl CheckSession {
    /// Makes an instance, and tells it what the file is.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn begin(checker: &Checker, spec: CheckSpec) -> Result<CheckSession, CheckError> {
        let CheckSpec { app, op, file, limits, cancel } = spec;
        let cannot_start = |error: wasmtime::Error| CheckError::Stopped(Ending::CannotStart { reason: format!("{error:#}") });
        let allowance = Allowance::start(&limits);
        let mut store = make_store(&checker.engine, &limits, cancel.clone(), None, &Arc::default(), Turns::default()).map_err(cannot_start)?;
        arm(&mut store, allowance);
        let bound = store.data().bound();
        let made = guard(checker.pre.instantiate_async(&mut store), &bound, &cancel).await;
        let guest = started("the instance", made, &store, allowance).map_err(CheckError::Stopped)?;
        let info = types::AppInfo { app: &app, op: &op, version: 0 };
        let init = guard(guest.rowmill_jobs_lifecycle().call_init(&mut store, info), &bound, &cancel).await;
        let init = started("init", init, &store, allowance).map_err(CheckError::Stopped)?;
        init.map_err(|reason| CheckError::Stopped(ending_of_init(reason, &Masks::default())))?;
        let columns: Vec<&str> = file.columns.iter().map(String::as_str).collect();
        let info = contract::FileInfo {
            name: &file.name,
            size: file.size_bytes,
            sha256: &file.sha256,
            form: &file.form,
            columns: &columns,
            context: file.context.as_str(),
        };
        let begun = guard(guest.rowmill_jobs_file_check().call_begin(&mut store, info), &bound, &cancel).await;
        returned(begun, &store, allowance)?.map_err(refused)?;
        Ok(CheckSession { store, guest, limits, cancel, context: file.context })
    }

    /// The rows that the batch gets for the next records of the file.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn check_records<'r>(&mut self, records: &'r [NewRow]) -> Result<Vec<NewRow>, CheckError> {
        let record = |row: &'r NewRow| {
            // Records of a file have their numbers.
            let line = if let Line::Given(line) = row.line { line } else { 0 };
            contract::FileRecord { line, value: row.input.as_str(), unreadable: row.rejected.as_deref() }
        };
        let records: Vec<contract::FileRecord<'r>> = records.iter().map(record).collect();
        let allowance = Allowance::row(&self.limits);
        arm(&mut self.store, allowance);
        let bound = self.store.data().bound();
        let checked = guard(self.guest.rowmill_jobs_file_check().call_check_records(&mut self.store, &records), &bound, &self.cancel).await;
        let rows = returned(checked, &self.store, allowance)?.map_err(refused)?;
        rows.into_iter().map(row_of).collect::<Result<_, String>>().map_err(bad_output)
    }

    /// Ends the file: the context of the batch.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn end(mut self) -> Result<JsonText, CheckError> {
        let allowance = Allowance::start(&self.limits);
        arm(&mut self.store, allowance);
        let bound = self.store.data().bound();
        let ended = guard(self.guest.rowmill_jobs_file_check().call_end(&mut self.store), &bound, &self.cancel).await;
        let context = returned(ended, &self.store, allowance)?.map_err(refused)?;
        let closed = guard(self.guest.rowmill_jobs_lifecycle().call_close(&mut self.store), &bound, &self.cancel).await;
        if let Guarded::Returned(Err(error)) = closed {
            tracing::debug!("close of a checker failed: {error:#}");
        }
        if context.is_empty() {
            return Ok(self.context);
        }
        JsonText::check(context).map_err(|error| bad_output(format!("the context that it made is {error}")))
    }
}

/// What a call returned, or why it did not.
fn returned<T>(end: Guarded<T>, store: &Store<GuestState>, allowance: Allowance) -> Result<T, CheckError> {
    if let Some(log) = store.data().log.take() {
        tracing::debug!("a checker says: {log}");
    }
    match within_fuel(store, end) {
        Guarded::Returned(Ok(value)) => Ok(value),
        stopped => Err(CheckError::Stopped(stopped_ending(stopped, store, allowance))),
    }
}

fn refused(findings: Vec<contract::Finding>) -> CheckError {
    let check = |finding: &contract::Finding| match finding.line {
        Some(line) if line > LINE_MAX => Err(format!("a finding has line {line}; lines are 1 to {LINE_MAX}")),
        _ => check_message_id(&finding.message),
    };
    if let Err(reason) = findings.iter().try_for_each(check) {
        return bad_output(reason);
    }
    let message = |message: types::Message| Message { id: message.id, code: message.code, field: message.field, values: message.values };
    let mut findings: Vec<Finding> =
        findings.into_iter().take(FINDINGS_MAX).map(|finding| Finding { line: finding.line, message: message(finding.message) }).collect();
    if findings.is_empty() {
        findings.push(Finding { line: None, message: Message { id: 0, code: "refused".to_owned(), field: None, values: Vec::new() } });
    }
    CheckError::Refused(findings)
}

fn bad_output(reason: String) -> CheckError {
    CheckError::Stopped(Ending::BadOutput { reason })
}

fn row_of(row: contract::FileRow) -> Result<NewRow, String> {
    let contract::FileRow { line, input, rejected } = row;
    if !(1..=LINE_MAX).contains(&line) {
        return Err(format!("a row that it made has line {line}; lines are 1 to {LINE_MAX}"));
    }
    if rejected.is_none() && input.len() > INPUT_BYTES_MAX {
        return Err(format!("the input that it made for line {line} has {} bytes, and may have {INPUT_BYTES_MAX} at most", input.len()));
    }
    let input = JsonText::check(input).map_err(|error| format!("the input that it made for line {line} is {error}"))?;
    Ok(NewRow { line: line.into(), input, rejected })
}
