//! Rows through the sandbox, as the worker does it, without a store.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{Batch, Ending, JsonText, LeasedRow, Limits, OutputFile, ProcessorKind, RowRun};
use rowmill::sandbox::{FileBytes, Marking, OutputFiles, Processor, Sandbox, Session, SessionSpec};
use rowmill_tests::running;
use tokio_util::sync::CancellationToken;

use super::guests;

/// Far more time than any test takes: what is to be shown is another limit.
pub const NO_DEADLINE: Duration = Duration::from_secs(3_600);

pub fn sandbox() -> Sandbox {
    Sandbox::new(8, &guests::cache()).unwrap()
}

pub fn processor(wasm: &[u8]) -> Processor {
    sandbox().load(wasm).unwrap()
}

pub fn limits() -> Limits {
    Limits { timeout: NO_DEADLINE, query_timeout: NO_DEADLINE, ..Limits::default() }
}

pub fn batch(kind: ProcessorKind, op: &str, context: &str) -> Batch {
    running::batch(kind, "tests", op, JsonText::check(context).unwrap())
}

pub fn spec(batch: Batch, limits: Limits) -> SessionSpec {
    SessionSpec { batch, limits, cancel: CancellationToken::new(), progress: None, capabilities: Arc::default() }
}

/// A session of a batch with the context `{}`.
pub fn session(processor: &Processor, limits: Limits) -> Session {
    session_with(processor, limits, "op", "{}")
}

pub fn session_with(processor: &Processor, limits: Limits, op: &str, context: &str) -> Session {
    Session::new(processor.clone(), spec(batch(processor.kind(), op, context), limits))
}

/// A first call of `mark-done`, of a batch whose files cannot be read.
pub fn no_files() -> Marking {
    struct Nowhere;
    #[async_trait::async_trait]
    impl OutputFiles for Nowhere {
        async fn open(&self, file: &OutputFile) -> Result<FileBytes, String> {
            Err(format!("{} is nowhere", file.name))
        }
    }
    Marking { attempt: 1, files: Arc::new(Nowhere) }
}

pub fn row(line: u32, input: &str) -> LeasedRow {
    LeasedRow { row_no: line, line, input: input.to_owned(), attempt: 1, rejected: None }
}

/// Runs inputs through one session, and closes it.
pub async fn run_in(mut session: Session, inputs: &[&str]) -> Vec<RowRun> {
    let mut runs = Vec::new();
    for (line, input) in (1..).zip(inputs) {
        runs.push(session.run_row(&row(line, input)).await);
    }
    session.close().await;
    runs
}

/// Runs one input in a session of its own.
pub async fn run_one(processor: &Processor, limits: Limits, input: &str) -> RowRun {
    run_in(session(processor, limits), &[input]).await.remove(0)
}

/// What a row that succeeded returned.
#[track_caller]
pub fn output(run: &RowRun) -> &str {
    match &run.ending {
        Ending::Succeeded(answer) => answer.output.as_deref().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// An ending of a limit without its frames: for tests that are about its numbers.
pub fn bare(mut ending: Ending) -> Ending {
    if let Ending::OutOfFuel { frames, .. } | Ending::Deadline { frames, .. } | Ending::Memory { frames, .. } = &mut ending {
        frames.clear();
    }
    ending
}

/// The text of a trap, and its frames.
#[track_caller]
pub fn trap(run: &RowRun) -> (&str, &[String]) {
    match &run.ending {
        Ending::Trap { text, frames } => (text, frames),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn bad_output(run: &RowRun) -> &str {
    match &run.ending {
        Ending::BadOutput { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn cannot_start(run: &RowRun) -> &str {
    match &run.ending {
        Ending::CannotStart { reason } => reason,
        other => panic!("{other:?}"),
    }
}
