//! A batch goes through its statuses and steps, each once, and its last steps are done under a lease that lives.

use std::collections::HashMap;

use super::{Case, holders};
use crate::history::audit::{BatchState, Step};
use crate::history::violation::{Findings, Rule};

pub fn judge(case: &Case<'_>, findings: &mut Findings) {
    let steps = &case.evidence.batches;
    let mut last: Option<&str> = None;
    for step in steps {
        findings.ensure(step.change.before.as_deref() == last, Rule::FinishedOnce, || {
            format!("a change begins with another state than the one before ended with: {last:?}, {:?}", step.change.before)
        });
        last = step.change.after.as_deref();
    }
    let now = case.evidence.batch_now.as_deref();
    findings.ensure(now == last, Rule::FinishedOnce, || format!("it is {now:?}, and the last change made it {last:?}"));
    let holders = holders(steps, |batch| batch.finish_token);
    for step in steps {
        match (&step.before, &step.after) {
            (Some(before), Some(after)) if before.round != after.round => judge_retry(case, step, before, after, findings),
            (Some(before), Some(after)) => {
                judge_statuses(before, after, findings);
                judge_counts(before, after, findings);
                judge_finish(step, before, after, &holders, findings);
            }
            (None, Some(new)) => {
                // It comes in with its first rows, in one statement; a query perhaps with its lease.
                let may_run = new.status == "wait" || new.status == "queued" && new.row_count > 0;
                let runs = new.kind == "slow_query" && new.status == "inprog" && new.row_count == 1 && new.started_at.is_some();
                let fresh = (may_run && new.started_at.is_none() || runs)
                    && new.round == 1
                    && new.step == "rows"
                    && new.success + new.failed == 0
                    && new.finished_at.is_none()
                    && new.finish_token.is_none();
                findings.ensure(fresh, Rule::FinishedOnce, || format!("it began as {new:?}"));
            }
            (Some(gone), None) => {
                findings.ensure(case.record.discarded && gone.status == "wait", Rule::AcknowledgedIsKept, || format!("it was removed: {gone:?}"));
            }
            (None, None) => {}
        }
    }
    if case.record.ended {
        for round in steps.chunk_by(|_, next| next.ended_round().is_none()) {
            judge_end(round, findings);
        }
    }
}

/// A final status goes back by a retry that the client asked for, and only then.
fn judge_retry(case: &Case<'_>, step: &Step<BatchState>, before: &BatchState, after: &BatchState, findings: &mut Findings) {
    let begins =
        after.status == "queued" && after.step == "rows" && after.finished_at.is_none() && after.started_at.is_none() && after.finish_token.is_none();
    let asked = step.ended_round() == Some(before.round) && before.round < case.record.round;
    findings.ensure(begins && asked && is_final(before) && before.step == "done", Rule::FinishedOnce, || {
        format!("round {} came after {}: {before:?} became {after:?}", after.round, before.round)
    });
    let moved = case.evidence.outcomes.iter().filter(|outcome| outcome.xid == step.change.xid && outcome.op == "DELETE").count();
    let same =
        after.success == before.success && after.failed + i64::try_from(moved).unwrap_or(-1) == before.failed && after.row_count == before.row_count;
    findings.ensure(same, Rule::CountsEqualRows, || format!("{moved} outcomes were taken out, and the counts became {after:?}"));
}

fn is_final(batch: &BatchState) -> bool {
    matches!(batch.status.as_str(), "success" | "failed" | "aborted")
}

fn judge_statuses(before: &BatchState, after: &BatchState, findings: &mut Findings) {
    let statuses = (before.status.as_str(), after.status.as_str());
    let steps = (before.step.as_str(), after.step.as_str());
    let status_may = match statuses {
        (one, other) if one == other => true,
        ("wait", "queued") | ("queued", "inprog") => steps == ("rows", "rows"),
        ("wait" | "queued" | "inprog", "aborted") => steps == ("rows", "join"),
        ("inprog", "success" | "failed") => steps.1 == "mark",
        _ => false,
    };
    let step_may = match steps {
        (one, other) if one == other => true,
        ("rows", "join") => after.status == "aborted" || after.success + after.failed == after.row_count,
        ("rows", "mark") => after.kind == "slow_query" && after.success + after.failed == after.row_count,
        ("join", "mark") | ("mark", "done") => true,
        _ => false,
    };
    let final_with_mark = is_final(after) == (after.status == "aborted" || matches!(after.step.as_str(), "mark" | "done"));
    findings.ensure(status_may && step_may && final_with_mark, Rule::FinishedOnce, || {
        format!("it went from {}/{} to {}/{}", statuses.0, steps.0, statuses.1, steps.1)
    });
    let right = match statuses {
        ("inprog", "success") => after.failed == 0,
        ("inprog", "failed") => after.failed > 0,
        _ => true,
    };
    findings.ensure(right, Rule::CountsEqualRows, || format!("it ended as {} with {} failed rows", after.status, after.failed));
    let reason_may = before.abort_reason == after.abort_reason || before.status != "aborted" && after.status == "aborted";
    findings.ensure(reason_may, Rule::NothingAfterAbort, || format!("its abort's reason became {:?}", after.abort_reason));
    judge_mark(before, after, findings);
    let end_may = before.finished_at == after.finished_at || steps.0 != "mark" && steps.1 == "mark";
    findings.ensure(end_may, Rule::FinishedOnce, || format!("its end was set at {steps:?}"));
}

/// A call of `mark-done` is recorded when it ends the step, or lets the batch be claimed again later. It counts with those before it whose worker died.
fn judge_mark(before: &BatchState, after: &BatchState, findings: &mut Findings) {
    let steps = (before.step.as_str(), after.step.as_str());
    let same = before.mark_error == after.mark_error && before.mark_calls == after.mark_calls;
    let calls = before.mark_calls + before.finish_attempt;
    let may = match steps {
        // The last one may not have been called.
        ("mark", "done") => after.mark_calls == calls || after.mark_calls == calls - 1 && after.mark_error.is_some(),
        ("mark", "mark") if !same => {
            let later = before.finish_token.is_some() && after.finish_token.is_none() && after.finish_expires_at.is_some();
            later && after.mark_calls == calls && after.finish_attempt == 0 && after.mark_error.is_some()
        }
        _ => same,
    };
    findings.ensure(may, Rule::MarkDoneOnce, || format!("mark-done was recorded at {steps:?}: {before:?} became {after:?}"));
}

fn judge_counts(before: &BatchState, after: &BatchState, findings: &mut Findings) {
    let (then, now) = ((before.success, before.failed), (after.success, after.failed));
    let rule = if before.status == "aborted" { Rule::NothingAfterAbort } else { Rule::CountsEqualRows };
    let grows = now.0 >= then.0 && now.1 >= then.1;
    let may = then == now || grows && before.step == "rows" && before.status == "inprog" && after.status != "aborted";
    findings.ensure(may, rule, || format!("counts went from {then:?} to {now:?} while it was {}/{}", before.status, before.step));
    let rows_may = before.row_count == after.row_count || before.status == "wait" && after.row_count > before.row_count;
    findings.ensure(rows_may, rule, || format!("rows went from {} to {} while it was {}", before.row_count, after.row_count, before.status));
}

fn judge_finish(step: &Step<BatchState>, before: &BatchState, after: &BatchState, holders: &HashMap<i64, &str>, findings: &mut Findings) {
    let change = &step.change;
    let leaves = matches!((before.step.as_str(), after.step.as_str()), ("join", "mark") | ("mark", "done"));
    let lease = |batch: &BatchState| (batch.finish_token, batch.finish_expires_at);
    if lease(before) == lease(after) && !leaves {
        return;
    }
    let lives = before.finish_expires_at.is_some_and(|ends| ends > change.began);
    let claimed = after.finish_token.is_some() && after.finish_token != before.finish_token;
    if claimed {
        // It ended, or it was given back for later and is due.
        let free = before.finish_expires_at.is_none_or(|ends| ends <= change.at);
        findings.ensure(free, Rule::NothingUnderALostLease, || format!("{} took a step's lease that lived, or too early: {before:?}", change.who));
        return;
    }
    let owner = before.finish_token.and_then(|token| holders.get(&token));
    let doing = if leaves { "ended a step" } else { "renewed or gave back a step's lease" };
    findings.ensure(lives && owner == Some(&change.who.as_str()), Rule::NothingUnderALostLease, || {
        format!("{} {doing} at {} under the lease of {owner:?}: {before:?}", change.who, change.began)
    });
}

/// Each step is left once in a round.
fn judge_end(steps: &[Step<BatchState>], findings: &mut Findings) {
    let left = |name: &str| {
        let leaves = |step: &&Step<BatchState>| {
            step.ended_round().is_none()
                && step.before.as_ref().is_some_and(|before| before.step == name)
                && step.after.as_ref().is_some_and(|after| after.step != name)
        };
        steps.iter().filter(leaves).count()
    };
    let at_once =
        steps.iter().any(|step| step.before.as_ref().is_some_and(|b| b.step == "rows") && step.after.as_ref().is_some_and(|a| a.step == "mark"));
    let counted = [left("rows"), left("join") + usize::from(at_once), left("mark"), left("done")];
    findings.ensure(counted == [1, 1, 1, 0], Rule::FinishedOnce, || format!("its steps were left {counted:?} times"));
}
