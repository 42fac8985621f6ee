//! The lines of `results.ndjson`.

use crate::ordered::Differences;
use crate::rules::{ACCOUNT, COLUMNS, ID, TYPE, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub const RESULTS: &str = "results.ndjson";
/// The code of a record that was not run because it is ragged.
pub const BAD_ROW: &str = "bad_row";

/// What became of a row.
#[derive(Debug, Deserialize)]
pub struct ResultLine {
    line: u64,
    status: String,
    #[serde(default)]
    output: Value,
    messages: Vec<Message>,
    attempts: u64,
    fuel: u64,
}

#[derive(Debug, Deserialize)]
struct Message {
    id: u32,
    code: String,
    field: Option<String>,
    values: Vec<String>,
}

pub fn parse(line: &[u8]) -> Result<(u64, ResultLine), String> {
    match serde_json::from_slice::<ResultLine>(line) {
        Ok(result) => Ok((result.line, result)),
        Err(error) => Err(format!("not a result: {error}: {}", String::from_utf8_lossy(line))),
    }
}

impl ResultLine {
    pub const fn fuel(&self) -> u64 {
        self.fuel
    }

    /// Compares it with what the rules say of its row.
    pub fn compare(&self, fields: &[&str], verdict: &Verdict, differences: &mut Differences) {
        let mut check = |what: &str, right: bool, expected: &str, found: &dyn std::fmt::Debug| {
            if !right {
                differences.add(format!("{RESULTS}: line {}: {what}: expected {expected}, found {found:?}", self.line));
            }
        };
        let has_output = !(self.output.is_null() || self.output == json!({}));
        let codes: BTreeSet<&str> = self.messages.iter().map(|message| message.code.as_str()).collect();
        match verdict {
            Verdict::Good(effect) => {
                check("status", self.status == "success", "success", &self.status);
                let output = json!({
                    "id": fields[ID], "type": fields[TYPE], "account": fields[ACCOUNT],
                    "change_cents": effect.change_cents, "fee_cents": effect.fee_cents,
                });
                check("output", self.output == output, &output.to_string(), &self.output);
                check("messages", self.messages.is_empty(), "none", &self.messages);
            }
            Verdict::Bad(problems) => {
                check("status", self.status == "failed", "failed", &self.status);
                check("output", !has_output, "none", &self.output);
                let expected: BTreeSet<&str> = problems.iter().map(|problem| problem.code).collect();
                check("codes", codes == expected && self.messages.len() == problems.len(), &format!("{expected:?}"), &codes);
                for (problem, message) in
                    problems.iter().filter_map(|problem| Some((problem, self.messages.iter().find(|m| m.code == problem.code)?)))
                {
                    let told =
                        message.id != 0 && message.field.as_deref() == Some(COLUMNS[problem.column]) && message.values == [fields[problem.column]];
                    let expected = format!("an id, field {} and value {:?}", COLUMNS[problem.column], fields[problem.column]);
                    check("message", told, &expected, message);
                }
            }
            Verdict::Ragged => {
                check("status", self.status == "failed", "failed", &self.status);
                check("output", !has_output, "none", &self.output);
                check("codes", codes == BTreeSet::from([BAD_ROW]), BAD_ROW, &codes);
                check("fuel", self.fuel == 0, "0, since it is not run", &self.fuel);
            }
        }
        if *verdict != Verdict::Ragged {
            check("attempts", self.attempts >= 1, "1 or more", &self.attempts);
            check("fuel", self.fuel >= 1, "some", &self.fuel);
        }
    }
}
