//! What can be found wrong.

use rowmill::model::BatchId;
use serde::Serialize;

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Each row has exactly one final outcome, which never changes, or was aborted.
    OneOutcomePerRow,
    /// The outcome is that of the row's input, and of nothing else.
    OutcomeIsTheRows,
    /// Counts are those of the rows, at every moment.
    CountsEqualRows,
    /// What a poller sees only goes forward, and what is final stays.
    PollsGoForward,
    /// Nothing is recorded, renewed or finished but by the owner of a lease that lives.
    NothingUnderALostLease,
    /// Nothing is changed after an abort.
    NothingAfterAbort,
    /// No row is run before the start of its batch, and it is aborted by its deadline or its failures when that is so, and only then.
    TermsAreKept,
    /// Files are complete and in order.
    FilesAreComplete,
    /// Every batch goes through its steps, and leaves each of them once.
    FinishedOnce,
    /// `mark-done` was called, with what became of the batch, and recorded once.
    MarkDoneOnce,
    /// Rows are quarantined only when enough workers died.
    QuarantineHasItsReason,
    /// An app never runs more leases than its limit.
    AppsKeepTheirLimit,
    /// What was acknowledged to a client is there, and what it was refused is not.
    AcknowledgedIsKept,
    /// Of a batch that was removed nothing is left.
    RemovedIsGone,
    /// Every batch comes to its end when failures stop.
    EverythingEnds,
    /// Nothing comes into a group behind its seal, and it ends once, when each of its batches is done.
    GroupsEndOnce,
    /// A worker goes on through every failure of what it depends on.
    WorkersGoOn,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub rule: Rule,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
    pub detail: String,
}

/// Violations of one batch, as they are found.
#[derive(Debug)]
pub struct Findings {
    batch: Option<BatchId>,
    pub found: Vec<Violation>,
}

impl Findings {
    pub fn of(batch: impl Into<Option<BatchId>>) -> Findings {
        Findings { batch: batch.into(), found: Vec::new() }
    }

    pub fn add(&mut self, rule: Rule, detail: impl Into<String>) {
        self.found.push(Violation { rule, batch: self.batch, detail: detail.into() });
    }

    /// Adds one unless it is so.
    pub fn ensure(&mut self, so: bool, rule: Rule, detail: impl FnOnce() -> String) {
        if !so {
            self.add(rule, detail());
        }
    }
}
