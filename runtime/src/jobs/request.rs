use crate::model::{After, JsonText, NewRow, PartialTerms, Timestamp, canonical_name};

/// A batch to submit.
#[derive(Clone, Debug)]
pub struct BatchRequest {
    pub app: String,
    /// Case does not matter.
    pub op: String,
    /// The same for all rows.
    pub context: JsonText,
    pub rows: Vec<NewRow>,
    /// Its rows are the outputs of another batch's, made when that has ended: then it has none of its own, and is not held.
    pub after: Option<After>,
    /// It comes into this group of its app's, which its first batch makes: see [`super::JobManager::seal_group`].
    pub group: Option<String>,
    /// Hold it: rows can be appended, and nothing runs until it is released.
    pub hold: bool,
    /// What is not said here the policies of the operation and of its app say.
    pub terms: PartialTerms,
    /// No row is run before.
    pub start_at: Option<Timestamp>,
    /// What has no outcome by then is aborted.
    pub deadline_at: Option<Timestamp>,
    /// A batch that is submitted again with its key is there once: its id comes back. With another
    /// request the key is refused. A key is a name: 1 to 255 bytes.
    pub key: Option<String>,
    /// Stands for rows that are appended later, such as the SHA-256 of the file that they come from, where a request is compared with that of its key.
    pub rows_digest: Option<String>,
}

/// A slow query to submit.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    pub app: String,
    /// Case does not matter.
    pub op: String,
    pub context: JsonText,
    pub input: JsonText,
    /// What is not said here the policies of the operation and of its app say.
    pub terms: PartialTerms,
    /// No row is run before.
    pub start_at: Option<Timestamp>,
    /// What has no outcome by then is aborted.
    pub deadline_at: Option<Timestamp>,
    /// As for a batch.
    pub key: Option<String>,
}

impl BatchRequest {
    /// With the defaults: no context, no rows, not held, the terms of the policies.
    pub fn new(app: impl Into<String>, op: impl Into<String>) -> BatchRequest {
        BatchRequest {
            app: app.into(),
            op: op.into(),
            context: JsonText::default(),
            rows: Vec::new(),
            after: None,
            group: None,
            hold: false,
            terms: PartialTerms::default(),
            start_at: None,
            deadline_at: None,
            key: None,
            rows_digest: None,
        }
    }

    #[must_use]
    pub fn with_rows(self, rows: Vec<NewRow>) -> BatchRequest {
        BatchRequest { rows, ..self }
    }

    #[must_use]
    pub fn with_context(self, context: JsonText) -> BatchRequest {
        BatchRequest { context, ..self }
    }

    #[must_use]
    pub fn with_terms(self, terms: PartialTerms) -> BatchRequest {
        BatchRequest { terms, ..self }
    }

    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> BatchRequest {
        BatchRequest { key: Some(key.into()), ..self }
    }

    #[must_use]
    pub fn after(self, after: After) -> BatchRequest {
        BatchRequest { after: Some(after), ..self }
    }

    #[must_use]
    pub fn in_group(self, name: impl Into<String>) -> BatchRequest {
        BatchRequest { group: Some(name.into()), ..self }
    }

    /// The same with names as they are stored.
    pub(super) fn with_canonical_names(self) -> BatchRequest {
        let canonical = |name: String| canonical_name(&name).into_owned();
        BatchRequest { app: canonical(self.app), group: self.group.map(canonical), key: self.key.map(canonical), ..self }
    }

    #[must_use]
    pub fn held(self) -> BatchRequest {
        BatchRequest { hold: true, ..self }
    }
}

impl QueryRequest {
    /// With the defaults: no context, the terms of the policies.
    pub fn new(app: impl Into<String>, op: impl Into<String>, input: JsonText) -> QueryRequest {
        QueryRequest {
            app: app.into(),
            op: op.into(),
            context: JsonText::default(),
            input,
            terms: PartialTerms::default(),
            start_at: None,
            deadline_at: None,
            key: None,
        }
    }

    #[must_use]
    pub fn with_terms(self, terms: PartialTerms) -> QueryRequest {
        QueryRequest { terms, ..self }
    }

    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> QueryRequest {
        QueryRequest { key: Some(key.into()), ..self }
    }

    /// The same with names as they are stored.
    pub(super) fn with_canonical_names(self) -> QueryRequest {
        let canonical = |name: String| canonical_name(&name).into_owned();
        QueryRequest { app: canonical(self.app), key: self.key.map(canonical), ..self }
    }

    #[must_use]
    pub fn with_context(self, context: JsonText) -> QueryRequest {
        QueryRequest { context, ..self }
    }
}
