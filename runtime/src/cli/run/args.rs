//! What `rowmill run` can be told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::cli::feed::{FormatArg, InputFile, open_file};
use crate::cli::grants::GrantOptions;
use crate::config::{parse_memory, parse_timeout};
use crate::grants::GrantSettings;
use crate::model::{FailureLimit, Grants, JsonText, Limits, ProcessorKind, canonical_op, check_name};
use crate::worker::WorkerSettings;

/// Run a file, or one query, through a processor on this machine.
///
/// Leaves in the output directory: results.ndjson (every row, in the order of the file), failed.csv or failed.ndjson (the rows that failed, with the reason,
/// ready to be corrected and run again), files/ (the output files that the processor made), summary.json, and manifest.json with the size and SHA-256 of each.
///
/// A directory that holds anything else is refused.
///
/// Exit status: 0 all rows succeeded, 1 some rows failed, 2 it could not run, 130 or 143 it was stopped by Ctrl-C or SIGTERM and can go on with --resume.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The processor: a component, or a core module that carries its WIT.
    #[arg(long, value_name = "FILE.wasm")]
    pub processor: PathBuf,
    /// The file with the rows; - reads stdin.
    #[arg(long, value_name = "FILE", required_unless_present = "query")]
    pub input: Option<PathBuf>,
    /// The input of a slow query, as JSON.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["input", "format"])]
    pub query: Option<String>,
    /// How the file holds its rows; by its name when this is not given.
    #[arg(long)]
    pub format: Option<FormatArg>,
    /// What the processor is told about the run as a whole, as JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub context: String,
    /// Where the results go. By default a directory named after the input, such as transactions.results.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Rows that run at the same time. By default twice the cores.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000))]
    pub workers: Option<u32>,
    /// Fuel for one row: about one unit per instruction.
    #[arg(long, value_name = "N", default_value_t = Limits::default().fuel, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000_000_000))]
    pub fuel: u64,
    /// Time for one row or query. By default 5s for a row and 1m for a query.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// Memory of one instance.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_memory)]
    pub memory: u64,
    /// A directory with a file for each secret that --secret names.
    #[arg(long, value_name = "DIR")]
    pub secrets_directory: Option<PathBuf>,
    /// A directory with a file for each database that --sql names, with its URL.
    #[arg(long, value_name = "DIR")]
    pub databases_directory: Option<PathBuf>,
    #[command(flatten)]
    pub grants: GrantOptions,
    /// How often a row is tried, and mark-done is called (20 times at most), when the processor asks for a retry.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000))]
    pub attempts: u32,
    /// Abort the run when more rows than this fail: a number, such as 100, or a share of the rows, such as 5%.
    #[arg(long, value_name = "N|N%", conflicts_with = "query")]
    pub failures_max: Option<FailureLimit>,
    /// Print the summary as JSON on stdout, and nothing else there.
    #[arg(long)]
    pub json: bool,
    /// Go on with a run that was stopped: with the same processor, settings and input.
    #[arg(long)]
    pub resume: bool,
    /// Replace what an earlier run left in the output directory. Other files, and files that were changed since, are refused all the same.
    #[arg(long)]
    pub overwrite: bool,
}

/// Where the rows come from.
pub(super) enum Source {
    File(InputFile),
    Query(JsonText),
}

impl RunArgs {
    fn limits(&self) -> Limits {
        Limits { fuel: self.fuel, timeout: self.timeout(), query_timeout: self.timeout(), memory_bytes: self.memory, ..Limits::default() }
    }

    /// The time of one row, or of the query.
    pub(super) fn timeout(&self) -> Duration {
        let Limits { timeout, query_timeout, .. } = Limits::default();
        self.timeout.unwrap_or(if self.query.is_some() { query_timeout } else { timeout })
    }

    pub(super) fn settings(&self) -> WorkerSettings {
        let local = WorkerSettings::local();
        let grants = GrantSettings {
            secrets_directory: self.secrets_directory.clone(),
            databases_directory: self.databases_directory.clone(),
            ..GrantSettings::default()
        };
        WorkerSettings { slots: self.workers.unwrap_or(local.slots), limits: self.limits(), grants, ..local }
    }

    /// What the processor may reach beyond its rows.
    pub(super) fn grants(&self) -> anyhow::Result<Grants> {
        let mut grants = Grants::default();
        self.grants.add_to(&mut grants)?;
        grants.check().map_err(anyhow::Error::msg)?;
        if !grants.sql.is_empty() && self.databases_directory.is_none() {
            bail!("--sql names a database, and --databases-directory is missing: it names the directory with a file for each database");
        }
        if !grants.secrets.is_empty() && self.secrets_directory.is_none() {
            bail!("--secret names a secret, and --secrets-directory is missing: it names the directory with a file for each secret");
        }
        Ok(grants)
    }

    pub(super) fn context(&self) -> anyhow::Result<JsonText> {
        JsonText::check(self.context.as_str()).context("--context")
    }

    /// The operation's name: that of the processor's file, if an operation can have that name.
    pub(super) fn op(&self) -> String {
        let stem = self.processor.file_stem().map(|stem| canonical_op(&stem.to_string_lossy()));
        stem.filter(|stem| check_name("an operation", stem).is_ok()).unwrap_or_else(|| "run".to_owned())
    }

    /// Checks that the processor is of the kind that this command needs.
    pub(super) fn check(&self, kind: ProcessorKind) -> anyhow::Result<()> {
        let processor = self.processor.display();
        match (kind, &self.input, &self.query) {
            (ProcessorKind::Batch, None, _) => bail!("{processor} is a processor of rows: give it --input FILE instead of --query"),
            (ProcessorKind::SlowQuery, _, None) => bail!("{processor} is a processor of slow queries: give it --query JSON instead of --input"),
            _ => Ok(()),
        }
    }

    /// Opens the input, as the processor needs it.
    pub(super) fn source(&self) -> anyhow::Result<Source> {
        if let Some(query) = &self.query {
            return Ok(Source::Query(JsonText::check(query.as_str()).context("--query")?));
        }
        let input = self.input.as_deref().context("there is no --input")?;
        Ok(Source::File(open_file(input, self.format)?))
    }

    pub(super) fn out_directory(&self) -> PathBuf {
        let stem = match (&self.out, &self.input) {
            (Some(out), _) => return out.clone(),
            // transactions.csv.gz leaves what transactions.csv leaves.
            (None, Some(input)) if input.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz")) => {
                input.file_stem().and_then(|name| Path::new(name).file_stem())
            }
            (None, Some(input)) if input != Path::new("-") => input.file_stem(),
            _ => self.processor.file_stem(),
        };
        PathBuf::from(format!("{}.results", stem.unwrap_or_default().to_string_lossy()))
    }

    pub(super) fn how_to_resume(&self) -> String {
        format!("run the same command with --resume (the run is in {})", self.out_directory().display())
    }
}
