//! `rowmill processors`, `activate`, `deactivate`, `rollback`, `diff`: the versions of an app's processors.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::config::ConfigArgs;
use super::deploy::kind_for_people;
use super::table::Table;
use super::terms::parse_name;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::config::show_size;
use crate::jobs::VersionDiff;
use crate::model::{ProcessorKind, ProcessorVersion, RegisteredVersion, Timestamp};

/// So much of a digest tells versions apart.
const DIGEST_SHOWN: usize = 12;

/// List the versions of an app's processors, or remove one.
///
/// An operation has at most one active version for batches of rows, and one for slow queries: they serve what is submitted. Each batch keeps the version that it was submitted with.
#[derive(Debug, Args)]
pub struct ProcessorsCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_name = "APP")]
    pub app: Option<String>,
    /// Only those of this operation.
    #[arg(value_name = "OP", value_parser = parse_name)]
    pub op: Option<String>,
    /// Print JSON. Times are milliseconds since 1970-01-01T00:00:00Z.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<ProcessorsAction>,
}

#[derive(Debug, Subcommand)]
pub enum ProcessorsAction {
    Remove(RemoveVersion),
}

/// Remove a version, and its code when no other version has it. Refused while the version is active (see rowmill deactivate), and while a batch uses it that has not ended.
#[derive(Debug, Args)]
pub struct RemoveVersion {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    #[arg(value_parser = parse_name)]
    pub op: String,
    pub version: u32,
}

/// Let a version serve what is submitted from now on.
///
/// It takes the place of the active version of the same kind (batches of rows, or slow queries); the other kind is served as before. Batches that were submitted before keep their version.
#[derive(Debug, Args)]
pub struct ActivateCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    #[arg(value_parser = parse_name)]
    pub op: String,
    pub version: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Let a version no longer serve.
///
/// No version of its kind serves the operation then, until one is activated; the other kind is served as before. Batches that were submitted before keep their version. Refused while a schedule that
/// is not paused submits to it.
#[derive(Debug, Args)]
pub struct DeactivateCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    #[arg(value_parser = parse_name)]
    pub op: String,
    pub version: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Let the version serve again that did before the one that does now. Once more goes back further.
#[derive(Debug, Args)]
pub struct RollbackCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    #[arg(value_parser = parse_name)]
    pub op: String,
    /// Which processor to roll back, where the operation has an active version for batches of rows and one for slow queries.
    #[arg(long)]
    pub kind: Option<KindArg>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// [`ProcessorKind`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KindArg {
    Batch,
    Query,
}

impl From<KindArg> for ProcessorKind {
    fn from(kind: KindArg) -> ProcessorKind {
        match kind {
            KindArg::Batch => ProcessorKind::Batch,
            KindArg::Query => ProcessorKind::SlowQuery,
        }
    }
}

/// Show what is different between two versions: sizes, kind, and the interfaces that they import and export.
#[derive(Debug, Args)]
pub struct DiffCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    #[arg(value_parser = parse_name)]
    pub op: String,
    /// The version before.
    #[arg(value_name = "VERSION")]
    pub before: u32,
    /// The version after.
    #[arg(value_name = "VERSION")]
    pub after: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists or removes.
///
/// # Errors
/// Why it could not.
pub fn run(args: &ProcessorsCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.with(args.action.as_ref().map(|ProcessorsAction::Remove(remove)| &remove.config))?.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        match (&args.action, &args.app) {
            (Some(_), Some(app)) => anyhow::bail!("what is to be done comes before the app: rowmill processors remove {app} …"),
            (Some(ProcessorsAction::Remove(RemoveVersion { app, op, version, .. })), None) => {
                parts.jobs.remove_version(app, op, *version).await?;
                say!("version {version} of {op} of app {app} is removed");
            }
            (None, Some(app)) => list(&parts.jobs.list_versions(app, args.op.as_deref()).await?, args.json)?,
            (None, None) => anyhow::bail!("say whose: rowmill processors APP"),
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Activates.
///
/// # Errors
/// Why it could not.
pub fn activate(args: &ActivateCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        print_active(&parts.jobs.activate(&args.app, &args.op, args.version).await?, args.json)
    })
}

/// Deactivates.
///
/// # Errors
/// Why it could not.
pub fn deactivate(args: &DeactivateCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let version = parts.jobs.deactivate(&args.app, &args.op, args.version).await?;
        if args.json {
            print_data(&serde_json::to_string(&version)?)?;
        } else {
            let ProcessorVersion { app, op, version: number, kind, .. } = &version;
            say!("{op} of app {app}: version {number} does not serve any more, and no other version serves {}", kind_for_people(*kind));
            print_data(&number.to_string())?;
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Rolls back.
///
/// # Errors
/// Why it could not.
pub fn rollback(args: &RollbackCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        print_active(&parts.jobs.rollback(&args.app, &args.op, args.kind.map(ProcessorKind::from)).await?, args.json)
    })
}

fn print_active(version: &ProcessorVersion, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_data(&serde_json::to_string(version)?)?;
    } else {
        say!("{} of app {}: version {} serves now, for {}", version.op, version.app, version.version, kind_for_people(version.kind));
        print_data(&version.version.to_string())?;
    }
    Ok(ExitCode::from(EXIT_SUCCESS))
}

fn list(versions: &[RegisteredVersion], json: bool) -> anyhow::Result<()> {
    if json {
        return print_data(&serde_json::to_string(versions)?);
    }
    let mut table = Table::new(["OP", "VERSION", "ACTIVE", "FOR", "SIZE", "REGISTERED", "BATCHES", "DIGEST", "NOTE"]);
    for RegisteredVersion { version, size_bytes, note, active, batches } in versions {
        table.row([
            version.op.clone(),
            version.version.to_string(),
            if *active { "active".to_owned() } else { String::new() },
            kind_for_people(version.kind).to_owned(),
            format!("{size_bytes}"),
            show_moment(version.created_at),
            batches.map_or_else(String::new, |batches| batches.to_string()),
            version.digest.chars().take(DIGEST_SHOWN).collect(),
            note.clone().unwrap_or_default(),
        ]);
    }
    print_data(&table.into_text())
}

fn show_moment(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.0 / 1_000).map_or_else(|_| at.0.to_string(), |moment| moment.to_string())
}

/// Compares.
///
/// # Errors
/// Why it could not.
pub fn diff(args: &DiffCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let diff = parts.jobs.diff_versions(&args.app, &args.op, args.before, args.after).await?;
        print_data(&if args.json { serde_json::to_string(&diff)? } else { describe(&diff) })?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn describe(diff: &VersionDiff) -> String {
    let VersionDiff { before, after, imports_added, imports_removed, exports_added, exports_removed } = diff;
    let mut lines = vec![format!("version {} to version {}", before.version.version, after.version.version)];
    lines.push(format!("size: {} to {}", show_size(before.size_bytes), show_size(after.size_bytes)));
    if before.version.digest == after.version.digest {
        lines.push("code: the same".to_owned());
    }
    if before.version.kind != after.version.kind {
        lines.push(format!("kind: for {} to for {}", kind_for_people(before.version.kind), kind_for_people(after.version.kind)));
    }
    for (what, sign, names) in
        [("imports", '-', imports_removed), ("imports", '+', imports_added), ("exports", '-', exports_removed), ("exports", '+', exports_added)]
    {
        lines.extend(names.iter().map(|name| format!("{sign} {what} {name}")));
    }
    if [imports_removed, imports_added, exports_removed, exports_added].iter().all(|names| names.is_empty()) {
        lines.push("interfaces: the same".to_owned());
    }
    lines.into_iter().map(|line| crate::model::without_controls(&line)).collect::<Vec<_>>().join("\n")
}
