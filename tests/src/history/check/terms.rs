//! A batch starts and ends as its terms say.

use rowmill::model::Terms;

use super::Case;
use crate::history::audit::BatchState;
use crate::history::violation::{Findings, Rule};

const OVERDUE: &str = "its deadline has passed";

pub fn judge(case: &Case<'_>, findings: &mut Findings) {
    let steps = &case.evidence.batches;
    for step in steps {
        let Some(after) = &step.after else { continue };
        let starts = after.started_at.filter(|_| step.before.as_ref().is_none_or(|before| before.started_at.is_none()));
        let early = starts.zip(after.start_at).is_some_and(|(started, start)| started < start);
        findings.ensure(!early, Rule::TermsAreKept, || format!("it started at {starts:?}, and was to start at {:?}", after.start_at));
        let counts = |batch: &BatchState| (batch.success, batch.failed);
        let moved = step.ended_round().is_none() && step.before.as_ref().is_some_and(|before| counts(before) != counts(after));
        if after.step == "rows" && moved && fails_too_much(after) {
            let aborted =
                steps.iter().any(|other| other.change.xid == step.change.xid && other.after.as_ref().is_some_and(|after| after.status == "aborted"));
            findings.ensure(aborted, Rule::TermsAreKept, || format!("{} rows of {} failed, and it went on", after.failed, after.row_count));
        }
        let ends = after.status == "aborted" && step.before.as_ref().is_some_and(|before| before.status != "aborted");
        let reason = after.reason().filter(|_| ends);
        let right = match reason.as_deref() {
            Some(OVERDUE) => after.deadline_at.is_some_and(|deadline| deadline <= step.change.at),
            Some(reason) if is_failures(reason) => fails_too_much(after),
            _ => true,
        };
        findings.ensure(right, Rule::TermsAreKept, || format!("it was aborted at {} for {reason:?}: {after:?}", step.change.at));
    }
}

/// Whether this may be the reason of an abort that nobody asked for.
pub fn may_abort(terms: &Terms, reason: &str) -> bool {
    reason == OVERDUE && terms.deadline_at.is_some() || is_failures(reason) && terms.failures_max.is_some()
}

fn is_failures(reason: &str) -> bool {
    reason.contains(" failed; the limit is ")
}

fn fails_too_much(batch: &BatchState) -> bool {
    batch.failures_max.is_some_and(|limit| batch.failed > limit)
        || batch.failures_percent.is_some_and(|limit| batch.failed * 100 > limit * batch.row_count)
}
