//! `rowmill batches`: the batches of an app, and those that a filter finds.

use std::process::ExitCode;

use clap::Args;

use super::config::ConfigArgs;
use super::table::Table;
use super::terms::parse_name;
use super::usage::{Past, parse_past};
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::model::{BatchFilter, BatchId, BatchPosition, BatchStatus, Clock, ListedBatch, SystemClock};

/// Batches that are read at once.
const PAGE: u32 = 500;

/// List the batches and slow queries of an app, the newest first.
///
/// A batch is listed when all filters match it.
#[derive(Debug, Args)]
pub struct BatchesCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    /// Only of this operation; case does not matter.
    #[arg(long, value_name = "OP", value_parser = parse_name)]
    pub op: Option<String>,
    /// Only with this status. As often as you like: any of them.
    #[arg(long, value_name = "STATUS")]
    pub status: Vec<BatchStatusArg>,
    /// Only of this version of the processor.
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
    /// Only of this group.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Only the batch that was submitted with this key.
    #[arg(long, value_name = "KEY", value_parser = parse_name)]
    pub key: Option<String>,
    /// Only batches with rows from a file of this name, without directories.
    #[arg(long, value_name = "NAME")]
    pub file: Option<String>,
    /// Only batches with rows from a file with this SHA-256, in hexadecimal.
    #[arg(long, value_name = "SHA256", value_parser = parse_sha256)]
    pub sha256: Option<String>,
    /// Only batches that were submitted at this moment or later, such as 2026-11-01T00:00:00Z, or this
    /// long ago or later, such as 36h.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    pub since: Option<Past>,
    /// Only batches that were submitted before this moment, or more than this long ago.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    pub until: Option<Past>,
    /// Only behind this position in the list: the one that stderr names when there may be more.
    #[arg(long, value_name = "POSITION")]
    pub after: Option<BatchPosition>,
    /// At most this number of batches. When there may be more, stderr says where to go on.
    #[arg(long, value_name = "N", default_value = "100")]
    pub limit: u32,
    /// Print a line of JSON for each batch.
    #[arg(long)]
    pub json: bool,
}

/// [`BatchStatus`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum BatchStatusArg {
    Wait,
    Queued,
    Inprog,
    Success,
    Failed,
    Aborted,
}

impl From<BatchStatusArg> for BatchStatus {
    fn from(status: BatchStatusArg) -> BatchStatus {
        match status {
            BatchStatusArg::Wait => BatchStatus::Wait,
            BatchStatusArg::Queued => BatchStatus::Queued,
            BatchStatusArg::Inprog => BatchStatus::Inprog,
            BatchStatusArg::Success => BatchStatus::Success,
            BatchStatusArg::Failed => BatchStatus::Failed,
            BatchStatusArg::Aborted => BatchStatus::Aborted,
        }
    }
}

fn parse_sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_lowercase());
    }
    Err("a SHA-256 has 64 hexadecimal digits, as sha256sum prints them".to_owned())
}

/// Lists batches.
///
/// # Errors
/// Why they could not be read.
pub fn run(args: &BatchesCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let id = args.key.as_deref().map(|key| parts.jobs.id_of_key(&args.app, key)).transpose()?;
        let filter = filter(args, id);
        let (mut left, mut after) = (args.limit, args.after);
        let mut found: Vec<ListedBatch> = Vec::new();
        while left > 0 {
            let page = parts.jobs.list_batches(&filter, after, left.min(PAGE)).await?;
            left -= u32::try_from(page.batches.len()).unwrap_or(left);
            after = page.next;
            if args.json {
                for batch in &page.batches {
                    print_data(&serde_json::to_string(batch)?)?;
                }
            } else {
                found.extend(page.batches);
            }
            if after.is_none() {
                break;
            }
        }
        if !args.json {
            print_data(&table(found))?;
        }
        if let Some(next) = after {
            say!("there may be more: --after {next}");
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn filter(args: &BatchesCommand, id: Option<BatchId>) -> BatchFilter {
    let now = SystemClock.now();
    BatchFilter {
        app: args.app.clone(),
        op: args.op.clone(),
        statuses: args.status.iter().copied().map(BatchStatus::from).collect(),
        version: args.version,
        group: args.group.clone(),
        id,
        file_name: args.file.clone(),
        file_sha256: args.sha256.clone(),
        since: args.since.map(|since| since.moment(now)),
        until: args.until.map(|until| until.moment(now)),
    }
}

fn table(found: Vec<ListedBatch>) -> String {
    let titles = ["BATCH", "OP", "STATUS", "ROWS", "SUCCESS", "FAILED", "ABORTED", "SUBMITTED", "FILE"];
    let mut table = Table::new(titles);
    for batch in found {
        let counts = batch.counts;
        let [rows, success, failed, aborted] = [counts.rows, counts.success, counts.failed, counts.aborted].map(|number| number.to_string());
        table.row([
            batch.id.to_string(),
            batch.op,
            batch.status.as_str().to_owned(),
            rows,
            success,
            failed,
            aborted,
            batch.submitted_at.to_string(),
            batch.file.map(|file| file.name).unwrap_or_default(),
        ]);
    }
    table.into_text()
}
