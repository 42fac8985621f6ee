//! `rowmill submit`, `append` and `release`: batches come in.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::config::ConfigArgs;
use super::feed::{Appended, FormatArg, InputFile, append_all, append_whole, batch_file, open_file, open_rows, sum_of, until_stop};
use super::signals::Stop;
use super::source::Source;
use super::status::{Shown, wait_and_show};
use super::terms::{TermsArgs, parse_name};
use super::wiring::{Parts, block_on, inflate_limits};
use super::{EXIT_SUCCESS, print_data};
use crate::intake::{FileForm, FileLines, InflateLimits, IntakeError, Place};
use crate::jobs::{BatchRequest, JobManager};
use crate::model::{After, AfterCondition, AppendKey, AppendState, BatchId, BatchStatus, JsonText};
use crate::store::StoreError;

/// Submit a file as a batch. Prints its id.
///
/// Nothing runs before the whole file is in; a file that cannot be taken leaves nothing. The format is that of `rowmill run`.
///
/// The id is all that goes to stdout, also with --wait: what the batch came to goes to stderr. With
/// --wait --json what it came to goes to stdout, with its id.
///
/// Exit status with --wait: 0 all rows succeeded, 1 some failed or the batch was aborted; else 0. 2 it could not be submitted.
#[derive(Debug, Args)]
pub struct SubmitCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// The operation; case does not matter.
    #[arg(value_parser = parse_name)]
    pub op: String,
    /// The file with the rows; - reads stdin, and object:NAME an object of the object store. Without one the batch is held and empty.
    #[arg(value_name = "FILE", required_unless_present_any = ["hold", "after"])]
    pub file: Option<PathBuf>,
    /// How the file holds its rows; by its name when this is not given.
    #[arg(long)]
    pub format: Option<FormatArg>,
    /// What the processor is told about the batch as a whole, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub context: String,
    /// Hold the batch: rows can be appended, and nothing runs until it is released.
    #[arg(long, conflicts_with = "wait")]
    pub hold: bool,
    /// Instead of a file: the rows are the outputs of this batch's rows that succeeded, with their lines, and are made when it has ended.
    #[arg(long, value_name = "BATCH", conflicts_with_all = ["file", "hold", "format"])]
    pub after: Option<BatchId>,
    /// With --after: how that batch must have ended; else this one is aborted. By default success.
    #[arg(long, value_name = "CONDITION")]
    pub when: Option<WhenArg>,
    /// Submit it into a group of batches, which the first one makes: see `rowmill group`.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub group: Option<String>,
    #[command(flatten)]
    pub terms: TermsArgs,
    /// A name for this submission: when it is made again, after a lost answer or a crash, the batch is there once, and what was missing of it is appended. With
    /// another file or other options the key is refused.
    #[arg(long, value_name = "KEY", value_parser = parse_name)]
    pub key: Option<String>,
    /// Wait until the batch has ended, and show its progress. Over SQLite, where no worker can run beside this, also run it.
    #[arg(long)]
    pub wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// [`AfterCondition`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum WhenArg {
    /// All of its rows succeeded.
    Success,
    /// Whatever its end, if a row succeeded.
    Any,
}

impl From<WhenArg> for AfterCondition {
    fn from(when: WhenArg) -> AfterCondition {
        match when {
            WhenArg::Success => AfterCondition::Success,
            WhenArg::Any => AfterCondition::Any,
        }
    }
}

/// Append a file to a batch that is held. Prints how many rows it has now.
///
/// The lines go on from the highest that it has. The file comes in whole or not at all: until its last row is there its rows do not count, and the batch cannot be released.
/// Several may append at the same moment: the rows of each file stay together. A file of more than 10,000 rows or 4 MiB lets others wait until it is in.
#[derive(Debug, Args)]
pub struct AppendCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// The file with the rows; - reads stdin, and object:NAME an object of the object store.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How the file holds its rows; by its name when this is not given.
    #[arg(long)]
    pub format: Option<FormatArg>,
    /// A name for this append: when it is made again, after a lost answer or a crash, the rows are there once. With another file the key is refused.
    #[arg(long, value_name = "KEY", value_parser = parse_name)]
    pub key: Option<String>,
    /// Release the batch afterwards.
    #[arg(long)]
    pub release: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Release a batch that is held: it can be run from now on. Prints how many rows it has.
#[derive(Debug, Args)]
pub struct ReleaseCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Submits.
///
/// # Errors
/// Why it could not be submitted.
pub fn submit(args: &SubmitCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    // clap drops a requirement where a conflict explains that it is not met.
    if args.when.is_some() && args.after.is_none() {
        bail!("--when says how another batch must have ended: name that batch with --after");
    }
    let context = JsonText::check(args.context.as_str()).context("--context")?;
    let (start_at, deadline_at) = args.terms.times(args.key.is_some())?;
    let limits = inflate_limits(&config);
    let source = args.file.as_deref().map(Source::of);
    // What cannot be opened is said before anything is begun.
    let local = match source {
        Some(Source::Local(path)) => Some(open_file(path, args.format)?),
        _ => None,
    };
    block_on(async {
        let stop = Stop::listen_and_leave("rowmill status and rowmill batches show what is there of the batch")?;
        let parts = Parts::open(&config).await?;
        let (file, rows_digest) = match source {
            Some(source) => {
                let rows_digest =
                    if args.key.is_some() { digest_rows(args.format, &format!("{} ", args.hold), &parts.jobs, source, &stop).await? } else { None };
                if stop.is_asked() {
                    say!("stopped while the file was read; nothing was submitted");
                    return Ok(ExitCode::from(stop.exit_status()));
                }
                let file = match local {
                    Some(file) => file,
                    None => source.open(&parts.jobs, args.format).await?,
                };
                (Some(file), rows_digest)
            }
            None => (None, None),
        };
        let request = BatchRequest {
            context,
            terms: args.terms.terms.terms(),
            start_at,
            deadline_at,
            key: args.key.clone(),
            rows_digest,
            after: args.after.map(|batch| After { batch, condition: args.when.unwrap_or(WhenArg::Success).into() }),
            group: args.group.clone(),
            hold: args.after.is_none(),
            ..BatchRequest::new(&args.app, &args.op)
        };
        let id = parts.jobs.batch_submit(request).await?;
        // What is there of it already, by its key.
        let known = parts.jobs.store().read_batch(id).await?;
        let is_held = known.status == BatchStatus::Wait && args.after.is_none();
        if let Some(file) = file.filter(|_| is_held) {
            let place = Place { lines: FileLines::Record, skipped: known.counts.rows };
            let taken = if args.key.is_some() {
                go_on(&parts.jobs, id, file, limits, place, &stop).await
            } else {
                let taken = take(&parts.jobs, id, None, file, limits, FileLines::Record, &stop).await;
                taken.map(|taken| taken.is_some())
            };
            if !matches!(taken, Ok(true)) {
                return not_taken(&parts.jobs, id, args.key.is_some(), taken.map(|_| ()), &stop).await;
            }
        }
        let rows = if !is_held {
            known.counts.rows
        } else if args.hold {
            parts.jobs.store().read_batch(id).await?.counts.rows
        } else {
            // A file without rows was refused above: what fails here may pass, and nothing is lost.
            let how = || format!("batch {id} is held with all its rows: rowmill release {id}, or rowmill abort {id}");
            parts.jobs.release(id).await.with_context(how)?
        };
        if args.json && !args.wait {
            print_data(&json!({ "id": id, "rows": rows, "held": args.hold }).to_string())?;
        } else if !args.json {
            let state = match (is_held, args.hold) {
                (false, _) if args.after.is_some() => "made when the batch before has ended".to_owned(),
                (false, _) => format!("submitted before and {} by now", known.status.as_str()),
                (true, true) => "held".to_owned(),
                (true, false) => "queued".to_owned(),
            };
            say!("{rows} rows, {state}");
            print_data(&id.to_string())?;
        }
        if args.wait {
            let shown = if args.json { Shown::Json } else { Shown::OnStderr };
            return wait_and_show(parts, id, shown, &stop).await;
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Appends.
///
/// # Errors
/// Why it could not.
pub fn append(args: &AppendCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let limits = inflate_limits(&config);
    let source = Source::of(&args.file);
    let local = match source {
        Source::Local(path) => Some(open_file(path, args.format)?),
        Source::Object(_) => None,
    };
    block_on(async {
        let stop = Stop::listen_and_leave("a file that was not appended to its end is taken back")?;
        let parts = Parts::open(&config).await?;
        let key = match &args.key {
            None => None,
            Some(name) => {
                let Some(digest) = digest_rows(args.format, "", &parts.jobs, source, &stop).await? else {
                    say!("stopped while the file was read; nothing of it was appended");
                    return Ok(ExitCode::from(stop.exit_status()));
                };
                Some(AppendKey { name: name.clone(), digest })
            }
        };
        let file = match local {
            Some(file) => file,
            None => source.open(&parts.jobs, args.format).await?,
        };
        let Some(appended) = take(&parts.jobs, args.batch, key, file, limits, FileLines::Next, &stop).await? else {
            say!("stopped: nothing of the file was appended; the batch is still held");
            return Ok(ExitCode::from(stop.exit_status()));
        };
        if appended.was_there {
            say!("this file was appended with its key before; nothing was added");
        }
        // A repeat may come after the batch was released and run.
        let is_held = parts.jobs.store().read_batch(args.batch).await?.status == BatchStatus::Wait;
        if args.release && (is_held || !appended.was_there) {
            parts.jobs.release(args.batch).await?;
        }
        print_rows(args.batch, appended.rows, args.json)?;
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Releases.
///
/// # Errors
/// Why it could not.
pub fn release(args: &ReleaseCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let rows = parts.jobs.release(args.batch).await?;
        print_rows(args.batch, rows, args.json)?;
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Appends a file to a held batch, whole or not at all, and records it there. None when the program was asked to stop.
async fn take(
    jobs: &JobManager,
    id: BatchId,
    key: Option<AppendKey>,
    file: InputFile,
    limits: InflateLimits,
    lines: FileLines,
    stop: &Stop,
) -> anyhow::Result<Option<AppendState>> {
    let InputFile { name, form, reader, fingerprint, object } = file;
    let Some(reader) = open_rows(form, limits, reader, &name, stop).await? else { return Ok(None) };
    let append = jobs.append_file(id, key).await?;
    let record = || batch_file(&name, form, fingerprint.sum(), 1, object);
    append_whole(reader, append, lines, record, stop).await.with_context(|| format!("cannot take {name}"))
}

/// Appends what is missing of a file to the batch of its key, and records it there. False when the program was asked to stop.
async fn go_on(jobs: &JobManager, id: BatchId, file: InputFile, limits: InflateLimits, place: Place, stop: &Stop) -> anyhow::Result<bool> {
    let InputFile { name, form, reader, fingerprint, object } = file;
    let taking = || format!("cannot take {name}");
    let Some(reader) = open_rows(form, limits, reader, &name, stop).await? else { return Ok(false) };
    let mut appended = Appended::default();
    append_all(reader, &**jobs.store(), id, place, stop, &mut appended).await.with_context(taking)?;
    if appended.whole {
        // The first rows may have come in before: the file begins with the batch.
        let first_row = if place.skipped > 0 { 1 } else { appended.first_row.unwrap_or(1) };
        let file = batch_file(&name, form, fingerprint.sum(), first_row, object);
        jobs.record_batch_file(id, &file, None).await.with_context(taking)?;
    }
    Ok(appended.whole)
}

/// The digest that stands for the file's rows where a submission or an append is compared with that of its key.
///
/// None when the program was asked to stop.
async fn digest_rows(format: Option<FormatArg>, options: &str, jobs: &JobManager, source: Source<'_>, stop: &Stop) -> anyhow::Result<Option<String>> {
    if matches!(source, Source::Local(path) if path.as_os_str() == "-") {
        bail!("with --key the file is read twice, which stdin cannot be: give it a file");
    }
    let file = source.open(jobs, format).await?;
    let FileForm { format, gzip } = file.form;
    let Some(sum) = until_stop(stop, move || sum_of(file)).await?.transpose()? else { return Ok(None) };
    Ok(Some(format!("{format:?} {gzip} {options}{}", sum.sha256)))
}

/// A file that was not taken whole leaves nothing; but with a key, what is there is gone on with when it is submitted again, unless the file is at fault.
async fn not_taken(jobs: &JobManager, id: BatchId, has_key: bool, taken: anyhow::Result<()>, stop: &Stop) -> anyhow::Result<ExitCode> {
    let file_is_bad = matches!(&taken, Err(error) if error.chain().any(|cause| cause.downcast_ref::<IntakeError>().is_some()));
    if has_key && !file_is_bad {
        taken.with_context(|| format!("batch {id} is held with the rows up to there: submit it again with its key to go on"))?;
        say!("stopped: batch {id} is held with the rows up to there; submit it again with its key to go on");
        return Ok(ExitCode::from(stop.exit_status()));
    }
    match jobs.store().discard_batch(id).await {
        Ok(()) => {}
        // Another who had the same key was faster.
        Err(StoreError::NotFound(_)) if has_key => {}
        // What was wrong with the file is said all the same.
        Err(error) if taken.is_err() => say!("batch {id} is left behind, held: rowmill abort {id} ({:#})", anyhow::Error::from(error)),
        Err(error) => return Err(error.into()),
    }
    taken?;
    say!("stopped while the file was read; nothing was submitted");
    Ok(ExitCode::from(stop.exit_status()))
}

fn print_rows(id: BatchId, rows: u64, json: bool) -> anyhow::Result<()> {
    print_data(&if json { json!({ "id": id, "rows": rows }).to_string() } else { rows.to_string() })
}
