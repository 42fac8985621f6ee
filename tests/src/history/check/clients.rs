//! What clients were told is so.

use rowmill::model::{BatchStatus, ProcessorKind, RowStatus};

use super::{Case, terms};
use crate::history::client::Abort;
use crate::history::expect::is_quarantined;
use crate::history::plan::Deed;
use crate::history::violation::{Findings, Rule};

pub fn judge(case: &Case<'_>, findings: &mut Findings) {
    let record = case.record;
    findings.ensure(case.evidence.rows_changed.is_empty() || record.discarded, Rule::AcknowledgedIsKept, || {
        format!("rows were changed: {:?}", case.evidence.rows_changed)
    });
    if record.discarded {
        findings.ensure(case.batch.is_none(), Rule::AcknowledgedIsKept, || "it was discarded, and is there".to_owned());
        return;
    }
    findings.ensure(record.ended, Rule::EverythingEnds, || format!("it did not end: {:?}", case.evidence.batch_now));
    let Some(batch) = &case.batch else {
        findings.ensure(!record.submitted, Rule::AcknowledgedIsKept, || "it was acknowledged, and is not there".to_owned());
        return;
    };
    if !record.ended {
        return;
    }
    let rows = if record.follows.is_some() { case.plan.rows.len() } else { record.rows };
    let (rows, there) = (rows, case.evidence.rows_now.len());
    let same_rows = rows == there && batch.counts.rows == rows as u64 && case.results.len() == rows;
    findings.ensure(same_rows, Rule::AcknowledgedIsKept, || {
        format!("{rows} rows were acknowledged, {there} are there, {:?} are counted, {} are read", batch.counts, case.results.len())
    });
    for ((row_no, line, input, rejected), at) in case.evidence.rows_now.iter().zip(1_u32..) {
        let same = case.row(at).is_some_and(|row| {
            let wanted_rejected = (row.deed == Deed::Rejected).then_some(&row.say);
            u32::try_from(*row_no) == Ok(at) && *line == i64::from(row.line) && *input == row.input() && rejected.as_ref() == wanted_rejected
        });
        findings.ensure(same, Rule::AcknowledgedIsKept, || format!("row {row_no} is not what was submitted: line {line}, {input}"));
    }
    for result in &case.results {
        if let Some(seen) = record.seen_rows.get(&result.row_no) {
            findings.ensure(result.status == Some(*seen), Rule::OneOutcomePerRow, || {
                format!("row {} was seen as {seen:?}, and is {:?}", result.row_no, result.status)
            });
        }
    }
    findings.ensure(batch.round == record.round, Rule::AcknowledgedIsKept, || {
        format!("it is in round {}, and should be in {}", batch.round, record.round)
    });
    if let Some(last) = record.witness.finals.get(&record.round) {
        findings.ensure((last.status, last.counts) == (batch.status, batch.counts), Rule::PollsGoForward, || {
            format!("a poll saw it end as {last:?}, and it is {:?} with {:?}", batch.status, batch.counts)
        });
    }
    judge_status(case, batch, findings);
    if let (ProcessorKind::SlowQuery, Some(answer), Some(result)) = (batch.kind, &record.answer, case.results.first()) {
        findings.ensure((&answer.output, &answer.messages) == (&result.output, &result.messages), Rule::OutcomeIsTheRows, || {
            format!("the client was answered {answer:?}, and the outcome is {result:?}")
        });
    }
}

/// The batch ended as its rows did, and was aborted only by whoever wanted that.
fn judge_status(case: &Case<'_>, batch: &rowmill::model::Batch, findings: &mut Findings) {
    let reason = batch.abort_reason.as_deref().unwrap_or_default();
    let by_client = reason.contains(&batch.id.to_string());
    let by_row = case.plan.rows.iter().any(|row| row.deed == Deed::AbortBatch && row.say == reason);
    let must = case.results.iter().any(|result| {
        case.row(result.row_no).is_some_and(|row| row.deed == Deed::AbortBatch)
            && !is_quarantined(result)
            && result.status != Some(RowStatus::Aborted)
    });
    let right = match (case.record.abort, batch.status) {
        (_, status) if case.unmet.is_some() => status == BatchStatus::Aborted && case.unmet.as_deref() == Some(reason),
        (Abort::Took, BatchStatus::Aborted) => by_client,
        (Abort::NotAsked | Abort::TooLate, BatchStatus::Aborted) => by_row || terms::may_abort(&batch.terms, reason),
        (Abort::Took, _) => false,
        (Abort::NotAsked | Abort::TooLate, BatchStatus::Success) => batch.counts.failed == 0 && !must,
        (Abort::NotAsked | Abort::TooLate, BatchStatus::Failed) => batch.counts.failed > 0 && !must,
        _ => false,
    };
    findings.ensure(right, Rule::AcknowledgedIsKept, || {
        format!("it is {:?} ({reason:?}), and the client's abort: {:?}", batch.status, case.record.abort)
    });
}
