//! Why a batch was aborted.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BatchId, BatchStatus, show_time};

/// Why a batch was aborted: each reason with its numbers. [`fmt::Display`] has the sentence, and no other place has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AbortReason {
    /// Its submitter, an operator or its processor wanted it, and said this.
    Asked(String),
    /// More rows failed than the limit. A record holds several rows, so `failed` may be more than the limit and one.
    RowsFailed {
        failed: u64,
        limit: u64,
    },
    /// The same for a limit in percent of all rows of the batch.
    PartFailed {
        failed: u64,
        rows: u64,
        limit: u64,
    },
    DeadlinePassed {},
    /// It ran for longer than a batch of its app is allowed to run.
    RanTooLong {
        ran_ms: u64,
        limit_ms: u64,
    },
    /// The batch that it comes after did not succeed, and its condition is success.
    PredecessorEnded {
        batch: BatchId,
        status: BatchStatus,
    },
    /// No row of the batch that it comes after succeeded.
    PredecessorWithoutOutputs {
        batch: BatchId,
    },
    /// The outcomes of the batch that it comes after were pruned before its rows were made.
    PredecessorPruned {
        batch: BatchId,
    },
    /// The batch that it comes after was discarded or removed.
    PredecessorRemoved {
        batch: BatchId,
    },
}

impl AbortReason {
    /// The form in which a store keeps a reason: JSON, or a plain text for [`AbortReason::Asked`].
    pub(crate) fn to_stored(&self) -> String {
        match self {
            AbortReason::Asked(text) if !text.starts_with('{') => text.clone(),
            reason => serde_json::to_string(reason).expect("a reason is always JSON"),
        }
    }

    /// The reason that a store kept. A text in no known form is the text of [`AbortReason::Asked`].
    pub(crate) fn of_stored(text: String) -> AbortReason {
        let known = text.starts_with('{').then(|| serde_json::from_str(&text).ok()).flatten();
        known.unwrap_or(AbortReason::Asked(text))
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AbortReason::Asked(text) => f.write_str(text),
            AbortReason::RowsFailed { failed, limit } => {
                write!(f, "{failed} {} failed; the limit is {limit}", if *failed == 1 { "row" } else { "rows" })
            }
            AbortReason::PartFailed { failed, rows, limit } => write!(f, "{failed} of {rows} rows failed; the limit is {limit}%"),
            AbortReason::DeadlinePassed {} => f.write_str("its deadline has passed"),
            AbortReason::RanTooLong { ran_ms, limit_ms } => {
                let [ran, limit] = [*ran_ms, *limit_ms].map(|millis| show_time(Duration::from_millis(millis)));
                write!(f, "it has run for {ran}; the limit for a batch of its app is {limit}")
            }
            AbortReason::PredecessorEnded { batch, status } => {
                write!(f, "batch {batch} ended as {}, and this batch runs only after its success", status.as_str())
            }
            AbortReason::PredecessorWithoutOutputs { batch } => {
                write!(f, "no row of batch {batch} succeeded, and the rows of this batch are made from those")
            }
            AbortReason::PredecessorPruned { batch } => {
                write!(f, "the outcomes of batch {batch} were pruned, and the rows of this batch are made from those")
            }
            AbortReason::PredecessorRemoved { batch } => {
                write!(f, "batch {batch} was removed, and the rows of this batch are made from its outcomes")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_reason_comes_back_as_it_was() {
        let batch = BatchId::generate();
        for reason in [
            AbortReason::Asked("the file was the wrong one".to_owned()),
            AbortReason::Asked(String::new()),
            AbortReason::Asked("{not ours}".to_owned()),
            AbortReason::Asked(AbortReason::RowsFailed { failed: 3, limit: 2 }.to_stored()),
            AbortReason::RowsFailed { failed: 3, limit: 2 },
            AbortReason::PartFailed { failed: 3, rows: 10, limit: 20 },
            AbortReason::DeadlinePassed {},
            AbortReason::RanTooLong { ran_ms: 1_001, limit_ms: 1_000 },
            AbortReason::PredecessorEnded { batch, status: BatchStatus::Failed },
            AbortReason::PredecessorWithoutOutputs { batch },
            AbortReason::PredecessorPruned { batch },
            AbortReason::PredecessorRemoved { batch },
        ] {
            assert_eq!(AbortReason::of_stored(reason.to_stored()), reason);
        }
    }

    #[test]
    fn a_text_from_before_is_read_as_it_stands() {
        for text in ["3 rows failed, and 2 may", "{", "{\"rows_failed\":{\"failed\":3}}", "\"deadline_passed\""] {
            assert_eq!(AbortReason::of_stored(text.to_owned()).to_string(), text);
        }
    }

    #[test]
    fn a_limit_is_said_with_both_numbers() {
        assert_eq!(AbortReason::RowsFailed { failed: 3, limit: 2 }.to_string(), "3 rows failed; the limit is 2");
        assert_eq!(AbortReason::RowsFailed { failed: 1, limit: 0 }.to_string(), "1 row failed; the limit is 0");
        assert_eq!(AbortReason::PartFailed { failed: 3, rows: 10, limit: 20 }.to_string(), "3 of 10 rows failed; the limit is 20%");
    }
}
