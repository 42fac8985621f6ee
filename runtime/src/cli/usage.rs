//! `rowmill usage`: what an app used.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::config::ConfigArgs;
use super::moment::parse_point;
use super::table::Table;
use super::terms::parse_name;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::model::{Clock, FuelProfile, Meter, SystemClock, Timestamp, UsageRecord, canonical_op, parse_time};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Show what the recorded rows of an app used, and how much fuel the rows of its processors need.
///
/// Hours and days are those of UTC. Rows count in the hour in which they were recorded.
#[derive(Debug, Args)]
pub struct UsageCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    /// Only this operation.
    #[arg(long, value_name = "OP", value_parser = parse_name)]
    pub op: Option<String>,
    /// From the hour of this moment on, such as 2026-11-01T00:00:00Z, or so long ago, such as 36h.
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = parse_past)]
    pub since: Past,
    /// Until before the hour of this moment; until now by default.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_past)]
    pub until: Past,
    /// What is summed up: the hours, days or versions of an operation.
    #[arg(long, default_value = "day")]
    pub by: By,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A moment, or how long ago it was.
#[derive(Clone, Copy, Debug)]
pub enum Past {
    At(Timestamp),
    Ago(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    Hour,
    Day,
    Version,
}

pub(super) fn parse_past(text: &str) -> Result<Past, String> {
    if let Some(point) = parse_point(text) {
        return point.map(Past::At);
    }
    parse_time(text).map(Past::Ago).map_err(|_| "a moment looks like 2026-11-01T00:00:00Z, or like 36h for so long ago".to_owned())
}

impl Past {
    pub(super) fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Past::At(at) => at,
            Past::Ago(time) => Timestamp(now.0.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))),
        }
    }
}

/// Sums of one operation: of an hour, a day or a version.
#[derive(Serialize)]
struct Sum {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    op: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(flatten)]
    meter: Meter,
}

/// Fuel per row.
#[derive(Serialize)]
struct Fuel {
    op: String,
    version: u32,
    rows: u64,
    p50: Option<u64>,
    p99: Option<u64>,
    max: u64,
    suggested_limit: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    app: String,
    usage: Vec<Sum>,
    fuel_per_row: Vec<Fuel>,
}

/// Shows it.
///
/// # Errors
/// Why it could not be read.
pub fn run(args: &UsageCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let now = SystemClock.now();
        let hour = |at: Timestamp| Timestamp(at.0.div_euclid(HOUR_MS) * HOUR_MS);
        let until = match args.until {
            Past::At(at) => hour(at),
            // The hour that has begun is there, too.
            ago @ Past::Ago(_) => Timestamp(hour(ago.moment(now)).0 + HOUR_MS),
        };
        let op = args.op.as_deref().map(canonical_op);
        let records = parts.jobs.usage(&args.app, op.as_deref(), hour(args.since.moment(now)), until).await?;
        let mut profiles = parts.jobs.fuel_profiles(&args.app).await?;
        profiles.retain(|profile| op.as_ref().is_none_or(|op| profile.op == *op));
        let report = Report { app: args.app.clone(), usage: sum_up(records, args.by), fuel_per_row: profiles.into_iter().map(fuel_of).collect() };
        print_data(&if args.json { serde_json::to_string(&report)? } else { in_words(report) })?;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn sum_up(records: Vec<UsageRecord>, by: By) -> Vec<Sum> {
    let mut sums: BTreeMap<(i64, String, u32), Meter> = BTreeMap::new();
    for record in records {
        let (at, version) = match by {
            By::Hour => (record.hour.0, 0),
            By::Day => (record.hour.0.div_euclid(DAY_MS) * DAY_MS, 0),
            By::Version => (0, record.version),
        };
        sums.entry((at, record.op, version)).or_default().add(&record.meter);
    }
    let sum = |((at, op, version), meter): ((i64, String, u32), Meter)| Sum {
        at: (by != By::Version).then(|| jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())),
        op,
        version: (by == By::Version).then_some(version),
        meter,
    };
    sums.into_iter().map(sum).collect()
}

fn fuel_of(profile: FuelProfile) -> Fuel {
    Fuel {
        rows: profile.histogram.rows(),
        p50: profile.percentile(50),
        p99: profile.percentile(99),
        max: profile.max,
        suggested_limit: profile.suggested_limit(),
        op: profile.op,
        version: profile.version,
    }
}

fn in_words(report: Report) -> String {
    let mut sums = Table::new(["AT", "OP", "SUCCESS", "FAILED", "RETRIES", "FUEL", "SECONDS", "INPUT", "OUTPUT", "FILES", "STOPPED BY"]);
    for Sum { at, op, version, meter } in report.usage {
        let seconds = Duration::from_micros(meter.micros).as_secs_f64();
        let codes: Vec<String> = meter.codes.iter().map(|(code, rows)| format!("{code} {rows}")).collect();
        sums.row([
            at.unwrap_or_else(|| format!("v{}", version.unwrap_or_default())),
            op,
            meter.success.to_string(),
            meter.failed.to_string(),
            meter.retries.to_string(),
            (meter.fuel.saturating_add(meter.retry_fuel)).to_string(),
            format!("{seconds:.3}"),
            meter.input_bytes.to_string(),
            meter.output_bytes.to_string(),
            meter.file_bytes.to_string(),
            codes.join(", "),
        ]);
    }
    let mut fuel = Table::new(["OP", "VERSION", "ROWS", "FUEL P50", "P99", "MAX", "SUGGESTED LIMIT"]);
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    for row in report.fuel_per_row {
        fuel.row([
            row.op,
            row.version.to_string(),
            row.rows.to_string(),
            number(row.p50),
            number(row.p99),
            row.max.to_string(),
            number(row.suggested_limit),
        ]);
    }
    format!("{}\n\n{}", sums.into_text(), fuel.into_text())
}
