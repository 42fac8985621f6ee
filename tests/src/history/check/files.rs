//! Output files are complete and in order, and were recorded once; `mark-done` was told of them, and of the counts.

use super::Case;
use crate::history::expect::is_quarantined;
use crate::history::violation::{Findings, Rule};

/// From so many attempts on `mark-done` is given up.
const MARK_ATTEMPTS: i64 = 3;
const GIVEN_UP: &str = "mark-done was given up";

pub fn judge(case: &Case<'_>, findings: &mut Findings) {
    let Some(batch) = case.batch.as_ref().filter(|_| case.record.ended) else { return };
    // The rows that have an outcome of their own wrote their pieces, whatever became of the batch.
    let mut wrote = vec![false; case.plan.rows.len()];
    for result in case.results.iter().filter(|result| !is_quarantined(result)) {
        let recorded = result.status.is_some_and(|status| status != rowmill::model::RowStatus::Aborted);
        if let Some(wrote) = usize::try_from(result.row_no).ok().and_then(|row_no| wrote.get_mut(row_no.checked_sub(1)?)) {
            *wrote = recorded;
        }
    }
    let wanted = case.plan.files(|at| wrote[at]);
    let names = |files: &mut dyn Iterator<Item = &str>| files.collect::<Vec<_>>().join(" ");
    let (want, have) = (names(&mut wanted.keys().copied()), names(&mut batch.files.iter().map(|file| file.name.as_str())));
    findings.ensure(want == have, Rule::FilesAreComplete, || format!("its files are {have:?} instead of {want:?}"));
    for file in &batch.files {
        let Some(content) = wanted.get(file.name.as_str()) else { continue };
        let found = match case.files.get(&file.name) {
            Some(Ok(bytes)) if bytes == content.as_bytes() && file.size_bytes == content.len() as u64 => continue,
            Some(Ok(bytes)) => difference(content, &String::from_utf8_lossy(bytes)),
            Some(Err(error)) => error.clone(),
            None => "it was not read".to_owned(),
        };
        findings.add(Rule::FilesAreComplete, format!("{} ({} bytes recorded): {found}", file.name, file.size_bytes));
    }
    judge_recorded_once(case, findings);
    judge_mark_done(case, batch, findings);
}

fn difference(wanted: &str, found: &str) -> String {
    let mut lines = wanted.lines().zip(found.lines()).zip(1..);
    match lines.find(|((wanted, found), _)| wanted != found) {
        Some(((wanted, found), line)) => format!("line {line} is {found:?} instead of {wanted:?}"),
        None => format!("it has {} lines instead of {}", found.lines().count(), wanted.lines().count()),
    }
}

/// A file's object is named once, in the transaction that ends the step `join`.
fn judge_recorded_once(case: &Case<'_>, findings: &mut Findings) {
    for step in &case.evidence.files {
        let object = |state: &Option<crate::history::audit::FileState>| state.as_ref().and_then(|file| file.object.clone());
        let (before, after) = (object(&step.before), object(&step.after));
        let joined = case.evidence.batches.iter().any(|batch| {
            let step_of = |state: &Option<crate::history::audit::BatchState>| state.as_ref().map(|batch| batch.step.clone());
            batch.change.xid == step.change.xid
                && step_of(&batch.before).as_deref() == Some("join")
                && step_of(&batch.after).as_deref() == Some("mark")
        });
        // A retry of the batch lets its files be joined anew.
        let retried = after.is_none() && step.after.is_some() && case.ended_round(step.change.xid).is_some();
        let may = before == after && step.after.is_some() || before.is_none() && joined || retried;
        findings.ensure(may, Rule::FinishedOnce, || format!("a file changed: {:?} became {:?}", step.before, step.after));
    }
}

fn judge_mark_done(case: &Case<'_>, batch: &rowmill::model::Batch, findings: &mut Findings) {
    let (counts, error) = (batch.counts, batch.mark_error.as_deref());
    let attempts = case.evidence.batches.iter().rev().find_map(|step| {
        let (before, after) = (step.before.as_ref()?, step.after.as_ref()?);
        (before.step == "mark" && after.step == "done").then_some(before.finish_attempt)
    });
    let given_up = error.is_some_and(|error| error.starts_with(GIVEN_UP));
    if given_up {
        findings
            .ensure(attempts.is_some_and(|attempts| attempts > MARK_ATTEMPTS), Rule::MarkDoneOnce, || format!("{error:?} at attempt {attempts:?}"));
        return;
    }
    // What was told with the call that was recorded last: each call knows its number, those whose worker died among them.
    let (call, until) = (batch.mark_calls, case.plan.mark_until);
    let files: String = batch.files.iter().map(|file| format!(" {}:{}", file.name, file.size_bytes)).collect();
    let told = format!("{} {}={}+{}+{}{files} in call {call}", batch.status.as_str(), counts.rows, counts.success, counts.failed, counts.aborted);
    let wanted = if call < until { Some(format!("call {call} of {until}")) } else { case.plan.tell.then_some(told) };
    let enough = call >= until.min(case.plan.attempts_max);
    findings.ensure(error == wanted.as_deref() && attempts.is_some() && enough, Rule::MarkDoneOnce, || {
        format!("mark-done left {error:?} instead of {wanted:?}, at attempt {attempts:?} in call {call}")
    });
}
