//! One instance of a processor: the contract's calls on one side, the processor's typed ones on the other.
//!
//! Hidden, because only the export macros and the test harness use it. Both go through the same code, so a test sees what the runtime sees.

use crate::bindings::types;
use crate::decode::decode;
use crate::failure::to_contract as failure_out;
use crate::outcome::to_contract as outcome_out;
use crate::{AppInfo, Batch, BatchProcessor, Message, Query, Row, SlowQueryProcessor, Summary};
use serde::de::DeserializeOwned;
use std::cell::RefCell;

/// Where a message about the context says it stands.
const CONTEXT: &str = "context";

/// The `RefCell` is never borrowed twice: a component cannot be entered while it runs.
pub struct BatchInstance<P: BatchProcessor>(RefCell<Option<Running<P>>>);

struct Running<P: BatchProcessor> {
    processor: P,
    /// Of the last `begin`. A context that does not fit is kept as the message to fail every row with.
    batch: Option<Result<Batch<P::Context>, Message>>,
}

impl<P: BatchProcessor> BatchInstance<P> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn init(&self, app: &AppInfo) -> Result<(), String> {
        log_panics();
        *self.0.borrow_mut() = Some(Running { processor: P::init(app)?, batch: None });
        Ok(())
    }

    pub fn begin(&self, info: types::BatchInfo) -> Result<(), types::Failure> {
        let mut slot = self.0.borrow_mut();
        let running = slot.as_mut().ok_or_else(|| too_early("begin", "init"))?;
        running.batch = None;
        let batch = match decode(CONTEXT, &info.context) {
            Ok(context) => Batch { id: info.id, context },
            Err(message) => {
                running.batch = Some(Err(message));
                return Ok(());
            }
        };
        running.processor.begin(&batch).map_err(failure_out)?;
        running.batch = Some(Ok(batch));
        Ok(())
    }

    pub fn process_row(&self, row: types::Row) -> Result<types::Outcome, types::Failure> {
        let mut slot = self.0.borrow_mut();
        let Running { processor, batch } = slot.as_mut().ok_or_else(|| too_early("process-row", "init"))?;
        let batch = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(message)) => return refused(message.clone()),
            None => return Err(too_early("process-row", "begin")),
        };
        let input = match decode("", &row.input) {
            Ok(input) => input,
            Err(message) => return refused(message),
        };
        // The text may be large, and the processor needs the memory.
        drop(row.input);
        let row = Row { line: row.line, input, attempt: row.attempt };
        processor.process_row(batch, row).and_then(outcome_out).map_err(failure_out)
    }

    pub fn mark_done(&self, summary: types::Summary) -> Result<(), types::Failure> {
        let mut slot = self.0.borrow_mut();
        let running = slot.as_mut().ok_or_else(|| too_early("mark-done", "init"))?;
        running.processor.mark_done(&summary_in(summary)?).map_err(failure_out)
    }

    pub fn close(&self) {
        if let Some(running) = self.0.take() {
            running.processor.close();
        }
    }
}

impl<P: BatchProcessor> Default for BatchInstance<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// As [`BatchInstance`], for slow queries.
pub struct SlowQueryInstance<P: SlowQueryProcessor>(RefCell<Option<P>>);

impl<P: SlowQueryProcessor> SlowQueryInstance<P> {
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    pub fn init(&self, app: &AppInfo) -> Result<(), String> {
        log_panics();
        *self.0.borrow_mut() = Some(P::init(app)?);
        Ok(())
    }

    pub fn run(&self, info: types::BatchInfo, input: String, attempt: u32) -> Result<types::Outcome, types::Failure> {
        let mut slot = self.0.borrow_mut();
        let processor = slot.as_mut().ok_or_else(|| too_early("run", "init"))?;
        let query = match (decode(CONTEXT, &info.context), decode("", &input)) {
            (Ok(context), Ok(input)) => Query { id: info.id, context, input, attempt },
            (Err(message), _) | (_, Err(message)) => return refused(message),
        };
        // The text may be large, and the processor needs the memory.
        drop(input);
        processor.run(query).and_then(outcome_out).map_err(failure_out)
    }

    pub fn mark_done(&self, summary: types::Summary) -> Result<(), types::Failure> {
        let mut slot = self.0.borrow_mut();
        let processor = slot.as_mut().ok_or_else(|| too_early("mark-done", "init"))?;
        processor.mark_done(&summary_in(summary)?).map_err(failure_out)
    }

    pub fn close(&self) {
        if let Some(processor) = self.0.take() {
            processor.close();
        }
    }
}

impl<P: SlowQueryProcessor> Default for SlowQueryInstance<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// The outcome of a row whose input or context does not fit.
fn refused(message: Message) -> Result<types::Outcome, types::Failure> {
    Ok(types::Outcome { status: types::RowStatus::Failed, output: String::new(), messages: vec![message], pieces: Vec::new() })
}

/// A call that came before the one it depends on: a mistake of the runtime, told instead of trapped so that it is understood.
#[cold]
fn too_early(call: &str, needed: &str) -> types::Failure {
    types::Failure::Permanent(format!("`{call}` was called before `{needed}` had succeeded"))
}

fn summary_in<C: DeserializeOwned>(summary: types::Summary) -> Result<Summary<C>, types::Failure> {
    let types::Summary { batch, status, rows, success, failed, aborted, files } = summary;
    let context = decode(CONTEXT, &batch.context).map_err(|message| {
        let field = message.field.as_deref().unwrap_or(CONTEXT);
        types::Failure::Permanent(format!("{}: {field}: {}", message.code, message.values.join(", ")))
    })?;
    Ok(Summary { batch: Batch { id: batch.id, context }, status, rows, success, failed, aborted, files })
}

/// Sends the text of a panic, with its place, to the row's log: `wasm32-unknown-unknown` has no stderr.
///
/// The hook calls an import, which must not happen while the runtime is allocating through `cabi_realloc`. It cannot: that function does not panic,
/// it executes `unreachable` (or aborts, in debug builds) when memory is out, and neither runs the hook.
#[cfg(target_arch = "wasm32")]
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| crate::host::error(panic.to_string())));
}

/// A native build is a test, and the test's own hook prints the panic.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn log_panics() {}
