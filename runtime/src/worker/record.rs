//! Records what became of rows.

use std::time::Duration;

use super::heartbeat::HeldLease;
use super::run::Ran;
use super::{Worker, WorkerError};
use crate::model::{
    Answer, BatchCounts, BatchId, BatchStatus, Ending, FinishLease, Lease, LeasedRow, Meter, ProcessorKind, RetryRule, RowResult, RowRun, RowStatus,
    Terms, Verdict, without_controls,
};
use crate::status::{QueryAnswer, Snapshot};
use crate::store::{LeaseOwner, Recorded, StoreError};

/// Results of this weight are recorded at once, so that large ones do not pile up in memory.
pub(super) const WEIGHT_MAX_BYTES: usize = 4 << 20;
/// How often rows are failed for files that the batch may not have, until all of a record are that have some.
const FILE_TRIES: u32 = 4;
/// A processor cannot put a row, or the next call of `mark-done`, off for longer.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What is to be recorded for a row.
pub(super) fn result_of(row: &LeasedRow, run: RowRun, terms: &Terms) -> RowResult {
    let final_verdict = |status, output, messages, pieces| Verdict::Final { status, output, messages, pieces };
    // A rule for retries cannot bring back the row that kills workers, nor what is no input.
    let may_be_run = !matches!(run.ending, Ending::Quarantined { .. } | Ending::Rejected { .. });
    let verdict = match run.ending {
        Ending::Succeeded(Answer { output, messages, pieces }) => final_verdict(RowStatus::Success, output, messages, pieces),
        Ending::Failed(Answer { output, messages, pieces }) => final_verdict(RowStatus::Failed, output, messages, pieces),
        Ending::Retry { after, .. } if row.attempt < terms.attempts_max => {
            Verdict::Retry { after: after.unwrap_or_else(|| backoff(&terms.retries, row.attempt, fastrand::f64())).min(RETRY_AFTER_MAX) }
        }
        ending => final_verdict(RowStatus::Failed, None, ending.message().into_iter().collect(), Vec::new()),
    };
    let verdict = if may_be_run && row.attempt < terms.attempts_max && is_to_be_retried(&terms.retries, &verdict) {
        Verdict::Retry { after: backoff(&terms.retries, row.attempt, fastrand::f64()).min(RETRY_AFTER_MAX) }
    } else {
        verdict
    };
    let input_bytes = u32::try_from(row.input.len()).unwrap_or(u32::MAX);
    RowResult { row_no: row.row_no, attempt: row.attempt, fuel: run.fuel, input_bytes, log: run.log, verdict }
}

/// Whether a failed row has one of the codes of the rule.
fn is_to_be_retried(rule: &RetryRule, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Final { status: RowStatus::Failed, messages, .. } => messages.iter().any(|message| rule.codes.contains(&message.code)),
        _ => false,
    }
}

/// Twice as long after each attempt, and by chance (0 to 1) up to half of it less, so that what failed together is not tried together again.
pub(super) fn backoff(rule: &RetryRule, attempt: u32, chance: f64) -> Duration {
    let whole = rule.backoff.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX)).min(rule.backoff_max);
    whole - whole.mul_f64(chance / 2.0)
}

/// About how many bytes a result holds.
pub(super) fn weight(result: &RowResult) -> usize {
    let text = match &result.verdict {
        Verdict::Final { output, messages, pieces, .. } => {
            output.as_ref().map_or(0, String::len)
                + messages.iter().map(|message| message.code.len() + message.values.iter().map(String::len).sum::<usize>()).sum::<usize>()
                + pieces.iter().map(|piece| piece.text.len()).sum::<usize>()
        }
        Verdict::Retry { .. } => 0,
    };
    size_of::<RowResult>() + text + result.log.as_ref().map_or(0, String::len)
}

impl Worker {
    /// Records what has run and is not recorded yet.
    pub(super) async fn record_rest(&self, lease: &Lease, held: &HeldLease, ran: &mut Ran) -> Result<(), WorkerError> {
        self.record_to_finish(lease, held, ran, false).await.map(drop)
    }

    /// The same; where it is wanted and these were the last results of the batch, it returns the lease to finish it.
    pub(super) async fn record_to_finish(
        &self,
        lease: &Lease,
        held: &HeldLease,
        ran: &mut Ran,
        finishes: bool,
    ) -> Result<Option<FinishLease>, WorkerError> {
        let mut results = std::mem::take(&mut ran.results);
        let took = std::mem::take(&mut ran.took);
        ran.weight = 0;
        if results.is_empty() {
            return Ok(None);
        }
        let finisher = finishes.then(|| LeaseOwner { worker: &self.settings.name, ttl: self.settings.lease_ttl() });
        let mut tries = 0..FILE_TRIES;
        let recorded = loop {
            // Names and bytes that were left may be used by other records meanwhile; in the end no row of this one has a file.
            let is_last = tries.next().is_none();
            match self.record_results(lease, held, &results, took, finisher).await {
                Err(StoreError::TooManyFiles { allowed }) => fail_rows_with_other_files(&mut results, if is_last { &[] } else { &allowed }),
                Err(StoreError::FilesTooLarge { left, limit }) => fail_rows_with_more_bytes(&mut results, if is_last { 0 } else { left }, limit),
                recorded => break recorded?,
            }
        };
        self.tell_of_limits(lease.batch, &results);
        if recorded.aborted {
            // Its lease is nothing any more: what it has not run is not run.
            self.follow_abort(lease.batch).await?;
            return Ok(None);
        }
        self.status.publish_counts(lease.batch, recorded.round, recorded.counts);
        if recorded.last && held.kind == ProcessorKind::SlowQuery {
            self.publish_answer(lease.batch, recorded.counts, results);
        }
        if recorded.last && recorded.finish.is_none() {
            self.lane(held.kind).finish_wake.notify_one();
        }
        Ok(recorded.finish)
    }

    /// Rows that a limit stopped, or that failed by themselves, for who operates this: once for each code.
    fn tell_of_limits(&self, id: BatchId, results: &[RowResult]) {
        let (meter, _) = Meter::of(results, 0);
        if meter.codes.is_empty() {
            return;
        }
        let assignment = self.assignments.get(id);
        let (app, op) = assignment.as_ref().map_or(("", ""), |assignment| (assignment.batch.app.as_str(), assignment.batch.op.as_str()));
        for (code, rows) in &meter.codes {
            let of_code = |result: &&RowResult| matches!(&result.verdict, Verdict::Final { messages, .. } if messages.iter().any(|message| message.id == 0 && message.code == *code));
            let why = results.iter().find(of_code).and_then(|result| match &result.verdict {
                Verdict::Final { messages, .. } => {
                    messages.iter().find(|message| message.code == *code).map(|message| without_controls(&message.text()))
                }
                Verdict::Retry { .. } => None,
            });
            tracing::info!(batch = %id, app, op, code, rows, "rows failed; the first {}", why.unwrap_or_default());
        }
    }

    /// A slow query that wrote to no file is final with its record: who waits for it in this process gets the answer before the database has told anybody.
    fn publish_answer(&self, id: BatchId, counts: BatchCounts, results: Vec<RowResult>) {
        let Some(assignment) = self.assignments.get(id) else { return };
        let Some(Verdict::Final { status, output, messages, pieces }) = results.into_iter().next().map(|result| result.verdict) else { return };
        if pieces.is_empty() {
            let status = if status == RowStatus::Success { BatchStatus::Success } else { BatchStatus::Failed };
            let snapshot = Snapshot { status, counts, ..Snapshot::of(&assignment.batch) };
            self.status.publish(snapshot.with_answer(Some(QueryAnswer { output, messages })));
        }
    }

    async fn record_results(
        &self,
        lease: &Lease,
        held: &HeldLease,
        results: &[RowResult],
        took: Duration,
        finisher: Option<LeaseOwner<'_>>,
    ) -> Result<Recorded, StoreError> {
        self.insist(&held.cancel, "cannot record results", || self.store.record_to_finish(lease.key, results, took, finisher)).await
    }

    /// Aborts a batch and stops its guests.
    pub(super) async fn abort(&self, id: BatchId, reason: &str) -> Result<(), StoreError> {
        self.store.abort_batch(id, Some(reason.to_owned())).await?;
        self.follow_abort(id).await
    }

    /// Stops the guests of a batch that was aborted, and lets it be finished.
    pub(super) async fn follow_abort(&self, id: BatchId) -> Result<(), StoreError> {
        self.held.cancel_batch(id);
        self.warm.end_batch(id);
        let batch = self.store.read_batch(id).await?;
        // Counts alone would not say that it is aborted.
        self.status.publish(Snapshot::of(&batch));
        self.lane(batch.kind).finish_wake.notify_one();
        Ok(())
    }
}

/// The batch has as many output files as it may: rows that name another one fail.
fn fail_rows_with_other_files(results: &mut [RowResult], allowed: &[String]) {
    for result in results {
        let Verdict::Final { pieces, .. } = &result.verdict else { continue };
        if let Some(other) = pieces.iter().find(|piece| !allowed.contains(&piece.file)) {
            let reason =
                format!("the output file {:?} would be one more than the {} that a batch may have", other.file, crate::store::FILES_PER_BATCH_MAX);
            let messages = Ending::BadOutput { reason }.message().into_iter().collect();
            result.verdict = Verdict::Final { status: RowStatus::Failed, output: None, messages, pieces: Vec::new() };
        }
    }
}

/// The output files of the batch may become so many bytes larger: rows whose pieces do not fit fail.
fn fail_rows_with_more_bytes(results: &mut [RowResult], mut left: u64, limit: u64) {
    for result in results {
        let Verdict::Final { pieces, .. } = &result.verdict else { continue };
        let bytes: u64 = pieces.iter().map(|piece| piece.text.len() as u64).sum();
        if bytes <= left {
            left -= bytes;
            continue;
        }
        let reason = format!("its {bytes} bytes for output files are more than the {left} that are left: those of a batch have {limit} together");
        let messages = Ending::BadOutput { reason }.message().into_iter().collect();
        result.verdict = Verdict::Final { status: RowStatus::Failed, output: None, messages, pieces: Vec::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Message;

    fn ended(attempt: u32, ending: Ending, terms: &Terms) -> Verdict {
        let row = LeasedRow { row_no: 1, line: 1, input: "{}".to_owned(), attempt, rejected: None };
        result_of(&row, RowRun { ending, fuel: 1, log: None }, terms).verdict
    }

    fn retry(attempt: u32, after: Option<Duration>) -> Verdict {
        ended(attempt, Ending::Retry { reason: "busy".to_owned(), after }, &Terms::default())
    }

    #[test]
    fn retries_wait_longer_each_time_and_end_with_the_attempts() {
        let rule = RetryRule::default();
        assert_eq!([1, 2, 3].map(|attempt| backoff(&rule, attempt, 0.0)), [1, 2, 4].map(Duration::from_secs));
        assert_eq!((backoff(&rule, 3, 1.0), backoff(&rule, 40, 0.0)), (Duration::from_secs(2), rule.backoff_max));
        assert!(matches!(retry(1, None), Verdict::Retry { after } if after <= rule.backoff));
        assert!(matches!(retry(2, None), Verdict::Retry { .. }));
        let Verdict::Final { status: RowStatus::Failed, messages, .. } = retry(3, None) else { panic!() };
        assert_eq!((messages[0].code.as_str(), messages[0].values[0].as_str()), ("attempts_exhausted", "busy"));
    }

    #[test]
    fn a_row_that_failed_with_a_code_of_the_rule_is_tried_again() {
        let terms = Terms { retries: RetryRule { codes: vec!["trap".to_owned(), "busy".to_owned()], ..RetryRule::default() }, ..Terms::default() };
        let message = |code: &str| Message { id: 1, code: code.to_owned(), field: None, values: Vec::new() };
        let failed = |code: &str| Ending::Failed(Answer { output: None, messages: vec![message("other"), message(code)], pieces: Vec::new() });
        let trap = || Ending::Trap { text: "unreachable".to_owned(), frames: Vec::new() };
        let succeeded = Ending::Succeeded(Answer { output: None, messages: vec![message("busy")], pieces: Vec::new() });
        for (ending, again) in [(failed("busy"), true), (trap(), true), (failed("wrong"), false), (succeeded, false)] {
            assert_eq!(matches!(ended(1, ending.clone(), &terms), Verdict::Retry { .. }), again, "{ending:?}");
            assert!(matches!(ended(3, ending, &terms), Verdict::Final { .. }));
        }
        assert!(matches!(ended(1, trap(), &Terms::default()), Verdict::Final { .. }));
    }

    #[test]
    fn a_rule_does_not_bring_back_what_is_not_to_be_run() {
        let codes = ["quarantined", "bad_row"].map(str::to_owned).to_vec();
        let terms = Terms { attempts_max: 1_000, retries: RetryRule { codes, ..RetryRule::default() }, ..Terms::default() };
        for ending in [Ending::Quarantined { crashes: 4 }, Ending::Rejected { reason: "no JSON".to_owned() }] {
            assert!(matches!(ended(5, ending, &terms), Verdict::Final { .. }));
        }
    }

    #[test]
    fn a_processor_cannot_put_a_row_off_for_ever() {
        assert_eq!(retry(1, Some(Duration::MAX)), Verdict::Retry { after: RETRY_AFTER_MAX });
    }
}
