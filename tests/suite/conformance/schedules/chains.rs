//! Batches that come after others in a schedule.

use anyhow::{Result, bail, ensure};
use rowmill::model::{After, AfterCondition, BatchId, BatchStatus, BatchStep, NewBatch, Retried, RetryRows};
use rowmill::store::StoreError;

use super::Schedule;
use super::chain_model::{ChainModel, ChainState};
use super::model::BatchModel;
use super::submitters::BATCHES_MAX;
use crate::conformance::build::batch;

impl Schedule {
    /// Submits a batch that comes after another.
    pub(super) async fn chain(&mut self) -> Result<()> {
        let Some(at) = self.some_batch().filter(|_| self.model.batches.len() < BATCHES_MAX) else { return Ok(()) };
        let BatchModel { id: first, step, .. } = self.model.batches[at];
        let condition = if self.random.chance(60) { AfterCondition::Success } else { AfterCondition::Any };
        let after = After { batch: first, condition };
        let new = NewBatch { after: Some(after), ..batch() };
        let id = new.id;
        self.tell(("chain", id, after));
        let submitted = self.store.submit_batch(new, Vec::new()).await;
        if self.model.batches[at].is_query() {
            ensure!(matches!(submitted, Err(StoreError::Invalid(_))), "{submitted:?} behind a slow query");
            return Ok(());
        }
        submitted?;
        self.model.batches.push(BatchModel {
            id,
            status: BatchStatus::Wait,
            step: BatchStep::Rows,
            rows: Vec::new(),
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
            chain: Some(ChainModel { after, state: ChainState::Waits(matches!(step, BatchStep::Mark | BatchStep::Done)) }),
        });
        self.ends.insert(id, [0; 3]);
        self.compare(self.model.find(id)?).await
    }

    pub(super) async fn advance(&mut self) -> Result<()> {
        self.advance_one().await.map(drop)
    }

    /// Returns true if there was a batch to take forward.
    pub(super) async fn advance_one(&mut self) -> Result<bool> {
        let step = self.store.advance_chain().await?;
        self.tell(("advance", step));
        let (found, wanted) = (step.map(|step| (step.batch, step.end)), self.model.advance_chain());
        ensure!(found == wanted.map(|(id, end)| (Some(id), end)), "{found:?} was taken forward instead of {wanted:?}");
        let Some((id, _)) = wanted else { return Ok(false) };
        self.compare(self.model.find(id)?).await?;
        Ok(true)
    }

    /// Retries a batch that does not have its rows.
    pub(super) async fn retry_unmade(&mut self, at: usize, aborted: bool) -> Result<()> {
        let (id, now) = (self.model.batches[at].id, self.now());
        self.tell(("retry what is not made", id, aborted));
        let retried = self.store.retry_batch(id, &RetryRows { aborted, ..RetryRows::default() }).await;
        let may = self.model.batches[at].may_be_retried(aborted);
        if may {
            self.ensure_ended_once(at)?;
        }
        match (retried, may.then(|| self.model.retry_unmade(at, now)).flatten()) {
            (Ok(Retried { round, rows, waits }), Some(())) => {
                ensure!((round, rows) == (self.model.batches[at].round, 0), "round {round} of {rows} rows: {:?}", self.model.batches[at]);
                self.ends.insert(id, [0; 3]);
                self.compare_waits(id, &waits)?;
            }
            (Err(StoreError::WrongStatus { .. } | StoreError::Invalid(_)), None) => {}
            (retried, wanted) => bail!("{retried:?} instead of {wanted:?}: {:?}", self.model.batches[at]),
        }
        self.compare(at).await
    }

    /// The batches behind one that is run again, which wait for it again.
    pub(super) fn compare_waits(&mut self, first: BatchId, found: &[BatchId]) -> Result<()> {
        let wanted = self.model.wait_behind(first, self.now());
        ensure!(found == wanted, "{found:?} wait again instead of {wanted:?}");
        for id in wanted {
            self.ends.insert(id, [0; 3]);
        }
        Ok(())
    }
}
