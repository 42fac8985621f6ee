//! `rowmill schedules set`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::cli::config::ConfigArgs;
use crate::cli::deploy::kind_for_people;
use crate::cli::feed::{FormatArg, InputFile, open_file};
use crate::cli::terms::{PartialTermsArgs, parse_name};
use crate::intake::{InflateLimits, RowReader};
use crate::jobs::{BatchRequest, JobManager, QueryRequest, ScheduleRequest};
use crate::model::{JsonText, Missed, NewRow, Overlap, SCHEDULE_BYTES_MAX, SCHEDULE_ROWS_MAX, Schedule, ScheduleKey};
use crate::store::find_served;

/// Register a schedule, or replace the one of this name as a whole: options that are not given have their defaults. A schedule that is paused stays paused.
///
/// The rows of a batch (--input), or the input of a slow query (--query), are stored with it, and submitted at each tick with the processor that is active then.
///
/// The cron line has 5 fields (minute, hour, day of month, month, day of week), or 6 with the second before them; or it is @hourly, @daily, @weekly, @monthly or @yearly.
/// Where clocks are changed, a time of day comes once, also when the clock shows it never or twice; what comes every so often (* and /) goes on in real time.
#[derive(Debug, Args)]
pub struct SchedulesSet {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// The schedule's name, one of its app's.
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// The operation; case does not matter.
    #[arg(value_parser = parse_name)]
    pub op: String,
    /// When, as in '0 7 * * MON-FRI'.
    #[arg(long, value_name = "LINE")]
    pub cron: String,
    /// The time zone of the line, such as Europe/Berlin.
    #[arg(long, default_value = "UTC")]
    pub zone: String,
    /// The file with the rows of each batch, at most 1,000 rows and 1 MiB; - reads stdin.
    #[arg(long, value_name = "FILE", required_unless_present = "query", conflicts_with = "query")]
    pub input: Option<PathBuf>,
    /// How the file holds its rows; by its name when this is not given.
    #[arg(long, requires = "input")]
    pub format: Option<FormatArg>,
    /// The input of a slow query, as JSON.
    #[arg(long, value_name = "JSON")]
    pub query: Option<String>,
    /// What the processor is told beside it, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub context: String,
    #[command(flatten)]
    pub terms: PartialTermsArgs,
    /// What becomes of ticks that passed while no worker was there.
    #[arg(long, default_value = "skip")]
    pub missed: MissedArg,
    /// What becomes of a tick while the batch of the one before has not ended.
    #[arg(long, default_value = "allow")]
    pub overlap: OverlapArg,
}

/// [`Missed`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MissedArg {
    /// Only the next tick counts.
    Skip,
    /// One submission for all of them.
    Once,
    /// One for each of the last 100.
    All,
}

/// [`Overlap`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OverlapArg {
    /// It is submitted all the same.
    Allow,
    /// Nothing is submitted.
    Skip,
}

pub(super) async fn set(jobs: &JobManager, args: &SchedulesSet) -> anyhow::Result<Schedule> {
    let context = JsonText::check(args.context.as_str()).context("--context")?;
    let terms = args.terms.terms();
    let request = if let Some(query) = &args.query {
        let input = JsonText::check(query.as_str()).context("--query")?;
        let query = QueryRequest { context, terms, ..QueryRequest::new(&args.app, &args.op, input) };
        ScheduleRequest::query(&args.name, &args.cron, query)
    } else {
        let rows = args.input.as_deref().map(|file| read_rows(file, args.format)).transpose()?.unwrap_or_default();
        let batch = BatchRequest { context, rows, terms, ..BatchRequest::new(&args.app, &args.op) };
        ScheduleRequest::batch(&args.name, &args.cron, batch)
    };
    let missed = match args.missed {
        MissedArg::Skip => Missed::Skip,
        MissedArg::Once => Missed::Once,
        MissedArg::All => Missed::All,
    };
    let overlap = match args.overlap {
        OverlapArg::Allow => Overlap::Allow,
        OverlapArg::Skip => Overlap::Skip,
    };
    let before = jobs.store().read_schedule(&ScheduleKey::new(&args.app, &args.name)).await?;
    let schedule = jobs.put_schedule(ScheduleRequest { missed, overlap, ..request.in_zone(&args.zone) }).await?;
    if let Some(Schedule { app, name, op, kind, cron, zone, .. }) = before {
        say!("schedule {name} of app {app} is replaced as a whole: it submitted {} to {op}, at {cron} in {zone}", kind_for_people(kind));
    }
    if let Err(not_served) = find_served(&**jobs.store(), &schedule.app, &schedule.op, schedule.kind).await? {
        say!("ticks cannot be submitted yet: {not_served}");
    }
    Ok(schedule)
}

/// All rows of a file, which are few.
fn read_rows(file: &Path, format: Option<FormatArg>) -> anyhow::Result<Vec<NewRow>> {
    let InputFile { name, form, reader, .. } = open_file(file, format)?;
    let taking = || format!("cannot take {name}");
    let mut reader = RowReader::open(form, InflateLimits::default(), reader).with_context(taking)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = reader.next_row().with_context(taking)? {
        bytes += row.input.as_str().len();
        if rows.len() == SCHEDULE_ROWS_MAX || bytes > SCHEDULE_BYTES_MAX {
            bail!(
                "{name} is too large for a schedule, which has at most {SCHEDULE_ROWS_MAX} rows with {SCHEDULE_BYTES_MAX} bytes of inputs together"
            );
        }
        rows.push(row);
    }
    Ok(rows)
}
