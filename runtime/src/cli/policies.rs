//! `rowmill policies`, `pause` and `resume`: what operators say about the work of apps and their operations.

use std::process::ExitCode;

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};

use super::config::ConfigArgs;
use super::grants::TRIES_MAX;
use super::table::Table;
use super::terms::{PartialTermsArgs, parse_name};
use super::wiring::{block_on, open_store};
use super::{EXIT_SOME_FAILED, EXIT_SUCCESS, print_data};
use crate::model::{Isolation, KeepFor, PartialKeep, PartialTerms, Policy, Rate, show_time};
use crate::store::Store;

/// List what holds for apps and their operations: rates, pauses, the terms of batches, and how long these are kept. Or change it.
#[derive(Debug, Args)]
pub struct PoliciesCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<PoliciesAction>,
}

#[derive(Debug, Subcommand)]
pub enum PoliciesAction {
    Set(Box<PoliciesSet>),
    Remove(PoliciesRemove),
}

impl PoliciesAction {
    fn config(&self) -> &ConfigArgs {
        match self {
            PoliciesAction::Set(set) => &set.config,
            PoliciesAction::Remove(remove) => &remove.config,
        }
    }
}

/// Set what is given; the rest stays. What is said of an operation holds beside what is said of its app.
#[derive(Debug, Args)]
pub struct PoliciesSet {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// One operation of it; all of the app without.
    #[arg(long, value_name = "OP", value_parser = parse_name)]
    pub op: Option<String>,
    /// Begin no more rows than this, over all workers, such as 500/s, 30/m or 100/h; `none` for no limit.
    #[arg(long, value_name = "RATE|none", value_parser = parse_rate)]
    pub rate: Option<SomeRate>,
    /// So many rows may be begun at once after a while without work; a tenth of a second's by default.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=Rate::BURST_MAX.into()))]
    pub burst: Option<u32>,
    /// Which rows of a batch may meet in one instance: those of a `lease` (the default), no two (`row`), or all that a worker runs (`warm`).
    #[arg(long, value_name = "MODE")]
    pub isolation: Option<IsolationArg>,
    #[command(flatten)]
    pub terms: PartialTermsArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Say nothing about terms any more, before what is given here.
    #[arg(long)]
    pub default_terms: bool,
}

/// How long batches are kept. Each is a time such as 90d, 12h or 30m, `forever`, or `default` to say nothing about it any more.
#[derive(Debug, Args)]
pub struct KeepArgs {
    /// Keep output files so long after their batch is done; `default` for what is said elsewhere.
    #[arg(long, value_name = "TIME|forever", value_parser = parse_keep)]
    pub keep_files: Option<SomeKeep>,
    /// The same for inputs of rows, and for the files that they came from.
    #[arg(long, value_name = "TIME|forever", value_parser = parse_keep)]
    pub keep_inputs: Option<SomeKeep>,
    /// The same for what became of rows: outputs, messages and logs.
    #[arg(long, value_name = "TIME|forever", value_parser = parse_keep)]
    pub keep_outcomes: Option<SomeKeep>,
    /// The same for what happened to batches.
    #[arg(long, value_name = "TIME|forever", value_parser = parse_keep)]
    pub keep_events: Option<SomeKeep>,
    /// The same for whole batches.
    #[arg(long, value_name = "TIME|forever", value_parser = parse_keep)]
    pub keep_batches: Option<SomeKeep>,
}

impl KeepArgs {
    fn changed(&self, keep: &PartialKeep) -> PartialKeep {
        let said = |new: Option<SomeKeep>, old: Option<KeepFor>| new.map_or(old, |SomeKeep(new)| new);
        PartialKeep {
            files: said(self.keep_files, keep.files),
            inputs: said(self.keep_inputs, keep.inputs),
            outcomes: said(self.keep_outcomes, keep.outcomes),
            events: said(self.keep_events, keep.events),
            batches: said(self.keep_batches, keep.batches),
        }
    }
}

/// How long something is kept, or that nothing is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SomeKeep(Option<KeepFor>);

fn parse_keep(text: &str) -> Result<SomeKeep, String> {
    if text == "default" {
        return Ok(SomeKeep(None));
    }
    text.parse().map(|keep| SomeKeep(Some(keep))).map_err(|error: crate::model::NoKeepFor| format!("{error}, or default"))
}

/// Take a policy back, its pause included.
#[derive(Debug, Args)]
pub struct PoliciesRemove {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// That of one operation; that of the app without.
    #[arg(long, value_name = "OP", value_parser = parse_name)]
    pub op: Option<String>,
}

/// Pause an app, or one of its operations: no row is begun until it is resumed.
///
/// Rows that run come to their end, and batches come in.
#[derive(Debug, Args)]
pub struct PauseCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// One operation; all of the app without.
    #[arg(value_parser = parse_name)]
    pub op: Option<String>,
}

/// Let an app, or one of its operations, go on.
#[derive(Debug, Args)]
pub struct ResumeCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// One operation, as it was paused; the app without.
    #[arg(value_parser = parse_name)]
    pub op: Option<String>,
}

/// [`Isolation`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum IsolationArg {
    Lease,
    Row,
    Warm,
}

impl From<IsolationArg> for Isolation {
    fn from(mode: IsolationArg) -> Isolation {
        match mode {
            IsolationArg::Lease => Isolation::Lease,
            IsolationArg::Row => Isolation::Row,
            IsolationArg::Warm => Isolation::Warm,
        }
    }
}

/// A rate, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SomeRate(Option<Rate>);

fn parse_rate(text: &str) -> Result<SomeRate, String> {
    if text == "none" {
        return Ok(SomeRate(None));
    }
    text.parse().map(|rate| SomeRate(Some(rate))).map_err(|error: crate::model::NoRate| format!("{error}, or none"))
}

/// Lists or changes.
///
/// # Errors
/// Why it could not.
pub fn run(args: &PoliciesCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.with(args.action.as_ref().map(PoliciesAction::config))?.load(Vec::new())?;
    block_on(async {
        let store = open_store(&config).await?;
        match &args.action {
            None => print(&store.list_policies().await?, args.json)?,
            Some(PoliciesAction::Set(set)) => {
                print(&[change(&*store, set).await?], args.json)?;
            }
            Some(PoliciesAction::Remove(remove)) => {
                if !store.remove_policy(&remove.app, remove.op.as_deref()).await? {
                    say!("there was no such policy; rowmill policies lists them");
                    return Ok(ExitCode::from(EXIT_SOME_FAILED));
                }
            }
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

/// Pauses.
///
/// # Errors
/// Why it could not.
pub fn pause(args: &PauseCommand) -> anyhow::Result<ExitCode> {
    set_paused(&args.config, &args.app, args.op.as_deref(), true)
}

/// Resumes.
///
/// # Errors
/// Why it could not.
pub fn resume(args: &ResumeCommand) -> anyhow::Result<ExitCode> {
    set_paused(&args.config, &args.app, args.op.as_deref(), false)
}

fn set_paused(config: &ConfigArgs, app: &str, op: Option<&str>, paused: bool) -> anyhow::Result<ExitCode> {
    let config = config.load(Vec::new())?;
    block_on(async {
        let store = open_store(&config).await?;
        store.set_paused(app, op, paused).await?;
        if let Some(of_app) = find_set(&*store, app, None).await?.filter(|of_app| op.is_some() && !paused && of_app.paused) {
            say!("the app {} is paused as a whole: rowmill resume {}", of_app.app, of_app.app);
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

async fn find_set(store: &dyn Store, app: &str, op: Option<&str>) -> anyhow::Result<Option<Policy>> {
    let wanted = Policy::of(app, op);
    Ok(store.list_policies().await?.into_iter().find(|policy| (&policy.app, &policy.op) == (&wanted.app, &wanted.op)))
}

async fn find(store: &dyn Store, app: &str, op: Option<&str>) -> anyhow::Result<Policy> {
    Ok(find_set(store, app, op).await?.unwrap_or_else(|| Policy::of(app, op)))
}

/// Changes what is given, and leaves what other commands change at the same time, such as a pause.
async fn change(store: &dyn Store, set: &PoliciesSet) -> anyhow::Result<Policy> {
    for _ in 0..TRIES_MAX {
        let stored = find(store, &set.app, set.op.as_deref()).await?;
        let policy = changed(stored.clone(), set)?;
        if store.change_policy(&stored, &policy).await? {
            return Ok(policy);
        }
    }
    bail!("other commands changed the policy of app {:?} at the same time: try again", set.app)
}

fn changed(policy: Policy, set: &PoliciesSet) -> anyhow::Result<Policy> {
    let rate = set.rate.map_or(policy.rate, |SomeRate(rate)| rate);
    let rate = match (rate, set.burst) {
        (Some(rate), Some(burst)) => Some(Rate { burst, ..rate }),
        (None, Some(_)) => bail!("a burst belongs to a rate: give --rate, such as --rate 500/s"),
        (rate, None) => rate,
    };
    let terms = if set.default_terms { PartialTerms::default() } else { policy.terms };
    let keep = set.keep.changed(&policy.keep);
    let isolation = set.isolation.map(Isolation::from).or(policy.isolation);
    Ok(Policy { rate, terms: set.terms.terms().or(terms), keep, isolation, ..policy })
}

fn print(policies: &[Policy], json: bool) -> anyhow::Result<()> {
    if json {
        return print_data(&serde_json::to_string(policies)?);
    }
    let mut table = Table::new(["APP", "OP", "STATE", "RATE", "ISOLATION", "TERMS", "KEPT"]);
    for policy in policies {
        table.row([
            policy.app.clone(),
            policy.op.clone().unwrap_or_else(|| "(all)".to_owned()),
            if policy.paused { "paused" } else { "open" }.to_owned(),
            policy.rate.map_or_else(|| "any".to_owned(), |rate| format!("{rate}, {} at once", rate.burst)),
            policy.isolation.map_or("", Isolation::as_str).to_owned(),
            show_terms(&policy.terms),
            show_keep(&policy.keep),
        ]);
    }
    print_data(&table.into_text())
}

fn show_keep(keep: &PartialKeep) -> String {
    let parts = [("files", keep.files), ("inputs", keep.inputs), ("outcomes", keep.outcomes), ("events", keep.events), ("batches", keep.batches)];
    let said: Vec<String> = parts.into_iter().filter_map(|(part, time)| Some(format!("{part} {}", time?))).collect();
    if said.is_empty() { "by the defaults".to_owned() } else { said.join(", ") }
}

fn show_terms(terms: &PartialTerms) -> String {
    let said = [
        terms.priority.map(|priority| format!("priority {priority}")),
        terms.attempts_max.map(|attempts| format!("{attempts} attempts")),
        terms.backoff.map(|backoff| format!("backoff {}", show_time(backoff))),
        terms.backoff_max.map(|backoff| format!("up to {}", show_time(backoff))),
        terms.retry_codes.as_ref().map(|codes| format!("again after {}", codes.join(", "))),
        terms.failures_max.map(|limit| format!("{limit} failures")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "the defaults".to_owned() } else { said.join(", ") }
}
