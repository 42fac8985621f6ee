//! What submitters do in a schedule.

use std::fmt::Debug;

use anyhow::{Result, bail, ensure};
use rowmill::model::{BatchStatus, BatchStep, JsonText, Line, NewBatch, NewRow, ProcessorKind, Retried, RetryRows, RowResult, Verdict};
use rowmill::store::StoreError;

use super::Schedule;
use super::finishers::output_files;
use super::model::{BatchModel, Place, RowModel};
use crate::conformance::build::batch;

/// A few batches, so that most steps meet something.
pub(super) const BATCHES_MAX: usize = 8;

impl Schedule {
    /// Rows whose lines no others have, and that grow or do not.
    fn rows(&mut self, count: u32) -> Vec<NewRow> {
        let ascending = self.random.chance(60);
        (1..=count)
            .map(|_| {
                self.serial += 1;
                let serial = u32::try_from(self.serial).unwrap();
                // Far from each other: between them are those that the store gives.
                let line = if ascending { 2_000_000_000 + serial * 1_000 } else { 1_000_000_000 - serial * 1_000 };
                let line = if self.random.chance(20) { Line::Next } else { Line::Given(line) };
                NewRow::new(line, JsonText::trusted(format!(r#"{{"n":{}}}"#, self.serial)))
            })
            .collect()
    }

    pub(super) async fn submit(&mut self) -> Result<()> {
        if self.model.batches.len() >= BATCHES_MAX {
            return Ok(());
        }
        let slow_query = self.random.chance(15);
        let hold = !slow_query && self.random.chance(40);
        let kind = if slow_query { ProcessorKind::SlowQuery } else { ProcessorKind::Batch };
        let new = NewBatch { kind, hold, ..batch() };
        let rows = if slow_query {
            vec![NewRow { line: Line::Given(0), ..self.rows(1).remove(0) }]
        } else {
            let count = u32::from(!hold) + self.random.below(12);
            self.rows(count)
        };
        self.tell(("submit", new.id, hold, rows.len()));
        self.model.batches.push(BatchModel {
            id: new.id,
            status: if hold { BatchStatus::Wait } else { BatchStatus::Queued },
            step: BatchStep::Rows,
            rows: row_models(&[], &rows),
            round: 1,
            past_rounds: Vec::new(),
            past_outcomes: Vec::new(),
            cursor: 0,
            fuel: 0,
            abort_reason: None,
            mark_error: None,
            mark_calls: 0,
            mark_due: None,
            submitted_at: self.now(),
            started_at: None,
            finished_at: None,
            finish: None,
            finish_attempts: 0,
            chain: None,
        });
        self.ends.insert(new.id, [0; 3]);
        let id = new.id;
        self.store.submit_batch(new, rows).await?;
        self.compare(self.model.find(id)?).await
    }

    pub(super) fn some_batch(&mut self) -> Option<usize> {
        let count = self.model.batches.len();
        (count > 0).then(|| self.random.index(count))
    }

    pub(super) async fn append(&mut self) -> Result<()> {
        let Some(at) = self.some_batch() else { return Ok(()) };
        let count = self.random.below(5);
        let rows = self.rows(count);
        let BatchModel { id, status, chain, .. } = self.model.batches[at];
        self.tell(("append", id, count));
        let appended = self.store.append_rows(id, rows.clone()).await;
        if status == BatchStatus::Wait && chain.is_none() {
            let batch = &mut self.model.batches[at];
            let new = row_models(&batch.rows, &rows);
            batch.rows.extend(new);
            let rows = batch.rows.len();
            ensure!(appended.as_ref().is_ok_and(|total| *total == rows as u64), "{appended:?} instead of {rows} rows");
        } else {
            wrong_status(appended, status)?;
        }
        self.compare(at).await
    }

    pub(super) async fn release(&mut self) -> Result<()> {
        let Some(at) = self.some_batch() else { return Ok(()) };
        let BatchModel { id, status, ref rows, chain, .. } = self.model.batches[at];
        let rows = rows.len() as u64;
        self.tell(("release", id));
        let released = self.store.release_batch(id).await;
        match status {
            BatchStatus::Wait if chain.is_some() => wrong_status(released, status)?,
            BatchStatus::Wait if rows == 0 => ensure!(matches!(released, Err(StoreError::Invalid(_))), "{released:?} for an empty batch"),
            BatchStatus::Wait | BatchStatus::Queued => {
                ensure!(released.as_ref().is_ok_and(|total| *total == rows), "{released:?} instead of {rows} rows");
                self.model.batches[at].status = BatchStatus::Queued;
            }
            _ => wrong_status(released, status)?,
        }
        self.compare(at).await
    }

    pub(super) async fn discard(&mut self) -> Result<()> {
        let Some(at) = self.some_batch() else { return Ok(()) };
        let BatchModel { id, status, .. } = self.model.batches[at];
        self.tell(("discard", id));
        let discarded = self.store.discard_batch(id).await;
        if status != BatchStatus::Wait {
            wrong_status(discarded, status)?;
            return self.compare(at).await;
        }
        discarded?;
        ensure!(matches!(self.store.read_batch(id).await, Err(StoreError::NotFound(_))), "a discarded batch is still there");
        self.model.batches.remove(at);
        self.ends.remove(&id);
        self.finishes.retain(|lease| lease.batch != id);
        self.model.make_ready(id);
        self.model.leases.iter_mut().filter(|lease| lease.batch > at).for_each(|lease| lease.batch -= 1);
        Ok(())
    }

    pub(super) async fn abort(&mut self) -> Result<()> {
        let Some(at) = self.some_batch() else { return Ok(()) };
        let id = self.model.batches[at].id;
        let reason = self.random.chance(50).then(|| format!("reason {}", self.serial));
        self.tell(("abort", id));
        let aborted = self.store.abort_batch(id, reason.clone()).await?;
        let changed = self.model.abort(at, reason.as_deref());
        let batch = &self.model.batches[at];
        ensure!((aborted.changed, aborted.status, aborted.counts) == (changed, batch.status, batch.counts()), "{aborted:?} for {batch:?}");
        self.compare(at).await
    }
}

impl Schedule {
    /// Mostly of a batch that has ended, and often of one because of which others were aborted.
    pub(super) async fn retry(&mut self) -> Result<()> {
        let ended: Vec<usize> = (0..self.model.batches.len()).filter(|at| self.model.batches[*at].step == BatchStep::Done).collect();
        let holds_up: Vec<usize> = ended.iter().copied().filter(|at| self.model.holds_up(self.model.batches[*at].id)).collect();
        let chosen = if self.random.chance(60) && !holds_up.is_empty() { &holds_up } else { &ended };
        let Some(at) = self.random.pick(chosen).copied().filter(|_| !self.random.chance(10)).or_else(|| self.some_batch()) else { return Ok(()) };
        let (now, aborted) = (self.now(), self.random.chance(70));
        let batch = &self.model.batches[at];
        let codes = batch.rows.iter().filter_map(|row| match &row.outcome {
            Some(RowResult { verdict: Verdict::Final { messages, .. }, .. }) => messages.first().map(|message| message.code.clone()),
            _ => None,
        });
        let codes: Vec<String> = codes.collect();
        let code = self.random.pick(&codes).cloned().filter(|_| self.random.chance(30));
        let (id, wanted) = (batch.id, batch.rows_to_retry(code.as_deref(), aborted));
        if batch.is_unmade() {
            return self.retry_unmade(at, aborted).await;
        }
        self.tell(("retry", id, aborted, &code));
        let request = RetryRows { codes: code.clone().into_iter().collect(), aborted, deadline_at: None };
        let retried = self.store.retry_batch(id, &request).await;
        match (retried, wanted) {
            (Ok(Retried { round, rows, waits }), Some(wanted)) => {
                self.ensure_ended_once(at)?;
                let batch = &mut self.model.batches[at];
                ensure!((round, rows) == (batch.round + 1, wanted), "round {round} of {rows} rows, instead of {wanted}: {batch:?}");
                let files = output_files(batch);
                for row_no in batch.retry(code.as_deref(), files, now) {
                    self.taken.remove(&(id, row_no));
                }
                self.ends.insert(id, [0; 3]);
                self.compare_waits(id, &waits)?;
            }
            (Err(StoreError::WrongStatus { .. } | StoreError::Invalid(_)), None) => {}
            (retried, wanted) => bail!("{retried:?} instead of {wanted:?} rows of {:?}", self.model.batches[at]),
        }
        self.compare(at).await
    }
}

/// Rows that come in behind others. Those without a line get one more than the highest.
fn row_models(before: &[RowModel], rows: &[NewRow]) -> Vec<RowModel> {
    let mut highest = before.iter().map(|row| row.line).max().unwrap_or(0);
    let mut models = Vec::new();
    for row in rows {
        let line = if let Line::Given(line) = row.line { line } else { highest + 1 };
        highest = highest.max(line);
        models.push(RowModel { line, input: row.input.as_str().to_owned(), attempt: 1, place: Place::Fresh, outcome: None });
    }
    models
}

pub(super) fn wrong_status<T: Debug>(result: std::result::Result<T, StoreError>, wanted: BatchStatus) -> Result<()> {
    match result {
        Err(StoreError::WrongStatus { status, .. }) if status == wanted => Ok(()),
        other => bail!("{other:?} in status {wanted:?}"),
    }
}
