//! What submitters do in a schedule.

use std::fmt::Debug;

use anyhow::{Result, bail, ensure};
use rowmill::model::{BatchStatus, BatchStep, JsonText, NewBatch, NewRow, ProcessorKind, Retried, RetryRows, RowResult, Verdict};
use rowmill::store::StoreError;

use super::Schedule;
use super::finishers::output_files;
use super::model::{BatchModel, Place, RowModel};
use crate::conformance::build::batch;

/// A few batches, so that most steps meet something.
const BATCHES_MAX: usize = 6;

impl Schedule {
    /// Rows whose lines no others have, and that grow or do not.
    fn rows(&mut self, count: u32) -> Vec<NewRow> {
        let ascending = self.random.chance(60);
        (1..=count)
            .map(|_| {
                self.serial += 1;
                let serial = u32::try_from(self.serial).unwrap();
                let line = if ascending { 2_000_000 + serial } else { 1_000_000 - serial };
                NewRow { line, input: JsonText::trusted(format!(r#"{{"n":{}}}"#, self.serial)), rejected: None }
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
            vec![NewRow { line: 0, ..self.rows(1).remove(0) }]
        } else {
            let count = u32::from(!hold) + self.random.below(12);
            self.rows(count)
        };
        self.tell(("submit", new.id, hold, rows.len()));
        self.model.batches.push(BatchModel {
            id: new.id,
            status: if hold { BatchStatus::Wait } else { BatchStatus::Queued },
            step: BatchStep::Rows,
            rows: rows.iter().map(row_model).collect(),
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
        });
        self.ends.insert(new.id, [0; 3]);
        let id = new.id;
        self.store.submit_batch(new, rows).await?;
        self.compare(self.model.find(id)?).await
    }

    fn some_batch(&mut self) -> Option<usize> {
        let count = self.model.batches.len();
        (count > 0).then(|| self.random.index(count))
    }

    pub(super) async fn append(&mut self) -> Result<()> {
        let Some(at) = self.some_batch() else { return Ok(()) };
        let count = self.random.below(5);
        let rows = self.rows(count);
        let BatchModel { id, status, .. } = self.model.batches[at];
        self.tell(("append", id, count));
        let appended = self.store.append_rows(id, rows.clone()).await;
        if status == BatchStatus::Wait {
            let batch = &mut self.model.batches[at];
            batch.rows.extend(rows.iter().map(row_model));
            let rows = batch.rows.len();
            ensure!(appended.as_ref().is_ok_and(|total| *total == rows as u64), "{appended:?} instead of {rows} rows");
        } else {
            wrong_status(appended, status)?;
        }
        self.compare(at).await
    }

    pub(super) async fn release(&mut self) -> Result<()> {
        let Some(at) = self.some_batch() else { return Ok(()) };
        let BatchModel { id, status, ref rows, .. } = self.model.batches[at];
        let rows = rows.len() as u64;
        self.tell(("release", id));
        let released = self.store.release_batch(id).await;
        match status {
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
    /// Mostly of a batch that has ended.
    pub(super) async fn retry(&mut self) -> Result<()> {
        let ended: Vec<usize> = (0..self.model.batches.len()).filter(|at| self.model.batches[*at].step == BatchStep::Done).collect();
        let Some(at) = self.random.pick(&ended).copied().filter(|_| !self.random.chance(10)).or_else(|| self.some_batch()) else { return Ok(()) };
        let (now, aborted) = (self.now(), self.random.chance(70));
        let batch = &self.model.batches[at];
        let codes = batch.rows.iter().filter_map(|row| match &row.outcome {
            Some(RowResult { verdict: Verdict::Final { messages, .. }, .. }) => messages.first().map(|message| message.code.clone()),
            _ => None,
        });
        let codes: Vec<String> = codes.collect();
        let code = self.random.pick(&codes).cloned().filter(|_| self.random.chance(30));
        let (id, wanted) = (batch.id, batch.rows_to_retry(code.as_deref(), aborted));
        self.tell(("retry", id, aborted, &code));
        let request = RetryRows { codes: code.clone().into_iter().collect(), aborted, deadline_at: None };
        let retried = self.store.retry_batch(id, &request).await;
        match (retried, wanted) {
            (Ok(Retried { round, rows }), Some(wanted)) => {
                self.ensure_ended_once(at)?;
                let batch = &mut self.model.batches[at];
                ensure!((round, rows) == (batch.round + 1, wanted), "round {round} of {rows} rows, instead of {wanted}: {batch:?}");
                let files = output_files(batch);
                for row_no in batch.retry(code.as_deref(), files, now) {
                    self.taken.remove(&(id, row_no));
                }
                self.ends.insert(id, [0; 3]);
            }
            (Err(StoreError::WrongStatus { .. } | StoreError::Invalid(_)), None) => {}
            (retried, wanted) => bail!("{retried:?} instead of {wanted:?} rows of {:?}", self.model.batches[at]),
        }
        self.compare(at).await
    }
}

fn row_model(row: &NewRow) -> RowModel {
    RowModel { line: row.line, input: row.input.as_str().to_owned(), attempt: 1, place: Place::Fresh, outcome: None }
}

fn wrong_status<T: Debug>(result: std::result::Result<T, StoreError>, wanted: BatchStatus) -> Result<()> {
    match result {
        Err(StoreError::WrongStatus { status, .. }) if status == wanted => Ok(()),
        other => bail!("{other:?} in status {wanted:?}"),
    }
}
