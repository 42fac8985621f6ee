//! Does what a processor should not, as each row tells it: `{"do": "loop"}`. For tests of the runtime.
//!
//! A size, where one matters, is set by `n` beside it: `{"do": "huge-output", "n": 100}`. A context such as `{"begin": {"do": "panic"}}` lets `begin`,
//! `mark_done` or `close` misbehave in the same ways; of what they would answer, only a failure remains.

use rowmill_guest::bindings::{batch, lifecycle, types};
use rowmill_guest::instance::BatchInstance;
use rowmill_guest::{AppInfo, Batch, BatchProcessor, Failure, Outcome, Row, Summary, host};
use serde::Deserialize;
use std::hint::black_box;

struct Misbehaving {
    at_close: Deed,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Context {
    begin: Deed,
    mark_done: Deed,
    close: Deed,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Deed {
    #[serde(rename = "do")]
    what: What,
    n: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// Succeeds.
    #[default]
    Ok,
    /// Never ends.
    Loop,
    /// Takes memory until there is none.
    Hog,
    /// Panics.
    Panic,
    /// Calls itself without end.
    Recurse,
    /// Answers with text that is not JSON.
    BadJson,
    /// Logs what would command a terminal, or pass for something else.
    Escapes,
    /// Logs one line of 10 MiB, then n lines (100,000).
    HugeLog,
    /// Answers with a string of n bytes (2 MiB).
    HugeOutput,
    /// Writes to a file outside its place.
    BadFileName,
    /// Writes a piece of n bytes (10 MiB) to `huge.txt`.
    HugePiece,
    /// Sends n messages (100,000).
    ManyMessages,
    /// Wants to be run again until the third attempt.
    Retry,
    /// Wants to be run again for ever.
    RetryForever,
    /// Stops the batch.
    Abort,
    /// Fails for good.
    FailPermanent,
}

impl BatchProcessor for Misbehaving {
    type Context = Context;
    type Input = Deed;
    type Output = String;

    fn init(_: &AppInfo) -> Result<Self, String> {
        Ok(Self { at_close: Deed::default() })
    }

    fn begin(&mut self, batch: &Batch<Context>) -> Result<(), Failure> {
        self.at_close = batch.context.close;
        batch.context.begin.run(1).map(drop)
    }

    fn process_row(&mut self, _: &Batch<Context>, row: Row<Deed>) -> Result<Outcome<String>, Failure> {
        row.input.run(row.attempt)
    }

    fn mark_done(&mut self, summary: &Summary<Context>) -> Result<(), Failure> {
        summary.batch.context.mark_done.run(1).map(drop)
    }

    fn close(self) {
        // Nobody learns of a failure in close.
        drop(self.at_close.run(1));
    }
}

impl Deed {
    fn run(self, attempt: u32) -> Result<Outcome<String>, Failure> {
        let size = |default| self.n.unwrap_or(default);
        let outcome = Outcome::success(format!("attempt {attempt}"));
        match self.what {
            What::Ok => Ok(outcome),
            What::Loop => {
                // An empty loop would do, but this one can be seen to compute.
                let mut x = 1_u64;
                loop {
                    x = black_box(x.wrapping_mul(3));
                }
            }
            What::Hog => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            What::Panic => panic!("this row panics on purpose"),
            What::Recurse => Ok(outcome.message(recurse(1).to_string().as_str())),
            // Seen to by `process_row` below; elsewhere there is no output to spoil.
            What::BadJson => Ok(outcome),
            What::Escapes => {
                host::info("\x1b[2J\u{9b}31m\0\r</script>\u{202e}");
                Ok(outcome)
            }
            What::HugeLog => {
                host::info("x".repeat(10 << 20));
                (0..size(100_000)).for_each(|line| host::info(format!("line {line}")));
                Ok(outcome)
            }
            What::HugeOutput => Ok(Outcome::success("x".repeat(size(2 << 20)))),
            What::BadFileName => Ok(outcome.piece("../x", "outside")),
            What::HugePiece => Ok(outcome.piece("huge.txt", "x".repeat(size(10 << 20)))),
            What::ManyMessages => Ok((0..size(100_000)).fold(outcome, |outcome, _| outcome.message("one-of-many"))),
            What::Retry if attempt >= 3 => Ok(outcome),
            What::Retry | What::RetryForever => Err(Failure::retry(format!("not yet, in attempt {attempt}"))),
            What::Abort => Err(Failure::abort_batch("this row stops the batch on purpose")),
            What::FailPermanent => Err(Failure::permanent("this row fails on purpose")),
        }
    }
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { recurse(depth + 1) + 1 }
}

/// Exported by hand, since the SDK never answers with text that is not JSON. Public, so that a native build does not take it for dead code.
pub struct Exports;

std::thread_local! {
    static INSTANCE: BatchInstance<Misbehaving> = const { BatchInstance::new() };
}

impl lifecycle::Guest for Exports {
    fn init(app: AppInfo) -> Result<(), String> {
        INSTANCE.with(|instance| instance.init(&app))
    }

    fn close() {
        INSTANCE.with(BatchInstance::close);
    }
}

impl batch::Guest for Exports {
    fn begin(batch: types::BatchInfo) -> Result<(), types::Failure> {
        INSTANCE.with(|instance| instance.begin(batch))
    }

    fn process_row(row: types::Row) -> Result<types::Outcome, types::Failure> {
        let bad_json = row.input.contains(r#""bad-json""#);
        let mut outcome = INSTANCE.with(|instance| instance.process_row(row))?;
        if bad_json {
            outcome.output = r#"{"unfinished": "#.into();
        }
        Ok(outcome)
    }

    fn mark_done(summary: types::Summary) -> Result<(), types::Failure> {
        INSTANCE.with(|instance| instance.mark_done(summary))
    }
}

#[cfg(target_arch = "wasm32")]
mod export {
    use super::Exports;
    use rowmill_guest::bindings::{batch_part, lifecycle_part};

    batch_part::export_batch!(Exports with_types_in batch_part);
    lifecycle_part::export_lifecycle!(Exports with_types_in lifecycle_part);
}
