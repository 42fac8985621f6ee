//! Questions to databases that an operator granted (`rowmill apps grant APP --sql NAME`), as `rowmill:sql`.
//!
//! ```no_run
//! use rowmill_guest::sql::{self, Value};
//!
//! #[derive(serde::Deserialize)]
//! struct Account {
//!     id: i64,
//!     holder: String,
//! }
//!
//! # fn example() -> Result<(), sql::Error> {
//! let accounts: Vec<Account> = sql::rows("bank", "SELECT id, holder FROM accounts WHERE opened < $1::date", &[Value::Text("2026-01-01".to_owned())])?;
//! # Ok(())
//! # }
//! ```
//!
//! In a native build they are answered by [`testing::answer_sql`](crate::testing::answer_sql).

use serde::de::DeserializeOwned;
use std::fmt;

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL, of the type that is needed where it stands.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `bigint`
    Integer(i64),
    /// `double precision`
    Number(f64),
    /// `text`
    Text(String),
}

/// Why there are no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No database of this name is granted.
    NoSuchDatabase,
    /// The statement cannot be run, or failed: SQLSTATE and a sentence.
    Refused(String, String),
    /// It took longer than it may.
    Timeout,
    /// There are more rows or bytes than may be; says which.
    TooLarge(String),
    /// The database cannot be asked at the moment.
    Unavailable(String),
    /// A row does not fit the type that was asked for.
    OtherType(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDatabase => write!(f, "no database of this name is granted"),
            Self::Refused(state, text) => write!(f, "the database refused the statement: {text} ({state})"),
            Self::Timeout => write!(f, "the statement took longer than it may"),
            Self::TooLarge(text) => write!(f, "the statement brings too much: {text}"),
            Self::Unavailable(text) => f.write_str(text),
            Self::OtherType(text) => write!(f, "a row is of another type: {text}"),
        }
    }
}

impl std::error::Error for Error {}

/// The rows of a statement that only reads, each from an object by the names of its columns. For `$1`, `$2`… it gets parameters.
///
/// # Errors
/// [`Error`].
pub fn rows<T: DeserializeOwned>(database: &str, statement: &str, parameters: &[Value]) -> Result<Vec<T>, Error> {
    let found = ask(database, statement, parameters)?;
    found.iter().map(|row| serde_json::from_str(row).map_err(|error| Error::OtherType(error.to_string()))).collect()
}

#[cfg(not(target_arch = "wasm32"))]
fn ask(database: &str, statement: &str, parameters: &[Value]) -> Result<Vec<String>, Error> {
    crate::testing::granted::ask(database, statement, parameters)
}

#[cfg(target_arch = "wasm32")]
fn ask(database: &str, statement: &str, parameters: &[Value]) -> Result<Vec<String>, Error> {
    use crate::bindings::granted_part::rowmill::sql::query;
    let value = |value: &Value| match value {
        Value::Null => query::Value::Null,
        Value::Boolean(value) => query::Value::Boolean(*value),
        Value::Integer(value) => query::Value::Integer(*value),
        Value::Number(value) => query::Value::Number(*value),
        Value::Text(value) => query::Value::Text(value.clone()),
    };
    let parameters: Vec<query::Value> = parameters.iter().map(value).collect();
    query::rows(database, statement, &parameters).map_err(|error| match error {
        query::Error::NoSuchDatabase => Error::NoSuchDatabase,
        query::Error::Refused(refusal) => Error::Refused(refusal.state, refusal.text),
        query::Error::Timeout => Error::Timeout,
        query::Error::TooLarge(text) => Error::TooLarge(text),
        query::Error::Unavailable(text) => Error::Unavailable(text),
    })
}
