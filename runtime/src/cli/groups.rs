//! `rowmill groups` and `group`: batches that belong together.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::table::Table;
use super::wiring::{Parts, block_on};
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data};
use crate::model::{Group, without_controls};

/// Groups that are read at once.
const PAGE: u32 = 500;
/// Between two looks at a group that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// List the groups of an app, and how far they are.
#[derive(Debug, Args)]
pub struct GroupsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Show a group of batches, seal it, or wait for it.
///
/// A group is complete when it is sealed and each of its batches has ended.
///
/// Exit status with --wait: 0 all batches have succeeded, 1 some have not; else 0.
#[derive(Debug, Args)]
pub struct GroupCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    pub name: String,
    /// Let no further batch come in.
    #[arg(long)]
    pub seal: bool,
    /// Wait until it is complete. It must be sealed by then, here or by another. Over SQLite, where no worker can run beside this, also run it.
    #[arg(long)]
    pub wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists groups.
///
/// # Errors
/// Why they could not be read.
pub fn list(args: &GroupsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let mut groups: Vec<Group> = Vec::new();
        loop {
            let page = parts.jobs.list_groups(&args.app, groups.last().map(|group| group.name.as_str()), PAGE).await?;
            if page.is_empty() {
                break;
            }
            groups.extend(page);
        }
        if args.json {
            print_data(&serde_json::to_string(&groups)?)?;
        } else {
            let mut table = Table::new(["GROUP", "STATE", "BATCHES", "SUCCESS", "FAILED", "ABORTED", "ROWS"]);
            for group in groups {
                let numbers = [group.batches.all, group.batches.success, group.batches.failed, group.batches.aborted, group.rows.rows];
                let [all, success, failed, aborted, rows] = numbers.map(|number| number.to_string());
                let state = state(&group).to_owned();
                table.row([group.name, state, all, success, failed, aborted, rows]);
            }
            print_data(&table.into_text())?;
        }
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Shows, seals or waits for one.
///
/// # Errors
/// Why it could not; among others, that there is no such group.
pub fn show(args: &GroupCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let stop = Stop::listen()?;
        let parts = Parts::open(&config).await?;
        if args.seal {
            parts.jobs.seal_group(&args.app, &args.name).await?;
        }
        let mut group = parts.jobs.read_group(&args.app, &args.name).await?;
        let mut status = EXIT_SUCCESS;
        if args.wait {
            if !parts.store_is_shared && group.sealed_at.is_none() {
                bail!("the group {:?} is not sealed, and over SQLite nobody else can do that meanwhile: add --seal", args.name);
            }
            let working = parts.work_if_alone();
            while !group.complete {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = stop.asked() => break,
                }
                group = parts.jobs.read_group(&args.app, &args.name).await?;
            }
            working.end().await?;
            if !group.complete {
                say!("stopped waiting; its batches go on, where there are workers");
                return Ok(ExitCode::from(stop.exit_status()));
            }
            status = if group.batches.success == group.batches.all { EXIT_SUCCESS } else { EXIT_SOME_FAILED };
        }
        print_data(&if args.json { serde_json::to_string(&group)? } else { sentence(&group) })?;
        parts.close().await;
        Ok(ExitCode::from(status))
    })
}

fn state(group: &Group) -> &'static str {
    match (group.complete, group.sealed_at) {
        (true, _) => "complete",
        (false, Some(_)) => "sealed",
        (false, None) => "open",
    }
}

fn sentence(group: &Group) -> String {
    let (batches, rows) = (group.batches, group.rows);
    format!(
        "{} of app {}, {}: {} batches, {} success, {} failed, {} aborted; {} rows, {} success, {} failed, {} aborted",
        without_controls(&group.name),
        without_controls(&group.app),
        state(group),
        batches.all,
        batches.success,
        batches.failed,
        batches.aborted,
        rows.rows,
        rows.success,
        rows.failed,
        rows.aborted
    )
}
