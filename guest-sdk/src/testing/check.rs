use super::recorder::{Wishes, record};
use super::{Log, json_text};
use crate::bindings::file_check::{FileInfo, FileRecord, FileRow, Finding as FindingIn};
use crate::check_instance::CheckInstance;
use crate::{AppInfo, FileChecker, Finding, Rejection};
use serde::Serialize;
use serde_json::Value;
use std::marker::PhantomData;

/// A file for a checker under test.
#[derive(Debug, Clone)]
pub struct FileCheck<C> {
    app: AppInfo,
    info: FileInfo,
    /// Records of one call.
    together: usize,
    checker: PhantomData<fn() -> C>,
}

/// What a checker made of a file that it took.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedFile {
    /// Lines and inputs of the batch's rows.
    pub rows: Vec<(u32, Value)>,
    /// Lines of rows that fail, with the reason.
    pub unreadable: Vec<(u32, String)>,
    /// The context of the batch.
    pub context: Value,
    /// What was logged.
    pub logs: Vec<Log>,
}

impl<C: FileChecker> Default for FileCheck<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: FileChecker> FileCheck<C> {
    /// A CSV file with nothing set, whose columns are those of its first record.
    #[must_use]
    pub fn new() -> Self {
        let info =
            FileInfo { name: "file.csv".into(), size: 0, sha256: "0".repeat(64), form: "csv".into(), columns: Vec::new(), context: "{}".into() };
        Self { app: AppInfo { app: "app".into(), op: "op".into(), version: 0 }, info, together: 2, checker: PhantomData }
    }

    /// Sets the tenant and the operation that the checker is told; `app` and `op` unless set.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>, op: impl Into<String>) -> Self {
        self.app.app = app.into();
        self.app.op = op.into();
        self
    }

    /// Sets the file's name; `file.csv` unless set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.info.name = name.into();
        self
    }

    /// Sets the columns of the header; the fields of the first record unless set.
    #[must_use]
    pub fn columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.info.columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the context that the file's type gives; `{}` unless set.
    ///
    /// # Panics
    /// If it cannot be written as JSON.
    #[must_use]
    pub fn context(mut self, context: impl Serialize) -> Self {
        self.info.context = json_text(&context);
        self
    }

    /// Checks a file of these records, the first of which has line 1, in a new instance. They come in several calls.
    ///
    /// # Errors
    /// Why the file is refused.
    ///
    /// # Panics
    /// If `init` fails, or a record cannot be written as JSON.
    pub fn check<R: Serialize>(&self, records: impl IntoIterator<Item = R>) -> Result<CheckedFile, Rejection> {
        let read = |(line, record): (u32, R)| FileRecord { line, value: json_text(&record), unreadable: None };
        self.check_records(&(1..).zip(records).map(read).collect::<Vec<_>>())
    }

    /// The same, with records that could not be read among them: each a record, or the reason.
    ///
    /// # Errors
    /// Why the file is refused.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    pub fn check_some<R: Serialize>(&self, records: impl IntoIterator<Item = Result<R, String>>) -> Result<CheckedFile, Rejection> {
        let read = |(line, record): (u32, Result<R, String>)| match record {
            Ok(record) => FileRecord { line, value: json_text(&record), unreadable: None },
            Err(reason) => FileRecord { line, value: "[]".into(), unreadable: Some(reason) },
        };
        self.check_records(&(1..).zip(records).map(read).collect::<Vec<_>>())
    }

    fn check_records(&self, records: &[FileRecord]) -> Result<CheckedFile, Rejection> {
        let mut info = self.info.clone();
        if let (true, Some(first)) = (info.columns.is_empty(), records.first())
            && let Ok(Value::Object(fields)) = serde_json::from_str(&first.value)
        {
            info.columns = fields.keys().cloned().collect();
        }
        let instance = CheckInstance::<C>::new();
        let (checked, said) = record(Wishes::default(), || {
            instance.init(&self.app).unwrap_or_else(|text| panic!("init failed: {text}"));
            instance.begin(info)?;
            let mut rows = Vec::new();
            for records in records.chunks(self.together) {
                rows.extend(instance.check_records(records.to_vec())?);
            }
            let context = instance.end()?;
            instance.close();
            Ok((rows, context))
        });
        let (made, context) = checked.map_err(|findings: Vec<FindingIn>| Rejection {
            findings: findings.into_iter().map(|FindingIn { line, message }| Finding { line, message }).collect(),
        })?;
        let json = |text: &str| serde_json::from_str(text).expect("the SDK writes JSON");
        let (unreadable, rows): (Vec<FileRow>, Vec<FileRow>) = made.into_iter().partition(|row| row.rejected.is_some());
        Ok(CheckedFile {
            rows: rows.into_iter().map(|row| (row.line, json(&row.input))).collect(),
            unreadable: unreadable.into_iter().filter_map(|row| Some((row.line, row.rejected?))).collect(),
            context: json(if context.is_empty() { &self.info.context } else { &context }),
            logs: said.logs,
        })
    }
}
