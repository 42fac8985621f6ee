use super::batch::{file, files, summary};
use super::output_files::marking;
use super::recorder::record;
use super::{Answer, Done, Log, RowResult, Setup, answer, answer_of, codes, json_text, settings};
use crate::instance::SlowQueryInstance;
use crate::{Failure, SlowQueryProcessor};
use serde::Serialize;
use std::marker::PhantomData;

/// A slow query for a processor under test.
#[derive(Debug, Clone)]
pub struct SlowQuery<P> {
    setup: Setup,
    processor: PhantomData<fn() -> P>,
}

/// What became of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    /// The answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// What was logged.
    pub logs: Vec<Log>,
    /// What was told of its progress, in order: percent and text.
    pub progress: Vec<(u8, String)>,
}

impl QueryResult {
    /// The answer.
    ///
    /// # Panics
    /// If there is none, with the failure.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        answer(&self.result)
    }

    /// The codes of the answer's messages, in order.
    ///
    /// # Panics
    /// As [`answer`](Self::answer).
    #[must_use]
    pub fn codes(&self) -> Vec<&str> {
        codes(&self.result)
    }

    /// An output file, joined from the pieces as the runtime does.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        file(&[self.as_row()], name)
    }

    fn as_row(&self) -> RowResult {
        RowResult { line: 1, result: self.result.clone(), logs: Vec::new() }
    }
}

impl<P: SlowQueryProcessor> Default for SlowQuery<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: SlowQueryProcessor> SlowQuery<P> {
    /// A query with nothing set.
    #[must_use]
    pub fn new() -> Self {
        Self { setup: Setup::default(), processor: PhantomData }
    }

    settings!();

    /// Only makes the processor.
    ///
    /// # Errors
    /// What `init` returned.
    pub fn init(&self) -> Result<(), String> {
        record(self.setup.wishes, || SlowQueryInstance::<P>::new().init(&self.setup.app)).0
    }

    /// Runs the query in a new instance and closes it.
    ///
    /// # Panics
    /// If `init` fails (see [`init`](Self::init)), or the input cannot be written as JSON.
    pub fn run(&self, input: impl Serialize) -> QueryResult {
        let instance = SlowQueryInstance::<P>::new();
        let (result, said) = record(self.setup.wishes, || {
            instance.init(&self.setup.app).unwrap_or_else(|text| panic!("init failed: {text}"));
            let result = instance.run(self.setup.info.clone(), json_text(&input), self.setup.attempt);
            instance.close();
            result
        });
        QueryResult { result: answer_of(result), logs: said.logs, progress: said.progress }
    }

    /// Calls `mark_done`, in a new instance, with the summary of this result, whose output files it can read.
    ///
    /// # Panics
    /// If `init` fails (see [`init`](Self::init)).
    #[must_use]
    pub fn mark_done(&self, query: &QueryResult) -> Done {
        let instance = SlowQueryInstance::<P>::new();
        let (result, said) = record(self.setup.wishes, || {
            instance.init(&self.setup.app).unwrap_or_else(|text| panic!("init failed: {text}"));
            let files = files(&[query.as_row()]);
            let result = marking(self.setup.attempt, files, || instance.mark_done(summary(&self.setup, &[query.as_row()])));
            instance.close();
            result
        });
        Done { result: result.map_err(crate::failure::from_contract), logs: said.logs }
    }
}
