//! `rowmill groups` and `group`: batches that belong together.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::config::ConfigArgs;
use super::signals::Stop;
use super::table::Table;
use super::wiring::{Parts, block_on};
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data};
use crate::model::{Group, ProcessorKind, without_controls};

/// Groups that are read at once.
const PAGE: u32 = 500;

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
/// A group has ended when it is sealed and each of its batches is done. It does so once: a batch that is retried afterwards is shown as open, and the group stays ended.
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
    /// Wait until it has ended and no batch of it is open. It must be sealed for that, here or by another. Over SQLite, where no worker can run beside this, also run it.
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
            print_data(&serde_json::Value::from(groups.iter().map(view).collect::<Vec<_>>()).to_string())?;
        } else {
            let mut table = Table::new(["GROUP", "STATE", "BATCHES", "OPEN", "SUCCESS", "FAILED", "ABORTED", "ROWS"]);
            for group in groups {
                let batches = group.batches;
                let numbers = [batches.all, batches.open, batches.success, batches.failed, batches.aborted, group.rows.rows];
                let [all, open, success, failed, aborted, rows] = numbers.map(|number| number.to_string());
                let state = group.state().as_str().to_owned();
                table.row([group.name, state, all, open, success, failed, aborted, rows]);
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
            let no_worker = parts.say_if_no_worker(ProcessorKind::Batch);
            let working = parts.work_if_alone();
            let ended = tokio::select! {
                ended = parts.jobs.wait_for_group(&args.app, &args.name) => Some(ended),
                () = stop.asked() => None,
            };
            drop(no_worker);
            working.end().await?;
            let Some(ended) = ended else {
                say!("stopped waiting; its batches go on, where there are workers");
                return Ok(ExitCode::from(stop.exit_status()));
            };
            group = ended?;
            status = if group.batches.success == group.batches.all { EXIT_SUCCESS } else { EXIT_SOME_FAILED };
        }
        print_data(&if args.json { view(&group).to_string() } else { sentence(&group) })?;
        parts.close().await;
        Ok(ExitCode::from(status))
    })
}

/// A group for programs.
fn view(group: &Group) -> serde_json::Value {
    let Group { app, name, created_at, sealed_at, ended_at, batches, rows } = group;
    let state = group.state().as_str();
    json!({
        "app": app, "name": name, "state": state, "created_at": created_at, "sealed_at": sealed_at, "ended_at": ended_at, "batches": batches, "rows": rows
    })
}

fn sentence(group: &Group) -> String {
    let (batches, rows) = (group.batches, group.rows);
    let since = group.ended_at.or(group.sealed_at).map(|at| format!(" since {at}")).unwrap_or_default();
    format!(
        "{} of app {}, {}{since}: {} batches, {} open, {} success, {} failed, {} aborted; {} rows, {} success, {} failed, {} aborted",
        without_controls(&group.name),
        without_controls(&group.app),
        group.state().as_str(),
        batches.all,
        batches.open,
        batches.success,
        batches.failed,
        batches.aborted,
        rows.rows,
        rows.success,
        rows.failed,
        rows.aborted
    )
}
