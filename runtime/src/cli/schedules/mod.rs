//! `rowmill schedules`: what is submitted again and again.

mod set;

use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use serde_json::json;

use self::set::SchedulesSet;
use super::config::ConfigArgs;
use super::table::Table;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::jobs::JobManager;
use crate::model::{Schedule, Timestamp};
use crate::schedule::CronLine;

/// Schedules that are read at once.
const PAGE: u32 = 500;

/// List schedules, or set, pause, resume or remove one.
///
/// A schedule submits a stored request at each tick of a cron line, whichever worker is there: once per tick, however many there are. Times are shown as a clock in the
/// schedule's zone shows them.
#[derive(Debug, Args)]
pub struct SchedulesCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only those of this app.
    #[arg(value_name = "APP")]
    pub app: Option<String>,
    /// Print JSON. Times are milliseconds since 1970-01-01T00:00:00Z.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<SchedulesAction>,
}

#[derive(Debug, Subcommand)]
pub enum SchedulesAction {
    Set(Box<SchedulesSet>),
    Next(SchedulesNext),
    Pause(SchedulesPause),
    Resume(SchedulesResume),
    Remove(SchedulesRemove),
}

impl SchedulesAction {
    fn config(&self) -> &ConfigArgs {
        match self {
            SchedulesAction::Set(set) => &set.config,
            SchedulesAction::Next(next) => &next.config,
            SchedulesAction::Pause(pause) => &pause.config,
            SchedulesAction::Resume(resume) => &resume.config,
            SchedulesAction::Remove(remove) => &remove.config,
        }
    }
}

/// Print the ticks that come next; those that would come if it were resumed now, when it is paused.
#[derive(Debug, Args)]
pub struct SchedulesNext {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub which: Which,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000))]
    pub count: u32,
}

/// Let a schedule have no ticks until it is resumed.
#[derive(Debug, Args)]
pub struct SchedulesPause {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub which: Which,
}

/// Let a paused schedule have ticks again, from now on.
#[derive(Debug, Args)]
pub struct SchedulesResume {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub which: Which,
}

/// Remove a schedule. What it has submitted stays.
#[derive(Debug, Args)]
pub struct SchedulesRemove {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub which: Which,
}

/// A schedule.
#[derive(Debug, Args)]
pub struct Which {
    pub app: String,
    /// The schedule's name.
    pub name: String,
}

/// Lists or changes.
///
/// # Errors
/// Why it could not.
pub fn run(args: &SchedulesCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.with(args.action.as_ref().map(SchedulesAction::config))?.load(Vec::new())?;
    if let (Some(app), Some(_)) = (&args.app, &args.action) {
        anyhow::bail!("what is to be done comes before the app: rowmill schedules set|next|pause|resume|remove {app} …");
    }
    block_on(async {
        let parts = Parts::open(&config).await?;
        let jobs = &parts.jobs;
        match &args.action {
            None => list(jobs, args.app.as_deref(), args.json).await?,
            Some(SchedulesAction::Set(set)) => print(&[set::set(jobs, set).await?], args.json)?,
            Some(SchedulesAction::Next(SchedulesNext { which: Which { app, name }, count, .. })) => next(jobs, app, name, *count, args.json).await?,
            Some(SchedulesAction::Pause(SchedulesPause { which: Which { app, name }, .. })) => {
                jobs.pause_schedule(app, name).await?;
                print(&[jobs.read_schedule(app, name).await?], args.json)?;
            }
            Some(SchedulesAction::Resume(SchedulesResume { which: Which { app, name }, .. })) => {
                jobs.resume_schedule(app, name).await?;
                print(&[jobs.read_schedule(app, name).await?], args.json)?;
            }
            Some(SchedulesAction::Remove(SchedulesRemove { which: Which { app, name }, .. })) => {
                jobs.remove_schedule(app, name).await?;
                say!("schedule {name} of app {app} is removed; what it submitted stays");
            }
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

async fn list(jobs: &JobManager, app: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mut all: Vec<Schedule> = Vec::new();
    loop {
        let page = jobs.list_schedules(app, all.last().map(Schedule::key).as_ref(), PAGE).await?;
        if page.is_empty() {
            return print(&all, json);
        }
        all.extend(page);
    }
}

async fn next(jobs: &JobManager, app: &str, name: &str, count: u32, json: bool) -> anyhow::Result<()> {
    let schedule = jobs.read_schedule(app, name).await?;
    let ticks = jobs.next_ticks(app, name, count as usize).await?;
    if schedule.paused {
        say!("it is paused: these would come if it were resumed now");
    }
    if json {
        return print_data(&json!(ticks).to_string());
    }
    for tick in ticks {
        print_data(&shown(&schedule, tick))?;
    }
    Ok(())
}

fn print(schedules: &[Schedule], json: bool) -> anyhow::Result<()> {
    if json {
        return print_data(&serde_json::to_string(schedules)?);
    }
    let mut table = Table::new(["APP", "NAME", "OP", "CRON", "ZONE", "NEXT", "LAST", "LAST BATCH", "ERROR"]);
    for schedule in schedules {
        table.row([
            schedule.app.clone(),
            schedule.name.clone(),
            schedule.op.clone(),
            schedule.cron.clone(),
            schedule.zone.clone(),
            if schedule.paused { "paused".to_owned() } else { shown(schedule, schedule.next_at) },
            schedule.last_at.map_or_else(String::new, |at| shown(schedule, at)),
            schedule.last_batch.map_or_else(String::new, |id| id.to_string()),
            schedule.error.clone().unwrap_or_default(),
        ]);
    }
    print_data(&table.into_text())
}

/// As a clock in its zone shows it; in milliseconds when this machine does not know the zone.
fn shown(schedule: &Schedule, at: Timestamp) -> String {
    CronLine::parse(&schedule.cron, &schedule.zone, Timestamp(0)).map_or_else(|_| at.0.to_string(), |line| line.show(at))
}
