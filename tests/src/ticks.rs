//! A schedule of every second on many workers that are killed: each tick is submitted once.
//!
//! It is judged from the database: the id of a batch tells the tick that it is of.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rowmill::model::{Pooler, Schedule, ScheduleKey};
use rowmill::schedule::batch_id;
use rowmill::store::{PgSettings, PgStore, Store};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::built::Built;
use crate::random::Random;
use crate::servers::WorkerProcess;

const ROW: &str = "id,account,amount,currency,date,type\nT000001,DE9710027535,10.25,EUR,2026-01-31,deposit\n";
/// Between two looks at what has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What should take a second never takes longer than this.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers that run at the same time.
    pub processes: usize,
    /// Ticks to wait for, one a second.
    pub ticks: u32,
    /// Between two workers that are killed, each of which is replaced.
    pub kill_every: Duration,
    /// Which ones are killed comes from it.
    pub seed: u64,
}

/// What happened.
#[derive(Debug, Serialize)]
pub struct Report {
    pub processes: usize,
    pub killed: usize,
    /// From the first to the last that was taken up.
    pub ticks: usize,
    /// Batches of the schedule.
    pub batches: usize,
    /// Ticks without a batch.
    pub missing: Vec<i64>,
    /// Ticks with more than one batch.
    pub double: Vec<i64>,
    /// Batches that are of no tick.
    pub strange: Vec<String>,
    /// Batches whose row did not succeed.
    pub failed: usize,
    /// How long after its tick a batch came in, in milliseconds: the median, the slowest but for one in a hundred, the slowest.
    pub late_ms: [i64; 3],
}

impl Report {
    /// Each tick has its batch, and nothing else was submitted.
    pub fn is_right(&self) -> bool {
        self.missing.is_empty() && self.double.is_empty() && self.strange.is_empty() && self.failed == 0 && self.batches == self.ticks
    }
}

/// Runs it over an empty database.
///
/// # Errors
/// When something could not be run. What is wrong with ticks is in the report.
pub async fn run(database_url: &str, options: &Options) -> anyhow::Result<Report> {
    let directory = tempfile::tempdir()?;
    let site = Site { built: Built::find()?, directory: directory.path(), database_url };
    let settings = PgSettings { url: database_url.to_owned(), connections: 3, pooler: Pooler::None };
    PgStore::migrate(&settings).await?;
    let store = PgStore::connect(&settings).await?;
    std::fs::write(directory.path().join("row.csv"), ROW)?;
    site.rowmill(&["deploy", "bank", "validate", site.built.guest("bank-transactions")?.to_str().context("a path is a text")?, "--activate"])?;
    let mut workers: Vec<WorkerProcess> = (0..options.processes).map(|number| site.worker(number)).collect::<Result<_, _>>()?;
    site.rowmill(&["schedules", "set", "bank", "each second", "validate", "--cron", "* * * * * *", "--missed", "all", "--input", "row.csv"])?;
    let first = read(&store).await?;
    let last_at = first.next_at.0 + i64::from(options.ticks - 1) * 1_000;

    let (mut random, mut killed, mut kill_at) = (Random::new(options.seed), 0, Instant::now() + options.kill_every);
    let give_up = Instant::now() + Duration::from_secs(options.ticks.into()) + PATIENCE;
    while read(&store).await?.last_at.is_none_or(|at| at.0 < last_at) {
        ensure!(Instant::now() < give_up, "ticks do not come: {:?}", read(&store).await?);
        if Instant::now() >= kill_at {
            kill_at += options.kill_every;
            let place = usize::try_from(random.below(workers.len() as u64))?;
            workers[place].kill();
            killed += 1;
            workers[place] = site.worker(options.processes + killed)?;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    site.rowmill(&["schedules", "pause", "bank", "each second"])?;
    let mut db = PgConnection::connect(database_url).await?;
    let give_up = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM rowmill.batches WHERE step <> 'done'").fetch_one(&mut db).await? > 0 {
        ensure!(Instant::now() < give_up, "batches do not end");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let report = judge(&mut db, &first, &read(&store).await?).await?;
    Ok(Report { processes: options.processes, killed, ..report })
}

async fn read(store: &PgStore) -> anyhow::Result<Schedule> {
    store.read_schedule(&ScheduleKey::new("bank", "each second")).await?.context("it was set")
}

async fn judge(db: &mut PgConnection, first: &Schedule, last: &Schedule) -> anyhow::Result<Report> {
    let batches: Vec<(Uuid, i64, String)> = sqlx::query_as("SELECT batch_id, submitted_at, status FROM rowmill.batches").fetch_all(db).await?;
    let end = last.last_at.context("there were ticks")?.0;
    let mut of_ticks: BTreeMap<i64, Vec<i64>> = (first.next_at.0..=end).step_by(1_000).map(|tick| (tick, Vec::new())).collect();
    let (mut strange, mut failed, mut late) = (Vec::new(), 0, Vec::new());
    for (id, submitted_at, status) in &batches {
        // The first 48 bits of a UUIDv7 are its time.
        let tick = i64::try_from(id.as_u128() >> 80)?;
        match of_ticks.get_mut(&tick) {
            Some(found) if batch_id(first.id, rowmill::model::Timestamp(tick)) == (*id).into() => found.push(*submitted_at),
            _ => strange.push(id.to_string()),
        }
        failed += usize::from(status != "success");
        late.push(submitted_at - tick);
    }
    late.sort_unstable();
    let of_which = |wanted: fn(usize) -> bool| of_ticks.iter().filter(|(_, found)| wanted(found.len())).map(|(tick, _)| *tick).collect();
    let slowest_but = |part: usize| late.get((late.len() * part / 100).min(late.len().saturating_sub(1))).copied().unwrap_or_default();
    Ok(Report {
        processes: 0,
        killed: 0,
        ticks: of_ticks.len(),
        batches: batches.len(),
        missing: of_which(|count| count == 0),
        double: of_which(|count| count > 1),
        strange,
        failed,
        late_ms: [slowest_but(50), slowest_but(99), slowest_but(100)],
    })
}

/// Where the processes run.
struct Site<'a> {
    built: Built,
    directory: &'a Path,
    database_url: &'a str,
}

impl Site<'_> {
    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let objects = format!("file:{}", self.directory.join("objects").display());
        vec![
            ("ROWMILL_STORE_URL", self.database_url.into()),
            ("ROWMILL_STORE_CONNECTIONS", "4".into()),
            ("ROWMILL_OBJECTS_URL", objects.into()),
            ("ROWMILL_WORKER_HEARTBEAT", "500ms".into()),
            ("ROWMILL_WORKER_SLOTS", "2".into()),
            ("ROWMILL_WORKER_QUERY_SLOTS", "1".into()),
            ("ROWMILL_CACHE_DIR", self.built.cache().into()),
        ]
    }

    fn rowmill(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.built.program());
        let done = command.args(arguments).envs(self.variables()).current_dir(self.directory).output().context("`rowmill` cannot be run")?;
        ensure!(done.status.success(), "rowmill {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    fn worker(&self, number: usize) -> anyhow::Result<WorkerProcess> {
        let arguments = vec!["work".into(), "--set".into(), format!("worker.name=worker {number}").into()];
        WorkerProcess::start(&self.built.program(), &self.variables(), arguments)
    }
}
