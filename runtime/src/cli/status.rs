//! `rowmill status` and `abort`: a batch as it is now.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::wiring::{Parts, block_on, open_store};
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data, progress};
use crate::export::{BatchView, read_input_files, read_past_rounds};
use crate::jobs::JobError;
use crate::model::{
    After, Batch, BatchCounts, BatchFile, BatchId, BatchStatus, BatchStep, JsonText, OpenAppend, Part, PastRound, Timestamp, mark_failure,
    without_controls,
};
use crate::status::Snapshot;
use crate::store::Store;

/// Between two looks at a batch that is watched.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Characters of a context that are shown, at most.
const CONTEXT_CHARACTERS_MAX: usize = 1_000;
/// A batch that was aborted before a row had an outcome is watched for this time longer, so that a worker may tell its processor.
/// Perhaps no worker runs.
const DONE_GRACE: Duration = Duration::from_secs(2);

/// Past rounds that are shown, at most: the last ones.
const ROUNDS_MAX: u32 = 100;

/// Show how far a batch or a slow query is.
#[derive(Debug, Args)]
pub struct StatusCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// Show its progress until it is done.
    ///
    /// Exit status: 0 all rows succeeded, 1 some failed or the batch was aborted.
    #[arg(long)]
    pub watch: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Abort a batch or a slow query: what has no outcome is not run, and what runs is stopped.
///
/// One that has ended stays as it is.
///
/// Exit status: 0 it is aborted now, also when it was before; 1 it has ended otherwise.
#[derive(Debug, Args)]
pub struct AbortCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// Why, for those who look at it.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Shows it.
///
/// # Errors
/// Why it could not be read.
pub fn status(args: &StatusCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        if args.watch {
            let (stop, parts) = (Stop::listen()?, Parts::open(&config).await?);
            let shown = if args.json { Shown::Json } else { Shown::Text };
            return wait_and_show(parts, args.batch, shown, &stop).await;
        }
        let store = open_store(&config).await?;
        print_batch(&*store, &store.read_batch(args.batch).await?, args.json).await?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Aborts it.
///
/// # Errors
/// Why it could not.
pub fn abort(args: &AbortCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let aborted = parts.jobs.batch_abort(args.batch, args.reason.as_deref()).await?;
        if !aborted.changed {
            let was = if aborted.status == BatchStatus::Aborted { "was aborted" } else { "had ended" };
            say!("it {was} before; nothing was changed");
        }
        let store = parts.jobs.store();
        print_batch(&**store, &store.read_batch(args.batch).await?, args.json).await?;
        parts.close().await;
        Ok(ExitCode::from(if aborted.status == BatchStatus::Aborted { EXIT_SUCCESS } else { EXIT_SOME_FAILED }))
    })
}

/// Shows the progress of a batch until it is done, or was aborted, and then the batch. Where no worker can run beside this,
/// runs it.
///
/// `shown` says where the batch is printed at its end.
pub(super) async fn wait_and_show(parts: Parts, id: BatchId, shown: Shown, stop: &Stop) -> anyhow::Result<ExitCode> {
    let board = Arc::clone(parts.jobs.status());
    let (store, is_shared) = (Arc::clone(parts.jobs.store()), parts.store_is_shared);
    let jobs = parts.jobs.clone();
    let following = async {
        let mut aborted_since: Option<Instant> = None;
        loop {
            let batch = store.read_batch(id).await?;
            board.publish(Snapshot::of(&batch));
            if batch.step == BatchStep::Done {
                return Ok::<Batch, JobError>(batch);
            }
            if is_shared && ended_by_abort(&batch) && aborted_since.get_or_insert_with(Instant::now).elapsed() >= DONE_GRACE {
                return Ok(batch);
            }
            jobs.abort_if_overdue(&batch).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let progress = tokio::spawn(progress::show(board.watch(id)));
    let no_worker = parts.say_if_no_worker(store.read_batch(id).await?.kind);
    let working = parts.work_if_alone();
    let batch = tokio::select! {
        batch = following => batch,
        () = stop.asked() => store.read_batch(id).await.map_err(JobError::from),
    };
    // Shown or not, the batch is what it is.
    drop(no_worker);
    progress.abort();
    let _ = progress.await;
    working.end().await?;
    let batch = batch?;
    if batch.step != BatchStep::Done && !ended_by_abort(&batch) {
        say!("stopped watching; the batch goes on, where there are workers: rowmill status --watch {id}");
        return Ok(ExitCode::from(stop.exit_status()));
    }
    match shown {
        Shown::Json => print_data(&json_of(&*store, &batch).await?)?,
        Shown::Text => print_data(&text_of(&*store, &batch).await?)?,
        Shown::OnStderr => say!("{}", text_of(&*store, &batch).await?),
    }
    Ok(ExitCode::from(if batch.status == BatchStatus::Success { EXIT_SUCCESS } else { EXIT_SOME_FAILED }))
}

/// Returns true if it was aborted, and nothing of what is shown will change: the command need not wait until a worker has told
/// its processor.
fn ended_by_abort(batch: &Batch) -> bool {
    batch.status == BatchStatus::Aborted && batch.has_ended()
}

/// How a command shows a batch that it waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    Json,
    Text,
    /// stdout has its data already.
    OnStderr,
}

async fn print_batch(store: &dyn Store, batch: &Batch, json: bool) -> anyhow::Result<()> {
    print_data(&if json { json_of(store, batch).await? } else { text_of(store, batch).await? })
}

async fn json_of(store: &dyn Store, batch: &Batch) -> anyhow::Result<String> {
    let input_files = read_input_files(store, batch.id).await?;
    let past = read_past_rounds(store, batch, ROUNDS_MAX).await?;
    Ok(serde_json::to_string(&BatchView::of(batch, &input_files, &past, |_, file| file)?)?)
}

async fn text_of(store: &dyn Store, batch: &Batch) -> anyhow::Result<String> {
    let input_files = read_input_files(store, batch.id).await?;
    let past = read_past_rounds(store, batch, ROUNDS_MAX).await?;
    let BatchCounts { rows, success, failed, aborted } = batch.counts;
    let mut text = format!(
        "{}: {} of app {}, version {}, {}: {rows} rows, {success} success, {failed} failed, {aborted} aborted",
        batch.id,
        batch.op,
        batch.app,
        batch.processor_version,
        batch.status.as_str()
    );
    if let Some(group) = &batch.group {
        text.push_str(&format!("\nin group {group:?}"));
    }
    if let Some(After { batch: first, condition }) = batch.after {
        text.push_str(&format!("\nafter {first} ({})", condition.as_str()));
    }
    if batch.started_at.is_none()
        && !batch.status.is_final()
        && let Some(start) = batch.terms.start_at
    {
        text.push_str(&format!("\nstarts at {}", moment(start)));
    }
    if batch.step == BatchStep::Rows
        && let Some(deadline) = batch.terms.deadline_at
    {
        text.push_str(&format!("\nends at {} at the latest", moment(deadline)));
    }
    if batch.round > 1 {
        text.push_str(&format!("\nround {}", batch.round));
    }
    for PastRound { round, status, counts: BatchCounts { success, failed, aborted, .. }, .. } in &past {
        text.push_str(&format!("\nround {round} was {}: {success} success, {failed} failed, {aborted} aborted", status.as_str()));
    }
    if let Some(why) = &batch.abort_reason {
        text.push_str(&format!("\naborted: {why}"));
    }
    if let Some(told) = mark_text(batch) {
        text.push_str(&format!("\n{told}"));
    }
    for part in Part::ALL {
        if let Some(at) = batch.pruned.at(part) {
            text.push_str(&format!("\nits {} were pruned on {at}", part.as_str()));
        }
    }
    if batch.context != JsonText::default() {
        text.push_str(&format!("\ncontext {}", shortened(batch.context.as_str())));
    }
    for BatchFile { name, form, size_bytes, sha256, object, source_object, .. } in &input_files {
        text.push_str(&format!("\nfrom {name:?} ({form}): {size_bytes} bytes, SHA-256 {sha256}"));
        if let Some(object) = source_object {
            text.push_str(&format!(", read from object:{object}"));
        }
        if let Some(object) = object {
            text.push_str(&format!(", kept as {object}"));
        }
    }
    if let Some(OpenAppend { rows, expires_at }) = batch.open_append {
        let until = moment(expires_at);
        text.push_str(&format!("\na file is being appended: {rows} of its rows are stored, and count once the file is whole; without progress they are removed after {until}"));
    }
    for file in &batch.files {
        text.push_str(&format!("\nfile {}: {} bytes, {}", file.name, file.size_bytes, file.object));
    }
    let text: Vec<String> = text.lines().map(without_controls).collect();
    Ok(text.join("\n"))
}

/// A context as one line, cut where it is long.
fn shortened(context: &str) -> String {
    let line = context.replace(['\n', '\r'], " ");
    match line.char_indices().nth(CONTEXT_CHARACTERS_MAX) {
        None => line,
        Some((end, _)) => {
            format!("{} … ({} bytes; --json has all of it)", &line[..end], context.len())
        }
    }
}

/// How often `mark-done` was called, how it failed, and when it is called again.
fn mark_text(batch: &Batch) -> Option<String> {
    let calls = batch.mark_calls;
    let told = match &batch.mark_error {
        Some(error) => mark_failure(calls, error),
        None if calls > 1 => format!("mark-done was called {calls} times"),
        // Nearly always it is called once, and succeeds.
        None => return None,
    };
    let (next, most) = (calls + 1, batch.terms.mark_calls_max());
    // A call whose worker died counts, too, and does not use up those that the processor may ask for.
    let next = if next <= most { format!("call {next} of at most {most}") } else { format!("call {next}") };
    Some(match (batch.step, batch.mark_due_at) {
        (BatchStep::Mark, Some(due)) => format!("{told}; {next} is due at {}", moment(due)),
        (BatchStep::Mark, None) => format!("{told}; {next} runs or is due now"),
        _ => told,
    })
}

fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| format!("{} ms", at.0), |at| at.to_string())
}
