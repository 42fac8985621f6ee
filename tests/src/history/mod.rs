//! The history checker: clients at random work, workers and servers that fail at random, and afterwards a judgement of everything that the database, the object
//! store and the clients know.
//!
//! `plan` says from a seed what clients do and `expect` what must come of it; `client`, `requests`, `groups` and `removal` do it and `witness` compares what is polled meanwhile; `stage` has the
//! servers and workers, which `chaos` fails; `audit` has the database write down every change; `check` judges.

mod audit;
mod chaos;
mod check;
mod client;
mod expect;
mod groups;
mod judgement;
mod plan;
mod removal;
mod requests;
mod snapshots;
mod stage;
mod violation;
mod witness;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rowmill::status::{RedisSettings, StatusBoard};
use rowmill::store::PgStore;
use tokio_util::sync::CancellationToken;

pub use self::chaos::Deed;
pub use self::judgement::{Objects, Report};
pub use self::violation::{Rule, Violation};

use self::chaos::{Chaos, Done};
use self::client::{BatchRecord, Counters, World};
use self::stage::Stage;
use self::witness::Losses;

const PROGRESS: Duration = Duration::from_secs(10);

/// How a run is to be.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// How long things fail.
    pub duration: Duration,
    pub workers: usize,
    pub clients: u32,
    /// Between two failures, on average. None: nothing fails.
    pub pause: Option<Duration>,
    /// What fails, and how often against the others.
    pub deeds: Vec<(Deed, u64)>,
    /// Statements that break the database's own promises before anything runs, to show that this is found.
    pub sabotage: Vec<String>,
    /// How long it may take until everything has ended, when nothing fails any more.
    pub settle: Duration,
    /// Where the logs of workers are kept.
    pub logs: Option<PathBuf>,
}

impl Options {
    pub fn new(seed: u64, duration: Duration) -> Options {
        let pause = Some(Duration::from_millis(1_500));
        let settle = Duration::from_secs(120);
        Options { seed, duration, workers: 4, clients: 20, pause, deeds: chaos::DEEDS.to_vec(), sabotage: Vec::new(), settle, logs: None }
    }
}

/// What is left of a run: to be judged, as often as one likes.
pub struct History {
    pub stage: Stage,
    options: Options,
    records: Vec<BatchRecord>,
    done: Done,
    snapshots: u64,
    /// Groups whose seal was acknowledged: app and name.
    sealed: Vec<(String, String)>,
    /// Found while it ran.
    found: Vec<Violation>,
    failures: u64,
    leased_at_once: u64,
}

/// Runs. What is found wrong in the run is no error.
///
/// # Errors
/// When the run itself cannot be made.
pub async fn run(options: Options) -> anyhow::Result<History> {
    let seconds = usize::try_from(options.duration.as_secs()).unwrap_or(usize::MAX);
    let mut stage = Stage::set_up(options.workers, seconds.saturating_mul(2) + 100, options.logs.clone()).await?;
    let store = Arc::new(PgStore::connect(&stage.store_settings(options.clients + 4)).await?);
    let board = Arc::new(StatusBoard::with_redis(&RedisSettings { url: stage.redis.url(), cache: Duration::from_secs(60) })?);
    let digests = stage.deploy(&store).await?;
    for statement in &options.sabotage {
        stage.postgres.sql(statement)?;
    }
    let world = Arc::new(World {
        seed: options.seed,
        store,
        board,
        blobs: stage.blobs()?,
        url: stage.postgres.url(),
        digests,
        stop: CancellationToken::new(),
        give_up: CancellationToken::new(),
        losses: Losses::default(),
        counters: Counters::default(),
        active: Mutex::default(),
        sealed: Mutex::default(),
    });
    for place in 0..options.workers {
        stage.start_worker(place)?;
    }
    let begin = Instant::now();
    let until = begin + options.duration;
    let url = stage.postgres.url();
    let clients: Vec<_> = (0..options.clients).map(|client| tokio::spawn(Arc::clone(&world).be_client(client))).collect();
    let operator = tokio::spawn(Arc::clone(&world).be_operator());
    let snapshots = tokio::spawn(snapshots::compare(Arc::clone(&world), url));
    let watching = tokio::spawn(tell_progress(Arc::clone(&world), begin));
    let chaos = Chaos::new(stage, Arc::clone(&world), options.deeds.clone());
    let pause = options.pause;
    let chaos = tokio::task::spawn_blocking(move || match pause {
        Some(pause) => chaos.run(until, pause),
        None => chaos.wait(until),
    });
    let (mut stage, done) = chaos.await??;
    world.stop.cancel();
    operator.await?;
    let settling = tokio::spawn({
        let (world, settle) = (Arc::clone(&world), options.settle);
        async move {
            tokio::time::sleep(settle).await;
            world.give_up.cancel();
        }
    });
    let mut records = Vec::new();
    for client in clients {
        records.extend(client.await?);
    }
    settling.abort();
    world.give_up.cancel();
    let (compared, found) = snapshots.await?;
    watching.abort();
    for place in 0..options.workers {
        // Whoever fell at the very end is noted, too.
        stage.is_vacant(place);
        stage.kill_worker(place);
    }
    world.store.close().await;
    let failures = world.counters.failures.load(Ordering::Relaxed);
    let leased_at_once = world.counters.leased_at_once.load(Ordering::Relaxed);
    let sealed = world.sealed().clone();
    Ok(History { stage, options, records, done, sealed, snapshots: compared, found, failures, leased_at_once })
}

async fn tell_progress(world: Arc<World>, begin: Instant) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { batches, ended, removed, rows, failures, .. } = &world.counters;
        let seconds = begin.elapsed().as_secs();
        eprintln!(
            "{seconds:>5} s: {} batches, {} ended, {} removed, {} rows, {} requests failed and were tried again",
            count(batches),
            count(ended),
            count(removed),
            count(rows),
            count(failures)
        );
    }
}
