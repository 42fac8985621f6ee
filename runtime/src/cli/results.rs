//! `rowmill rows` and `results`: what became of the rows.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::config::ConfigArgs;
use super::wiring::{block_on, open_blobs, open_store};
use super::{EXIT_SUCCESS, print_data};
use crate::export::{OutputDirectory, ResultKind, ResultOptions, RowSource, Summary, export_batch, rejected_text, write_past_outcome, write_result};
use crate::model::{BatchId, Ending, Message, RecordedOutcome, RowStatus, printable};
use crate::store::{ResultCursor, Store};

/// Rows that are read at once.
const PAGE_ROWS: u32 = 2_000;

/// Print the rows of a batch with what is known of them now, one line of JSON each, in the order of their lines.
///
/// A row that has no outcome yet has the status null. One that was rejected has its text in the place of an input, and the message that it will fail with.
#[derive(Debug, Args)]
pub struct RowsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// Only rows that ended so.
    #[arg(long)]
    pub status: Option<RowStatusArg>,
    /// Only rows with this code among their messages, such as `trap`, or one of the processor's own. As often as you like: any of them.
    #[arg(long, value_name = "CODE")]
    pub code: Vec<String>,
    /// What rows came to in the rounds before, after which they were run again: one line for each row and round, in the order in which the rows came in.
    #[arg(long, conflicts_with = "status")]
    pub history: bool,
    /// At most so many rows.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// [`RowStatus`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum RowStatusArg {
    Success,
    Failed,
    Aborted,
}

/// Print the results of a batch that has ended, one line of JSON per row, in the order of their lines; or put them into a directory.
///
/// A directory gets results.ndjson, failed.ndjson, files/, summary.json and manifest.json, as `rowmill run` leaves them.
///
/// Earlier results of the same batch are replaced. A directory that holds another result, or files that rowmill did not write or that were changed since, is refused.
#[derive(Debug, Args)]
pub struct ResultsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// A directory, which is made when it is missing.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace the result of another batch, or of another command, that rowmill wrote there. Other files, and files that were changed since, are refused all the same.
    #[arg(long, requires = "out")]
    pub overwrite: bool,
}

#[derive(Serialize)]
struct RowLine<'a> {
    line: u32,
    status: Option<RowStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    /// The text of a row that was rejected, and why it will fail.
    #[serde(flatten)]
    rejected: Option<Rejected<'a>>,
}

#[derive(Serialize)]
struct Rejected<'a> {
    text: &'a str,
    messages: [Message; 1],
}

/// Prints rows.
///
/// # Errors
/// Why they could not be read.
pub fn rows(args: &RowsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let store = open_store(&config).await?;
        let limit = args.limit.unwrap_or(u64::MAX);
        if args.history {
            print_history(&*store, args.batch, limit, &args.code).await?;
        } else {
            print_rows(&*store, args.batch, limit, |row| wanted(row, args)).await?;
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Prints rows in line order, a page at a time, until there are enough or nobody reads them any more.
async fn print_rows(store: &dyn Store, id: BatchId, limit: u64, wanted: impl Fn(&RecordedOutcome) -> bool) -> anyhow::Result<()> {
    let mut out = Lines::new();
    let mut left = limit;
    let mut after = None;
    'pages: loop {
        let page = store.read_results(id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = Some(ResultCursor { line: last.line, row_no: last.row_no });
        for row in page.iter().filter(|row| wanted(row)) {
            if left == 0 || !out.write(|line| write_row(line, row))? {
                break 'pages;
            }
            left -= 1;
        }
    }
    out.end()
}

/// The same with what rows came to before they were run again.
async fn print_history(store: &dyn Store, id: BatchId, limit: u64, codes: &[String]) -> anyhow::Result<()> {
    let mut out = Lines::new();
    let mut left = limit;
    let mut after = None;
    'pages: loop {
        let page = store.read_past_outcomes(id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        for outcome in page.iter().filter(|outcome| has_code(&outcome.messages, codes)) {
            if left == 0 || !out.write(|line| Ok(write_past_outcome(line, outcome)?))? {
                break 'pages;
            }
            left -= 1;
        }
    }
    out.end()
}

fn has_code(messages: &[Message], codes: &[String]) -> bool {
    codes.is_empty() || messages.iter().any(|message| codes.contains(&message.code))
}

fn wanted(row: &RecordedOutcome, args: &RowsCommand) -> bool {
    let status = args.status.map(|status| match status {
        RowStatusArg::Success => RowStatus::Success,
        RowStatusArg::Failed => RowStatus::Failed,
        RowStatusArg::Aborted => RowStatus::Aborted,
    });
    let has_code = has_code(&row.messages, &args.code) || message_of_rejected(row).is_some_and(|message| args.code.contains(&message.code));
    (status.is_none() || row.status == status) && has_code
}

/// The message that a row which was rejected, and has not come to its turn, will fail with.
fn message_of_rejected(row: &RecordedOutcome) -> Option<Message> {
    let reason = row.rejected.as_ref().filter(|_| row.status.is_none())?;
    Ending::Rejected { reason: reason.clone() }.message()
}

fn write_row(out: &mut Vec<u8>, row: &RecordedOutcome) -> anyhow::Result<()> {
    if row.status.is_some() {
        return Ok(write_result(out, row)?);
    }
    let input = crate::export::on_one_line(&row.input);
    let text = rejected_text(row);
    let rejected = text.as_deref().zip(message_of_rejected(row)).map(|(text, message)| Rejected { text, messages: [message] });
    let input = if rejected.is_none() { Some(serde_json::from_str(&input)?) } else { None };
    let line = RowLine { line: row.line, status: None, input, rejected };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}

/// Lines of JSON to stdout, of which nothing commands a terminal.
struct Lines {
    out: std::io::BufWriter<std::io::Stdout>,
    line: Vec<u8>,
}

impl Lines {
    fn new() -> Lines {
        Lines { out: std::io::BufWriter::new(std::io::stdout()), line: Vec::new() }
    }

    /// False when nobody reads any more.
    fn write(&mut self, line: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<bool> {
        self.line.clear();
        line(&mut self.line)?;
        let text = std::str::from_utf8(&self.line).context("a line is not UTF-8")?;
        written(self.out.write_all(printable(text).as_bytes()))
    }

    fn end(mut self) -> anyhow::Result<()> {
        written(self.out.flush()).map(drop)
    }
}

pub(super) fn written(result: std::io::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// Prints or exports results.
///
/// # Errors
/// Why they could not be read or written; among others, that the batch has not ended.
pub fn results(args: &ResultsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let store = open_store(&config).await?;
        let batch = store.read_batch(args.batch).await?;
        if batch.finished_at.is_none() {
            bail!("batch {} is {}: results can be read once it has ended; rowmill rows shows what there is", batch.id, batch.status.as_str());
        }
        let Some(directory) = &args.out else {
            print_rows(&*store, batch.id, u64::MAX, |_| true).await?;
            return Ok(ExitCode::from(EXIT_SUCCESS));
        };
        let owner = (batch.id, ResultKind::Results);
        let blobs = open_blobs(&config)?;
        let out = OutputDirectory::open_for(directory, owner, args.overwrite)?;
        let options = ResultOptions { kind: ResultKind::Results, run: None, overwrite: args.overwrite };
        let exported = export_batch(&*store, &blobs, &batch, RowSource::JSON, &out, options).await;
        let summary: Summary = match exported {
            Ok(summary) => summary,
            Err(error) => {
                out.abandon();
                return Err(error);
            }
        };
        out.close()?;
        print_data(&serde_json::to_string(&summary)?)?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}
