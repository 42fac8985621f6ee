//! Does what each row tells it, and nothing that depends on time, chance or the attempt, so that a test can predict every outcome and every byte of the
//! output files. For the history checker.
//!
//! A row is a `deed::Deed`. `mark-done` asks to be called again as often as it is told to, and then answers with an error that repeats what it was told: what is recorded of it
//! is evidence that it was called, how often, and with what.

mod deed;

use deed::{Deed, Memory, Said};
use rowmill_guest::{AppInfo, Batch, BatchProcessor, Failure, Outcome, Row, Summary};

struct Chronicle;

impl BatchProcessor for Chronicle {
    type Context = Memory;
    type Input = Deed;
    type Output = Said;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self)
    }

    fn process_row(&mut self, _: &Batch<Memory>, row: Row<Deed>) -> Result<Outcome<Said>, Failure> {
        row.input.act(row.line, row.attempt)
    }

    fn mark_done(&mut self, summary: &Summary<Memory>) -> Result<(), Failure> {
        deed::remember(summary)
    }
}

rowmill_guest::export_batch_processor!(Chronicle);

#[cfg(test)]
mod tests;
