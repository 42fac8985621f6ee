//! A batch for programs: what `rowmill status --json` prints and the summary of an export begins with.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::{
    After, Batch, BatchCounts, BatchFile, BatchId, BatchStatus, BatchStep, FailureLimit, MarkCall, OpenAppend, OutputFile, PastRound, ProcessorKind,
    PrunedParts, RetryRule, Timestamp,
};
use crate::store::{Store, StoreError};

/// Files that rows came from that are read at once.
const FILES_PER_PAGE: u32 = 1_000;
/// Past rounds that are read at once.
const ROUNDS_PER_PAGE: u32 = 100;

/// All of a batch but its rows. Output files are shown as `F`.
#[derive(Serialize)]
pub struct BatchView<'a, F> {
    id: BatchId,
    app: &'a str,
    op: &'a str,
    kind: ProcessorKind,
    version: u32,
    priority: i32,
    attempts_max: u32,
    retries: &'a RetryRule,
    start_at: Option<Timestamp>,
    deadline_at: Option<Timestamp>,
    failures_max: Option<FailureLimit>,
    after: Option<After>,
    group: Option<&'a str>,
    /// The context that its processor is given.
    context: &'a RawValue,
    round: u32,
    status: BatchStatus,
    /// Whether `mark-done` was called, too.
    done: bool,
    #[serde(flatten)]
    counts: BatchCounts,
    fuel: u64,
    abort_reason: Option<&'a str>,
    mark_error: Option<&'a str>,
    /// How often `mark-done` was called in this round.
    mark_calls: u32,
    /// When it is called again.
    #[serde(skip_serializing_if = "Option::is_none")]
    mark_due_at: Option<Timestamp>,
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// A file whose rows are not all there, and are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_append: Option<OpenAppend>,
    /// When parts of it were pruned.
    #[serde(skip_serializing_if = "PrunedParts::is_whole")]
    pruned: PrunedParts,
    files: Vec<F>,
    /// Where its rows came from.
    input_files: &'a [BatchFile],
    /// How it ended before it was retried.
    past_rounds: Vec<PastRoundView<'a, F>>,
}

/// A round that was followed by another, for programs.
#[derive(Serialize)]
struct PastRoundView<'a, F> {
    round: u32,
    status: BatchStatus,
    #[serde(flatten)]
    counts: BatchCounts,
    abort_reason: Option<&'a str>,
    mark_error: Option<&'a str>,
    mark_calls: u32,
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    files: Vec<F>,
}

impl<'a, F> BatchView<'a, F> {
    /// With these rounds of the past, and each output file of a round as it is to be shown.
    ///
    /// # Errors
    /// That the context is not JSON.
    pub fn of(
        batch: &'a Batch,
        input_files: &'a [BatchFile],
        past: &'a [PastRound],
        file: impl Fn(u32, &'a OutputFile) -> F,
    ) -> serde_json::Result<BatchView<'a, F>> {
        let files = |round: u32, files: &'a [OutputFile]| files.iter().map(|shown| file(round, shown)).collect();
        Ok(BatchView {
            id: batch.id,
            app: &batch.app,
            op: &batch.op,
            kind: batch.kind,
            version: batch.processor_version,
            priority: batch.terms.priority,
            attempts_max: batch.terms.attempts_max,
            retries: &batch.terms.retries,
            start_at: batch.terms.start_at,
            deadline_at: batch.terms.deadline_at,
            failures_max: batch.terms.failures_max,
            after: batch.after,
            group: batch.group.as_deref(),
            context: serde_json::from_str(batch.context.as_str())?,
            round: batch.round,
            status: batch.status,
            done: batch.step == BatchStep::Done,
            counts: batch.counts,
            fuel: batch.fuel,
            abort_reason: batch.abort_reason.as_deref(),
            mark_error: batch.mark_error.as_deref(),
            mark_calls: batch.mark_calls,
            mark_due_at: batch.mark_due_at,
            submitted_at: batch.submitted_at,
            started_at: batch.started_at,
            finished_at: batch.finished_at,
            open_append: batch.open_append,
            pruned: batch.pruned,
            files: files(batch.round, &batch.files),
            input_files,
            past_rounds: past
                .iter()
                .map(|past| PastRoundView {
                    round: past.round,
                    status: past.status,
                    counts: past.counts,
                    abort_reason: past.abort_reason.as_deref(),
                    mark_error: past.mark_error.as_deref(),
                    mark_calls: past.mark_calls,
                    started_at: past.started_at,
                    finished_at: past.finished_at,
                    files: files(past.round, &past.files),
                })
                .collect(),
        })
    }
}

/// A call of `mark-done`, for programs.
#[derive(Serialize)]
pub struct MarkCallView<'a> {
    round: u32,
    call: u32,
    /// When it ended.
    at: Timestamp,
    error: Option<&'a str>,
    log: Option<&'a str>,
    log_dropped: bool,
}

impl<'a> MarkCallView<'a> {
    pub fn of(round: u32, call: &'a MarkCall) -> MarkCallView<'a> {
        MarkCallView {
            round,
            call: call.call,
            at: call.ended_at,
            error: call.error.as_deref(),
            log: call.log.as_deref(),
            log_dropped: call.log_dropped,
        }
    }
}

/// All files that the rows of a batch came from.
///
/// # Errors
/// Of the store.
pub async fn read_input_files(store: &dyn Store, id: BatchId) -> Result<Vec<BatchFile>, StoreError> {
    let mut files: Vec<BatchFile> = Vec::new();
    loop {
        let page = store.list_batch_files(id, files.last().map_or(0, |last| last.first_row), FILES_PER_PAGE).await?;
        if page.is_empty() {
            return Ok(files);
        }
        files.extend(page);
    }
}

/// The rounds of a batch before the one that it is in, the last ones, at most so many.
///
/// # Errors
/// Of the store.
pub async fn read_past_rounds(store: &dyn Store, batch: &Batch, most: u32) -> Result<Vec<PastRound>, StoreError> {
    let mut rounds: Vec<PastRound> = Vec::new();
    // Nearly always there are none.
    if batch.round == 1 {
        return Ok(rounds);
    }
    loop {
        let after = rounds.last().map_or(batch.round.saturating_sub(1).saturating_sub(most), |last| last.round);
        let page = store.list_rounds(batch.id, after, ROUNDS_PER_PAGE).await?;
        if page.is_empty() {
            return Ok(rounds);
        }
        rounds.extend(page);
    }
}
