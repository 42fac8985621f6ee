//! Failures, at random: workers are killed, stopped and drained; servers are killed, emptied, restarted and stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::client::World;
use super::plan::index;
use super::stage::{LEASE_MS, Stage};
use crate::random::Random;
use crate::servers::WorkerProcess;

/// How often the thread looks whether something is to be done.
const LOOK: Duration = Duration::from_millis(10);
/// A worker that ended by itself is started again after this time.
const START_AGAIN: Duration = Duration::from_millis(300);
/// A worker that drains is given this time. Where the database is down meanwhile, that is not enough.
const DRAIN: Duration = Duration::from_secs(5);

/// What is done to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    WorkerKilled,
    /// SIGSTOP, and SIGCONT later: mostly when its leases have ended.
    WorkerStopped,
    /// SIGTERM.
    WorkerDrained,
    BackendsKilled,
    DatabaseKilled,
    DatabaseRestarted,
    RedisKilled,
    RedisEmptied,
    ObjectsKilled,
    /// It takes connections and does not answer.
    ObjectsStopped,
}

/// Each deed, as often as its number says, of the sum of all.
pub const DEEDS: [(Deed, u64); 10] = [
    (Deed::WorkerKilled, 36),
    (Deed::WorkerStopped, 20),
    (Deed::WorkerDrained, 5),
    (Deed::BackendsKilled, 12),
    (Deed::DatabaseKilled, 3),
    (Deed::DatabaseRestarted, 2),
    (Deed::RedisKilled, 4),
    (Deed::RedisEmptied, 6),
    (Deed::ObjectsKilled, 6),
    (Deed::ObjectsStopped, 6),
];

/// What undoes a deed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    StartWorker(usize),
    /// One that was told to end, and is killed when it has not.
    ReplaceDrained(usize),
    WakeWorker(usize),
    StartDatabase,
    StartRedis,
    StartObjects,
    WakeObjects,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Done {
    pub counts: BTreeMap<Deed, u64>,
    /// Workers that were drained and ended in good order, within five seconds.
    pub drained_in_time: u64,
    /// When workers or the database were disturbed, in milliseconds since 1970.
    #[serde(skip)]
    pub disturbances: Vec<i64>,
}

pub struct Chaos {
    stage: Stage,
    world: Arc<World>,
    deeds: Vec<(Deed, u64)>,
    dice: Random,
    repairs: Vec<(Instant, Repair)>,
    done: Done,
}

impl Chaos {
    pub fn new(stage: Stage, world: Arc<World>, deeds: Vec<(Deed, u64)>) -> Chaos {
        let dice = Random::new(world.seed ^ 0xc4a0_5000);
        Chaos { stage, world, deeds, dice, repairs: Vec::new(), done: Done::default() }
    }

    /// Fails things until this moment, with so long a pause between two deeds on average, then repairs all.
    pub fn run(mut self, until: Instant, pause: Duration) -> anyhow::Result<(Stage, Done)> {
        let mut next = Instant::now() + self.pause(pause);
        while Instant::now() < until {
            sleep(LOOK);
            self.repair(Instant::now())?;
            if Instant::now() >= next {
                self.fail()?;
                next = Instant::now() + self.pause(pause);
            }
        }
        self.repair(until + Duration::from_secs(3_600))?;
        Ok((self.stage, self.done))
    }

    /// Fails nothing until this moment.
    pub fn wait(mut self, until: Instant) -> anyhow::Result<(Stage, Done)> {
        while Instant::now() < until {
            sleep(LOOK);
            self.repair(Instant::now())?;
        }
        Ok((self.stage, self.done))
    }

    /// Between nothing and twice the mean.
    fn pause(&mut self, mean: Duration) -> Duration {
        Duration::from_millis(self.dice.below(1 + 2 * u64::try_from(mean.as_millis()).unwrap_or(1_000)))
    }

    fn fail(&mut self) -> anyhow::Result<()> {
        let deed = self.choose();
        if self.is_impossible(deed) {
            return Ok(());
        }
        let place = self.awake_worker();
        let soon = |dice: &mut Random, most: u64| Duration::from_millis(dice.below(most));
        match (deed, place) {
            (Deed::WorkerKilled, Some(place)) => {
                self.stage.kill_worker(place);
                let after = soon(&mut self.dice, 1_000);
                self.later(after, Repair::StartWorker(place));
            }
            (Deed::WorkerStopped, Some(place)) => {
                if let Some(worker) = &mut self.stage.workers[place] {
                    worker.signal(Signal::SIGSTOP);
                }
                // One in four wakes up while its leases may live.
                let least = if self.dice.below(4) == 0 { 0 } else { LEASE_MS };
                let after = Duration::from_millis(least) + soon(&mut self.dice, 2 * LEASE_MS);
                self.later(after, Repair::WakeWorker(place));
            }
            (Deed::WorkerDrained, Some(place)) => {
                if let Some(worker) = &mut self.stage.workers[place] {
                    worker.signal(Signal::SIGTERM);
                }
                self.later(DRAIN, Repair::ReplaceDrained(place));
            }
            (Deed::WorkerKilled | Deed::WorkerStopped | Deed::WorkerDrained, None) => return Ok(()),
            (Deed::BackendsKilled, _) => {
                let some = if self.dice.below(3) == 0 { "true" } else { "random() < 0.2" };
                let statement =
                    format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'rowmill' AND {some}");
                self.stage.postgres.sql(&statement)?;
            }
            (Deed::DatabaseKilled, _) => {
                self.world.losses.database.fetch_add(1, Ordering::SeqCst);
                self.stage.postgres.kill();
                let after = soon(&mut self.dice, 3_000);
                self.later(after, Repair::StartDatabase);
            }
            (Deed::DatabaseRestarted, _) => {
                self.stage.postgres.stop();
                self.later(Duration::ZERO, Repair::StartDatabase);
            }
            (Deed::RedisKilled, _) => {
                self.world.losses.redis.fetch_add(1, Ordering::SeqCst);
                self.stage.redis.kill();
                let after = soon(&mut self.dice, 4_000);
                self.later(after, Repair::StartRedis);
            }
            (Deed::RedisEmptied, _) => {
                self.world.losses.redis.fetch_add(1, Ordering::SeqCst);
                self.stage.redis.flush()?;
                self.world.losses.redis.fetch_add(1, Ordering::SeqCst);
            }
            (Deed::ObjectsKilled, _) => {
                self.stage.s3.kill();
                let after = soon(&mut self.dice, 5_000);
                self.later(after, Repair::StartObjects);
            }
            (Deed::ObjectsStopped, _) => {
                self.stage.s3.signal(Signal::SIGSTOP);
                let after = soon(&mut self.dice, 5_000);
                self.later(after, Repair::WakeObjects);
            }
        }
        *self.done.counts.entry(deed).or_default() += 1;
        if matches!(
            deed,
            Deed::WorkerKilled | Deed::WorkerStopped | Deed::WorkerDrained | Deed::BackendsKilled | Deed::DatabaseKilled | Deed::DatabaseRestarted
        ) {
            self.done.disturbances.push(jiff::Timestamp::now().as_millisecond());
        }
        Ok(())
    }

    fn choose(&mut self) -> Deed {
        let mut number = self.dice.below(self.deeds.iter().map(|(_, weight)| weight).sum());
        for (deed, weight) in &self.deeds {
            if number < *weight {
                return *deed;
            }
            number -= weight;
        }
        unreachable!("it is below the sum")
    }

    /// What it would be done to is down already.
    fn is_impossible(&self, deed: Deed) -> bool {
        let waits = |those: &[Repair]| self.repairs.iter().any(|(_, repair)| those.contains(repair));
        match deed {
            Deed::WorkerKilled | Deed::WorkerStopped | Deed::WorkerDrained => false,
            Deed::BackendsKilled | Deed::DatabaseKilled | Deed::DatabaseRestarted => waits(&[Repair::StartDatabase]),
            Deed::RedisKilled | Deed::RedisEmptied => waits(&[Repair::StartRedis]),
            Deed::ObjectsKilled | Deed::ObjectsStopped => waits(&[Repair::StartObjects, Repair::WakeObjects]),
        }
    }

    /// A place whose worker nothing was done to yet.
    fn awake_worker(&mut self) -> Option<usize> {
        let busy = |place: usize| {
            self.repairs
                .iter()
                .any(|(_, repair)| matches!(repair, Repair::StartWorker(p) | Repair::ReplaceDrained(p) | Repair::WakeWorker(p) if *p == place))
        };
        let awake: Vec<usize> = (0..self.stage.workers.len()).filter(|&place| !busy(place)).collect();
        (!awake.is_empty()).then(|| awake[index(&mut self.dice, awake.len())])
    }

    fn later(&mut self, after: Duration, repair: Repair) {
        self.repairs.push((Instant::now() + after, repair));
    }

    /// Repairs what is due.
    fn repair(&mut self, now: Instant) -> anyhow::Result<()> {
        let (due, rest): (Vec<_>, Vec<_>) = self.repairs.drain(..).partition(|(at, _)| *at <= now);
        self.repairs = rest;
        for (_, repair) in due {
            match repair {
                Repair::StartWorker(place) => self.stage.start_worker(place)?,
                Repair::ReplaceDrained(place) => {
                    let ended = self.stage.workers[place].as_mut().and_then(WorkerProcess::ended);
                    self.done.drained_in_time += u64::from(ended.is_some_and(|status| status.success()));
                    self.stage.kill_worker(place);
                    self.stage.start_worker(place)?;
                }
                Repair::WakeWorker(place) => {
                    if let Some(worker) = &mut self.stage.workers[place] {
                        worker.signal(Signal::SIGCONT);
                    }
                }
                Repair::StartDatabase => {
                    self.stage.postgres.restart()?;
                    self.world.losses.database.fetch_add(1, Ordering::SeqCst);
                }
                Repair::StartRedis => {
                    self.stage.redis.restart()?;
                    self.world.losses.redis.fetch_add(1, Ordering::SeqCst);
                }
                Repair::StartObjects => self.stage.s3.restart()?,
                Repair::WakeObjects => self.stage.s3.signal(Signal::SIGCONT),
            }
        }
        for place in 0..self.stage.workers.len() {
            let told = self.repairs.iter().any(|(_, repair)| matches!(repair, Repair::StartWorker(p) | Repair::ReplaceDrained(p) if *p == place));
            if !told && self.stage.is_vacant(place) {
                self.later(START_AGAIN, Repair::StartWorker(place));
            }
        }
        Ok(())
    }
}
