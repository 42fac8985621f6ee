//! What one client sees of one batch, poll by poll.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rowmill::model::{Batch, BatchCounts, BatchStatus, BatchStep};
use rowmill::status::Snapshot;

use super::violation::{Findings, Rule};

/// Servers that lost what they held only in memory. Each is counted before and after.
#[derive(Debug, Default)]
pub struct Losses {
    /// A database that was killed forgets claims that committed asynchronously.
    pub database: AtomicU64,
    /// Redis forgets everything, and may then be told something old by whoever held it back.
    pub redis: AtomicU64,
}

/// A batch at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub round: u32,
    pub status: BatchStatus,
    pub counts: BatchCounts,
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Store,
    Board,
}

/// Compares each sight with those before.
#[derive(Debug, Default)]
pub struct Witness {
    store: Option<(u64, Sight)>,
    board: Option<(u64, Sight)>,
    /// What was seen as final, from wherever, in each round.
    pub finals: BTreeMap<u32, Sight>,
    /// Retries of the batch that its client asked for.
    pub retries: u32,
    pub polls: u64,
    pub board_polls: u64,
    /// The board told something older than before, after Redis had lost everything.
    pub board_went_back: u64,
}

impl From<&Batch> for Sight {
    fn from(batch: &Batch) -> Sight {
        Sight { round: batch.round, status: batch.status, counts: batch.counts, done: batch.step == BatchStep::Done }
    }
}

impl From<&Snapshot> for Sight {
    fn from(snapshot: &Snapshot) -> Sight {
        Sight { round: snapshot.round, status: snapshot.status, counts: snapshot.counts, done: snapshot.done }
    }
}

impl Sight {
    fn ended(&self) -> u64 {
        self.counts.success + self.counts.failed + self.counts.aborted
    }

    fn rank(&self) -> u8 {
        match self.status {
            BatchStatus::Wait => 0,
            BatchStatus::Queued => 1,
            BatchStatus::Inprog => 2,
            BatchStatus::Success | BatchStatus::Failed | BatchStatus::Aborted => 3,
        }
    }

    fn is_not_behind(&self, before: &Sight) -> bool {
        let (now, then) = (&self.counts, &before.counts);
        let counts_grow = now.rows >= then.rows && now.success >= then.success && now.failed >= then.failed && now.aborted >= then.aborted;
        self.round > before.round || self.round == before.round && self.rank() >= before.rank() && counts_grow && self.done >= before.done
    }

    /// The sums are right by themselves.
    fn check_sums(&self, findings: &mut Findings) {
        let (ended, rows) = (self.ended(), self.counts.rows);
        let sums = if self.status.is_final() { ended == rows } else { ended <= rows && self.counts.aborted == 0 };
        findings.ensure(sums, Rule::CountsEqualRows, || format!("a poll saw sums that cannot be: {self:?}"));
    }
}

impl Losses {
    pub fn of(&self, source: Source) -> u64 {
        match source {
            Source::Store => self.database.load(Ordering::SeqCst),
            Source::Board => self.redis.load(Ordering::SeqCst),
        }
    }
}

impl Witness {
    /// Sees the batch. `losses` were read before it was asked for; `losses_now` after.
    pub fn see(&mut self, source: Source, sight: Sight, losses: (u64, u64), findings: &mut Findings) {
        sight.check_sums(findings);
        findings
            .ensure(sight.round <= 1 + self.retries, Rule::PollsGoForward, || format!("{source:?} said {sight:?} after {} retries", self.retries));
        let before = match source {
            Source::Store => {
                self.polls += 1;
                &mut self.store
            }
            Source::Board => {
                self.board_polls += 1;
                &mut self.board
            }
        };
        let compared = before.replace((losses.0, sight));
        if let Some((losses_then, then)) = compared
            && !sight.is_not_behind(&then)
        {
            let lost = losses_then != losses.1;
            match source {
                Source::Board if lost => self.board_went_back += 1,
                // The claim that made it run was undone.
                Source::Store if lost && Sight { status: BatchStatus::Inprog, ..sight } == then && sight.status == BatchStatus::Queued => {}
                _ => findings.add(Rule::PollsGoForward, format!("{source:?} said {sight:?} after {then:?}")),
            }
        }
        match (self.finals.get(&sight.round).copied(), sight.status.is_final()) {
            (Some(last), _) if source == Source::Store || sight.status.is_final() => {
                let same = (last.status, last.counts) == (sight.status, sight.counts);
                findings.ensure(same, Rule::PollsGoForward, || format!("{source:?} said {sight:?}, and {last:?} had been final"));
            }
            (None, true) => drop(self.finals.insert(sight.round, sight)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(status: BatchStatus, success: u64, aborted: u64) -> Sight {
        Sight { round: 1, status, counts: BatchCounts { rows: 3, success, failed: 0, aborted }, done: false }
    }

    fn rules(sights: &[(Source, Sight, (u64, u64))]) -> Vec<Rule> {
        let (mut witness, mut findings) = (Witness::default(), Findings::of(None));
        for (source, sight, losses) in sights {
            witness.see(*source, *sight, *losses, &mut findings);
        }
        findings.found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn what_goes_back_is_found_unless_memory_was_lost() {
        let (running, more) = (sight(BatchStatus::Inprog, 1, 0), sight(BatchStatus::Inprog, 2, 0));
        let queued = sight(BatchStatus::Queued, 0, 0);
        let claimed = sight(BatchStatus::Inprog, 0, 0);
        let (end, other) = (sight(BatchStatus::Success, 3, 0), sight(BatchStatus::Aborted, 1, 2));
        let same = (0, 0);
        assert_eq!(rules(&[(Source::Store, running, same), (Source::Store, more, same), (Source::Board, running, same)]), []);
        assert_eq!(rules(&[(Source::Store, more, same), (Source::Store, running, same)]), [Rule::PollsGoForward]);
        assert_eq!(rules(&[(Source::Store, claimed, same), (Source::Store, queued, (0, 1))]), []);
        assert_eq!(rules(&[(Source::Store, claimed, same), (Source::Store, queued, same)]), [Rule::PollsGoForward]);
        assert_eq!(rules(&[(Source::Store, more, same), (Source::Store, running, (0, 2))]), [Rule::PollsGoForward], "records are never lost");
        assert_eq!(rules(&[(Source::Board, end, same), (Source::Board, running, (2, 2)), (Source::Store, end, same)]), []);
        assert_eq!(rules(&[(Source::Board, end, same), (Source::Store, running, (0, 2))]), [Rule::PollsGoForward], "the store knows first");
        assert_eq!(rules(&[(Source::Store, end, same), (Source::Board, other, (0, 2))]), [Rule::PollsGoForward], "a final status is one");
        let next = Sight { round: 2, ..running };
        assert_eq!(rules(&[(Source::Store, other, same), (Source::Store, next, same)]), [Rule::PollsGoForward], "nobody asked for a retry");
        assert_eq!(rules(&[(Source::Store, next, same), (Source::Store, other, same)]), [Rule::PollsGoForward; 2], "a round does not come back");
    }

    #[test]
    fn sums_that_cannot_be_are_found() {
        assert_eq!(rules(&[(Source::Store, sight(BatchStatus::Inprog, 4, 0), (0, 0))]), [Rule::CountsEqualRows]);
        assert_eq!(rules(&[(Source::Store, sight(BatchStatus::Success, 2, 0), (0, 0))]), [Rule::CountsEqualRows]);
        assert_eq!(rules(&[(Source::Store, sight(BatchStatus::Inprog, 1, 1), (0, 0))]), [Rule::CountsEqualRows]);
    }
}
