//! Each row has one outcome, recorded once, with its batch's counts, under a lease that lived; and it is that of the row's input.

use std::collections::BTreeMap;

use rowmill::model::RowStatus;

use super::{Case, holders, lease_token};
use crate::history::audit::{Appended, BatchState, LeaseState, Step};
use crate::history::expect::is_quarantined;
use crate::history::violation::{Findings, Rule};

/// From so many crashes on a row is quarantined.
const CRASHES: i64 = 4;

pub fn judge(case: &Case<'_>, findings: &mut Findings) {
    judge_once(case, findings);
    judge_past(case, findings);
    let mut records: BTreeMap<i64, Vec<&Appended>> = BTreeMap::new();
    for outcome in case.evidence.outcomes.iter().filter(|outcome| outcome.op == "INSERT") {
        records.entry(outcome.xid).or_default().push(outcome);
    }
    for (xid, outcomes) in &records {
        judge_counted(case, *xid, outcomes, findings);
        judge_lease(case, *xid, outcomes, findings);
    }
    for step in &case.evidence.batches {
        let (Some(before), Some(after)) = (&step.before, &step.after) else { continue };
        let moved = (before.success, before.failed) != (after.success, after.failed);
        findings.ensure(!moved || step.ended_round().is_some() || records.contains_key(&step.change.xid), Rule::CountsEqualRows, || {
            format!("{} moved the counts without an outcome: {before:?} became {after:?}", step.change.who)
        });
    }
    judge_results(case, findings);
}

/// What was appended is there, once, and as it was appended.
fn judge_once(case: &Case<'_>, findings: &mut Findings) {
    let mut inserted: BTreeMap<i32, &Appended> = BTreeMap::new();
    for entry in &case.evidence.outcomes {
        if entry.op == "DELETE" && case.ended_round(entry.xid).is_some() {
            // Its row is run again: it failed, and is kept.
            let gone = inserted.remove(&entry.row_no).map(|gone| gone.detail.as_str());
            let failed = gone == Some(entry.detail.as_str()) && entry.detail.starts_with("true");
            findings.ensure(failed, Rule::OneOutcomePerRow, || format!("row {} was retried, and its outcome was {gone:?}", entry.row_no));
            continue;
        }
        let again = entry.op == "INSERT" && inserted.insert(entry.row_no, entry).is_some();
        findings.ensure(!again, Rule::OneOutcomePerRow, || format!("row {} got its outcome twice", entry.row_no));
        findings
            .ensure(entry.op == "INSERT", Rule::OneOutcomePerRow, || format!("{}: the outcome of row {} by {}", entry.op, entry.row_no, entry.who));
    }
    let now: BTreeMap<i32, &str> = case.evidence.outcomes_now.iter().map(|(row_no, detail)| (*row_no, detail.as_str())).collect();
    for row_no in inserted.keys().chain(now.keys().filter(|row_no| !inserted.contains_key(row_no))) {
        let (then, now) = (inserted.get(row_no).map(|entry| entry.detail.as_str()), now.get(row_no).copied());
        findings.ensure(then == now, Rule::OneOutcomePerRow, || format!("the outcome of row {row_no} was recorded as {then:?} and is {now:?}"));
    }
}

/// Of each outcome whose row was run again the same is kept, with the round that ended, and nothing else is.
fn judge_past(case: &Case<'_>, findings: &mut Findings) {
    let moved = case.evidence.outcomes.iter().filter(|entry| entry.op == "DELETE");
    let mut wanted: Vec<(i32, u32, String)> = moved
        .filter_map(|entry| {
            case.ended_round(entry.xid).map(|round| (entry.row_no, round, format!("{round} {}", entry.kept.as_deref().unwrap_or_default())))
        })
        .collect();
    wanted.sort();
    let wanted: Vec<(i32, String)> = wanted.into_iter().map(|(row_no, _, detail)| (row_no, detail)).collect();
    let only_added = case.evidence.past.iter().all(|entry| entry.op == "INSERT" && case.ended_round(entry.xid).is_some());
    findings.ensure(only_added && wanted == case.evidence.past_now, Rule::OneOutcomePerRow, || {
        format!("past outcomes should be {wanted:?}, and are {:?}", case.evidence.past_now)
    });
}

/// The batch's counts moved by these outcomes, in the same transaction, while its rows were run.
fn judge_counted(case: &Case<'_>, xid: i64, outcomes: &[&Appended], findings: &mut Findings) {
    let failed = outcomes.iter().filter(|outcome| outcome.detail.starts_with("true")).count();
    let wanted = (outcomes.len() - failed, failed);
    let counted = |step: &&Step<BatchState>| step.change.xid == xid;
    let Some(step) = case.evidence.batches.iter().find(counted) else {
        let aborted = case.evidence.batches.iter().find(|step| step.after.as_ref().is_some_and(|batch| batch.status == "aborted"));
        let rule = if aborted.is_some_and(|abort| abort.change.seq < outcomes[0].seq) { Rule::NothingAfterAbort } else { Rule::CountsEqualRows };
        findings.add(rule, format!("row {} got an outcome, and the counts stayed as they were", outcomes[0].row_no));
        return;
    };
    let (Some(before), Some(after)) = (&step.before, &step.after) else { return };
    let rule = if before.status == "aborted" { Rule::NothingAfterAbort } else { Rule::CountsEqualRows };
    let moved = (after.success - before.success, after.failed - before.failed);
    let same = moved == (i64::try_from(wanted.0).unwrap_or(-1), i64::try_from(wanted.1).unwrap_or(-1));
    findings.ensure(same && before.step == "rows" && before.status == "inprog", rule, || {
        format!("{wanted:?} outcomes were recorded while it was {}/{}, and its counts moved by {moved:?}", before.status, before.step)
    });
}

/// They were recorded by the owner of a lease of these rows, while it lived.
fn judge_lease(case: &Case<'_>, xid: i64, outcomes: &[&Appended], findings: &mut Findings) {
    let holders = holders(&case.evidence.leases, lease_token);
    let (who, began) = (outcomes[0].who.as_str(), outcomes[0].began);
    let Some(lease) = lease_of(case, xid) else {
        findings.add(Rule::NothingUnderALostLease, format!("{who} recorded row {} under no lease", outcomes[0].row_no));
        return;
    };
    let owner = lease_token(lease).and_then(|token| holders.get(&token).copied());
    findings.ensure(owner == Some(who) && lease.expires_at > began, Rule::NothingUnderALostLease, || {
        format!("{who} recorded {} rows at {began} under the lease of {owner:?}, {lease:?}", outcomes.len())
    });
    let inside = |outcome: &&&Appended| lease.retries || (lease.next_row..=lease.last_row).contains(&i64::from(outcome.row_no));
    if let Some(outside) = outcomes.iter().find(|outcome| !inside(outcome)) {
        findings.add(Rule::NothingUnderALostLease, format!("row {} is not of the lease it was recorded under: {lease:?}", outside.row_no));
    }
}

/// The lease that a transaction recorded under, as it was before.
fn lease_of<'a>(case: &'a Case<'_>, xid: i64) -> Option<&'a LeaseState> {
    case.evidence.leases.iter().filter(|step| step.change.xid == xid).find_map(|step| step.before.as_ref())
}

fn judge_results(case: &Case<'_>, findings: &mut Findings) {
    let Some(batch) = &case.batch else { return };
    for result in &case.results {
        let Some(row) = case.row(result.row_no) else {
            findings.add(Rule::AcknowledgedIsKept, format!("row {} was never submitted", result.row_no));
            continue;
        };
        if result.input != row.input() || result.line != row.line {
            findings.add(Rule::AcknowledgedIsKept, format!("row {} is line {} with {}", result.row_no, result.line, result.input));
        }
        match result.status {
            Some(RowStatus::Aborted) => {}
            None => findings.ensure(!batch.status.is_final(), Rule::OneOutcomePerRow, || format!("row {} has no outcome", result.row_no)),
            Some(_) if is_quarantined(result) => judge_quarantine(case, result.row_no, findings),
            Some(_) => {
                if let Err(reason) = row.judge(result, &case.plan) {
                    findings.add(Rule::OutcomeIsTheRows, format!("row {}: {reason}: {result:?}", result.row_no));
                }
            }
        }
    }
    let of = |status| case.results.iter().filter(|result| result.status == Some(status)).count() as u64;
    let counted = (of(RowStatus::Success), of(RowStatus::Failed), of(RowStatus::Aborted));
    let counts = batch.counts;
    findings.ensure((counts.success, counts.failed, counts.aborted) == counted, Rule::CountsEqualRows, || {
        format!("its counts are {counts:?}, and its rows {counted:?}")
    });
    let lines: Vec<_> = case.results.iter().map(|result| (result.line, result.row_no)).collect();
    findings.ensure(lines.is_sorted(), Rule::OneOutcomePerRow, || "its results are not in line order".to_owned());
}

/// Only after enough crashes of the lease that held this row alone, and where there were as many disturbances.
fn judge_quarantine(case: &Case<'_>, row_no: u32, findings: &mut Findings) {
    let outcome = case.evidence.outcomes.iter().rfind(|outcome| outcome.op == "INSERT" && u32::try_from(outcome.row_no) == Ok(row_no));
    let lease = outcome.and_then(|outcome| lease_of(case, outcome.xid));
    let crashed = lease.is_some_and(|lease| lease.crashes >= CRASHES && (lease.retries || lease.next_row == lease.last_row));
    let times = case.evidence.batches.iter().map(|step| step.change.at);
    let (begin, end) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
    let disturbed = case.disturbances.iter().filter(|at| (begin..=end).contains(at)).count();
    findings.ensure(crashed && disturbed >= 4, Rule::QuarantineHasItsReason, || {
        format!("row {row_no} was quarantined after {disturbed} disturbances, under {lease:?}")
    });
}
