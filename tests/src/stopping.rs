//! How long it takes until a guest has stopped: one whose batch is aborted, and one whose time is over, while many others run.
//!
//! That a guest has stopped nobody is told, but its slot is free then. So all slots are taken, a row of another app waits, and the time until that row has its
//! outcome is a little more than the guest took to stop: a claim, a row and a record more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rowmill::blobs::Blobs;
use rowmill::grants::GrantSettings;
use rowmill::jobs::{BatchRequest, JobManager};
use rowmill::model::{App, BatchId, BatchStatus, Grants, HttpGrant, JsonText, KeyValueGrant, Limits, NewRow, Pooler};
use rowmill::sandbox::Sandbox;
use rowmill::status::StatusBoard;
use rowmill::store::{PgSettings, PgStore, Store};
use rowmill::worker::WorkerSettings;
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::built::Built;
use crate::reaching;

/// Between two looks at what has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// What should take a second never takes longer than this.
const PATIENCE: Duration = Duration::from_secs(120);
/// So long the row that waits has waited when the guest is to stop: longer than a free slot would take to run it.
const WAITS_FOR: Duration = Duration::from_millis(30);
const RETRIES: u32 = 10;
/// The time of a row that is to come to its deadline.
const TIMEOUT: Duration = Duration::from_millis(200);
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Guests that are stopped, of each kind.
    pub tries: u32,
    /// Others that run all the while, half of them in a loop and half of them asleep.
    pub beside: u32,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub tries: u32,
    pub beside: u32,
    pub cores: usize,
    /// From the request to abort until a row of another app had run in the guest's slot.
    pub abort: BTreeMap<&'static str, Times>,
    /// From the deadline until the row's outcome was there.
    pub deadline: BTreeMap<&'static str, Times>,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Times {
    /// Of one measurement at the least.
    pub fn of(mut times: Vec<Duration>) -> Times {
        times.sort();
        let at = |percent: usize| {
            let nth = (times.len() * percent).div_ceil(100).max(1) - 1;
            (times[nth].as_secs_f64() * 10_000.0).round() / 10.0
        };
        Times { p50_ms: at(50), p90_ms: at(90), p99_ms: at(99), max_ms: at(100) }
    }
}

/// Where a guest is when it is to stop, and what lets it get there.
const KINDS: [(&str, &str); 3] = [("tight-loop", "misbehaving"), ("asleep", "sleeper"), ("host-call", "reaching")];

/// Measures over an empty database.
///
/// # Errors
/// When something could not be run, or a guest was not stopped as it should be.
pub async fn run(database_url: &str, options: &Options) -> anyhow::Result<Report> {
    let site = Site::open(database_url, options).await?;
    let working = tokio::spawn({
        let jobs = site.worker.clone();
        async move { jobs.run().await }
    });
    let measured = site.measure(options).await;
    site.worker.shutdown();
    working.await??;
    measured
}

struct Site {
    /// It works, and has a process of its own as far as the client is concerned: they share the database.
    worker: JobManager,
    client: JobManager,
    store: Arc<PgStore>,
    /// An address that takes connections and never says anything.
    silent: String,
    _silence: TcpListener,
    _objects: TempDir,
}

impl Site {
    async fn open(database_url: &str, options: &Options) -> anyhow::Result<Site> {
        let built = Built::find()?;
        let settings = PgSettings { url: database_url.to_owned(), connections: 8, pooler: Pooler::None };
        PgStore::migrate(&settings).await?;
        let objects = tempfile::tempdir()?;
        let manager = async |slots: u32| {
            let store = Arc::new(PgStore::connect(&settings).await?);
            let work = WorkerSettings {
                slots,
                query_slots: 1,
                lease_rows_max: 1,
                limits_max: Limits::most(),
                drain_grace: Duration::from_millis(100),
                grants: GrantSettings { databases_directory: Some(reaching::databases_directory().to_owned()), ..GrantSettings::default() },
                ..WorkerSettings::local()
            };
            let sandbox = Sandbox::new(work.instances_max(), &built.cache())?;
            let jobs = JobManager::new(
                Arc::clone(&store) as Arc<dyn Store>,
                Blobs::local(objects.path())?,
                Arc::new(StatusBoard::in_process()),
                sandbox,
                work,
            );
            anyhow::Ok((jobs, store))
        };
        let (worker, _) = manager(options.beside + 1).await?;
        let (client, store) = manager(1).await?;
        let silence = TcpListener::bind("127.0.0.1:0").await?;
        let silent = format!("http://{}", silence.local_addr()?);
        // The row that waits has an app of its own, so that it is nobody's limit.
        let free = Limits { timeout: A_DAY, fuel: Limits::most().fuel, ..Limits::default() };
        let late = Limits { timeout: TIMEOUT, ..free.clone() };
        let http = HttpGrant { allow: [silent.parse().map_err(anyhow::Error::msg)?].into(), timeout: A_DAY, ..HttpGrant::default() };
        let grants = reaching::with_what_it_imports(Grants {
            http: Some(http),
            values: [("a".to_owned(), "b".to_owned())].into(),
            key_value: Some(KeyValueGrant::default()),
            ..Grants::default()
        });
        for (app, limits) in [("abort", &free), ("deadline", &late), ("beside", &free)] {
            client.register_app(&App { limits: Some(limits.clone()), ..App::named(app) }).await?;
            client.set_grants(app, &Grants::default(), &grants).await?;
            for (op, guest) in KINDS {
                client.register_processor(app, op, std::fs::read(built.guest(guest)?)?).await?;
            }
        }
        client.register_processor("next", "ok", std::fs::read(built.guest("misbehaving")?)?).await?;
        Ok(Site { worker, client, store, silent, _silence: silence, _objects: objects })
    }

    async fn measure(&self, options: &Options) -> anyhow::Result<Report> {
        let mut report = Report {
            tries: options.tries,
            beside: options.beside,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            abort: BTreeMap::new(),
            deadline: BTreeMap::new(),
        };
        let rows = |input: &str, count: u32| (0..count).map(|_| input.to_owned()).collect::<Vec<_>>();
        let looping = self.submit("beside", "tight-loop", rows(r#"{"do":"loop"}"#, options.beside / 2)).await?;
        let asleep = self.submit("beside", "asleep", rows("{}", options.beside - options.beside / 2)).await?;
        let beside = [looping, asleep];
        self.until("the others run", async || Ok(self.leases().await? == u64::from(options.beside))).await?;
        let measured = async {
            for (kind, _) in KINDS {
                let (mut aborts, mut deadlines) = (Vec::new(), Vec::new());
                for number in 0..options.tries {
                    // Each at another moment of the guest's turn.
                    let pause = Duration::from_millis(100 + u64::from(number % 31));
                    aborts.push(self.abort(kind, pause).await.with_context(|| format!("abort, {kind}"))?);
                    deadlines.push(self.deadline(kind).await.with_context(|| format!("deadline, {kind}"))?);
                }
                report.abort.insert(kind, Times::of(aborts));
                report.deadline.insert(kind, Times::of(deadlines));
            }
            anyhow::Ok(())
        };
        let measured = measured.await;
        for id in beside {
            self.client.batch_abort(id, None).await?;
        }
        measured.map(|()| report)
    }

    fn input(&self, kind: &str) -> String {
        match kind {
            "tight-loop" => r#"{"do":"loop"}"#.to_owned(),
            "asleep" => "{}".to_owned(),
            _ => format!(r#"[{{"do":"http","url":"{}/"}}]"#, self.silent),
        }
    }

    async fn abort(&self, kind: &'static str, pause: Duration) -> anyhow::Result<Duration> {
        for _ in 0..RETRIES {
            if let Some(took) = self.abort_once(kind, pause).await? {
                return Ok(took);
            }
        }
        anyhow::bail!("the row that should have waited found a free slot, {RETRIES} times")
    }

    /// None where the guest's row had not begun: then its lease yields to the row that waits, and nothing is to be stopped.
    async fn abort_once(&self, kind: &'static str, pause: Duration) -> anyhow::Result<Option<Duration>> {
        let id = self.submit("abort", kind, vec![self.input(kind)]).await?;
        self.until("its row runs", async || Ok(self.status(id).await? == BatchStatus::Inprog)).await?;
        tokio::time::sleep(pause).await;
        let next = self.submit("next", "ok", vec![r#"{"do":"ok"}"#.to_owned()]).await?;
        tokio::time::sleep(WAITS_FOR).await;
        let waits = self.status(next).await? == BatchStatus::Queued;
        let begun = Instant::now();
        self.client.batch_abort(id, None).await?;
        let batch = tokio::time::timeout(PATIENCE, self.worker.wait(next)).await.context("it was never stopped")??;
        ensure!(batch.status == BatchStatus::Success, "the row after it ended as {:?}", batch.status);
        Ok(waits.then(|| begun.elapsed()))
    }

    async fn deadline(&self, kind: &'static str) -> anyhow::Result<Duration> {
        let id = self.submit("deadline", kind, vec![self.input(kind)]).await?;
        self.until("its row runs", async || Ok(self.status(id).await? != BatchStatus::Queued)).await?;
        let begun = Instant::now();
        tokio::time::timeout(PATIENCE, self.worker.wait(id)).await.context("it was never stopped")??;
        let took = begun.elapsed();
        let row = self.client.batch_rows(id, None, 1).await?.remove(0);
        ensure!(row.messages.iter().any(|message| message.code == "deadline"), "its row ended otherwise: {row:?}");
        Ok(took.saturating_sub(TIMEOUT))
    }

    async fn submit(&self, app: &str, op: &str, inputs: Vec<String>) -> anyhow::Result<BatchId> {
        let rows = (1..).zip(inputs).map(|(line, input)| Ok(NewRow::new(line, JsonText::check(input)?)));
        let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(self.client.batch_submit(BatchRequest::new(app, op).with_rows(rows)).await?)
    }

    async fn status(&self, id: BatchId) -> anyhow::Result<BatchStatus> {
        Ok(self.store.read_batch(id).await?.status)
    }

    async fn leases(&self) -> anyhow::Result<u64> {
        let workers = self.client.list_workers().await?;
        Ok(workers.iter().flat_map(|worker| &worker.runs).map(|run| u64::from(run.leases)).sum())
    }

    async fn until(&self, what: &str, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !so().await? {
            ensure!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measurements() {
        let times = Times::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!(times, Times { p50_ms: 100.0, p90_ms: 180.0, p99_ms: 198.0, max_ms: 200.0 });
        assert_eq!(Times::of(vec![Duration::from_micros(1_550)]).p99_ms, 1.6);
    }
}
