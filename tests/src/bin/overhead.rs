//! What a row costs in the sandbox, with all limits on, against wasmtime alone that calls the same component with fuel: `overhead --rows 20000 --rounds 15`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use rowmill::model::{Ending, JsonText, LeasedRow, Limits, ProcessorKind};
use rowmill::sandbox::{Sandbox, Session, SessionSpec};
use rowmill_tests::built::Built;
use rowmill_tests::running::batch;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};
use wit_component::ComponentEncoder;

use self::bare::BatchProcessor;
use self::bare::rowmill::jobs::types::{AppInfo, BatchInfo, Row, RowStatus};

mod bare {
    wasmtime::component::bindgen!({ path: "../wit", world: "batch-processor", ownership: Borrowing { duplicate_if_necessary: false } });
}

const PROCESSOR: &str = "bank-transactions";

#[derive(Parser)]
#[command(
    about = "Measures what a row costs in the sandbox, with all limits on, against wasmtime alone with fuel; prints medians and their ratio as JSON"
)]
struct Args {
    /// Rows of a round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Rounds of each, in turn
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let built = Built::find()?;
    let wasm = std::fs::read(built.guest(PROCESSOR)?)?;
    let rows: Vec<LeasedRow> = (1..=args.rows).map(row).collect();
    let mut alone = Alone::new(&wasm)?;
    let mut sandboxed = sandboxed(&built, &wasm)?;
    let (mut bare, mut limited) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        bare.push(alone.run(&rows)?);
        let began = Instant::now();
        for row in &rows {
            let run = sandboxed.run_row(row).await;
            ensure!(matches!(run.ending, Ending::Succeeded(_)), "a row failed: {:?}", run.ending);
        }
        limited.push(began.elapsed());
    }
    let (bare, limited) = (median(bare, args.rows), median(limited, args.rows));
    println!("{}", json!({ "processor": PROCESSOR, "bare_nanoseconds": bare, "sandbox_nanoseconds": limited, "ratio": limited / bare }));
    Ok(())
}

/// A transaction that is valid.
fn row(line: u32) -> LeasedRow {
    let input = json!({ "id": format!("T{line}"), "account": "DE9710027535", "amount": format!("{line}.25"), "currency": "EUR", "date": "2026-01-31", "type": "deposit" });
    LeasedRow { row_no: line, line, input: input.to_string(), attempt: 1, rejected: None }
}

/// Nanoseconds of a row, in the middle of all rounds.
fn median(mut rounds: Vec<Duration>, rows: u32) -> f64 {
    rounds.sort_unstable();
    rounds[rounds.len() / 2].as_secs_f64() * 1e9 / f64::from(rows)
}

fn sandboxed(built: &Built, wasm: &[u8]) -> Result<Session> {
    let processor = Sandbox::new(1, &built.cache())?.load(wasm)?;
    let batch = batch(ProcessorKind::Batch, "bank", "validate", JsonText::default());
    let spec = SessionSpec { batch, limits: Limits::default(), cancel: CancellationToken::new(), progress: None, capabilities: Arc::default() };
    Ok(Session::new(processor, spec))
}

/// Wasmtime as it comes, but for fuel.
struct Alone {
    store: Store<()>,
    guest: BatchProcessor,
}

impl Alone {
    fn new(wasm: &[u8]) -> Result<Alone> {
        let alone = || -> wasmtime::Result<Alone> {
            let mut config = Config::new();
            config.consume_fuel(true);
            let engine = Engine::new(&config)?;
            let lifted = ComponentEncoder::default().module(wasm).and_then(|mut encoder| encoder.encode());
            let component = Component::new(&engine, lifted.map_err(wasmtime::Error::from_anyhow)?)?;
            let mut store = Store::new(&engine, ());
            store.set_fuel(u64::MAX)?;
            let mut linker = Linker::new(&engine);
            linker.define_unknown_imports_as_traps(&component)?;
            let guest = BatchProcessor::instantiate(&mut store, &component, &linker)?;
            let app = AppInfo { app: "bank", op: "validate", version: 1 };
            let refused = |text: String| wasmtime::Error::msg(text);
            guest.rowmill_jobs_lifecycle().call_init(&mut store, app)?.map_err(refused)?;
            let begun = guest.rowmill_jobs_batch().call_begin(&mut store, BatchInfo { id: "1", context: &"{}".to_owned() })?;
            begun.map_err(|failure| refused(format!("{failure:?}")))?;
            Ok(Alone { store, guest })
        };
        alone().map_err(|error| anyhow!("{error:?}"))
    }

    fn run(&mut self, rows: &[LeasedRow]) -> Result<Duration> {
        let began = Instant::now();
        for LeasedRow { line, input, attempt, .. } in rows {
            let row = Row { line: *line, input, attempt: *attempt };
            let returned = self.guest.rowmill_jobs_batch().call_process_row(&mut self.store, row).map_err(|error| anyhow!("{error:?}"))?;
            ensure!(matches!(&returned, Ok(outcome) if outcome.status == RowStatus::Success), "a row failed: {returned:?}");
        }
        Ok(began.elapsed())
    }
}
