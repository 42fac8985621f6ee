//! `rowmill work`: a worker.

use std::process::ExitCode;

use clap::Args;

use super::EXIT_SUCCESS;
use super::config::ConfigArgs;
use super::signals::Stop;
use super::wiring::{Parts, block_on};
use crate::config::ObjectsUrl;

/// Run what was submitted, until Ctrl-C or SIGTERM.
///
/// Any number of workers may run on any number of machines, over the same PostgreSQL database and object store; over SQLite there is one. A worker outlasts
/// failures of the database, of Redis and of the object store. When it is asked to stop, rows that run come to their end (worker.drain_grace), and the others
/// are given back; a second signal stops it at once.
///
/// Exit status: 0 it ended in good order, 2 it could not start.
#[derive(Debug, Args)]
pub struct WorkCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// End once there is nothing left to do, now or later.
    #[arg(long)]
    pub until_idle: bool,
}

/// Works.
///
/// # Errors
/// Why it could not start.
pub fn run(args: &WorkCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let stop = Stop::listen()?;
        let parts = Parts::open_for_work(&config, args.until_idle).await?;
        if parts.store_is_shared && matches!(config.objects.url, ObjectsUrl::Directory(_)) {
            tracing::info!("objects are kept in a directory: workers on other machines need the same one");
        }
        parts.jobs.blobs().check().await?;
        let worker = &config.worker;
        say!("worker {}: {} slots for batches, {} for slow queries", worker.name, worker.slots, worker.query_slots);
        let stopping = {
            let (jobs, stop) = (parts.jobs.clone(), stop.clone());
            tokio::spawn(async move {
                stop.asked().await;
                say!("stopping: rows that are running come to their end; once more to stop at once");
                jobs.shutdown();
            })
        };
        let ended = parts.jobs.run().await;
        stopping.abort();
        parts.close().await;
        ended?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}
