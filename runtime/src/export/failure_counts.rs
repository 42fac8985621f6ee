//! Failed rows by their codes, with the first row of each code.

use serde::{Deserialize, Serialize};

use super::failed::why;
use crate::model::{RecordedOutcome, RowStatus};

/// Codes that are counted one by one, at most.
const CODES_MAX: usize = 20;
/// Bytes of a reason that are kept, at most.
const REASON_BYTES: usize = 300;
/// The code of rows that failed without a message.
const NO_CODE: &str = "no code";

/// The failed rows of a batch by the first code of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureCounts {
    /// The 20 codes whose first rows come first, at most; the most frequent code first.
    pub codes: Vec<FailureCount>,
    /// Rows that failed with other codes.
    pub others: u64,
}

/// The failed rows with one code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureCount {
    pub code: String,
    pub rows: u64,
    /// The line of the first of them; 0 for a query.
    pub line: u32,
    /// The reason of the first of them, at most 300 bytes.
    pub reason: String,
}

impl FailureCounts {
    /// Returns true if no row failed.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Counts a row, if it failed. Rows come in the order of their lines.
    pub(super) fn count(&mut self, row: &RecordedOutcome) {
        if row.status != Some(RowStatus::Failed) {
            return;
        }
        let code = row.messages.first().map_or(NO_CODE, |message| message.code.as_str());
        if let Some(found) = self.codes.iter_mut().find(|found| found.code == code) {
            found.rows += 1;
        } else if self.codes.len() < CODES_MAX {
            let (_, mut reason) = why(row);
            if reason.len() > REASON_BYTES {
                reason.truncate(reason.floor_char_boundary(REASON_BYTES));
                reason.push('…');
            }
            self.codes.push(FailureCount { code: code.to_owned(), rows: 1, line: row.line, reason });
        } else {
            self.others += 1;
        }
    }

    /// All of them, the most frequent code first.
    pub(super) fn sorted(mut self) -> FailureCounts {
        self.codes.sort_by_key(|code| (std::cmp::Reverse(code.rows), code.line));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Message;

    fn failed(line: u32, code: &str, value: &str) -> RecordedOutcome {
        let messages = vec![Message { id: 1, code: code.to_owned(), field: None, values: vec![value.to_owned()] }];
        let (status, input) = (Some(RowStatus::Failed), "{}".to_owned());
        RecordedOutcome { row_no: line, line, status, output: None, messages, attempts: 1, fuel: 0, log: None, input, rejected: None }
    }

    #[test]
    fn rows_are_counted_by_code_with_the_first_of_each() {
        let mut counts = FailureCounts::default();
        for row in [failed(2, "trap", "one"), failed(3, "late", "two"), failed(4, "late", "three")] {
            counts.count(&row);
        }
        counts.count(&RecordedOutcome { status: Some(RowStatus::Success), ..failed(5, "late", "four") });
        counts.count(&RecordedOutcome { status: Some(RowStatus::Aborted), ..failed(6, "late", "five") });
        let found: Vec<_> = counts.sorted().codes.into_iter().map(|count| (count.code, count.rows, count.line)).collect();
        assert_eq!(found, [("late".to_owned(), 2, 3), ("trap".to_owned(), 1, 2)]);
    }

    #[test]
    fn codes_and_reasons_are_bounded() {
        let mut counts = FailureCounts::default();
        for line in 1..=25 {
            counts.count(&failed(line, &format!("code {line}"), &"é".repeat(1_000)));
        }
        counts.count(&failed(26, "code 1", ""));
        let counts = counts.sorted();
        assert_eq!((counts.codes.len(), counts.others, counts.codes[0].rows), (CODES_MAX, 5, 2));
        assert!(counts.codes.iter().all(|code| code.reason.len() <= REASON_BYTES + '…'.len_utf8() && code.reason.ends_with('…')));
        let none = RecordedOutcome { messages: Vec::new(), ..failed(1, "", "") };
        let mut counts = FailureCounts::default();
        counts.count(&none);
        assert_eq!(counts.codes[0].code, NO_CODE);
    }
}
