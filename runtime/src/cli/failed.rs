//! `rowmill failed`: what failed, in whatever batch.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::EXIT_SUCCESS;
use super::config::ConfigArgs;
use super::results::written;
use super::terms::parse_name;
use super::usage::{Past, parse_past};
use super::wiring::{Parts, block_on};
use crate::export::write_failed_row;
use crate::model::{Clock, FailedPosition, FailedRows, SystemClock};

/// Rows that are read at once.
const PAGE_ROWS: u32 = 500;

/// Print the failed rows of an app, one line of JSON each: those of the newest batch first.
///
/// What was run again (`rowmill retry`) is listed as it failed last; `rowmill rows BATCH --history` has what was before.
#[derive(Debug, Args)]
pub struct FailedCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    /// Only of this operation.
    #[arg(long, value_name = "OP", value_parser = parse_name)]
    pub op: Option<String>,
    /// Only rows with this code among their messages, such as `trap`, or one of the processor's own. As often as you like: any of them.
    #[arg(long, value_name = "CODE")]
    pub code: Vec<String>,
    /// Only of batches of which a row failed at this moment or later, such as 2026-11-01T00:00:00Z, or so long ago or later, such as 36h.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    pub since: Option<Past>,
    /// Behind this one: the position of the last row that was printed.
    #[arg(long, value_name = "POSITION")]
    pub after: Option<FailedPosition>,
    /// At most so many rows. When there may be more, stderr says where to go on.
    #[arg(long, value_name = "N", default_value = "1000")]
    pub limit: u32,
}

/// Prints them.
///
/// # Errors
/// Why they could not be read.
pub fn run(args: &FailedCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let since = args.since.map(|since| since.moment(SystemClock.now()));
        let wanted = FailedRows { app: args.app.clone(), op: args.op.clone(), codes: args.code.clone(), since };
        let mut out = std::io::BufWriter::new(std::io::stdout());
        let (mut left, mut after) = (args.limit, args.after);
        'pages: while left > 0 {
            let page = parts.jobs.list_failed(&wanted, after, left.min(PAGE_ROWS)).await?;
            for row in &page.rows {
                if !written(write_failed_row(&mut out, row))? {
                    after = None;
                    break 'pages;
                }
                left -= 1;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if written(out.flush())?
            && let Some(next) = after
        {
            say!("there may be more: --after {next}");
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}
