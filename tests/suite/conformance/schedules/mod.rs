//! Random schedules: submitters and workers do what comes to their minds, in any order, and a [`Model`] knows what must become of it.

mod chain_model;
mod chains;
mod compare;
mod faults;
mod finishers;
mod model;
mod submitters;
mod workers;

pub use self::faults::a_store_that_breaks_a_promise_is_caught;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rowmill::model::{BatchId, BatchStatus, BatchStep, Clock, FinishLease, ManualClock, Timestamp};
use rowmill::store::Store;
use tokio::task::JoinSet;

use self::model::{BatchModel, LeaseModel, Model};
use super::kit::Kit;
use super::random::Random;

/// Each on a store of its own: it takes less time, and nothing else changes.
const SCHEDULES_AT_ONCE: usize = 4;

/// Runs a schedule for each of these seeds, or for those of `ROWMILL_TEST_SEEDS` (`first..end`), each on a store of its own.
async fn run_seeds(kit: &Kit, seeds: Range<u64>) {
    let chosen = std::env::var("ROWMILL_TEST_SEEDS").ok().map(|text| {
        let (first, end) = text.split_once("..").expect("ROWMILL_TEST_SEEDS is not first..end");
        first.parse().unwrap()..end.parse().unwrap()
    });
    let mut running = JoinSet::new();
    for seed in chosen.unwrap_or(seeds) {
        let kit = kit.another().await;
        running.spawn(async move {
            // All of it is kept until the end: with the place goes the data.
            let kit = kit;
            Schedule::run(kit.store.clone(), kit.clock.clone(), seed).await
        });
        while running.len() >= SCHEDULES_AT_ONCE
            && let Some(ran) = running.join_next().await
        {
            ran.unwrap().unwrap();
        }
    }
    for ran in running.join_all().await {
        ran.unwrap();
    }
}

pub async fn random_schedules_keep_every_promise(kit: Kit) {
    run_seeds(&kit, 0..kit.schedules).await;
}

pub struct Schedule {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    random: Random,
    model: Model,
    /// All finish leases that there were.
    finishes: Vec<FinishLease>,
    /// How often each batch was said to be over by a record, joined, and marked. The model has no part in this.
    ends: BTreeMap<BatchId, [u32; 3]>,
    /// How often the final outcome of each row was taken. The model has no part in this either.
    taken: BTreeMap<(BatchId, u32), u32>,
    serial: u64,
    story: Vec<String>,
}

impl Schedule {
    /// Runs a schedule to its end, where every batch is done.
    ///
    /// # Errors
    /// The first thing that the store did wrong, with the seed and the last steps.
    pub async fn run(store: Arc<dyn Store>, clock: Arc<ManualClock>, seed: u64) -> Result<()> {
        let mut schedule = Schedule {
            store,
            clock,
            random: Random::new(seed),
            model: Model::default(),
            finishes: Vec::new(),
            ends: BTreeMap::new(),
            taken: BTreeMap::new(),
            serial: 0,
            story: Vec::new(),
        };
        let ran = schedule.run_all().await;
        ran.with_context(|| format!("seed {seed}, after the steps\n{}", schedule.story[schedule.story.len().saturating_sub(25)..].join("\n")))
    }

    async fn run_all(&mut self) -> Result<()> {
        let steps = 60 + self.random.below(60);
        for step in 0..steps {
            self.step().await?;
            self.compare_due().await?;
            if step % 10 == 0 {
                self.compare_all().await?;
            }
        }
        self.drain().await?;
        self.compare_all().await?;
        self.compare_ends().await
    }

    async fn step(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..4 => self.submit().await,
            4..8 => self.chain().await,
            8..13 => self.append().await,
            13..18 => self.release().await,
            18..20 => self.discard().await,
            20..37 => self.claim().await,
            37..57 => self.record().await,
            57..59 => self.read().await,
            59..62 => self.give_back().await,
            62..64 => self.renew().await,
            64..66 => self.abort().await,
            66..72 => {
                self.pass_time();
                Ok(())
            }
            72..81 => self.claim_finish().await,
            81..90 => self.finish().await,
            90..94 => self.advance().await,
            _ => self.retry().await,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn tell(&mut self, step: impl Debug) {
        self.story.push(format!("{:?} {step:?}", self.now().0));
    }

    /// So much at times that leases end.
    fn pass_time(&mut self) {
        let most = if self.random.chance(50) { 2_000 } else { 25_000 };
        let time = Duration::from_millis(u64::from(self.random.below(most)));
        self.clock.advance(time);
        self.tell(("time", time));
    }

    /// Everything comes to its end, with what the workers still hold.
    async fn drain(&mut self) -> Result<()> {
        self.tell("drain");
        for at in 0..self.model.batches.len() {
            let BatchModel { id, status, ref rows, .. } = self.model.batches[at];
            match status {
                BatchStatus::Wait if self.model.batches[at].chain.is_some() => {}
                BatchStatus::Wait if rows.is_empty() => {
                    self.store.abort_batch(id, None).await?;
                    self.model.abort(at, None);
                }
                BatchStatus::Wait => {
                    self.store.release_batch(id).await?;
                    self.model.batches[at].status = BatchStatus::Queued;
                }
                _ => {}
            }
        }
        for _ in 0..10_000 {
            while self.advance_one().await? {}
            let from = self.model.leases.len();
            let claimed = self.claim_up_to(3, 8).await?;
            for at in from..self.model.leases.len() {
                let LeaseModel { key: Some(key), ref held, .. } = self.model.leases[at] else { continue };
                let mut results = Vec::new();
                for row in held.clone() {
                    results.push(self.result(&row));
                }
                self.record_under(at, key, &results).await?;
            }
            let finishes = self.finishes.len();
            self.claim_finish().await?;
            if let Some(lease) = self.finishes.get(finishes).copied() {
                self.finish_under(&lease, if lease.step == BatchStep::Join { 2 } else { 5 }).await?;
            } else if claimed == 0 {
                match self.model.next_due() {
                    Some(due) => self.clock.advance(due.since(self.now())),
                    None => return Ok(()),
                }
            }
        }
        bail!("the batches never end")
    }
}
