//! Idempotency keys: what is submitted again with its key is there once.
//!
//! The key names the batch: its id is made from it. So the database needs nothing to find the batch of a key, and two who submit at the same moment meet at the id.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{BatchRequest, JobError, QueryRequest};
use crate::model::{After, BatchId, Line, NAME_BYTES_MAX, NewRow, PartialTerms, ProcessorKind, Timestamp, canonical_op, check_name, hex};

/// Bytes of a key, at most: a key is a name.
pub const KEY_BYTES_MAX: usize = NAME_BYTES_MAX;

/// What a key makes of a batch.
pub(super) struct Named {
    pub id: BatchId,
    pub request_digest: Option<String>,
}

/// A batch with this key has its id from that, and keeps the digest of its request; one without is a new one.
///
/// # Errors
/// [`JobError::BadKey`].
pub(super) fn name(app: &str, key: Option<&str>, digest: impl FnOnce() -> String) -> Result<Named, JobError> {
    Ok(match key {
        Some(key) => Named { id: id_of(app, key)?, request_digest: Some(digest()) },
        None => Named { id: BatchId::generate(), request_digest: None },
    })
}

/// The id that a submission of an app with a key has.
pub(super) fn id_of(app: &str, key: &str) -> Result<BatchId, JobError> {
    check_name("the key of a submission", key).map_err(JobError::BadKey)?;
    let digest = Fields::of("id").text(app).text(key).end();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Ok(Uuid::new_v8(bytes).into())
}

/// What has to be the same for a batch to be the same.
pub(super) fn digest_of_batch(request: &BatchRequest) -> String {
    let BatchRequest { app: _, op, context, rows, after, group, hold, terms, start_at, deadline_at, key: _, rows_digest } = request;
    let fields = Fields::of(ProcessorKind::Batch.as_str()).text(&canonical_op(op)).text(context.as_str());
    let fields = fields.number(i64::from(*hold)).terms(terms, [start_at, deadline_at]).optional(rows_digest.as_deref());
    let fields = fields.optional(after.map(|After { batch, condition }| format!("{} {batch}", condition.as_str())).as_deref());
    // Without a group the digest is what it was before there were any.
    let fields = group.iter().fold(fields, |fields, group| fields.text("group").text(group));
    hex(&rows
        .iter()
        .fold(fields, |fields, NewRow { line, input, rejected }| {
            // A row without a line has one that no row can have.
            let line = if let Line::Given(line) = line { i64::from(*line) } else { -1 };
            fields.number(line).text(input.as_str()).optional(rejected.as_deref())
        })
        .end())
}

/// The same for a slow query.
pub(super) fn digest_of_query(request: &QueryRequest) -> String {
    let QueryRequest { app: _, op, context, input, terms, start_at, deadline_at, key: _ } = request;
    let fields = Fields::of(ProcessorKind::SlowQuery.as_str()).text(&canonical_op(op)).text(context.as_str());
    hex(&fields.terms(terms, [start_at, deadline_at]).text(input.as_str()).end())
}

/// Fields behind each other, each with its length, so that no two lists of fields are the same bytes.
struct Fields(Sha256);

impl Fields {
    fn of(what: &str) -> Fields {
        Fields(Sha256::new()).text(what)
    }

    fn text(mut self, text: &str) -> Fields {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    fn optional(self, text: Option<&str>) -> Fields {
        match text {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    fn number(mut self, number: i64) -> Fields {
        self.0.update(number.to_le_bytes());
        self
    }

    fn terms(self, terms: &PartialTerms, times: [&Option<Timestamp>; 2]) -> Fields {
        let terms = serde_json::to_string(terms).expect("numbers and strings are always JSON");
        times.into_iter().fold(self.text(&terms), |fields, at| fields.optional(at.map(|at| at.0.to_string()).as_deref()))
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{AfterCondition, FailureLimit, JsonText};

    #[test]
    fn a_key_names_a_batch_of_its_app() {
        let id = |app, key| id_of(app, key).unwrap();
        assert_eq!(id("bank", "2026-01"), id("bank", "2026-01"));
        assert_ne!(id("bank", "2026-01"), id("bank", "2026-02"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
        for bad in ["", "k ", "k\n", "k\u{200b}", &"k".repeat(KEY_BYTES_MAX + 1)] {
            assert!(matches!(id_of("bank", bad), Err(JobError::BadKey { .. })));
        }
    }

    #[test]
    fn whatever_differs_makes_another_request() {
        let row = |line, text: &str| NewRow::new(line, JsonText::check(text).unwrap());
        let plain = || BatchRequest::new("bank", "post").with_rows(vec![row(1, "1"), row(2, "2")]);
        let others = [
            BatchRequest { op: "other".to_owned(), ..plain() },
            plain().with_terms(PartialTerms { priority: Some(0), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { priority: Some(1), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { attempts_max: Some(1), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { backoff: Some(Duration::ZERO), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { backoff_max: Some(Duration::ZERO), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { retry_codes: Some(vec!["trap".to_owned()]), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { failures_max: Some(FailureLimit::Rows(1)), ..PartialTerms::default() }),
            plain().with_terms(PartialTerms { failures_max: Some(FailureLimit::Percent(1)), ..PartialTerms::default() }),
            BatchRequest { start_at: Some(Timestamp(1)), ..plain() },
            BatchRequest { deadline_at: Some(Timestamp(1)), ..plain() },
            plain().held(),
            plain().with_context(JsonText::check("[]").unwrap()),
            plain().with_rows(vec![row(1, "1"), row(2, "3")]),
            plain().with_rows(vec![row(1, "1"), row(3, "2")]),
            plain().with_rows(vec![row(1, "1")]),
            BatchRequest { rows_digest: Some(String::new()), ..plain() },
            plain().in_group("g"),
            plain().in_group("h"),
            plain().after(After { batch: id_of("bank", "a").unwrap(), condition: AfterCondition::Success }),
        ];
        let same = digest_of_batch(&BatchRequest { op: "POST".to_owned(), key: Some("k".to_owned()), ..plain() });
        assert_eq!(same, digest_of_batch(&plain()));
        for other in others {
            assert_ne!(digest_of_batch(&other), same, "{other:?}");
        }
    }
}
