//! The servers and the workers of a run.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use rowmill::blobs::{BlobSettings, Blobs};
use rowmill::model::{App, Policy, Pooler, ProcessorKind, Rate};
use rowmill::store::{PgSettings, PgStore, Store};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::audit;
use super::plan::{APPS, BATCH_OP, QUERY_OP};
use crate::built::Built;
use crate::servers::{Postgres, PostgresOptions, Redis, S3, WorkerProcess};

/// Between two signs of life of a worker. A lease lives for five thirds of it.
pub const HEARTBEAT_MS: u64 = 600;
pub const LEASE_MS: u64 = HEARTBEAT_MS * 5 / 3;
/// What a worker says when it has started.
const STARTED: &str = "slots for batches";
/// Of a worker.
const SLOTS: u32 = 4;
const QUERY_SLOTS: u32 = 2;

/// Servers, and workers by their place: each place has one worker at a time.
pub struct Stage {
    pub postgres: Postgres,
    pub redis: Redis,
    pub s3: S3,
    pub workers: Vec<Option<WorkerProcess>>,
    /// How many workers were started, at any place.
    pub started: usize,
    /// Workers that ended by themselves, with the end of their log.
    pub fallen: Vec<String>,
    /// Workers that did not start, since something was down.
    pub refused_starts: u64,
    /// Where logs are kept; else they go.
    pub logs: Option<PathBuf>,
    built: Built,
    directory: TempDir,
}

impl Stage {
    /// Starts servers and prepares the database. There may be as many workers as `workers_max` in all.
    pub async fn set_up(places: usize, workers_max: usize, logs: Option<PathBuf>) -> anyhow::Result<Stage> {
        // What a crash of the server alone must not lose is safe without it.
        let postgres = Postgres::start(PostgresOptions { fsync: false, ..PostgresOptions::default() })?;
        let stage = Stage {
            postgres,
            redis: Redis::start()?,
            s3: S3::start()?,
            workers: (0..places).map(|_| None).collect(),
            started: 0,
            fallen: Vec::new(),
            refused_starts: 0,
            logs,
            built: Built::find()?,
            directory: tempfile::tempdir()?,
        };
        PgStore::migrate(&stage.store_settings(1)).await?;
        let mut db = PgConnection::connect(&stage.postgres.url()).await?;
        audit::install(&mut db).await?;
        // Each worker has a role of its own, so that triggers know who changed something.
        let roles =
            format!("DO $$ BEGIN FOR n IN 0..{workers_max} LOOP EXECUTE format('CREATE ROLE %I SUPERUSER LOGIN', 'worker_' || n); END LOOP; END $$");
        sqlx::raw_sql(sqlx::AssertSqlSafe(roles)).execute(&mut db).await?;
        db.close().await?;
        Ok(stage)
    }

    pub fn store_settings(&self, connections: u32) -> PgSettings {
        PgSettings { url: self.postgres.url(), connections, pooler: Pooler::None }
    }

    pub fn blobs(&self) -> anyhow::Result<Blobs> {
        let settings = BlobSettings {
            endpoint: Some(self.s3.endpoint()),
            region: Some(S3::REGION.to_owned()),
            access_key_id: Some(S3::ACCESS_KEY_ID.to_owned()),
            secret_access_key: Some(S3::SECRET_ACCESS_KEY.to_owned()),
            ..BlobSettings::new(objects_url())
        };
        Ok(Blobs::open(&settings)?)
    }

    /// Registers apps and processors. Returns the digests of these.
    pub async fn deploy(&self, store: &PgStore) -> anyhow::Result<[(ProcessorKind, String); 2]> {
        let config = self.directory.path().join("client.toml");
        fs::write(&config, self.config("postgres"))?;
        for (name, weight, running_max) in APPS {
            store.put_app(&App { weight, running_max, ..App::named(name) }).await?;
            for (op, guest) in [(BATCH_OP, "chronicle"), (QUERY_OP, "chronicle-query")] {
                let mut command = Command::new(self.built.program());
                command.arg("deploy").arg("--config").arg(&config).args([name, op]).arg(self.built.guest(guest)?).arg("--activate");
                let done = command.env("ROWMILL_CACHE_DIR", self.built.cache()).output().context("`rowmill deploy` cannot be run")?;
                ensure!(done.status.success(), "`rowmill deploy`: {}", String::from_utf8_lossy(&done.stderr));
            }
        }
        // So that much of its work is held up now and then.
        store.put_policy(&Policy { rate: Some(Rate { micros: 1_500_000_000, burst: 300 }), ..Policy::of(APPS[1].0, Some(BATCH_OP)) }).await?;
        let digest = async |kind, op| -> anyhow::Result<(ProcessorKind, String)> {
            Ok((kind, store.find_op(APPS[0].0, op, kind).await?.context("it was deployed")?.version.digest))
        };
        Ok([digest(ProcessorKind::Batch, BATCH_OP).await?, digest(ProcessorKind::SlowQuery, QUERY_OP).await?])
    }

    /// Starts a worker at a place that has none.
    pub fn start_worker(&mut self, place: usize) -> anyhow::Result<()> {
        let name = format!("worker_{}", self.started);
        self.started += 1;
        let config = self.directory.path().join(format!("{name}.toml"));
        fs::write(&config, self.config(&name))?;
        let mut variables: Vec<(&str, OsString)> = vec![("ROWMILL_CACHE_DIR", self.built.cache().into())];
        if std::env::var_os("ROWMILL_LOG").is_none() {
            variables.push(("ROWMILL_LOG", "info".into()));
        }
        let arguments = vec!["work".into(), "--config".into(), config.into()];
        self.workers[place] = Some(WorkerProcess::start(&self.built.program(), &variables, arguments)?);
        Ok(())
    }

    /// Kills the worker at a place.
    pub fn kill_worker(&mut self, place: usize) {
        if let Some(mut worker) = self.workers[place].take() {
            worker.kill();
            self.keep_log(place, &worker);
        }
    }

    /// Takes note of a worker that ended by itself. True when it did, or when there is none.
    pub fn is_vacant(&mut self, place: usize) -> bool {
        let Some(worker) = &mut self.workers[place] else { return true };
        let Some(status) = worker.ended() else { return false };
        let worker = self.workers[place].take().expect("it was there");
        self.keep_log(place, &worker);
        let log = worker.log();
        if log.contains(STARTED) {
            self.fallen.push(format!("a worker ended by itself ({status}): {log}"));
        } else {
            // Something that it needs was down: whoever starts it tries again.
            self.refused_starts += 1;
        }
        true
    }

    fn keep_log(&self, place: usize, worker: &WorkerProcess) {
        if let Some(directory) = &self.logs {
            // Logs are for people; a run is judged without them.
            let _ = fs::create_dir_all(directory);
            let path = directory.join(format!("{}-{place}.log", self.started));
            let _ = fs::write(path, worker.log());
        }
    }

    fn config(&self, name: &str) -> String {
        let url = self.postgres.url().replacen("postgres@", &format!("{name}@"), 1);
        format!(
            "[store]\nurl = \"{url}\"\n\
            [redis]\nurl = \"{}\"\n\
            [objects]\nurl = \"{}\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n\
            [worker]\nname = \"{name}\"\nslots = {SLOTS}\nquery_slots = {QUERY_SLOTS}\nheartbeat = \"{HEARTBEAT_MS}ms\"\ndrain_grace = \"2s\"\n\
            [limits]\ntimeout = \"60s\"\n",
            self.redis.url(),
            objects_url(),
            self.s3.endpoint(),
            S3::REGION,
            S3::ACCESS_KEY_ID,
            S3::SECRET_ACCESS_KEY,
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for place in 0..self.workers.len() {
            self.kill_worker(place);
        }
    }
}

fn objects_url() -> String {
    format!("s3://{}/history", S3::BUCKET)
}
