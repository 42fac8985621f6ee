//! `rowmill:sql` for guests.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::bindings::sql::rowmill::sql::query;
use super::capabilities::caught;
use super::guest::GuestState;

/// A longer statement is refused.
const STATEMENT_BYTES_MAX: usize = 64 << 10;
const PARAMETERS_MAX: usize = 1_000;

/// One database, as one app may ask it.
#[async_trait]
pub trait Sql: Send + Sync {
    /// The rows of a statement that only reads, each a JSON object. It is given up after this time.
    ///
    /// # Errors
    /// [`SqlFailure`].
    async fn rows(&self, statement: &str, parameters: Vec<SqlValue>, within: Duration) -> Result<Vec<String>, SqlFailure>;
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// Why there are no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlFailure {
    /// What the database said: its SQLSTATE, and a sentence.
    Refused {
        state: String,
        text: String,
    },
    Timeout,
    /// Says what there is too much of.
    TooLarge(String),
    Unavailable(String),
}

impl query::Host for GuestState {
    async fn rows(&mut self, database: String, statement: String, parameters: Vec<query::Value>) -> Result<Vec<String>, query::Error> {
        let Some(sql) = self.capabilities.sql.get(&database).cloned() else { return Err(query::Error::NoSuchDatabase) };
        if statement.len() > STATEMENT_BYTES_MAX || parameters.len() > PARAMETERS_MAX {
            let reason = format!("a statement has {STATEMENT_BYTES_MAX} bytes and {PARAMETERS_MAX} parameters at most");
            return Err(query::Error::TooLarge(reason));
        }
        // To PostgreSQL a statement ends there.
        if statement.contains('\0') {
            return Err(query::Error::Refused(query::Refusal { state: "22021".to_owned(), text: "a statement holds no NUL".to_owned() }));
        }
        let value = |value: query::Value| match value {
            query::Value::Null => SqlValue::Null,
            query::Value::Boolean(value) => SqlValue::Boolean(value),
            query::Value::Integer(value) => SqlValue::Integer(value),
            query::Value::Number(value) => SqlValue::Number(value),
            query::Value::Text(value) => SqlValue::Text(value),
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let asked = caught(sql.rows(&statement, parameters.into_iter().map(value).collect(), left)).await;
        asked.unwrap_or_else(|panic| Err(SqlFailure::Unavailable(panic))).map_err(|failure| match failure {
            SqlFailure::Refused { state, text } => query::Error::Refused(query::Refusal { state, text }),
            SqlFailure::Timeout => query::Error::Timeout,
            SqlFailure::TooLarge(reason) => query::Error::TooLarge(reason),
            SqlFailure::Unavailable(reason) => query::Error::Unavailable(reason),
        })
    }
}
