//! `rowmill retry`: rows of a batch that has ended are run again.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::status::{Shown, wait_and_show};
use super::terms::{Moment, parse_moment, timestamps};
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::model::{BatchId, Retried, RetryRows};

/// Run the failed rows of a batch that has ended again, as a new round of the same batch. Prints how many rows that are.
///
/// Rows that succeeded keep their outcomes. What the others came to before is kept (`rowmill rows BATCH --history`), and the output files are joined anew. Batches that were aborted because
/// this one did not succeed (`rowmill submit --after`) wait for it again.
///
/// Exit status with --wait: 0 all rows of the batch have succeeded, 1 some failed or the batch was aborted; else 0. 2 there was nothing to retry, or it could not be.
#[derive(Debug, Args)]
pub struct RetryCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// Only failed rows with this code among their messages, such as `trap`, or one of the processor's own. As often as you like: any of them.
    #[arg(long, value_name = "CODE")]
    pub code: Vec<String>,
    /// Also run the rows that were aborted. A batch that was aborted is retried with them, or not at all. One that was aborted before its rows were made of another batch's waits for that batch again.
    #[arg(long)]
    pub aborted: bool,
    /// Abort what has no outcome at this moment, or this time from now. The deadline that the batch had before holds if it has not passed.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub deadline: Option<Moment>,
    /// Wait until the batch has ended, and show its progress. Over SQLite, where no worker can run beside this, also run it.
    #[arg(long)]
    pub wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Retries.
///
/// # Errors
/// Why it could not.
pub fn run(args: &RetryCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let [deadline_at] = timestamps([args.deadline])?;
    let rows = RetryRows { codes: args.code.clone(), aborted: args.aborted, deadline_at };
    block_on(async {
        let stop = Stop::listen()?;
        let parts = Parts::open(&config).await?;
        let retried = parts.jobs.batch_retry(args.batch, &rows).await?;
        if !args.json || args.wait {
            say!("round {} of batch {}", retried.round, args.batch);
            if retried.rows == 0 {
                say!("it waits for the batch that it comes after, and its rows are made from the outputs of that batch");
            }
            for batch in &retried.waits {
                say!("batch {batch}, which was aborted because of it, waits for it again");
            }
        }
        if !args.json {
            print_data(&retried.rows.to_string())?;
        } else if !args.wait {
            let Retried { round, rows, waits } = &retried;
            print_data(&json!({ "id": args.batch, "round": round, "rows": rows, "waits": waits }).to_string())?;
        }
        if args.wait {
            let shown = if args.json { Shown::Json } else { Shown::OnStderr };
            return wait_and_show(parts, args.batch, shown, &stop).await;
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}
