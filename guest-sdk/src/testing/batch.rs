use super::output_files::marking;
use super::recorder::record;
use super::{Done, RowResult, Setup, answer_of, json_text, settings};
use crate::bindings::types;
use crate::instance::BatchInstance;
use crate::{BatchProcessor, BatchStatus, Failure, OutputFile, RowStatus};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

/// A batch for a processor under test.
#[derive(Debug, Clone)]
pub struct Batch<P> {
    setup: Setup,
    processor: PhantomData<fn() -> P>,
}

impl<P: BatchProcessor> Default for Batch<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: BatchProcessor> Batch<P> {
    /// A batch with nothing set.
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
        record(self.setup.wishes, || BatchInstance::<P>::new().init(&self.setup.app)).0
    }

    /// Runs rows, the first of which has line 1, in a new instance, and closes it. When `begin` fails, every row ends with its failure. What `init`
    /// and `begin` log comes before the first row's own entries, what `close` logs is lost.
    ///
    /// # Panics
    /// If `init` fails (see [`init`](Self::init)), or a row cannot be written as JSON.
    pub fn run_rows<R: IntoIterator<Item: Serialize>>(&self, rows: R) -> Vec<RowResult> {
        let instance = BatchInstance::<P>::new();
        let (begun, said) = record(self.setup.wishes, || {
            instance.init(&self.setup.app).unwrap_or_else(|text| panic!("init failed: {text}"));
            instance.begin(self.setup.info.clone())
        });
        let mut logs = said.logs;
        let results = (1..)
            .zip(rows)
            .map(|(line, input)| {
                let row = types::Row { line, input: json_text(&input), attempt: self.setup.attempt };
                let (result, said) = record(self.setup.wishes, || begun.clone().and_then(|()| instance.process_row(row)));
                logs.extend(said.logs);
                RowResult { line, result: answer_of(result), logs: std::mem::take(&mut logs) }
            })
            .collect();
        record(self.setup.wishes, || instance.close());
        results
    }

    /// Calls `mark_done`, in a new instance, with the summary of these rows, whose output files it can read. A row that is to be run again counts as failed. Which call this is
    /// is set with [`attempt`](Self::attempt).
    ///
    /// # Panics
    /// If `init` fails (see [`init`](Self::init)).
    #[must_use]
    pub fn mark_done(&self, rows: &[RowResult]) -> Done {
        let instance = BatchInstance::<P>::new();
        let (result, said) = record(self.setup.wishes, || {
            instance.init(&self.setup.app).unwrap_or_else(|text| panic!("init failed: {text}"));
            let files = files(rows);
            let result = marking(self.setup.attempt, files, || instance.mark_done(summary(&self.setup, rows)));
            instance.close();
            result
        });
        Done { result: result.map_err(crate::failure::from_contract), logs: said.logs }
    }
}

pub(super) fn summary(setup: &Setup, rows: &[RowResult]) -> types::Summary {
    let count = |wanted: fn(&RowResult) -> bool| rows.iter().filter(|row| wanted(row)).count() as u64;
    let success = count(|row| matches!(&row.result, Ok(answer) if answer.status == RowStatus::Success));
    let aborted = count(|row| matches!(row.result, Err(Failure::AbortBatch(_))));
    let failed = rows.len() as u64 - success - aborted;
    let file_of = |(name, contents): (String, Vec<u8>)| OutputFile { object: format!("test/{name}"), name, size: contents.len() as u64 };
    types::Summary {
        batch: setup.info.clone(),
        status: match (aborted, failed) {
            (0, 0) => BatchStatus::Success,
            (0, _) => BatchStatus::Failed,
            _ => BatchStatus::Aborted,
        },
        rows: rows.len() as u64,
        success,
        failed,
        aborted,
        files: files(rows).into_iter().map(file_of).collect(),
    }
}

/// All output files, by name.
pub(super) fn files(rows: &[RowResult]) -> BTreeMap<String, Vec<u8>> {
    let pieces = rows.iter().filter_map(|row| row.result.as_ref().ok()).flat_map(|answer| &answer.pieces);
    let names: BTreeSet<&str> = pieces.map(|piece| piece.file.as_str()).collect();
    names.into_iter().map(|name| (name.to_owned(), file(rows, name).into_bytes())).collect()
}

/// An output file, joined from the rows' pieces as the runtime does.
#[must_use]
pub fn file(rows: &[RowResult], name: &str) -> String {
    let mut text = String::new();
    for piece in rows.iter().filter_map(|row| row.result.as_ref().ok()).flat_map(|answer| &answer.pieces) {
        let line = piece.text.trim();
        if piece.file == name && !line.is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
