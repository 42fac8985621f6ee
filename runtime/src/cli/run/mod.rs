//! `rowmill run`: a file, or a query, through a processor on this machine, without any server.

mod args;
mod begun;
mod directory;
mod feed;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

pub use self::args::RunArgs;

use self::begun::{Checked, RunSettings};
use self::directory::{Opened, RunDirectory, RunRecord};
use super::progress;
use super::signals::Stop;
use super::wiring::cache_directory;
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data};
use crate::blobs::Blobs;
use crate::export::{FailureCount, FailureCounts, ResultKind, ResultOptions, RowSource, Summary, export_batch};
use crate::model::{Batch, BatchId, BatchStatus, BatchStep, Grants, ProcessorKind, SystemClock, mark_failure, without_controls};
use crate::registry::Registry;
use crate::sandbox::{CompilerSettings, Processor, Sandbox, SandboxSettings};
use crate::status::StatusBoard;
use crate::store::{SqliteStore, Store};
use crate::worker::{Worker, WorkerSettings};

/// What this machine's own processors are registered as.
const APP: &str = "local";
const VERSION: u32 = 1;

/// Runs until the batch is done, or a signal stops it.
///
/// # Errors
/// Why it could not run; the program ends with status 2 then.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the threads")?;
    let ended = runtime.block_on(async {
        let stop = Stop::listen().context("cannot listen to signals")?;
        execute(args, &stop).await
    });
    // A thread may still wait for stdin.
    runtime.shutdown_background();
    ended
}

async fn execute(args: &RunArgs, stop: &Stop) -> anyhow::Result<ExitCode> {
    let settings = args.settings();
    let sandbox = make_sandbox(&settings)?;
    let processor = load_processor(args, &sandbox)?;
    let grants = args.grants()?;
    processor.check_grants(APP, &grants).context("rowmill run grants with the same options as rowmill apps grant")?;
    let mut directory = RunDirectory::new(args.out_directory(), args.overwrite);
    let (store, record) = match open(args, &processor, &grants, &mut directory, stop).await? {
        Begin::With(store, record) => (store, record),
        Begin::Not(ended) => return Ok(ended),
    };
    let before = store.read_app(APP).await?.map(|app| app.grants).unwrap_or_default();
    // Nobody else has this store.
    store.set_grants(APP, &before, &grants).await?;
    let blobs = Blobs::local(&directory.objects())?;
    let registry = Registry::new(sandbox, blobs.clone());
    registry.add(processor);
    let batch = work(Arc::clone(&store), &blobs, registry, settings, record.batch, stop).await;
    let batch = batch.with_context(|| format!("what was done is kept: {}", args.how_to_resume()))?;
    if batch.step != BatchStep::Done {
        say!("stopped after {} of {} rows; to go on: {}", batch.counts.success + batch.counts.failed, batch.counts.rows, args.how_to_resume());
        return Ok(ExitCode::from(stop.exit_status()));
    }
    let source = RowSource { format: record.format, header: &record.header };
    let options =
        ResultOptions { kind: ResultKind::Run, run: Some(serde_json::to_value(&record.begun)?), overwrite: record.overwrite || args.overwrite };
    let exported = export_batch(&*store, &blobs, &batch, source, directory.output()?, options).await;
    let summary = exported.with_context(|| format!("what was done is kept: {}", args.how_to_resume()))?;
    let answer = match batch.kind {
        ProcessorKind::SlowQuery => store.read_results(batch.id, None, 1).await?.pop(),
        ProcessorKind::Batch => None,
    };
    store.close().await;
    directory.close()?;
    report(args, &directory, &summary, answer.and_then(|answer| answer.output))
}

/// How a run begins.
enum Begin {
    With(Arc<SqliteStore>, Box<RunRecord>),
    /// There is nothing to run.
    Not(ExitCode),
}

/// Reads the input into a new run, or opens the one that goes on.
async fn open(args: &RunArgs, processor: &Processor, grants: &Grants, directory: &mut RunDirectory, stop: &Stop) -> anyhow::Result<Begin> {
    // A command that cannot be right is refused before the directory is looked at.
    args.check(processor.kind())?;
    let settings = RunSettings::of(args, &processor.digest, grants)?;
    let opened = if args.resume { directory.resume(&settings)? } else { directory.check_free()? };
    let begun = match &opened {
        Opened::Nothing => None,
        Opened::Started(record) => Some(&record.begun),
        Opened::Finished { begun, .. } => Some(&**begun),
    };
    if let Some(begun) = begun {
        let out = directory.out().display().to_string();
        if matches!(begun.check_input(args, &out, stop).await?, Checked::Stopped) {
            say!("stopped while the input was compared; to go on: {}", args.how_to_resume());
            return Ok(Begin::Not(ExitCode::from(stop.exit_status())));
        }
    }
    match opened {
        Opened::Finished { summary, .. } => {
            // A replacement may have been completed only now.
            directory.close()?;
            say!("this run is finished already");
            Ok(Begin::Not(report(args, directory, &summary, None)?))
        }
        Opened::Started(record) => Ok(Begin::With(directory.open_store().await?, record)),
        Opened::Nothing => {
            let source = args.source()?;
            match feed::submit(source, args, settings, directory, stop).await? {
                Some((store, record)) => Ok(Begin::With(store, Box::new(record))),
                None => {
                    say!("stopped while the input was read; nothing was run");
                    Ok(Begin::Not(ExitCode::from(stop.exit_status())))
                }
            }
        }
    }
}

fn make_sandbox(settings: &WorkerSettings) -> anyhow::Result<Sandbox> {
    let settings = SandboxSettings::new(settings.instances_max(), cache_directory()?);
    Ok(Sandbox::open(SandboxSettings { compiler: CompilerSettings::this_program(), ..settings })?)
}

fn load_processor(args: &RunArgs, sandbox: &Sandbox) -> anyhow::Result<Processor> {
    let path = &args.processor;
    let wasm = std::fs::read(path).with_context(|| format!("cannot read the processor {}", path.display()))?;
    if !sandbox.has_compiled(&wasm) {
        say!("compiling {} (once)", path.display());
    }
    sandbox.load(&wasm).with_context(|| format!("cannot use {} as a processor", path.display()))
}

/// Runs what is to be run, and returns the batch as it is then.
async fn work(
    store: Arc<SqliteStore>,
    blobs: &Blobs,
    registry: Registry,
    settings: WorkerSettings,
    id: BatchId,
    stop: &Stop,
) -> anyhow::Result<Batch> {
    let batch = store.read_batch(id).await?;
    if batch.step == BatchStep::Done {
        return Ok(batch);
    }
    let status = Arc::new(StatusBoard::default());
    let following = status.watch(batch.id);
    status.publish_counts(batch.id, batch.round, batch.counts);
    let worker = Worker::new(Arc::clone(&store) as Arc<dyn Store>, blobs.clone(), Arc::new(registry), status, settings);
    let watching = {
        let (worker, stop) = (Arc::clone(&worker), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = progress::show(following) => {}
                () = stop.asked() => { say!("stopping: rows that are running come to their end; once more to stop at once"); }
            }
            worker.drain();
        })
    };
    let worked = worker.run().await;
    watching.abort();
    worked?;
    Ok(store.read_batch(id).await?)
}

/// Says how many rows failed with each code, with the first of them. A query is one row without a line.
fn tell_failures(summary: &Summary) {
    let FailureCounts { codes, others } = &summary.failures;
    for FailureCount { code, rows, line, reason } in codes {
        let (code, reason) = (without_controls(code), without_controls(reason));
        match line {
            0 => say!("{code}: {reason}"),
            line if *rows == 1 => say!("1 row failed with {code}, line {line}: {reason}"),
            line => say!("{rows} rows failed with {code}, the first in line {line}: {reason}"),
        }
    }
    if *others > 0 {
        say!("{others} rows failed with other codes; failed.csv or failed.ndjson has them");
    }
}

fn report(args: &RunArgs, directory: &RunDirectory, summary: &Summary, answer: Option<String>) -> anyhow::Result<ExitCode> {
    if args.json {
        print_data(&serde_json::to_string(summary)?)?;
    } else {
        say!(
            "{}: {} rows, {} success, {} failed, {} aborted",
            summary.status.as_str(),
            summary.rows,
            summary.success,
            summary.failed,
            summary.aborted
        );
        say!("{:.1} s, {} rows/s, fuel {}", summary.seconds, summary.rows_per_second, summary.fuel);
        if let Some(reason) = &summary.abort_reason {
            say!("aborted: {}", without_controls(reason));
        }
        if let Some(error) = &summary.mark_error {
            say!("{}", without_controls(&mark_failure(summary.mark_calls, error)));
        }
        tell_failures(summary);
        say!("results are in {}", directory.out().display());
        if let Some(answer) = answer {
            print_data(&answer)?;
        }
    }
    match summary.status {
        BatchStatus::Success => Ok(ExitCode::from(EXIT_SUCCESS)),
        BatchStatus::Failed | BatchStatus::Aborted => Ok(ExitCode::from(EXIT_SOME_FAILED)),
        status => bail!("the run ended with the status {}, which is not final", status.as_str()),
    }
}
