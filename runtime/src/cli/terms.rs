//! Under what terms a batch or a query is run: the options of `submit` and `query`, and `rowmill priority`.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::EXIT_SUCCESS;
use super::config::ConfigArgs;
use super::moment::parse_point;
use super::wiring::{Parts, block_on};
use crate::model::{BatchId, FailureLimit, PartialTerms, Timestamp, canonical_name, parse_time};

/// Terms as far as something is said about them.
#[derive(Debug, Args)]
pub struct PartialTermsArgs {
    /// The app's batches and queries with the highest priority go first; by the policies, else 0.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i32>,
    /// How often a row is tried at most, and mark-done is called (20 times at most); by the policies, else 3.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000))]
    pub attempts: Option<u32>,
    /// About how long after the first attempt the second comes, such as 500ms; after each further one it is twice as long. By the policies, else 1s.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub backoff: Option<Duration>,
    /// But never longer than this; by the policies, else 5m.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub backoff_max: Option<Duration>,
    /// Rows that fail with this code are tried again, too, such as `trap` or `deadline`, or a code of the processor's own messages. As often as you like.
    #[arg(long, value_name = "CODE")]
    pub retry_code: Vec<String>,
    /// Abort the batch when more rows than this fail: a number, such as 100, or a share of the rows, such as 5%.
    #[arg(long, value_name = "N|N%")]
    pub failures_max: Option<FailureLimit>,
}

impl PartialTermsArgs {
    pub fn terms(&self) -> PartialTerms {
        PartialTerms {
            priority: self.priority,
            attempts_max: self.attempts,
            backoff: self.backoff,
            backoff_max: self.backoff_max,
            retry_codes: (!self.retry_code.is_empty()).then(|| self.retry_code.clone()),
            failures_max: self.failures_max,
        }
    }
}

#[derive(Debug, Args)]
pub struct TermsArgs {
    #[command(flatten)]
    pub terms: PartialTermsArgs,
    /// Run no row before this moment, such as 2026-12-01T06:00:00Z, or this time from now, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub start_at: Option<Moment>,
    /// Abort what has no outcome at this moment, or this time from now.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub deadline: Option<Moment>,
}

/// A point in time, or one that is so far from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    At(Timestamp),
    In(Duration),
}

pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    if let Some(point) = parse_point(text) {
        return point.map(Moment::At);
    }
    parse_time(text).map(Moment::In).map_err(|_| "a moment looks like 2026-12-01T06:00:00Z, or 10m for so long from now".to_owned())
}

/// A name as it is stored, however it was composed. Whether it can be one is checked where it would
/// be stored.
pub(super) fn parse_name(name: &str) -> Result<String, Infallible> {
    Ok(canonical_name(name).into_owned())
}

impl TermsArgs {
    /// When the batch starts, and when it ends at the latest.
    ///
    /// # Errors
    /// A time from now, with a key.
    pub fn times(&self, has_key: bool) -> anyhow::Result<(Option<Timestamp>, Option<Timestamp>)> {
        if has_key && [self.start_at, self.deadline].iter().any(|moment| matches!(moment, Some(Moment::In(_)))) {
            bail!("with --key the same command is the same request whenever it is given: write the moment itself, such as 2026-12-01T06:00:00Z");
        }
        Ok(timestamps([self.start_at, self.deadline])?.into())
    }
}

/// Moments as points in time.
pub(super) fn timestamps<const N: usize>(moments: [Option<Moment>; N]) -> anyhow::Result<[Option<Timestamp>; N]> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock of this machine is before 1970")?;
    let timestamp = |moment: Moment| match moment {
        Moment::At(at) => at,
        Moment::In(span) => Timestamp(0).after(now.saturating_add(span)),
    };
    let found = moments.map(|moment| moment.map(timestamp));
    if found.iter().flatten().any(|at| jiff::Timestamp::from_millisecond(at.0).is_err()) {
        bail!("a moment so far from now is out of range: moments end at {}", jiff::Timestamp::MAX);
    }
    Ok(found)
}

/// Change the priority of a batch or a slow query whose rows have not all ended.
#[derive(Debug, Args)]
pub struct PriorityCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// The app's batches and queries with the highest priority go first.
    #[arg(value_name = "N", allow_negative_numbers = true)]
    pub priority: i32,
}

/// Changes it.
///
/// # Errors
/// Why it could not.
pub fn priority(args: &PriorityCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        parts.jobs.set_priority(args.batch, args.priority).await?;
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_point_in_time_or_a_time_from_now() {
        assert_eq!(parse_moment("1970-01-01T00:00:01Z"), Ok(Moment::At(Timestamp(1_000))));
        assert_eq!(parse_moment("1970-01-01T01:00:01.5+01:00"), Ok(Moment::At(Timestamp(1_500))));
        assert_eq!(parse_moment("10m"), Ok(Moment::In(Duration::from_secs(600))));
        assert!(parse_moment("2026-02-30T00:00:00Z").unwrap_err().starts_with("its day is 30"));
        let far = timestamps([Some(parse_moment("9999999d").unwrap())]).unwrap_err().to_string();
        assert!(far.starts_with("a moment so far from now is out of range"), "{far}");
        for wrong in ["", "tomorrow", "2026-12-01", "2026-12-01T06:00:00", "-5m"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }
}
