//! Batches that come after others, as a store must make them.

use rowmill::model::{AbortReason, After, AfterCondition, BatchId, BatchStatus, BatchStep, PastRound, RowStatus, Timestamp};
use rowmill::store::ChainEnd;

use super::model::{BatchModel, Model, Place, RowModel};

/// A batch that comes after another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChainModel {
    pub after: After,
    pub state: ChainState,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChainState {
    /// Its rows are to be made as soon as the other has ended: true if it has. If it was aborted meanwhile, the store finds
    /// that out then.
    Waits(bool),
    /// It was aborted by somebody, and the store knows that it is not to be made.
    Stopped,
    /// It was aborted because of the other.
    Lapsed,
    Made,
}

impl BatchModel {
    /// Returns true if it comes after another batch and does not have its rows.
    pub fn is_unmade(&self) -> bool {
        self.chain.is_some_and(|chain| chain.state != ChainState::Made)
    }

    /// Begins a new round, in which it waits for the other batch.
    fn wait_again(&mut self, other_has_ended: bool, now: Timestamp) {
        self.past_rounds.push(PastRound {
            round: self.round,
            status: self.status,
            counts: self.counts(),
            abort_reason: self.abort_reason.take(),
            mark_error: self.mark_error.take(),
            mark_calls: std::mem::take(&mut self.mark_calls),
            started_at: self.started_at.take(),
            finished_at: self.finished_at.take().unwrap_or(now),
            files: Vec::new(),
        });
        self.rows.clear();
        (self.round, self.status, self.step) = (self.round + 1, BatchStatus::Wait, BatchStep::Rows);
        (self.finish, self.finish_attempts, self.mark_due) = (None, 0, None);
        if let Some(chain) = &mut self.chain {
            chain.state = ChainState::Waits(other_has_ended);
        }
    }
}

impl Model {
    /// The batches behind one that has ended, or is gone, can be made.
    pub fn make_ready(&mut self, first: BatchId) {
        for batch in &mut self.batches {
            if let Some(ChainModel { after, state: state @ ChainState::Waits(_) }) = &mut batch.chain
                && after.batch == first
            {
                *state = ChainState::Waits(true);
            }
        }
    }

    /// The batch that is made next, if there is one.
    pub fn next_to_make(&self) -> Option<usize> {
        self.batches.iter().position(|batch| batch.chain.is_some_and(|chain| chain.state == ChainState::Waits(true)))
    }

    /// Why a batch that comes after another cannot be made.
    pub fn why_lapsed(&self, After { batch, condition }: After) -> Option<AbortReason> {
        let Ok(at) = self.find(batch) else { return Some(AbortReason::PredecessorRemoved { batch }) };
        let status = self.batches[at].status;
        if condition == AfterCondition::Success && status != BatchStatus::Success {
            return Some(AbortReason::PredecessorEnded { batch, status });
        }
        (self.batches[at].counts().success == 0).then_some(AbortReason::PredecessorWithoutOutputs { batch })
    }

    /// Takes the next chained batch forward. All of them are small.
    pub fn advance_chain(&mut self) -> Option<(BatchId, ChainEnd)> {
        let at = self.next_to_make()?;
        let (id, status) = (self.batches[at].id, self.batches[at].status);
        let ChainModel { after, .. } = self.batches[at].chain?;
        let (state, end) = if status != BatchStatus::Wait {
            (ChainState::Stopped, ChainEnd::Gone)
        } else if let Some(reason) = self.why_lapsed(after) {
            self.abort(at, Some(&reason.to_string()));
            (ChainState::Lapsed, ChainEnd::Aborted)
        } else {
            let first = self.find(after.batch).expect("it was found");
            let made = self.batches[first].results().into_iter().filter(|row| row.status == Some(RowStatus::Success));
            let made = made.map(|row| RowModel {
                line: row.line,
                input: row.output.unwrap_or_else(|| "null".to_owned()),
                attempt: 1,
                place: Place::Fresh,
                outcome: None,
            });
            self.batches[at].rows = made.collect();
            self.batches[at].status = BatchStatus::Queued;
            (ChainState::Made, ChainEnd::Queued)
        };
        self.batches[at].chain = Some(ChainModel { after, state });
        Some((id, end))
    }

    /// Lets a batch that was aborted before it was made wait again. None if it would be aborted again at once.
    pub fn retry_unmade(&mut self, at: usize, now: Timestamp) -> Option<()> {
        let after = self.batches[at].chain?.after;
        let first = self.find(after.batch).ok().map(|first| &self.batches[first]);
        let ended = first.is_none_or(|first| matches!(first.step, BatchStep::Mark | BatchStep::Done));
        if ended && self.why_lapsed(after).is_some() {
            return None;
        }
        self.batches[at].wait_again(ended, now);
        Some(())
    }

    /// Returns true if a batch was aborted because of this one.
    pub fn holds_up(&self, first: BatchId) -> bool {
        let lapsed = |chain: &ChainModel| chain.after.batch == first && chain.state == ChainState::Lapsed;
        self.batches.iter().any(|batch| batch.chain.as_ref().is_some_and(lapsed))
    }

    /// Lets the batches behind one that is run again wait for it, those that were aborted because of it in a new round.
    /// Returns the latter.
    pub fn wait_behind(&mut self, first: BatchId, now: Timestamp) -> Vec<BatchId> {
        let mut firsts = vec![first];
        let mut next = 0;
        while let Some(first) = firsts.get(next).copied() {
            next += 1;
            for batch in &mut self.batches {
                match batch.chain {
                    Some(ChainModel { after, state: ChainState::Lapsed }) if after.batch == first => {
                        batch.wait_again(false, now);
                        firsts.push(batch.id);
                    }
                    Some(chain @ ChainModel { state: ChainState::Waits(_), .. }) if chain.after.batch == first => {
                        batch.chain = Some(ChainModel { state: ChainState::Waits(false), ..chain });
                    }
                    _ => {}
                }
            }
        }
        firsts.split_off(1)
    }
}
