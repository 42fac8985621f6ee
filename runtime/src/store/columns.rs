//! How values stand in columns, the same in every database.

use crate::model::{
    AbortReason, After, AfterCondition, App, AppQuota, BatchCounts, BatchFile, BatchId, BatchStatus, BatchStep, FailureLimit, FoundOp, Grants, Group,
    GroupCounts, Isolation, MarkCall, Message, OpStamp, OpenAppend, OutputFile, PartialKeep, PartialTerms, PastOutcome, PastRound, Policy,
    ProcessorKind, ProcessorVersion, PrunedParts, Rate, RecordedOutcome, RetryRule, RowStatus, RunningLeases, Terms, Timestamp, WorkerInfo,
    WorkerRecord, canonical_op,
};
use crate::store::StoreError;
use crate::store::told::Told;

/// Puts an error of the database under what the store was doing.
pub(super) fn failed<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl Fn(E) -> StoreError + Copy {
    move |source| StoreError::Failed { doing, source: Box::new(Told(Box::new(source))) }
}

/// A count from the database, where CHECK constraints keep it from being negative.
pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A row number or a line from the database.
pub(super) fn small(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

/// A number for the database; those beyond 2^63 are not reached by counting.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn status_of(text: &str) -> BatchStatus {
    match text {
        "wait" => BatchStatus::Wait,
        "queued" => BatchStatus::Queued,
        "inprog" => BatchStatus::Inprog,
        "success" => BatchStatus::Success,
        "failed" => BatchStatus::Failed,
        "aborted" => BatchStatus::Aborted,
        other => unreachable!("the constraint status_is_known let '{other}' through"),
    }
}

pub(super) fn step_of(text: &str) -> BatchStep {
    match text {
        "rows" => BatchStep::Rows,
        "join" => BatchStep::Join,
        "mark" => BatchStep::Mark,
        "done" => BatchStep::Done,
        other => unreachable!("the constraint step_is_known let '{other}' through"),
    }
}

pub(super) fn kind_of(text: &str) -> ProcessorKind {
    match text {
        "batch" => ProcessorKind::Batch,
        "slow_query" => ProcessorKind::SlowQuery,
        other => unreachable!("the constraint kind_is_known let '{other}' through"),
    }
}

/// Rows by how they ended: in an aborted batch those without an outcome are aborted.
pub(super) fn counts(status: BatchStatus, rows: i64, success: i64, failures: i64) -> BatchCounts {
    let aborted = if status == BatchStatus::Aborted { rows - success - failures } else { 0 };
    BatchCounts { rows: count(rows), success: count(success), failed: count(failures), aborted: count(aborted) }
}

/// The terms of a batch as a query returns them.
#[derive(sqlx::FromRow)]
pub(super) struct TermsRow {
    priority: i64,
    attempts_max: i64,
    retry_rule: Option<String>,
    start_at: Option<i64>,
    deadline_at: Option<i64>,
    failures_max: Option<i64>,
    failures_percent: Option<i64>,
}

impl TermsRow {
    pub fn terms(self) -> Result<Terms, StoreError> {
        let limit = match (self.failures_max, self.failures_percent) {
            (Some(rows), _) => Some(FailureLimit::Rows(small(rows))),
            (None, Some(percent)) => Some(FailureLimit::Percent(u8::try_from(percent).unwrap_or(u8::MAX))),
            (None, None) => None,
        };
        let retries = self.retry_rule.map(|json| serde_json::from_str(&json)).transpose().map_err(failed("read a rule for retries"))?;
        Ok(Terms {
            priority: i32::try_from(self.priority).unwrap_or(0),
            attempts_max: small(self.attempts_max),
            retries: retries.unwrap_or_default(),
            start_at: self.start_at.map(Timestamp),
            deadline_at: self.deadline_at.map(Timestamp),
            failures_max: limit,
        })
    }
}

/// A group as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct GroupRow {
    pub app: String,
    pub name: String,
    pub created_at: i64,
    pub sealed_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub batches: i64,
    pub open: i64,
    pub successes: i64,
    pub failures: i64,
    pub row_count: i64,
    pub success: i64,
    pub failed: i64,
    pub aborted: i64,
}

impl GroupRow {
    pub fn group(self) -> Group {
        Group {
            app: self.app,
            name: self.name,
            created_at: Timestamp(self.created_at),
            sealed_at: self.sealed_at.map(Timestamp),
            ended_at: self.ended_at.map(Timestamp),
            batches: GroupCounts {
                all: count(self.batches),
                open: count(self.open),
                success: count(self.successes),
                failed: count(self.failures),
                aborted: count(self.batches - self.open - self.successes - self.failures),
            },
            rows: BatchCounts { rows: count(self.row_count), success: count(self.success), failed: count(self.failed), aborted: count(self.aborted) },
        }
    }
}

/// What a batch comes after: its id, and the condition.
pub(super) fn after_of(batch: Option<BatchId>, condition: Option<&str>) -> Option<After> {
    let condition = if condition == Some(AfterCondition::Any.as_str()) { AfterCondition::Any } else { AfterCondition::Success };
    batch.map(|batch| After { batch, condition })
}

/// The active version for an operation as a query returns it, with the terms of the policies of the operation and of its app: version, kind, digest, created_at,
/// terms, terms.
pub(super) type OpRow = (i64, String, String, i64, Option<String>, Option<String>);

pub(super) fn op_of(app: &str, op: &str, (version, kind, digest, created_at, of_op, of_app): OpRow) -> Result<FoundOp, StoreError> {
    let version = processor_of((app.to_owned(), canonical_op(op), version, kind, digest, created_at));
    let terms = partial_terms_of(of_op.as_deref())?.or(partial_terms_of(of_app.as_deref())?);
    Ok(FoundOp { version, terms, stamp: OpStamp { of_op, of_app } })
}

/// A policy as a query returns it: app, op, paused, rate_micros, burst, terms, keep, isolation.
pub(super) type PolicyRow = (String, String, bool, Option<i64>, Option<i64>, Option<String>, Option<String>, Option<String>);

pub(super) fn policy_of((app, op, paused, rate_micros, burst, terms, keep, isolation): PolicyRow) -> Result<Policy, StoreError> {
    let rate = rate_micros.zip(burst).map(|(micros, burst)| Rate { micros: count(micros), burst: small(burst) });
    Ok(Policy {
        app,
        op: (!op.is_empty()).then_some(op),
        paused,
        rate,
        terms: partial_terms_of(terms.as_deref())?,
        keep: partial_keep_of(keep)?,
        isolation: isolation.as_deref().map(isolation_of),
    })
}

fn isolation_of(text: &str) -> Isolation {
    match text {
        "lease" => Isolation::Lease,
        "row" => Isolation::Row,
        "warm" => Isolation::Warm,
        other => unreachable!("the constraint isolation_is_known let '{other}' through"),
    }
}

pub(super) fn partial_terms_of(json: Option<&str>) -> Result<PartialTerms, StoreError> {
    Ok(json.map(serde_json::from_str).transpose().map_err(failed("read the terms of a policy"))?.unwrap_or_default())
}

/// Terms as they are stored: none where nothing is said.
pub(super) fn partial_terms_json(terms: &PartialTerms) -> Option<String> {
    (*terms != PartialTerms::default()).then(|| serde_json::to_string(terms).expect("numbers and strings are always JSON"))
}

fn partial_keep_of(json: Option<String>) -> Result<PartialKeep, StoreError> {
    Ok(json.map(|json| serde_json::from_str(&json)).transpose().map_err(failed("read how long batches are kept"))?.unwrap_or_default())
}

/// How long batches are kept, as it is stored: none where nothing is said.
pub(super) fn partial_keep_json(keep: &PartialKeep) -> Option<String> {
    (*keep != PartialKeep::default()).then(|| serde_json::to_string(keep).expect("strings are always JSON"))
}

/// When parts of a batch were pruned, as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct PrunedRow {
    pub files_pruned_at: Option<i64>,
    pub inputs_pruned_at: Option<i64>,
    pub outcomes_pruned_at: Option<i64>,
}

impl PrunedRow {
    pub fn parts(self) -> PrunedParts {
        let PrunedRow { files_pruned_at: files, inputs_pruned_at: inputs, outcomes_pruned_at: outcomes } = self;
        PrunedParts { files: files.map(Timestamp), inputs: inputs.map(Timestamp), outcomes: outcomes.map(Timestamp) }
    }
}

/// The rule as it is stored: none for the default.
pub(super) fn retry_json(terms: &Terms) -> Option<String> {
    (terms.retries != RetryRule::default()).then(|| serde_json::to_string(&terms.retries).expect("numbers and strings are always JSON"))
}

/// The limit as it is stored: rows, percent.
pub(super) fn failure_limit(terms: &Terms) -> (Option<i64>, Option<i32>) {
    match terms.failures_max {
        Some(FailureLimit::Rows(rows)) => (Some(rows.into()), None),
        Some(FailureLimit::Percent(percent)) => (None, Some(percent.into())),
        None => (None, None),
    }
}

/// A row with its outcome, as far as it has one, as a query of results returns it.
#[derive(sqlx::FromRow)]
pub(super) struct ResultRow {
    pub row_no: i64,
    pub line: i64,
    pub input: String,
    pub failed: Option<bool>,
    pub attempt: Option<i64>,
    pub fuel: Option<i64>,
    pub output: Option<String>,
    pub messages: Option<String>,
    pub log: Option<String>,
    pub rejected: Option<String>,
}

impl ResultRow {
    pub fn recorded(self, batch: BatchStatus, with_inputs: bool) -> Result<RecordedOutcome, StoreError> {
        let status = match self.failed {
            Some(true) => Some(RowStatus::Failed),
            Some(false) => Some(RowStatus::Success),
            None if batch == BatchStatus::Aborted => Some(RowStatus::Aborted),
            None => None,
        };
        let messages = messages_of(self.messages)?;
        Ok(RecordedOutcome {
            row_no: small(self.row_no),
            line: small(self.line),
            status,
            output: self.output,
            messages,
            attempts: small(self.attempt.unwrap_or(0)),
            fuel: count(self.fuel.unwrap_or(0)),
            log: self.log,
            input: if with_inputs { self.input } else { String::new() },
            rejected: self.rejected.filter(|_| with_inputs),
        })
    }
}

/// The sentence of a reason that the store kept.
pub(super) fn worded(reason: String) -> String {
    AbortReason::of_stored(reason).to_string()
}

fn messages_of(json: Option<String>) -> Result<Vec<Message>, StoreError> {
    Ok(json.map(|json| serde_json::from_str(&json)).transpose().map_err(failed("read messages"))?.unwrap_or_default())
}

/// A round that has ended as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct PastRoundRow {
    pub round: i64,
    pub status: String,
    pub row_count: i64,
    pub success: i64,
    pub failed: i64,
    pub abort_reason: Option<String>,
    pub mark_error: Option<String>,
    pub mark_calls: i64,
    pub started_at: Option<i64>,
    pub finished_at: i64,
}

impl PastRoundRow {
    pub fn past_round(self, files: Vec<OutputFile>) -> PastRound {
        let status = status_of(&self.status);
        PastRound {
            round: small(self.round),
            status,
            counts: counts(status, self.row_count, self.success, self.failed),
            abort_reason: self.abort_reason.map(worded),
            mark_error: self.mark_error,
            mark_calls: small(self.mark_calls),
            started_at: self.started_at.map(Timestamp),
            finished_at: Timestamp(self.finished_at),
            files,
        }
    }
}

/// An outcome of a round that has ended as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct PastOutcomeRow {
    pub round: i64,
    pub row_no: i64,
    pub line: i64,
    pub attempt: i64,
    pub fuel: i64,
    pub output: Option<String>,
    pub messages: Option<String>,
    pub log: Option<String>,
}

impl PastOutcomeRow {
    pub fn past_outcome(self) -> Result<PastOutcome, StoreError> {
        Ok(PastOutcome {
            round: small(self.round),
            row_no: small(self.row_no),
            line: small(self.line),
            output: self.output,
            messages: messages_of(self.messages)?,
            attempts: small(self.attempt),
            fuel: count(self.fuel),
            log: self.log,
        })
    }
}

/// A call of `mark-done` as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct MarkCallRow {
    pub call: i64,
    pub ended_at: i64,
    pub error: Option<String>,
    pub log: Option<String>,
    pub log_dropped: bool,
}

impl MarkCallRow {
    pub fn mark_call(self) -> MarkCall {
        MarkCall { call: small(self.call), ended_at: Timestamp(self.ended_at), error: self.error, log: self.log, log_dropped: self.log_dropped }
    }
}

/// A file of a batch as a query returns it.
#[derive(sqlx::FromRow)]
pub(super) struct BatchFileRow {
    first_row: i64,
    name: String,
    form: String,
    size_bytes: i64,
    sha256: String,
    object: Option<String>,
    source_object: Option<String>,
}

impl BatchFileRow {
    pub fn batch_file(self) -> BatchFile {
        let BatchFileRow { first_row, name, form, size_bytes, sha256, object, source_object } = self;
        BatchFile { first_row: small(first_row), name, form, size_bytes: count(size_bytes), sha256, object, source_object }
    }
}

/// An app as a query returns it: name, weight, running_max, limits, quota, grants.
#[derive(sqlx::FromRow)]
pub(super) struct AppRow {
    app: String,
    weight: i64,
    running_max: Option<i64>,
    limits: Option<String>,
    quota: Option<String>,
    grants: Option<String>,
}

/// What an app was given, as it is stored: none for nothing.
pub(super) fn quota_json(app: &App) -> Option<String> {
    (app.quota != AppQuota::default()).then(|| serde_json::to_string(&app.quota).expect("numbers are always JSON"))
}

pub(super) fn quota_of(json: Option<String>) -> Result<AppQuota, StoreError> {
    Ok(json.map(|json| serde_json::from_str(&json)).transpose().map_err(failed("read the quota of an app"))?.unwrap_or_default())
}

pub(super) fn app_of(row: AppRow) -> Result<App, StoreError> {
    let limits = row.limits.map(|json| serde_json::from_str(&json)).transpose().map_err(failed("read the limits of an app"))?;
    let grants = grants_of(row.grants.as_deref())?;
    Ok(App { name: row.app, weight: small(row.weight), running_max: row.running_max.map(small), limits, quota: quota_of(row.quota)?, grants })
}

/// Grants as they are stored: nothing where there are none.
pub(super) fn grants_of(json: Option<&str>) -> Result<Grants, StoreError> {
    Ok(json.map(serde_json::from_str).transpose().map_err(failed("read the grants of an app"))?.unwrap_or_default())
}

pub(super) fn grants_json(grants: &Grants) -> Option<String> {
    (!grants.is_empty()).then(|| grants.to_json())
}

pub(super) fn limits_json(app: &App) -> Option<String> {
    app.limits.as_ref().map(|limits| serde_json::to_string(limits).expect("numbers are always JSON"))
}

/// A version as a query returns it: app, op, version, kind, digest, created_at.
pub(super) type ProcessorRow = (String, String, i64, String, String, i64);

pub(super) fn processor_of((app, op, version, kind, digest, created_at): ProcessorRow) -> ProcessorVersion {
    ProcessorVersion { app, op, version: small(version), kind: kind_of(&kind), digest, created_at: Timestamp(created_at) }
}

/// A worker as a query returns it: name, host, pid, slots, query_slots, draining, started_at, seen_at.
pub(super) type WorkerRow = (String, String, i64, i64, i64, bool, i64, i64);

/// Leases as a query returns them: worker, app, op, leases, rows.
pub(super) type HeldRow = (String, String, String, i64, i64);

pub(super) fn workers_of(workers: Vec<WorkerRow>, held: Vec<HeldRow>) -> Vec<WorkerRecord> {
    let mut records: Vec<WorkerRecord> = workers
        .into_iter()
        .map(|(name, host, pid, slots, query_slots, draining, started_at, seen_at)| WorkerRecord {
            info: WorkerInfo { name, host, pid: small(pid), slots: small(slots), query_slots: small(query_slots), draining },
            started_at: Timestamp(started_at),
            seen_at: Timestamp(seen_at),
            runs: Vec::new(),
        })
        .collect();
    for (worker, app, op, leases, rows) in held {
        if let Some(record) = records.iter_mut().find(|record| record.info.name == worker) {
            record.runs.push(RunningLeases { app, op, leases: small(leases), rows: count(rows) });
        }
    }
    records
}

/// A file that is being appended: how many of its rows are stored, and until when it lives.
pub(super) fn open_append_of(rows: Option<i64>, until: Option<i64>) -> Option<OpenAppend> {
    Some(OpenAppend { rows: count(rows?), expires_at: Timestamp(until?) })
}
