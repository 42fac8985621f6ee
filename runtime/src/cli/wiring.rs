//! From the configuration to what it describes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::blobs::{BlobSettings, Blobs};
use crate::config::{Config, ObjectsUrl, StoreUrl};
use crate::grants::GrantSettings;
use crate::intake::InflateLimits;
use crate::jobs::JobManager;
use crate::model::{CodeQuota, ProcessorKind, SystemClock, WorkerInfo, WorkerRecord};
use crate::sandbox::{CompilerSettings, Sandbox, SandboxSettings};
use crate::status::{RedisSettings, StatusBoard};
use crate::store::{LogPosition, PgSettings, PgStore, SqliteStore, Store};
use crate::worker::{WorkerError, WorkerSettings};

/// States that were not written to Redis when a command ends may take so long.
const FLUSH: Duration = Duration::from_secs(1);

/// A command that waits looks for workers this often. One that was started with it has registered
/// by then.
const NO_WORKER_AFTER: Duration = Duration::from_secs(2);
/// A worker that missed this many heartbeats has ended.
const SILENT_HEARTBEATS: u32 = 3;

/// Everything that works on batches, as it is configured.
pub(super) struct Parts {
    pub jobs: JobManager,
    /// Others may work on the same store.
    pub store_is_shared: bool,
    /// Workers give a sign of life about this often, if they have the same configuration.
    heartbeat: Duration,
}

impl Parts {
    pub async fn open(config: &Config) -> anyhow::Result<Parts> {
        Parts::open_for_work(config, false).await
    }

    pub async fn open_for_work(config: &Config, ends_when_idle: bool) -> anyhow::Result<Parts> {
        let store = open_store(config).await?;
        let store_is_shared = matches!(config.store.url, StoreUrl::Postgres(_));
        let blobs = open_blobs(config)?;
        let status = open_status(config)?;
        let settings = WorkerSettings { ends_when_idle, ..worker_settings(config) };
        // Checkers of files run beside the worker's guests.
        let checkers = u32::try_from(config.watch.files_at_once).unwrap_or(u32::MAX);
        let sandbox = open_sandbox(config, settings.instances_max().saturating_add(checkers))?;
        let quota = CodeQuota { versions_max: config.processors.versions_max, bytes_max: config.processors.bytes_max };
        let jobs = JobManager::new(store, blobs, Arc::new(status), sandbox, settings).with_code_quota(quota);
        Ok(Parts { jobs, store_is_shared, heartbeat: config.worker.heartbeat })
    }

    /// Begins to work where nobody else can, because the store is this process's alone.
    pub fn work_if_alone(&self) -> WorkingBeside {
        if self.store_is_shared { WorkingBeside { jobs: self.jobs.clone(), task: None } } else { WorkingBeside::begin(&self.jobs) }
    }

    /// Says so on stderr, once, while there is no worker that could run what is waited for.
    pub fn say_if_no_worker(&self, kind: ProcessorKind) -> NoWorker {
        if !self.store_is_shared {
            return NoWorker(None);
        }
        let (store, silence) = (Arc::clone(self.jobs.store()), self.heartbeat * SILENT_HEARTBEATS);
        NoWorker(Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(NO_WORKER_AFTER).await;
                // The command that waits reports a failure of the store itself.
                let (Ok(now), Ok(workers)) = (store.read_clock().await, store.list_workers().await) else { continue };
                let slots = |worker: &WorkerInfo| if kind == ProcessorKind::Batch { worker.slots } else { worker.query_slots };
                let works = |worker: &WorkerRecord| !worker.info.draining && slots(&worker.info) > 0 && now.since(worker.seen_at) <= silence;
                if !workers.iter().any(works) {
                    let what = if kind == ProcessorKind::Batch { "rows" } else { "slow queries" };
                    say!("no worker is running that takes {what}: this waits until one is started (rowmill work)");
                    return;
                }
            }
        })))
    }

    /// Hands on what is not written yet.
    pub async fn close(self) {
        self.jobs.status().flush(FLUSH).await;
    }
}

/// Looks for workers as long as it lives.
pub(super) struct NoWorker(Option<JoinHandle<()>>);

impl Drop for NoWorker {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A worker beside a command that waits.
pub(super) struct WorkingBeside {
    jobs: JobManager,
    task: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl WorkingBeside {
    pub fn begin(jobs: &JobManager) -> WorkingBeside {
        let jobs = jobs.clone();
        let task = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.run().await }
        });
        WorkingBeside { jobs, task: Some(task) }
    }

    /// Lets it end in good order.
    pub async fn end(self) -> anyhow::Result<()> {
        self.jobs.shutdown();
        match self.task {
            Some(task) => Ok(task.await??),
            None => Ok(()),
        }
    }
}

/// Runs a command to its end.
pub(super) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the threads")?;
    let ended = runtime.block_on(command);
    // A thread may still wait for stdin.
    runtime.shutdown_background();
    ended
}

/// The store alone, for commands that only read or change what is in it.
pub(super) async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match &config.store.url {
        StoreUrl::Sqlite(file) => {
            let store = SqliteStore::open(file, Arc::new(SystemClock)).await.with_context(|| format!("the store is {}", file.display()))?;
            Ok(Arc::new(store.with_bounds(config.bounds.clone())))
        }
        StoreUrl::Postgres(url) => {
            let store = PgStore::connect(&pg_settings(config)?).await.with_context(|| format!("the store is {}", url.as_shown_url()))?;
            Ok(Arc::new(store.with_bounds(config.bounds.clone())))
        }
    }
}

/// What the database has written so far; none over SQLite.
pub(super) async fn log_position(config: &Config) -> anyhow::Result<Option<LogPosition>> {
    match &config.store.url {
        StoreUrl::Sqlite(_) => Ok(None),
        StoreUrl::Postgres(_) => Ok(Some(PgStore::log_position(&pg_settings(config)?).await?)),
    }
}

fn pg_settings(config: &Config) -> anyhow::Result<PgSettings> {
    match &config.store.url {
        StoreUrl::Postgres(url) => {
            Ok(PgSettings { url: url.expose().to_owned(), connections: config.store.connections, pooler: config.store.pooler })
        }
        StoreUrl::Sqlite(_) => anyhow::bail!("the store is not PostgreSQL"),
    }
}

/// The object store alone.
pub(super) fn open_blobs(config: &Config) -> anyhow::Result<Blobs> {
    Ok(Blobs::open(&blob_settings(config)?)?)
}

fn open_status(config: &Config) -> anyhow::Result<StatusBoard> {
    match &config.redis.url {
        None => Ok(StatusBoard::in_process()),
        Some(url) => Ok(StatusBoard::with_redis(&RedisSettings { url: url.expose().to_owned(), cache: config.redis.cache })?),
    }
}

fn blob_settings(config: &Config) -> anyhow::Result<BlobSettings> {
    let objects = &config.objects;
    match &objects.url {
        ObjectsUrl::Directory(directory) => {
            let directory = std::path::absolute(directory).with_context(|| format!("objects.url names {}", directory.display()))?;
            Ok(BlobSettings::new(format!("file://{}", directory.display())))
        }
        ObjectsUrl::S3 { bucket, prefix } => Ok(BlobSettings {
            endpoint: objects.endpoint.clone(),
            region: Some(objects.region.clone()),
            access_key_id: objects.access_key_id.as_ref().map(|key| key.expose().to_owned()),
            secret_access_key: objects.secret_access_key.as_ref().map(|key| key.expose().to_owned()),
            path_style: Some(objects.path_style),
            ..BlobSettings::new(format!("s3://{bucket}{}{prefix}", if prefix.is_empty() { "" } else { "/" }))
        }),
    }
}

/// Uploads are compiled by this program, in processes of their own.
fn open_sandbox(config: &Config, instances: u32) -> anyhow::Result<Sandbox> {
    let processors = &config.processors;
    let compiler = CompilerSettings {
        time_max: processors.compile_time,
        memory_max_bytes: processors.compile_memory_bytes,
        threads: processors.compiles_at_once,
        at_once: processors.compiles_at_once,
        upload_max_bytes: processors.upload_max_bytes,
        ..CompilerSettings::this_program()
    };
    let key = processors.key.as_ref().map(|key| key.expose().as_bytes().to_vec());
    let cache_max_bytes = processors.cache_max_bytes;
    Ok(Sandbox::open(SandboxSettings { cache_max_bytes, key, compiler, ..SandboxSettings::new(instances, cache_directory()?) })?)
}

/// What a compressed file may become.
pub(super) fn inflate_limits(config: &Config) -> InflateLimits {
    InflateLimits { bytes_max: config.intake.inflated_max, ratio_max: config.intake.ratio_max }
}

fn worker_settings(config: &Config) -> WorkerSettings {
    let worker = &config.worker;
    WorkerSettings {
        name: worker.name.clone(),
        slots: worker.slots,
        query_slots: worker.query_slots,
        heartbeat: worker.heartbeat,
        lease_target: worker.lease_target,
        lease_rows_max: worker.lease_rows_max,
        drain_grace: worker.drain_grace,
        limits: config.limits.clone(),
        keep: config.keep,
        grants: GrantSettings {
            secrets_directory: config.grants.secrets_directory.clone(),
            databases_directory: config.grants.databases_directory.clone(),
            redis_url: config.redis.url.as_ref().map(|url| url.expose().to_owned()),
            ..GrantSettings::default()
        },
        limits_max: config.bounds.limits_max.clone(),
        memory_bytes: worker.memory_bytes,
        outlasts_failures: true,
        ends_when_idle: false,
    }
}

/// Where compiled processors are kept.
pub(super) fn cache_directory() -> anyhow::Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("ROWMILL_CACHE_DIR")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("rowmill")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/rowmill")))
        .context("there is no place for compiled processors: set ROWMILL_CACHE_DIR to a directory")
}
