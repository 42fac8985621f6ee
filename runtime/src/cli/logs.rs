//! `rowmill logs`: what rows and `mark-done` wrote.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::TryStreamExt;
use serde::Serialize;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::wiring::{Parts, block_on};
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS};
use crate::export::MarkCallView;
use crate::model::{BatchId, MarkCall, RowLog, RowStatus, printable, visible, without_controls};

/// Print what the rows of a batch wrote to their log, stdout and stderr, in the order of their lines.
///
/// Each line begins with the number of its row. What commands a terminal is shown as its code.
///
/// With --mark the calls of mark-done are shown instead: what each wrote, and how it failed.
#[derive(Debug, Args)]
pub struct LogsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// Only the row of this line; status 1 when it wrote nothing, or has not ended.
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub line: Option<u32>,
    /// Go on until all rows have ended, each row after the one before it.
    #[arg(long)]
    pub follow: bool,
    /// Show what mark-done wrote, call by call; status 1 when no call wrote anything or failed.
    #[arg(long, conflicts_with_all = ["line", "follow"])]
    pub mark: bool,
    /// The round whose calls of mark-done are shown; the one that the batch is in unless given.
    #[arg(long, value_name = "N", requires = "mark", value_parser = clap::value_parser!(u32).range(1..))]
    pub round: Option<u32>,
    /// Print a line of JSON for each row or call.
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    line: u32,
    status: RowStatus,
    attempts: u32,
    log: &'a str,
}

#[derive(Serialize)]
struct JsonDropped {
    dropped: u64,
}

/// Prints logs.
///
/// # Errors
/// Why they could not be read.
pub fn run(args: &LogsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        if args.mark {
            return show_mark(args, &parts).await;
        }
        if let Some(line) = args.line {
            let found = parts.jobs.row_log(args.batch, line).await?;
            if let Some(row) = &found {
                print(&as_text(row, args.json)?)?;
            }
            return Ok(ExitCode::from(if found.is_some() { EXIT_SUCCESS } else { EXIT_SOME_FAILED }));
        }
        let stop = Stop::listen()?;
        let mut logs = parts.jobs.stream_logs(args.batch, args.follow).await?;
        let working = args.follow.then(|| parts.work_if_alone());
        let mut stopped = false;
        loop {
            let row = tokio::select! {
                row = logs.try_next() => row?,
                () = stop.asked() => {
                    stopped = true;
                    break;
                }
            };
            let Some(row) = row else { break };
            if !print(&as_text(&row, args.json)?)? {
                break;
            }
        }
        let dropped = parts.jobs.dropped_logs(args.batch).await?;
        if let Some(working) = working {
            working.end().await?;
        }
        if stopped {
            return Ok(ExitCode::from(stop.exit_status()));
        }
        if dropped > 0 {
            let text = if args.json {
                format!("{}\n", serde_json::to_string(&JsonDropped { dropped })?)
            } else {
                format!("[the logs of {dropped} rows were dropped: together they were more than a batch of this app may log]\n")
            };
            print(&text)?;
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

async fn show_mark(args: &LogsCommand, parts: &Parts) -> anyhow::Result<ExitCode> {
    let current = parts.jobs.store().read_batch(args.batch).await?.round;
    let round = args.round.unwrap_or(current);
    if round > current {
        bail!("batch {} has no round {round}: it is in round {current}", args.batch);
    }
    let calls = parts.jobs.mark_calls(args.batch, round).await?;
    for call in &calls {
        if !print(&call_as_text(round, call, args.json)?)? {
            break;
        }
    }
    Ok(ExitCode::from(if calls.is_empty() { EXIT_SOME_FAILED } else { EXIT_SUCCESS }))
}

fn call_as_text(round: u32, call: &MarkCall, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(format!("{}\n", printable(&serde_json::to_string(&MarkCallView::of(round, call))?)));
    }
    let MarkCall { call, error, log, log_dropped, .. } = call;
    let mut text: String = visible(log.as_deref().unwrap_or_default()).lines().map(|text| format!("call {call}: {text}\n")).collect();
    if *log_dropped {
        text.push_str(&format!("[the log of call {call} was dropped: with it the logs would be more than a batch of this app may log]\n"));
    }
    if let Some(error) = error {
        text.push_str(&format!("[call {call} failed: {}]\n", without_controls(error)));
    }
    Ok(text)
}

fn as_text(row: &RowLog, json: bool) -> anyhow::Result<String> {
    if json {
        let row = JsonRow { line: row.line, status: row.status, attempts: row.attempts, log: &row.log };
        return Ok(format!("{}\n", printable(&serde_json::to_string(&row)?)));
    }
    Ok(visible(&row.log).lines().map(|text| format!("{}: {text}\n", row.line)).collect())
}

/// False when nobody reads any more.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn each_call_of_mark_done_is_shown_with_its_number() {
        let call = MarkCall {
            call: 2,
            ended_at: Timestamp(5),
            error: Some("the partner\nis away".to_owned()),
            log: Some("info: a\x1b[2J\ninfo: b\n".to_owned()),
            log_dropped: false,
        };
        let text = call_as_text(3, &call, false).unwrap();
        assert_eq!(text, format!("call 2: info: a\\u{{1b}}[2J\ncall 2: info: b\n[call 2 failed: {}]\n", without_controls("the partner\nis away")));
        let read: serde_json::Value = serde_json::from_str(&call_as_text(3, &call, true).unwrap()).unwrap();
        assert_eq!((read["round"].as_u64(), read["call"].as_u64(), read["log"].as_str()), (Some(3), Some(2), call.log.as_deref()));
        let dropped = MarkCall { log: None, log_dropped: true, error: None, ..call };
        assert!(call_as_text(1, &dropped, false).unwrap().starts_with("[the log of call 2 was dropped: "));
    }

    #[test]
    fn no_log_commands_the_terminal_of_who_reads_it() {
        let log = "info: a\x1b[2J\u{9b}31m\0\r\nstderr </script>\u{202e}";
        let row = RowLog { row_no: 1, line: 7, status: RowStatus::Failed, attempts: 2, log: log.to_owned() };
        assert_eq!(as_text(&row, false).unwrap(), "7: info: a\\u{1b}[2J\\u{9b}31m\\u{0}\\u{d}\n7: stderr </script>\\u{202e}\n");
        let json = as_text(&row, true).unwrap();
        assert!(!json.trim_end().chars().any(char::is_control), "{json:?}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((read["line"].as_u64(), read["status"].as_str(), read["log"].as_str()), (Some(7), Some("failed"), Some(log)));
    }
}
