//! What must come of a plan.

use std::collections::BTreeMap;

use rowmill::model::{Message, RecordedOutcome, RowStatus};
use serde_json::{Value, json};

use super::plan::{BatchPlan, Deed, RowPlan};

/// What kills of workers may make of any row.
const QUARANTINED: &str = "quarantined";

/// A row was not run to an end, since workers died while they ran it.
pub fn is_quarantined(outcome: &RecordedOutcome) -> bool {
    outcome.status == Some(RowStatus::Failed) && code(&outcome.messages) == QUARANTINED
}

impl RowPlan {
    /// Whether an outcome, which is not a quarantine, is what the row was told to do. Returns what is wrong.
    pub fn judge(&self, outcome: &RecordedOutcome, plan: &BatchPlan) -> Result<(), String> {
        let (status, output, messages) = match self.deed {
            Deed::Succeed | Deed::Repeat => (RowStatus::Success, Some(json!({"line": self.line, "said": self.say})), None),
            Deed::Fail => (RowStatus::Failed, Some(json!({})), Some("told-to-fail")),
            Deed::GiveUp => (RowStatus::Failed, None, Some("processing_error")),
            Deed::RetryAlways => (RowStatus::Failed, None, Some("attempts_exhausted")),
            Deed::Trap => (RowStatus::Failed, None, Some("trap")),
            Deed::Rejected => (RowStatus::Failed, None, Some("bad_row")),
            Deed::AbortBatch => return Err("it was told to abort its batch, and so has no outcome".to_owned()),
        };
        let got: Option<Value> = outcome.output.as_deref().map(|text| serde_json::from_str(text).unwrap_or(Value::Null));
        let attempts_least = match self.deed {
            Deed::RetryAlways => plan.attempts_max,
            Deed::Trap if plan.retry_traps => plan.attempts_max,
            Deed::Rejected => 1,
            _ => self.until_attempt,
        };
        let said = outcome.messages.first().is_some_and(|message| message.values.first().is_some_and(|value| value.contains(&self.say)));
        if outcome.status != Some(status) {
            Err(format!("it should be {status:?}"))
        } else if got.is_some() && got != output || got.is_none() && output.as_ref().is_some_and(|output| *output != json!({})) {
            Err(format!("its output should be {output:?}"))
        } else if messages.is_some_and(|wanted| code(&outcome.messages) != wanted || !said) || messages.is_none() && !outcome.messages.is_empty() {
            Err(format!("its message should be {messages:?} with {:?}", self.say))
        } else if outcome.attempts < attempts_least {
            Err(format!("it should have been tried {attempts_least} times at least"))
        } else {
            Ok(())
        }
    }

    /// The pieces that are kept when it ends as it was told.
    fn pieces_kept(&self) -> &[(&'static str, String)] {
        match self.deed {
            Deed::Succeed | Deed::Fail => &self.pieces,
            _ => &[],
        }
    }
}

impl BatchPlan {
    /// Each output file, byte for byte, when the rows for which `ended` holds have outcomes that are theirs. Rows are numbered from 0.
    pub fn files(&self, ended: impl Fn(usize) -> bool) -> BTreeMap<&'static str, String> {
        let mut order: Vec<usize> = (0..self.rows.len()).filter(|&at| ended(at)).collect();
        order.sort_by_key(|&at| (self.rows[at].line, at));
        let mut files: BTreeMap<&'static str, String> = BTreeMap::new();
        for (file, text) in order.into_iter().flat_map(|at| self.rows[at].pieces_kept()) {
            let text = text.trim();
            // Without text a file does not come to be.
            if !text.is_empty() {
                let content = files.entry(file).or_default();
                content.push_str(text);
                content.push('\n');
            }
        }
        files
    }
}

fn code(messages: &[Message]) -> &str {
    messages.first().map_or("", |message| &message.code)
}
