//! What a checker of files implements, and what it is given.

use crate::{AppInfo, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A checker of files: it looks at a file before it becomes a batch. Export it with [`export_file_checker!`](crate::export_file_checker).
///
/// One instance sees one file, from its beginning to its end: [`init`](Self::init), [`begin`](Self::begin), [`check`](Self::check) for each record in order,
/// [`end`](Self::end). What it makes of a file must depend on the file and its context only: after a failure of the machine the file is checked again, from its
/// beginning.
///
/// A context or a record that does not fit its type refuses the file, with one [`Message`] of the code `bad_input`, the path of the offending value as its field and the
/// parser's words as its value.
pub trait FileChecker: Sized + 'static {
    /// What the file's type gives to the batch. [`Empty`](crate::Empty) if it does not matter.
    type Context: DeserializeOwned + 'static;
    /// One record of the file: for CSV an object of strings.
    type Record: DeserializeOwned;
    /// The input of a row that is made of a record.
    type Input: Serialize;

    /// Makes the checker. The version is 0: checkers are not registered.
    ///
    /// # Errors
    /// The file is refused with this text.
    fn init(app: &AppInfo) -> Result<Self, String>;

    /// Looks at what is known of the file before its records are read: its name, and its columns.
    ///
    /// # Errors
    /// The file is refused.
    fn begin(&mut self, file: &File<Self::Context>) -> Result<(), Rejection> {
        let _ = file;
        Ok(())
    }

    /// Looks at a record, and gives the batch the rows that it wants made of it: one, several or none.
    ///
    /// # Errors
    /// The file is refused.
    fn check(&mut self, file: &File<Self::Context>, record: Record<Self::Record>, rows: &mut Rows<Self::Input>) -> Result<(), Rejection>;

    /// Looks at a record that could not be read, such as one with a field too many. Unless this refuses the file it becomes a row that fails with that reason.
    ///
    /// # Errors
    /// The file is refused.
    fn unreadable(&mut self, file: &File<Self::Context>, line: u32, reason: &str) -> Result<(), Rejection> {
        let (_, _, _) = (file, line, reason);
        Ok(())
    }

    /// Looks at the file as a whole. What it returns is the context of the batch; without anything that is the context of the file's type.
    ///
    /// # Errors
    /// The file is refused.
    fn end(&mut self, file: &File<Self::Context>) -> Result<Option<serde_json::Value>, Rejection> {
        let _ = file;
        Ok(None)
    }

    /// Called last, unless the instance was stopped or the file refused. Nothing waits for what it does.
    fn close(self) {}
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File<C> {
    /// What those who sent it called it.
    pub name: String,
    /// Its size in bytes, as it came.
    pub size_bytes: u64,
    /// The SHA-256 of its contents as they came, in hexadecimal.
    pub sha256: String,
    /// `csv`, `csv.gz`, `ndjson` or `ndjson.gz`.
    pub form: String,
    /// The names in the header of a CSV file.
    pub columns: Columns,
    /// What its type gives to the batch.
    pub context: C,
}

/// The names in the header of a CSV file, in order; none for others.
pub type Columns = Vec<String>;

/// One record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<R> {
    /// Its number, 1 for the first.
    pub line: u32,
    /// What it says.
    pub value: R,
}

/// What a batch gets for some records.
#[derive(Debug)]
pub struct Rows<I> {
    pub(crate) rows: Vec<(u32, I)>,
}

impl<I> Rows<I> {
    /// Gives the batch a row. Lines are 1 or more, and each comes once.
    pub fn push(&mut self, line: u32, input: I) {
        self.rows.push((line, input));
    }
}

/// A reason to refuse a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The record that it is about; none for the file as a whole.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: Message,
}

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a rejection counts only when it is returned"]
pub struct Rejection {
    /// In order, at least one.
    pub findings: Vec<Finding>,
}

impl Rejection {
    /// For the file as a whole. A `&str` is a message that consists of its code only.
    pub fn of_file(message: impl Into<Message>) -> Self {
        Self { findings: vec![Finding { line: None, message: message.into() }] }
    }

    /// For a record.
    pub fn of_record(line: u32, message: impl Into<Message>) -> Self {
        Self { findings: vec![Finding { line: Some(line), message: message.into() }] }
    }

    /// Adds the reasons of another.
    pub fn and(mut self, other: Self) -> Self {
        self.findings.extend(other.findings);
        self
    }
}
