//! Why a file was refused, for those who look at it.

use serde::{Deserialize, Serialize};

/// One reason to refuse a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The row that it is about; none for the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// A short word for the kind of reason: the runtime's (docs/limits-and-errors.md) or the checker's.
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<String>,
    /// The same as a sentence.
    pub text: String,
}

/// What stands beside a refused file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reasons {
    /// What the file was called when it came.
    pub file: String,
    pub reasons: Vec<Reason>,
}

impl Reason {
    /// About the file as a whole.
    pub(super) fn of_file(code: &str, text: impl Into<String>) -> Reason {
        Reason { line: None, code: code.to_owned(), field: None, values: Vec::new(), text: text.into() }
    }
}
