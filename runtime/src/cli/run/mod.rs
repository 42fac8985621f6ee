//! `rowmill run`: a file, or a query, through a processor on this machine, without any server.

mod args;
mod directory;
mod feed;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

pub use self::args::RunArgs;

use self::directory::{Manifest, Opened, RunDirectory};
use super::progress;
use super::signals::Stop;
use super::wiring::cache_directory;
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data};
use crate::blobs::Blobs;
use crate::export::{Summary, export_batch};
use crate::model::{Batch, BatchStatus, BatchStep, ProcessorKind, SystemClock, mark_failure, without_controls};
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
    let directory = RunDirectory::new(args.out_directory());
    let opened = if args.resume { directory.resume(&processor.digest)? } else { directory.check_free()? };
    let manifest = match opened {
        Opened::Finished(summary) => {
            say!("this run is finished already");
            return report(args, &directory, &summary, None);
        }
        Opened::Started(manifest) => Some(manifest),
        Opened::Nothing => None,
    };
    let (store, manifest) = match manifest {
        Some(manifest) => (directory.open_store().await?, manifest),
        None => match feed::submit(args.source(processor.kind())?, args, &processor, &directory, stop).await? {
            Some(fed) => fed,
            None => {
                say!("stopped while the input was read; nothing was run");
                return Ok(ExitCode::from(stop.exit_status()));
            }
        },
    };
    let before = store.read_app(APP).await?.map(|app| app.grants).unwrap_or_default();
    // Nobody else has this store.
    store.set_grants(APP, &before, &grants).await?;
    let blobs = Blobs::local(&directory.objects())?;
    let registry = Registry::new(sandbox, blobs.clone());
    registry.add(processor);
    let batch = work(Arc::clone(&store), &blobs, registry, settings, &manifest, stop).await;
    let batch = batch.with_context(|| format!("what was done is kept: {}", args.how_to_resume()))?;
    if batch.step != BatchStep::Done {
        say!("stopped after {} of {} rows; to go on: {}", batch.counts.success + batch.counts.failed, batch.counts.rows, args.how_to_resume());
        return Ok(ExitCode::from(stop.exit_status()));
    }
    let summary = export_batch(&*store, &blobs, &batch, manifest.format, &manifest.header, directory.out()).await?;
    let answer = match batch.kind {
        ProcessorKind::SlowQuery => store.read_results(batch.id, None, 1).await?.pop(),
        ProcessorKind::Batch => None,
    };
    store.close().await;
    directory.remove_state()?;
    report(args, &directory, &summary, answer.and_then(|answer| answer.output))
}

fn make_sandbox(settings: &WorkerSettings) -> anyhow::Result<Sandbox> {
    let settings = SandboxSettings::new(settings.instances_max(), cache_directory()?);
    Ok(Sandbox::open(SandboxSettings { compiler: CompilerSettings::this_program(), ..settings })?)
}

fn load_processor(args: &RunArgs, sandbox: &Sandbox) -> anyhow::Result<Processor> {
    let path = &args.processor;
    let wasm = std::fs::read(path).with_context(|| format!("cannot read the processor {}", path.display()))?;
    sandbox.load(&wasm).with_context(|| format!("cannot use {} as a processor", path.display()))
}

/// Runs what is to be run, and returns the batch as it is then.
async fn work(
    store: Arc<SqliteStore>,
    blobs: &Blobs,
    registry: Registry,
    settings: WorkerSettings,
    manifest: &Manifest,
    stop: &Stop,
) -> anyhow::Result<Batch> {
    let batch = store.read_batch(manifest.batch).await?;
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
    Ok(store.read_batch(manifest.batch).await?)
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
