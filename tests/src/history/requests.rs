//! What a client asks for, again and again until it is answered: that an answer was lost does not say that nothing was done.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rowmill::model::{BatchId, Clock, NewBatch, ProcessorKind, RetryRows, RowStatus, SystemClock};
use rowmill::store::{LeaseOwner, Store, StoreError};

use super::client::{Abort, BatchRecord, World};
use super::plan::{BATCH_OP, BatchPlan, Course};
use super::stage::LEASE_MS;
use super::violation::{Findings, Rule};
use super::witness::{Sight, Source};

impl World {
    /// Submits the batch that comes after another, which may have ended.
    pub(super) async fn chain(&self, plan: &BatchPlan, next: &mut BatchRecord) -> Option<()> {
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.active().push(next.id);
        let batch = NewBatch {
            id: next.id,
            terms: plan.chained(&[]).terms(SystemClock.now()),
            after: next.follows,
            hold: false,
            request_digest: Some(BATCH_OP.to_owned()),
            ..self.new_batch(plan, next.id)
        };
        match self.persist(|| self.store.submit_batch(batch.clone(), Vec::new())).await? {
            (_, Ok(())) => next.submitted = true,
            (_, Err(error)) => {
                let mut findings = Findings::of(next.id);
                findings.add(Rule::AcknowledgedIsKept, format!("a batch that comes after another was refused: {error}"));
                next.violations.extend(findings.found);
                return None;
            }
        }
        Some(())
    }

    fn new_batch(&self, plan: &BatchPlan, id: BatchId) -> NewBatch {
        NewBatch {
            id,
            app: plan.app.to_owned(),
            op: plan.op().to_owned(),
            kind: plan.kind,
            processor_version: 1,
            processor_digest: self.digests.iter().find(|(kind, _)| *kind == plan.kind).map(|(_, digest)| digest.clone()).unwrap_or_default(),
            context: plan.context(),
            terms: plan.terms(SystemClock.now()),
            hold: plan.course != Course::Runs,
            after: None,
            group: None,
            // Half of them as with a key.
            request_digest: plan.requests[0].is_multiple_of(2).then(|| plan.op().to_owned()),
            as_found: None,
        }
    }

    /// Retries a batch that has ended, where something of it did not succeed. Whether there was such a thing.
    pub(super) async fn retry(&self, plan: &BatchPlan, record: &mut BatchRecord, findings: &mut Findings) -> Option<bool> {
        let Some(end) = record.witness.finals.get(&record.round).copied() else { return Some(false) };
        if end.counts.success == end.counts.rows || end.counts.rows == 0 {
            return Some(false);
        }
        let codes = if plan.retries_told { vec!["told-to-fail".to_owned()] } else { Vec::new() };
        let rows = RetryRows { codes, aborted: true, deadline_at: None };
        // From now on it may be in another round.
        (record.ended, record.witness.retries) = (false, record.witness.retries + 1);
        let (in_doubt, retried) = self.persist(|| self.store.retry_batch(record.id, &rows)).await?;
        let round = match retried {
            Ok(retried) => {
                let least = if plan.retries_told { end.counts.aborted } else { end.counts.failed + end.counts.aborted };
                // A try whose answer was lost may have begun a round that has ended since.
                let right = in_doubt && retried.round > record.round + 1 || retried.round == record.round + 1 && retried.rows >= least;
                findings.ensure(right, Rule::AcknowledgedIsKept, || format!("a retry of {end:?} said {retried:?}"));
                retried.round
            }
            // The same.
            Err(StoreError::WrongStatus { .. } | StoreError::Invalid(_)) if in_doubt => {
                let (_, read) = self.persist(|| self.store.read_batch(record.id)).await?;
                read.map_or(record.round, |batch| batch.round)
            }
            Err(StoreError::Invalid(_)) if plan.retries_told && end.counts.aborted == 0 => record.round,
            Err(error) => {
                findings.add(Rule::AcknowledgedIsKept, format!("a retry of {end:?} was refused: {error}"));
                record.round
            }
        };
        let begun = round > record.round;
        record.witness.retries = round - 1;
        if begun {
            (record.round, record.abort) = (round, Abort::NotAsked);
            record.seen_rows.retain(|_, status| *status == RowStatus::Success);
        } else {
            record.ended = true;
        }
        Some(begun)
    }

    pub(super) async fn submit(&self, plan: &BatchPlan, record: &mut BatchRecord, findings: &mut Findings) -> Option<()> {
        let batch = NewBatch { group: record.group.clone(), ..self.new_batch(plan, record.id) };
        match self.persist(|| self.submit_once(&batch, plan)).await? {
            (_, Ok(())) => {}
            // It had been committed, and the word of that was lost.
            (true, Err(StoreError::Exists(_))) => {}
            (_, Err(error @ StoreError::Invalid(_))) if record.group.is_some() => {
                if self.came_too_late(plan.app, record, &error, findings).await? {
                    return Box::pin(self.submit(plan, record, findings)).await;
                }
            }
            (_, Err(error)) => {
                findings.add(Rule::AcknowledgedIsKept, format!("the submit was refused: {error}"));
                return None;
            }
        }
        record.submitted = true;
        if batch.request_digest.is_some() {
            // It may run by now, or have ended: all the same it is there once.
            if let (_, Err(error)) = self.persist(|| self.store.submit_batch(batch.clone(), plan.request(0))).await? {
                findings.add(Rule::AcknowledgedIsKept, format!("what was submitted with a digest was refused the second time: {error}"));
                return None;
            }
        }
        record.rows = plan.requests[0];
        self.counters.rows.fetch_add(plan.requests[0] as u64, Ordering::Relaxed);
        Some(())
    }

    /// Submits a batch, or a query as a process would that has a slot for it. If it gets the lease, it gives it back, or is never heard of again.
    async fn submit_once(&self, batch: &NewBatch, plan: &BatchPlan) -> Result<(), StoreError> {
        let mut rows = plan.request(0);
        if batch.kind == ProcessorKind::Batch {
            return self.store.submit_batch(batch.clone(), rows).await;
        }
        let row = rows.pop().expect("a query has one");
        let Some(work) =
            self.store.submit_to_run(batch.clone(), row, LeaseOwner { worker: "submitter", ttl: Duration::from_millis(LEASE_MS) }).await?
        else {
            return Ok(());
        };
        self.counters.leased_at_once.fetch_add(1, Ordering::Relaxed);
        if plan.priority % 2 == 0 { self.store.give_back_lease(work.lease.key).await } else { Ok(()) }
    }

    pub(super) async fn append(&self, plan: &BatchPlan, at: usize, record: &mut BatchRecord, findings: &mut Findings) -> Option<()> {
        let (before, after) = (record.rows, record.rows + plan.requests[at]);
        let mut in_doubt = false;
        loop {
            let failed = match self.store.append_rows(record.id, plan.request(at)).await {
                Ok(total) if total == after as u64 => break,
                Ok(total) => {
                    findings.add(Rule::AcknowledgedIsKept, format!("an append led from {before} to {total} rows, not {after}"));
                    return None;
                }
                // It had been committed: no line comes twice.
                Err(StoreError::Invalid(reason)) if in_doubt && reason.contains("comes twice") => break,
                Err(failed) => failed,
            };
            if !matches!(failed, StoreError::Failed { .. }) {
                findings.add(Rule::AcknowledgedIsKept, format!("an append was refused: {failed}"));
                return None;
            }
            in_doubt = true;
            self.take_breath().await?;
            if record.key.number.is_multiple_of(2) {
                continue;
            }
            // Only this client appends, so the number of rows tells, too, whether it had been committed.
            let (_, read) = self.persist(|| self.store.read_batch(record.id)).await?;
            match read.map(|batch| batch.counts.rows) {
                Ok(rows) if rows == before as u64 && before != after => {}
                Ok(rows) if rows == after as u64 => break,
                other => {
                    findings.add(Rule::AcknowledgedIsKept, format!("a batch of {before} rows, or {after}, is {other:?}"));
                    return None;
                }
            }
        }
        record.rows = after;
        self.counters.rows.fetch_add(plan.requests[at] as u64, Ordering::Relaxed);
        Some(())
    }

    pub(super) async fn release(&self, record: &BatchRecord, findings: &mut Findings) -> Option<()> {
        match self.persist(|| self.store.release_batch(record.id)).await? {
            (_, Ok(rows)) if rows == record.rows as u64 => {}
            (true, Err(StoreError::WrongStatus { .. })) => {}
            (_, other) => findings.add(Rule::AcknowledgedIsKept, format!("the release of {} rows said {other:?}", record.rows)),
        }
        Some(())
    }

    pub(super) async fn discard(&self, record: &mut BatchRecord, findings: &mut Findings) -> Option<()> {
        match self.persist(|| self.store.discard_batch(record.id)).await? {
            (_, Ok(())) | (true, Err(StoreError::NotFound(_))) => record.discarded = true,
            (_, Err(error)) => findings.add(Rule::AcknowledgedIsKept, format!("the discard said {error}")),
        }
        Some(())
    }

    pub(super) async fn abort(&self, record: &mut BatchRecord, findings: &mut Findings) -> Option<()> {
        let reason = format!("the client's wish for {}", record.id);
        let (in_doubt, aborted) = self.persist(|| self.store.abort_batch(record.id, Some(reason.clone()))).await?;
        let aborted = match aborted {
            Ok(aborted) => aborted,
            Err(error) => {
                findings.add(Rule::AcknowledgedIsKept, format!("the abort said {error}"));
                return Some(());
            }
        };
        record.abort = if aborted.changed { Abort::Took } else { Abort::TooLate };
        if in_doubt && !aborted.changed {
            let (_, read) = self.persist(|| self.store.read_batch(record.id)).await?;
            if read.is_ok_and(|batch| batch.abort_reason.as_ref() == Some(&reason)) {
                record.abort = Abort::Took;
            }
        }
        if record.abort == Abort::Took {
            // Final from this moment on: the witness holds all polls that come against it.
            let sight = Sight { round: record.round, status: aborted.status, counts: aborted.counts, done: false };
            let losses = self.losses.of(Source::Store);
            record.witness.see(Source::Store, sight, (losses, losses), findings);
        }
        Some(())
    }
}
