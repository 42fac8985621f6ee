//! `rowmill apps`: apps, their weights and limits, their processors.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use serde::Serialize;

pub use super::grants::{AppsGrant, AppsRevoke, AppsShow};

use super::config::ConfigArgs;
use super::grants::TRIES_MAX;
use super::table::Table;
use super::terms::parse_name;
use super::wiring::{block_on, open_store};
use super::{EXIT_SUCCESS, print_data};
use crate::config::{parse_memory, parse_size, parse_timeout, show_size};
use crate::model::{App, AppQuota, Limits, ProcessorVersion, RegisteredVersion, parse_time, show_time};
use crate::store::Store;

/// List apps with their processors, or change an app's share, limits and grants.
#[derive(Debug, Args)]
pub struct AppsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<AppsAction>,
}

#[derive(Debug, Subcommand)]
pub enum AppsAction {
    Set(AppsSet),
    Show(AppsShow),
    Grant(AppsGrant),
    Revoke(AppsRevoke),
}

impl AppsAction {
    fn config(&self) -> &ConfigArgs {
        match self {
            AppsAction::Set(AppsSet { config, .. })
            | AppsAction::Show(AppsShow { config, .. })
            | AppsAction::Grant(AppsGrant { config, .. })
            | AppsAction::Revoke(AppsRevoke { config, .. }) => config,
        }
    }
}

/// Register an app, or change what is given; the rest stays.
#[derive(Debug, Args)]
pub struct AppsSet {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// Its share of the work, against the weights of the others.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000))]
    pub weight: Option<u32>,
    /// Rows and queries that run at the same time, over all workers; `none` for no limit.
    #[arg(long, value_name = "N|none", value_parser = parse_running_max)]
    pub running_max: Option<RunningMax>,
    /// Fuel for one row: about one unit per instruction.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000_000_000))]
    pub fuel: Option<u64>,
    /// And so much more for each KiB of its input.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(0..=1_000_000_000_000))]
    pub fuel_per_kib: Option<u64>,
    /// Time for one row.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// Time for one slow query.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub query_timeout: Option<Duration>,
    /// Memory of one instance.
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Output, messages and pieces of one row together.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub output: Option<u64>,
    /// Messages of one row.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(0..=10_000))]
    pub messages: Option<u32>,
    /// Pieces for output files of one row.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(0..=10_000))]
    pub pieces: Option<u32>,
    /// Log, stdout and stderr of one row together.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub log: Option<u64>,
    /// One input, at most.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub input: Option<u64>,
    /// Rows of one batch.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub batch_rows: Option<u64>,
    /// Rows that have no outcome yet, in all batches.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub queued_rows: Option<u64>,
    /// Time of a batch from its first claim to its last outcome.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub batch_time: Option<Duration>,
    /// Logs of all rows of a batch together.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub batch_log: Option<u64>,
    /// Output files of a batch together.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub batch_files: Option<u64>,
    /// Go back to the operator's limits, before what is given here.
    #[arg(long)]
    pub default_limits: bool,
}

/// A number, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningMax(Option<u32>);

fn parse_running_max(text: &str) -> Result<RunningMax, String> {
    if text == "none" {
        return Ok(RunningMax(None));
    }
    match text.parse() {
        Ok(number) if number > 0 => Ok(RunningMax(Some(number))),
        _ => Err(format!("it should be a number from 1 on, or none, not {text}")),
    }
}

/// An app as it is listed.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    app: App,
    /// The active versions of each operation: at most one of each kind.
    processors: Vec<ProcessorVersion>,
}

/// Lists or changes.
///
/// # Errors
/// Why it could not.
pub fn run(args: &AppsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.with(args.action.as_ref().map(AppsAction::config))?.load(Vec::new())?;
    block_on(async {
        let store = open_store(&config).await?;
        match &args.action {
            Some(AppsAction::Set(set)) => {
                change(&*store, set, &config.limits).await?;
                let listed = list(&*store).await?.into_iter().filter(|listed| listed.app.name == set.app).collect();
                print(listed, args.json)?;
            }
            Some(AppsAction::Show(show)) => super::grants::show(&*store, &show.app, args.json).await?,
            Some(AppsAction::Grant(grant)) => super::grants::change(&*store, &grant.app, args.json, |grants| grant.options.add_to(grants)).await?,
            Some(AppsAction::Revoke(revoke)) => super::grants::change(&*store, &revoke.app, args.json, |grants| revoke.take_from(grants)).await?,
            None => print(list(&*store).await?, args.json)?,
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Changes what is given, and leaves what other commands change at the same time.
async fn change(store: &dyn Store, set: &AppsSet, defaults: &Limits) -> anyhow::Result<()> {
    for _ in 0..TRIES_MAX {
        let stored = store.read_app(&set.app).await?.unwrap_or_else(|| App::named(&set.app));
        if store.change_app(&stored, &changed(stored.clone(), set, defaults)).await? {
            return Ok(());
        }
    }
    bail!("other commands changed app {:?} at the same time: try again", set.app)
}

fn changed(app: App, set: &AppsSet, defaults: &Limits) -> App {
    let (limits, quota) = if set.default_limits { (None, AppQuota::default()) } else { (app.limits.clone(), app.quota) };
    let old = limits.clone().unwrap_or_else(|| defaults.clone());
    let given = Limits {
        fuel: set.fuel.unwrap_or(old.fuel),
        fuel_per_kib: set.fuel_per_kib.unwrap_or(old.fuel_per_kib),
        timeout: set.timeout.unwrap_or(old.timeout),
        query_timeout: set.query_timeout.unwrap_or(old.query_timeout),
        memory_bytes: set.memory.unwrap_or(old.memory_bytes),
        output_bytes: set.output.unwrap_or(old.output_bytes),
        messages: set.messages.unwrap_or(old.messages),
        pieces: set.pieces.unwrap_or(old.pieces),
        log_bytes: set.log.map_or(old.log_bytes, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
    };
    App {
        weight: set.weight.unwrap_or(app.weight),
        running_max: set.running_max.map_or(app.running_max, |RunningMax(number)| number),
        // Who is given nothing keeps following the operator's.
        limits: if set.says_limits() { Some(given) } else { limits },
        quota: AppQuota {
            input_bytes: set.input.or(quota.input_bytes),
            batch_rows: set.batch_rows.or(quota.batch_rows),
            queued_rows: set.queued_rows.or(quota.queued_rows),
            batch_time: set.batch_time.or(quota.batch_time),
            batch_log_bytes: set.batch_log.or(quota.batch_log_bytes),
            batch_file_bytes: set.batch_files.or(quota.batch_file_bytes),
        },
        ..app
    }
}

impl AppsSet {
    fn says_limits(&self) -> bool {
        let numbers = [self.fuel, self.fuel_per_kib, self.memory, self.output, self.log].iter().any(Option::is_some);
        let times = [self.timeout, self.query_timeout].iter().any(Option::is_some);
        numbers || times || self.messages.is_some() || self.pieces.is_some()
    }
}

/// Also apps that were never registered, but have processors.
async fn list(store: &dyn Store) -> anyhow::Result<Vec<Listed>> {
    let mut listed: Vec<Listed> = store.list_apps().await?.into_iter().map(|app| Listed { app, processors: Vec::new() }).collect();
    for RegisteredVersion { version, active, .. } in store.list_processors(None).await? {
        let at = listed.iter().position(|listed| listed.app.name == version.app).unwrap_or_else(|| {
            listed.push(Listed { app: App::named(&version.app), processors: Vec::new() });
            listed.len() - 1
        });
        if active {
            listed[at].processors.push(version);
        }
    }
    listed.sort_by(|one, other| one.app.name.cmp(&other.app.name));
    Ok(listed)
}

fn print(listed: Vec<Listed>, json: bool) -> anyhow::Result<()> {
    if json {
        return print_data(&serde_json::to_string(&listed)?);
    }
    let mut table = Table::new(["APP", "WEIGHT", "RUNNING AT ONCE", "LIMITS OF A ROW", "OF BATCHES", "GRANTS", "PROCESSORS"]);
    for Listed { app, processors } in listed {
        let processors = processors.iter().map(|version| format!("{} v{} ({})", version.op, version.version, version.kind.as_str()));
        let limits = app.limits.as_ref().map_or_else(
            || "the operator's".to_owned(),
            |limits| {
                let (time, memory) = (show_time(limits.timeout), show_size(limits.memory_bytes));
                format!("fuel {}, {time}, {memory}", limits.fuel)
            },
        );
        let quota = quota_in_words(&app.quota);
        table.row([
            app.name.clone(),
            app.weight.to_string(),
            app.running_max.map_or_else(|| "any".to_owned(), |number| number.to_string()),
            limits,
            quota,
            super::grants::kinds(&app.grants),
            processors.collect::<Vec<_>>().join(", "),
        ]);
    }
    print_data(&table.into_text())
}

fn quota_in_words(quota: &AppQuota) -> String {
    let size = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", show_size(bytes)));
    let rows = |what: &str, rows: Option<u64>| rows.map(|rows| format!("{what} {rows}"));
    let said = [
        size("input", quota.input_bytes),
        rows("rows", quota.batch_rows),
        rows("queued", quota.queued_rows),
        quota.batch_time.map(|time| format!("time {}", show_time(time))),
        size("log", quota.batch_log_bytes),
        size("files", quota.batch_file_bytes),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "the operator's".to_owned() } else { said.join(", ") }
}
