use crate::model::{JsonText, NewRow};

/// A batch to submit.
#[derive(Clone, Debug)]
pub struct BatchRequest {
    pub app: String,
    /// Case does not matter.
    pub op: String,
    /// The same for all rows.
    pub context: JsonText,
    pub rows: Vec<NewRow>,
    /// Hold it: rows can be appended, and nothing runs until it is released.
    pub hold: bool,
    /// Batches of an app are taken up by priority, the highest first, then by age.
    pub priority: i32,
    /// How often a row is tried at most when its processor asks for a retry, or its worker dies; 1 or more.
    pub attempts_max: u32,
    /// A batch that is submitted again with its key is there once: its id comes back. With another request the key is refused.
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
    /// Queries of an app are taken up by priority, the highest first, then by age.
    pub priority: i32,
    /// How often it is tried at most; 1 or more.
    pub attempts_max: u32,
    /// As for a batch.
    pub key: Option<String>,
}

/// How often a row is tried when nothing else is said.
pub const ATTEMPTS_DEFAULT: u32 = 3;

impl BatchRequest {
    /// With the defaults: no context, no rows, not held, priority 0, three attempts.
    pub fn new(app: impl Into<String>, op: impl Into<String>) -> BatchRequest {
        BatchRequest {
            app: app.into(),
            op: op.into(),
            context: JsonText::default(),
            rows: Vec::new(),
            hold: false,
            priority: 0,
            attempts_max: ATTEMPTS_DEFAULT,
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
    pub fn with_key(self, key: impl Into<String>) -> BatchRequest {
        BatchRequest { key: Some(key.into()), ..self }
    }

    #[must_use]
    pub fn held(self) -> BatchRequest {
        BatchRequest { hold: true, ..self }
    }
}

impl QueryRequest {
    /// With the defaults: no context, priority 0, three attempts.
    pub fn new(app: impl Into<String>, op: impl Into<String>, input: JsonText) -> QueryRequest {
        QueryRequest { app: app.into(), op: op.into(), context: JsonText::default(), input, priority: 0, attempts_max: ATTEMPTS_DEFAULT, key: None }
    }

    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> QueryRequest {
        QueryRequest { key: Some(key.into()), ..self }
    }

    #[must_use]
    pub fn with_context(self, context: JsonText) -> QueryRequest {
        QueryRequest { context, ..self }
    }
}
