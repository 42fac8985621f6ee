//! 100,000 transactions in 10 batches, with 10 workers; the balance of the results is compared with that of the file.
//!
//! Over the embedded store the workers are slots of this process. Over PostgreSQL they can be processes of their own, each of which is this program again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::TryStreamExt;
use rowmill::intake::{FileForm, Format, InflateLimits, RowReader};
use rowmill::jobs::BatchRequest;
use rowmill::model::BatchId;
use rowmill::worker::WorkerSettings;
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::stage::{Place, Stage, guest, in_short};

const FILE: &str = "transactions.csv";

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    #[arg(long, default_value_t = 100_000)]
    rows: u32,
    #[arg(long, default_value_t = 10)]
    batches: u32,
    #[arg(long, default_value_t = 10)]
    workers: u32,
    /// Each worker is a process of its own
    #[arg(long, requires = "store")]
    processes: bool,
    /// Work until stdin ends: what such a process does
    #[arg(long, hide = true)]
    work: bool,
}

/// What counts of a record of the file.
#[derive(Deserialize)]
struct Transaction {
    #[serde(rename = "type")]
    kind: String,
    amount: String,
}

/// What counts of a row's output.
#[derive(Deserialize)]
struct Posted {
    change_cents: i64,
}

pub async fn run(args: &Options) -> anyhow::Result<()> {
    if args.work {
        return work(args).await;
    }
    let stage = Stage::open_with(&args.place, "batch-large", WorkerSettings { slots: args.workers, ..WorkerSettings::local() }).await?;
    if !args.processes {
        return stage.run(async |stage| run_batches(stage, args).await).await;
    }
    let mut workers = start_workers(&stage, args).await?;
    run_batches(&stage, args).await?;
    for worker in &mut workers {
        drop(worker.stdin.take());
        let ended = worker.wait().await?;
        ensure!(ended.success(), "a worker ended with {ended}");
    }
    Ok(())
}

async fn run_batches(stage: &Stage, args: &Options) -> anyhow::Result<()> {
    let jobs = &stage.jobs;
    jobs.register_batch_processor("bank", "post", guest("bank-transactions")?).await?;
    let path = stage.directory.join(FILE);
    write_transactions(&path, args.rows)?;

    // Held, so that all batches begin together.
    let mut reader = RowReader::open(FileForm::plain(Format::Csv), InflateLimits::default(), File::open(&path)?)?;
    let (mut ids, mut in_file) = (Vec::new(), 0);
    for _ in 0..args.batches {
        let mut rows = Vec::new();
        while rows.len() < args.rows.div_ceil(args.batches) as usize
            && let Some(row) = reader.next_row()?
        {
            in_file += change_of(&serde_json::from_str(row.input.as_str())?)?;
            rows.push(row);
        }
        ids.push(jobs.batch_submit(BatchRequest::new("bank", "post").with_rows(rows).held()).await?);
    }
    println!("submitted: {} rows in {} batches, for {} workers", args.rows, ids.len(), args.workers);
    let began = Instant::now();
    for id in &ids {
        jobs.release(*id).await?;
    }
    let (mut rows, mut in_results, mut in_postings) = (0, 0, 0);
    for id in &ids {
        let batch = jobs.wait(*id).await?;
        println!("batch {id}: {}", in_short(&batch));
        rows += batch.counts.success;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{rows} rows succeeded in {seconds:.1} s");
    for id in ids {
        let (of_rows, of_postings) = balances(stage, id).await?;
        in_results += of_rows;
        in_postings += of_postings;
    }
    println!("balance: {in_file} cents in the file, {in_results} in the results, {in_postings} in postings.csv");
    ensure!(rows == u64::from(args.rows) && in_file == in_results && in_file == in_postings, "the results are not those of the file");
    Ok(())
}

/// The balance of a batch, by its rows and by its output file.
async fn balances(stage: &Stage, id: BatchId) -> anyhow::Result<(i64, i64)> {
    let mut of_rows = 0;
    let mut rows = stage.jobs.stream_rows(id).await?;
    while let Some(row) = rows.try_next().await? {
        let posted: Posted = serde_json::from_str(row.output.as_deref().unwrap_or_default())?;
        of_rows += posted.change_cents;
    }
    let batch = stage.jobs.batch_done(id).await?.context("it has ended")?;
    let postings = stage.read_file(&batch, "postings.csv").await?;
    // line,id,account,cents,currency
    let cents = |line: &str| line.split(',').nth(3).and_then(|cents| cents.parse::<i64>().ok()).context("a line of postings.csv has no cents");
    let of_postings = postings.lines().map(cents).sum::<anyhow::Result<i64>>()?;
    Ok((of_rows, of_postings))
}

/// Deposits and withdrawals of all sizes, the same each time.
fn write_transactions(path: &Path, rows: u32) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?);
    writeln!(file, "id,date,type,account,amount,currency")?;
    for number in 1..=rows {
        let kind = if number % 3 == 0 { "withdrawal" } else { "deposit" };
        let cents = u64::from(number) * 7_919 % 99_991 + 1;
        writeln!(file, "T{number:09},2026-01-31,{kind},DE9710027535,{}.{:02},EUR", cents / 100, cents % 100)?;
    }
    Ok(file.flush()?)
}

/// What a transaction changes its account by, in cents.
fn change_of(transaction: &Transaction) -> anyhow::Result<i64> {
    let cents: i64 = transaction.amount.replace('.', "").parse().with_context(|| format!("{:?} is no amount", transaction.amount))?;
    Ok(if transaction.kind == "deposit" { cents } else { -cents })
}

/// Starts the workers, and waits until all of them are there.
async fn start_workers(stage: &Stage, args: &Options) -> anyhow::Result<Vec<Child>> {
    let store = args.place.store.as_ref().context("processes need a database")?;
    let start = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("batch-large").arg("--work").arg("--store").arg(store).arg("--directory").arg(&stage.directory);
        command.stdin(Stdio::piped()).kill_on_drop(true).spawn().context("a worker cannot be started")
    };
    let mut workers = (0..args.workers).map(|_| start()).collect::<anyhow::Result<Vec<Child>>>()?;
    let pids: BTreeSet<u32> = workers.iter().filter_map(Child::id).collect();
    loop {
        let there = stage.jobs.list_workers().await?.iter().filter(|worker| pids.contains(&worker.info.pid)).count();
        if there == workers.len() {
            return Ok(workers);
        }
        for worker in &mut workers {
            if let Some(ended) = worker.try_wait()? {
                anyhow::bail!("a worker ended with {ended}");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Works until stdin ends, as it does when the process that started this one ends.
async fn work(args: &Options) -> anyhow::Result<()> {
    let stage = Stage::open_with(&args.place, "batch-large", WorkerSettings { slots: 1, query_slots: 1, ..WorkerSettings::local() }).await?;
    let jobs = stage.jobs.clone();
    std::thread::spawn(move || {
        // However it ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        jobs.shutdown();
    });
    Ok(stage.jobs.run().await?)
}
