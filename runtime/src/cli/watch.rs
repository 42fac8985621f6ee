//! `rowmill watch`: files that land in directories become batches.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::wiring::{Parts, block_on, inflate_limits};
use super::{EXIT_SUCCESS, print_data};
use crate::config::{Config, FileTypeConfig, WatchFile, WatchedDirectory};
use crate::intake::FileForm;
use crate::jobs::JobManager;
use crate::model::{PartialTerms, without_controls};
use crate::watch::{ContextTemplate, FileReport, FileType, Inbox, Outcome, Patterns, PlacePaths, Places, WatchSettings, Watcher};

/// Make batches of the files that land in directories, until Ctrl-C or SIGTERM.
///
/// A file says which directories are watched, and what the files there are (watch.file; see docs/watching.md). A file that has not changed for a while is taken:
/// it becomes a batch, and is moved to the place for what is done; or it is refused, and is moved to the place for what failed, with the reasons beside it. Any number
/// of watchers may look into the same directory, on several machines too: each file becomes a batch once, whatever is killed on the way.
///
/// Prints a line for each file. Over SQLite, where no worker can run beside this, it also runs the batches, unless it was to end by itself (--once).
///
/// Exit status: 0 it ended in good order, 2 it could not start, or files were left with --once.
#[derive(Debug, Args)]
pub struct WatchCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The file that says what is watched; by the configuration (watch.file) when this is not given.
    #[arg(long, value_name = "FILE")]
    pub types: Option<PathBuf>,
    /// Take what is there and old enough, then end.
    #[arg(long)]
    pub once: bool,
    /// Print JSON, a line for each file.
    #[arg(long)]
    pub json: bool,
}

/// Watches.
///
/// # Errors
/// Why it could not start, or what it left.
pub fn run(args: &WatchCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let path = args.types.as_ref().or(config.watch.file.as_ref());
    let path =
        path.context("nothing says which directories are watched: give --types FILE, or set watch.file (docs/watching.md shows such a file)")?;
    let file = WatchFile::load(path)?;
    block_on(async {
        let stop = Stop::listen()?;
        let parts = Parts::open(&config).await?;
        parts.jobs.blobs().check().await?;
        let using = || format!("cannot use {}", path.display());
        // All of it is checked before a directory is made.
        for (at, watched) in file.watch.iter().enumerate() {
            check_patterns(watched).with_context(|| format!("watch[{at}]")).with_context(using)?;
        }
        let mut inboxes = Vec::new();
        for watched in file.watch {
            inboxes.push(inbox_of(&parts.jobs, watched).await.with_context(using)?);
        }
        let json = args.json;
        let watcher = Watcher::new(parts.jobs.clone(), inboxes, settings(&config, args.once), move |report| print(report, json))?;
        let working = if args.once { None } else { Some(parts.work_if_alone()) };
        let stopping = CancellationToken::new();
        let asked = {
            let (stop, stopping) = (stop.clone(), stopping.clone());
            tokio::spawn(async move {
                stop.asked().await;
                say!("stopping: files that are being taken come to their end; once more to stop at once");
                stopping.cancel();
            })
        };
        let watched = watcher.run(stopping).await;
        asked.abort();
        if let Some(working) = working {
            working.end().await?;
        }
        parts.close().await;
        watched?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn settings(config: &Config, once: bool) -> WatchSettings {
    WatchSettings { files_at_once: config.watch.files_at_once, grace: config.watch.grace, inflate: inflate_limits(config), once }
}

fn check_patterns(watched: &WatchedDirectory) -> anyhow::Result<()> {
    let ignored = Patterns::of(watched.ignore.iter().map(String::as_str)).context("ignore")?;
    Patterns::of_types(watched.types.iter().map(|file_type| file_type.pattern.as_str()), &ignored)?;
    Ok(())
}

async fn inbox_of(jobs: &JobManager, watched: WatchedDirectory) -> anyhow::Result<Inbox> {
    let WatchedDirectory { directory: _, incoming, work, done, failed, age, ignore, types } = watched;
    let ignored = Patterns::of(ignore.iter().map(String::as_str))?;
    let mut file_types = Vec::new();
    for file_type in types {
        let pattern = file_type.pattern.clone();
        file_types.push(type_of(jobs, file_type).await.with_context(|| format!("the type of {pattern:?}"))?);
    }
    let places = Places::open(PlacePaths { incoming, work, done, failed })?;
    Ok(Inbox::new(places, age, ignored, file_types)?)
}

async fn type_of(jobs: &JobManager, file_type: FileTypeConfig) -> anyhow::Result<FileType> {
    let FileTypeConfig { pattern, app, op, format, context, priority, attempts, check } = file_type;
    let parse = |format: String| FileForm::parse(&format).with_context(|| format!("format is csv, csv.gz, ndjson or ndjson.gz, not {format:?}"));
    let form = format.map(parse).transpose()?;
    let checker = match check {
        Some(path) => {
            let wasm = std::fs::read(&path).with_context(|| format!("cannot read the checker {}", path.display()))?;
            Some(jobs.load_checker(wasm).await.with_context(|| format!("cannot use the checker {}", path.display()))?)
        }
        None => None,
    };
    let context = ContextTemplate::check(context)?;
    let terms = PartialTerms { priority, attempts_max: attempts, ..PartialTerms::default() };
    Ok(FileType { pattern, app, op, form, context, terms, checker })
}

/// Whoever reads the lines may have enough of them: the files are taken all the same.
fn print(report: &FileReport, json: bool) {
    let line = if json {
        serde_json::to_string(report).unwrap_or_default()
    } else {
        let what = match (report.outcome, report.batch) {
            (Outcome::Submitted, Some(id)) => format!("{id}  {} rows", report.rows.unwrap_or(0)),
            _ => format!("failed  {}", report.reasons.first().map_or("", |reason| reason.text.as_str())),
        };
        without_controls(&format!("{}  {what}", report.file))
    };
    if let Err(error) = print_data(&line) {
        tracing::warn!("{error:#}");
    }
}
