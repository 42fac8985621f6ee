//! `rowmill workers`: who runs what.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::config::ConfigArgs;
use super::table::Table;
use super::wiring::{block_on, open_store};
use super::{EXIT_SUCCESS, print_data};
use crate::model::{Clock, SystemClock, WorkerRecord, show_time};

/// Show the workers that were seen and have not ended, and what they run now.
#[derive(Debug, Args)]
pub struct WorkersCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists them.
///
/// # Errors
/// Why they could not be read.
pub fn run(args: &WorkersCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let workers = open_store(&config).await?.list_workers().await?;
        if args.json {
            print_data(&serde_json::to_string(&workers)?)?;
        } else {
            print_data(&as_table(&workers))?;
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn as_table(workers: &[WorkerRecord]) -> String {
    let mut table = Table::new(["WORKER", "HOST", "PID", "SLOTS", "QUERIES", "SEEN", "RUNS"]);
    let now = SystemClock.now();
    for worker in workers {
        let info = &worker.info;
        let runs = worker.runs.iter().map(|run| format!("{}/{} {} rows in {} leases", run.app, run.op, run.rows, run.leases)).collect::<Vec<_>>();
        table.row([
            info.name.clone(),
            info.host.clone(),
            info.pid.to_string(),
            info.slots.to_string(),
            info.query_slots.to_string(),
            format!("{} ago", show_time(Duration::from_secs(now.since(worker.seen_at).as_secs()))),
            if info.draining { format!("draining; {}", runs.join(", ")) } else { runs.join(", ") },
        ]);
    }
    table.into_text()
}
