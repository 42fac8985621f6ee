//! `rowmill events`: what happens to batches.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use futures_util::TryStreamExt;

use super::EXIT_SUCCESS;
use super::config::ConfigArgs;
use super::signals::Stop;
use super::wiring::{Parts, block_on};
use crate::jobs::EventsFrom;
use crate::model::{BatchCounts, BatchEvent, BatchId, EventPosition, EventsOf, printable, without_controls};

/// Show what happened to a batch, to those of an app, or to all, in order for each batch.
///
/// Events are submitted, released, started, progress and row-failed (each once a second at most), aborted, finished and summarised. Each has a position; --after goes
/// on behind it.
#[derive(Debug, Args)]
pub struct EventsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only those of this batch or slow query.
    pub batch: Option<BatchId>,
    /// Only those of this app.
    #[arg(long, value_name = "APP", conflicts_with = "batch")]
    pub app: Option<String>,
    /// Only those behind this position, such as 812-4711.
    #[arg(long, value_name = "POSITION", default_value_t)]
    pub after: EventPosition,
    /// Go on with those that come, until Ctrl-C or SIGTERM; of one batch, until its last.
    #[arg(long)]
    pub follow: bool,
    /// Print JSON, one line each.
    #[arg(long)]
    pub json: bool,
}

/// Shows them.
///
/// # Errors
/// Why they could not be read.
pub fn run(args: &EventsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let stop = Stop::listen()?;
        let parts = Parts::open(&config).await?;
        let of = match (args.batch, &args.app) {
            (Some(id), _) => EventsOf::Batch(id),
            (None, Some(app)) => EventsOf::App(app.clone()),
            (None, None) => EventsOf::All,
        };
        let mut events = parts.jobs.events(of, EventsFrom { after: args.after, follow: args.follow }).await?;
        loop {
            let event = tokio::select! {
                event = events.try_next() => event?,
                () = stop.asked() => None,
            };
            let Some(event) = event else { break };
            let text = if args.json { serde_json::to_string(&event)? } else { line(&event) };
            match writeln!(std::io::stdout(), "{}", printable(&text)) {
                Ok(()) => {}
                // Whoever reads it has enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error).context("cannot write to stdout"),
            }
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn line(event: &BatchEvent) -> String {
    let BatchEvent { position, at, batch, app, op, kind, .. } = event;
    let BatchCounts { rows, success, failed, aborted } = event.counts;
    let mut text =
        format!("{position} {at} {batch} {app}/{op} {}: {rows} rows, {success} success, {failed} failed, {aborted} aborted", kind.as_str());
    if let Some(line) = event.line {
        let said: Vec<String> = event.messages.iter().map(crate::model::Message::text).collect();
        text.push_str(&format!("; line {line}: {}", said.join("; ")));
    }
    if let Some(more) = event.failures.filter(|failures| *failures > 1) {
        text.push_str(&format!(" ({} more)", more - 1));
    }
    if let Some(reason) = &event.reason {
        text.push_str(&format!("; {reason}"));
    }
    without_controls(&text)
}
