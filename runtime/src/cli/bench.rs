//! `rowmill bench`: how fast this installation is.

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::config::ConfigArgs;
use super::wiring::{Parts, block_on, log_position};
use super::{EXIT_SUCCESS, print_data};
use crate::config::Config;
use crate::jobs::{BatchRequest, JobManager, QueryRequest};
use crate::model::{BatchId, BatchStep, JsonText, NewRow, ProcessorKind, show_time};
use crate::store::LogPosition;

/// What rows are submitted for.
const APP: &str = "rowmill-bench";
const OP: &str = "bench";
/// Whose rows wait meanwhile.
const OTHER_APP: &str = "rowmill-bench-other";
/// Rows of one append.
const CHUNK_ROWS: u32 = 10_000;
/// Workers of their own need so long to start, at most.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at a batch that runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Between two batches beside those of another app: seldom enough that each is a surprise.
const PAUSE_BESIDE: Duration = Duration::from_millis(300);
/// Between two queries, so that each finds an idle system: what follows an answer is over by then.
const PAUSE: Duration = Duration::from_millis(5);

/// Measure how fast batches are taken in and processed, or how long slow queries take.
///
/// It deploys the processor for the app `rowmill-bench`, submits rows, and times the submission and the way from the release to the last output file apart. With
/// a processor of slow queries it times queries one after the other, with a short pause between, from the submission to the answer. Prints one object of JSON. The rows stay in the store:
/// use one for this purpose.
#[derive(Debug, Args)]
pub struct BenchCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The processor, such as target/guests/bank-transactions.wasm.
    #[arg(long, value_name = "FILE.wasm")]
    pub processor: PathBuf,
    /// Rows of the batch, or queries.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = RangedU64ValueParser::<u32>::new().range(1..=100_000_000))]
    pub rows: u32,
    /// Batches that the rows are shared out to.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    pub batches: u32,
    /// The input of each row or query. Its number takes the place of each letter n in braces. The default is a bank transaction.
    #[arg(
        long,
        value_name = "JSON",
        default_value = r#"{"id":"T{n}","account":"DE9710027535","amount":"{n}.25","currency":"EUR","date":"2026-01-31","type":"deposit"}"#
    )]
    pub row: String,
    /// Worker processes beside this one; with 0 this process works itself. PostgreSQL only.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = RangedU64ValueParser::<u32>::new().range(0..=100))]
    pub processes: u32,
    /// Measure fairness instead: how long each of the batches takes from its submission to its end, alone, and while so many rows of another app wait.
    #[arg(long, value_name = "ROWS", value_parser = RangedU64ValueParser::<u32>::new().range(1..=100_000_000))]
    pub beside: Option<u32>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    rows: u32,
    batches: u32,
    store: &'static str,
    /// Of each process.
    slots: u32,
    processes: u32,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Measured {
    Batch { submit: Phase, process: Phase },
    Queries { milliseconds: Percentiles },
    Beside { alone_milliseconds: Percentiles, beside_milliseconds: Percentiles, times_alone: f64 },
}

/// One of the two ways of a batch.
#[derive(Debug, Serialize)]
struct Phase {
    seconds: f64,
    rows_per_second: f64,
    /// What the database wrote to its log, for each row. PostgreSQL only.
    log_bytes_per_row: Option<f64>,
    /// Transactions of the database, for 1,000 rows. PostgreSQL only.
    transactions_per_1000_rows: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// Measures.
///
/// # Errors
/// What could not be measured.
pub fn run(args: &BenchCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let wasm = std::fs::read(&args.processor).with_context(|| format!("cannot read the processor {}", args.processor.display()))?;
    JsonText::check(args.input(1)).context("--row")?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        if args.processes > 0 && !parts.store_is_shared {
            bail!("over SQLite there is one process: leave --processes out");
        }
        let version = parts.jobs.register_processor(APP, OP, wasm.clone()).await?;
        if args.beside.is_some() {
            parts.jobs.register_processor(OTHER_APP, OP, wasm).await?;
        }
        let workers = Workers::start(args, &config, &parts.jobs).await?;
        let measured = match version.kind {
            ProcessorKind::Batch if args.beside.is_some() => measure_beside(args, &parts.jobs).await,
            ProcessorKind::Batch => measure_batch(args, &config, &parts.jobs).await,
            ProcessorKind::SlowQuery => {
                // In a task of its own, as requests to a service are answered: this thread only waits.
                let (jobs, inputs) = (parts.jobs.clone(), (1..=args.rows).map(|number| args.input(number)).collect());
                tokio::spawn(async move { measure_queries(inputs, &jobs).await }).await?
            }
        };
        workers.end().await?;
        let report = Report {
            rows: args.rows,
            batches: args.batches,
            store: if parts.store_is_shared { "postgresql" } else { "sqlite" },
            slots: config.worker.slots,
            processes: args.processes.max(1),
            measured: measured?,
        };
        print_data(&serde_json::to_string(&report)?)?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

impl BenchCommand {
    fn input(&self, number: u32) -> String {
        self.row.replace("{n}", &number.to_string())
    }
}

async fn measure_batch(args: &BenchCommand, config: &Config, jobs: &JobManager) -> anyhow::Result<Measured> {
    let store = jobs.store();
    let (began, log) = (Instant::now(), log_position(config).await?);
    let rows_of_batch = args.rows.div_ceil(args.batches);
    let mut ids = Vec::new();
    let mut first = 1;
    while first <= args.rows {
        let id = jobs.batch_submit(BatchRequest::new(APP, OP).held()).await?;
        ids.push(id);
        let end = args.rows.min(first.saturating_add(rows_of_batch - 1));
        while first <= end {
            let last = end.min(first.saturating_add(CHUNK_ROWS - 1));
            // One was checked; a number in it changes nothing.
            let rows = (first..=last).map(|number| NewRow::new(number, JsonText::trusted(args.input(number)))).collect();
            store.append_rows(id, rows).await?;
            first = last.saturating_add(1);
        }
    }
    let submit = Phase::of(args.rows, began, log, log_position(config).await?);
    say!("submitted {} rows in {} batches in {:.2} s", args.rows, ids.len(), submit.seconds);
    let (began, log) = (Instant::now(), log_position(config).await?);
    for id in &ids {
        jobs.release(*id).await?;
    }
    for id in &ids {
        wait_until_done(jobs, *id).await?;
    }
    let process = Phase::of(args.rows, began, log, log_position(config).await?);
    say!("processed them in {:.2} s", process.seconds);
    Ok(Measured::Batch { submit, process })
}

async fn wait_until_done(jobs: &JobManager, id: BatchId) -> anyhow::Result<()> {
    while jobs.store().read_batch(id).await?.step != BatchStep::Done {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn measure_queries(inputs: Vec<String>, jobs: &JobManager) -> anyhow::Result<Measured> {
    let mut took = Vec::with_capacity(inputs.len());
    for input in inputs {
        // One was checked; a number in it changes nothing.
        let input = JsonText::trusted(input);
        let began = Instant::now();
        jobs.slow_query(QueryRequest::new(APP, OP, input)).await?;
        took.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Measured::Queries { milliseconds: Percentiles::of(took) })
}

/// One batch after the other, first alone and then beside another app's rows.
async fn measure_beside(args: &BenchCommand, jobs: &JobManager) -> anyhow::Result<Measured> {
    let rows = || (1..=args.rows).map(|number| NewRow::new(number, JsonText::trusted(args.input(number)))).collect::<Vec<_>>();
    let one = async || {
        let (rows, began) = (rows(), Instant::now());
        let id = jobs.batch_submit(BatchRequest::new(APP, OP).with_rows(rows)).await?;
        jobs.wait(id).await?;
        let took = began.elapsed();
        tokio::time::sleep(PAUSE_BESIDE).await;
        anyhow::Ok(took)
    };
    // The first finds nothing prepared.
    one().await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..args.batches {
        alone.push(one().await?);
    }
    let others = jobs.batch_submit(BatchRequest::new(OTHER_APP, OP).held()).await?;
    let waiting = args.beside.unwrap_or_default();
    let mut first = 1;
    while first <= waiting {
        let last = waiting.min(first.saturating_add(CHUNK_ROWS - 1));
        jobs.store().append_rows(others, (first..=last).map(|number| NewRow::new(number, JsonText::trusted(args.input(number)))).collect()).await?;
        first = last.saturating_add(1);
    }
    jobs.release(others).await?;
    while jobs.store().read_batch(others).await?.counts.success == 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for _ in 0..args.batches {
        beside.push(one().await?);
    }
    if !jobs.batch_abort(others, Some("what was to be measured beside it has been")).await?.changed {
        bail!("the {waiting} rows of the other app had ended before everything was measured: let more wait, or measure fewer batches");
    }
    jobs.wait(others).await?;
    let (alone, beside) = (Percentiles::of(alone), Percentiles::of(beside));
    Ok(Measured::Beside { times_alone: beside.p50 / alone.p50, alone_milliseconds: alone, beside_milliseconds: beside })
}

impl Percentiles {
    fn of(mut took: Vec<Duration>) -> Percentiles {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64() * 1_000.0;
        Percentiles { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

impl Phase {
    fn of(rows: u32, began: Instant, before: Option<LogPosition>, after: Option<LogPosition>) -> Phase {
        let (seconds, rows) = (began.elapsed().as_secs_f64(), f64::from(rows));
        let spent = before.zip(after).map(|(before, after)| after.since(before));
        Phase {
            seconds,
            rows_per_second: (rows / seconds).round(),
            log_bytes_per_row: spent.map(|(bytes, _)| (as_float(bytes) / rows).round()),
            transactions_per_1000_rows: spent.map(|(_, transactions)| as_float(transactions) / rows * 1_000.0),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 2^53 bytes")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// Who works on what is submitted.
enum Workers {
    Here(super::wiring::WorkingBeside),
    Beside(Vec<Child>),
}

impl Workers {
    async fn start(args: &BenchCommand, config: &Config, jobs: &JobManager) -> anyhow::Result<Workers> {
        if args.processes == 0 {
            return Ok(Workers::Here(super::wiring::WorkingBeside::begin(jobs)));
        }
        let mut children = Vec::new();
        for number in 1..=args.processes {
            let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
            command.arg("work");
            if let Some(file) = &args.config.config {
                command.arg("--config").arg(file);
            }
            for set in args.config.set.iter().chain([&format!("worker.name={}-bench-{number}", config.worker.name)]) {
                command.arg("--set").arg(set);
            }
            children.push(command.spawn().context("cannot start a worker")?);
        }
        let workers = Workers::Beside(children);
        let began = Instant::now();
        let ours = format!("{}-bench-", config.worker.name);
        while jobs.list_workers().await?.iter().filter(|worker| worker.info.name.starts_with(&ours)).count() < args.processes as usize {
            if began.elapsed() > START_TIMEOUT {
                workers.end().await?;
                bail!("the workers did not start within {}", show_time(START_TIMEOUT));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(workers)
    }

    async fn end(self) -> anyhow::Result<()> {
        match self {
            Workers::Here(working) => working.end().await,
            Workers::Beside(children) => {
                for mut child in children {
                    // It has nothing to lose: what it ran is recorded.
                    child.kill().context("cannot end a worker")?;
                    child.wait().context("cannot wait for a worker")?;
                }
                Ok(())
            }
        }
    }
}
