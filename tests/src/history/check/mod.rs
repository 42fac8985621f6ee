//! The judgement: everything that is known of a batch is compared, with itself and with the plan.

mod clients;
mod files;
pub mod groups;
mod leases;
mod outcomes;
mod steps;
mod terms;

use std::collections::{BTreeMap, HashMap};

use rowmill::model::{Batch, RecordedOutcome};

use super::audit::{Evidence, LeaseState, Step};
use super::client::BatchRecord;
use super::plan::BatchPlan;
use super::violation::{Findings, Violation};

/// Everything that is known of one batch.
pub struct Case<'a> {
    pub record: &'a BatchRecord,
    pub plan: BatchPlan,
    /// Why it had to be aborted, where it comes after another batch.
    pub unmet: Option<String>,
    pub evidence: Evidence,
    /// As a client reads it in the end; none when it is not there.
    pub batch: Option<Batch>,
    pub results: Vec<RecordedOutcome>,
    /// The content of each output file, or why it cannot be read.
    pub files: BTreeMap<String, Result<Vec<u8>, String>>,
    /// When workers or the database were disturbed. Milliseconds, ascending.
    pub disturbances: &'a [i64],
}

impl Case<'_> {
    /// Judges it.
    pub fn judge(&self) -> Vec<Violation> {
        let mut findings = Findings::of(self.record.id);
        findings.found.extend(self.record.violations.iter().cloned());
        steps::judge(self, &mut findings);
        leases::judge(self, &mut findings);
        terms::judge(self, &mut findings);
        outcomes::judge(self, &mut findings);
        files::judge(self, &mut findings);
        clients::judge(self, &mut findings);
        findings.found
    }

    /// The round that a transaction ended by a retry of the batch.
    fn ended_round(&self, xid: i64) -> Option<u32> {
        self.evidence.batches.iter().filter(|step| step.change.xid == xid).find_map(Step::ended_round)
    }

    /// The plan's row of a row number.
    fn row(&self, row_no: u32) -> Option<&super::plan::RowPlan> {
        self.plan.rows.get(usize::try_from(row_no).ok()?.checked_sub(1)?)
    }
}

/// Who owns each token: whoever made it.
fn holders<T>(steps: &[Step<T>], token: impl Fn(&T) -> Option<i64>) -> HashMap<i64, &str> {
    let made = steps.iter().filter_map(|step| {
        let (before, after) = (step.before.as_ref().and_then(&token), step.after.as_ref().and_then(&token));
        after.filter(|_| before != after).map(|token| (token, step.change.who.as_str()))
    });
    made.collect()
}

/// The token of a lease that somebody owns.
fn lease_token(lease: &LeaseState) -> Option<i64> {
    (lease.token != 0).then_some(lease.token)
}
