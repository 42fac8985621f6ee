//! One client: it goes through its plans, polls, and keeps a record of what it was told. What it asks for is in `requests`, `groups` and `removal`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rowmill::blobs::Blobs;
use rowmill::model::{After, BatchId, ProcessorKind, RowStatus};
use rowmill::status::{QueryAnswer, StatusBoard};
use rowmill::store::{PgStore, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{APPS, BATCH_OP, BatchPlan, Course, PlanKey, QUERY_OP, index};
use super::removal::Removed;
use super::violation::{Findings, Rule, Violation};
use super::witness::{Losses, Sight, Source, Witness};
use crate::random::Random;

/// Between a failure and the next try.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Rows of a running batch that are looked at.
const LOOK_ROWS: u32 = 50;

/// What all clients share.
pub struct World {
    pub seed: u64,
    pub store: Arc<PgStore>,
    pub board: Arc<StatusBoard>,
    pub blobs: Blobs,
    /// Of the database.
    pub url: String,
    /// The digest of the processor of each kind.
    pub digests: [(ProcessorKind, String); 2],
    /// No new batches.
    pub stop: CancellationToken,
    /// Nothing more is waited for.
    pub give_up: CancellationToken,
    pub losses: Losses,
    pub counters: Counters,
    /// Batches that clients are at.
    pub active: Mutex<Vec<BatchId>>,
    /// Groups whose seal was acknowledged: app and name.
    pub sealed: Mutex<Vec<(String, String)>>,
}

/// For those who watch the run.
#[derive(Debug, Default)]
pub struct Counters {
    pub batches: AtomicU64,
    pub ended: AtomicU64,
    /// Batches that were removed after their end.
    pub removed: AtomicU64,
    pub rows: AtomicU64,
    /// Queries that came in with a lease, which their client then left to others.
    pub leased_at_once: AtomicU64,
    /// Requests of clients that failed, and were tried again.
    pub failures: AtomicU64,
}

/// What became of a client's wish to abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    NotAsked,
    /// It is this client's abort that ended the batch.
    Took,
    /// The batch had ended, or was aborted by one of its rows.
    TooLate,
}

/// What a client knows of one of its batches.
#[derive(Debug)]
pub struct BatchRecord {
    pub key: PlanKey,
    pub id: BatchId,
    /// The submit was acknowledged.
    pub submitted: bool,
    /// Rows whose request was acknowledged.
    pub rows: usize,
    pub discarded: bool,
    /// It was removed after its end.
    pub removed: Option<Removed>,
    /// The group that it was submitted into.
    pub group: Option<String>,
    pub abort: Abort,
    /// The round that it is in: its client retries it.
    pub round: u32,
    /// It comes after this batch, on this condition, and has its outputs.
    pub follows: Option<After>,
    /// The batch came to its end.
    pub ended: bool,
    pub answer: Option<QueryAnswer>,
    /// Rows that were seen with a status, by number.
    pub seen_rows: BTreeMap<u32, RowStatus>,
    pub witness: Witness,
    pub violations: Vec<Violation>,
}

impl BatchRecord {
    pub fn new(key: PlanKey) -> BatchRecord {
        BatchRecord {
            key,
            id: BatchId::generate(),
            submitted: false,
            rows: 0,
            discarded: false,
            removed: None,
            group: None,
            abort: Abort::NotAsked,
            round: 1,
            follows: None,
            ended: false,
            answer: None,
            seen_rows: BTreeMap::new(),
            witness: Witness::default(),
            violations: Vec::new(),
        }
    }
}

impl World {
    /// The life of one client: one batch after the other, until it is to stop.
    pub async fn be_client(self: Arc<World>, client: u32) -> Vec<BatchRecord> {
        let mut records = Vec::new();
        for number in 0.. {
            if self.stop.is_cancelled() {
                break;
            }
            let key = PlanKey { seed: self.seed, client, number };
            records.extend(self.live(key).await);
        }
        records
    }

    async fn live(&self, key: PlanKey) -> Vec<BatchRecord> {
        let mut record = BatchRecord::new(key);
        let mut findings = Findings::of(record.id);
        let plan = key.plan();
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.active().push(record.id);
        // None when it is given up.
        let mut next = None;
        let _ = self.go_through(&plan, &mut record, &mut next, &mut findings).await;
        self.active().retain(|id| *id != record.id && next.as_ref().is_none_or(|next| next.id != *id));
        record.violations = findings.found;
        [Some(record), next].into_iter().flatten().collect()
    }

    async fn go_through(&self, plan: &BatchPlan, record: &mut BatchRecord, next: &mut Option<BatchRecord>, findings: &mut Findings) -> Option<()> {
        record.group = record.key.group(plan);
        self.submit(plan, record, findings).await?;
        self.seal_groups(record.key, findings).await?;
        for at in 1..plan.requests.len() {
            self.append(plan, at, record, findings).await?;
        }
        match plan.course {
            Course::Runs => {}
            Course::Release => self.release(record, findings).await?,
            Course::AbortHeld => self.abort(record, findings).await?,
            Course::Discard => return self.discard(record, findings).await,
        }
        if let Some(condition) = plan.chain {
            let next = next.insert(BatchRecord { follows: Some(After { batch: record.id, condition }), ..BatchRecord::new(record.key) });
            self.chain(plan, next).await?;
        }
        self.watch(plan, record, findings).await?;
        self.look_at_group(plan.app, record, findings).await;
        if let Some(next) = next {
            // Before its first is retried: it is of this round.
            let mut findings = Findings::of(next.id);
            let watched = self.watch(&plan.chained(&[]), next, &mut findings).await;
            next.violations.extend(findings.found);
            watched?;
        }
        for _ in 0..plan.retries {
            if let Some(next) = next.as_mut() {
                // If it was aborted because of this one, it waits again from the retry on.
                next.ended = false;
            }
            let begun = self.retry(plan, record, findings).await?;
            if begun {
                self.watch(plan, record, findings).await?;
            }
            if let Some(next) = next.as_mut() {
                self.watch_again(plan, next).await?;
            }
            if !begun {
                break;
            }
        }
        // With the last of its batches a group would go, and a late one would make it anew.
        if plan.remove && record.group.is_none() {
            self.remove(record, findings).await?;
        }
        Some(())
    }

    /// Watches a batch that comes after one that was retried: in a new round, if it was aborted because of that one.
    async fn watch_again(&self, plan: &BatchPlan, next: &mut BatchRecord) -> Option<()> {
        let (_, read) = self.persist(|| self.store.read_batch(next.id)).await?;
        let round = read.map_or(next.round, |batch| batch.round);
        if round == next.round {
            next.ended = true;
            return Some(());
        }
        (next.round, next.witness.retries) = (round, round - 1);
        let mut findings = Findings::of(next.id);
        let watched = self.watch(&plan.chained(&[]), next, &mut findings).await;
        next.violations.extend(findings.found);
        watched
    }

    /// Polls until the batch is done.
    async fn watch(&self, plan: &BatchPlan, record: &mut BatchRecord, findings: &mut Findings) -> Option<()> {
        let begin = Instant::now();
        let mut dice = Random::new(record.key.seed ^ u64::from(record.key.number));
        let mut abort_at =
            plan.abort_after_ms.filter(|_| plan.course != Course::AbortHeld && record.round == 1).map(|after| begin + Duration::from_millis(after));
        while !self.poll(&mut dice, record, findings).await {
            if abort_at.is_some_and(|at| Instant::now() >= at) {
                abort_at = None;
                self.abort(record, findings).await?;
            }
            if dice.below(20) == 0 {
                self.look_at_rows(record, findings).await;
            }
            if dice.below(40) == 0 {
                self.change_priority(&mut dice, record, findings).await;
            }
            // Long batches are polled less often.
            let pause = 5 + dice.below(20 + u64::try_from(begin.elapsed().as_millis() / 10).unwrap_or(0).min(300));
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                () = self.give_up.cancelled() => return None,
            }
        }
        record.ended = true;
        self.counters.ended.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    /// Looks at the batch. True when it is done.
    async fn poll(&self, dice: &mut Random, record: &mut BatchRecord, findings: &mut Findings) -> bool {
        if dice.below(2) == 0 {
            let losses = self.losses.of(Source::Board);
            if let Some(snapshot) = self.board.read(record.id).await {
                let now = self.losses.of(Source::Board);
                record.witness.see(Source::Board, Sight::from(&snapshot), (losses, now), findings);
                record.answer = record.answer.take().or(snapshot.answer);
                return snapshot.done && snapshot.round == record.round;
            }
        }
        let losses = self.losses.of(Source::Store);
        match self.store.read_batch(record.id).await {
            Ok(batch) => {
                record.witness.see(Source::Store, Sight::from(&batch), (losses, self.losses.of(Source::Store)), findings);
                Sight::from(&batch).done && batch.round == record.round
            }
            Err(StoreError::Failed { .. }) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => {
                findings.add(Rule::AcknowledgedIsKept, format!("a poll said {error}"));
                true
            }
        }
    }

    /// Whether it comes too late, or is lost, does not matter.
    async fn change_priority(&self, dice: &mut Random, record: &BatchRecord, findings: &mut Findings) {
        let priority = i32::try_from(dice.below(5)).expect("it is small");
        match self.store.set_priority(record.id, priority).await {
            Ok(()) | Err(StoreError::WrongStatus { .. } | StoreError::Failed { .. }) => {}
            Err(error) => findings.add(Rule::AcknowledgedIsKept, format!("a change of the priority said {error}")),
        }
    }

    /// Pauses apps and operations for a moment, until it is to stop. In the end nothing is paused.
    pub async fn be_operator(self: Arc<World>) {
        let mut dice = Random::new(self.seed);
        while !self.stop.is_cancelled() {
            let (app, _, _) = APPS[index(&mut dice, APPS.len())];
            let op = [None, Some(BATCH_OP), Some(QUERY_OP)][index(&mut dice, 3)];
            for (paused, most) in [(true, 600), (false, 3_000)] {
                if self.persist(|| self.store.set_paused(app, op, paused)).await.is_none() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(dice.below(most))) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }

    /// Reads the first rows as they are now: what they say is compared with the end.
    async fn look_at_rows(&self, record: &mut BatchRecord, findings: &mut Findings) {
        let Ok(rows) = self.store.read_results(record.id, None, LOOK_ROWS).await else { return };
        for row in rows {
            let Some(status) = row.status else {
                findings.ensure(!record.seen_rows.contains_key(&row.row_no), Rule::OneOutcomePerRow, || {
                    format!("row {} has no status any more", row.row_no)
                });
                continue;
            };
            let before = record.seen_rows.insert(row.row_no, status);
            findings.ensure(before.is_none_or(|before| before == status), Rule::OneOutcomePerRow, || {
                format!("row {} was {before:?} and then {status:?}", row.row_no)
            });
        }
    }

    /// Asks until there is an answer. Whether a try failed before: then the answer may be about what that one did.
    pub(super) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Option<(bool, Result<T, StoreError>)> {
        let mut in_doubt = false;
        loop {
            match ask().await {
                Err(StoreError::Failed { .. }) => in_doubt = true,
                answer => return Some((in_doubt, answer)),
            }
            self.take_breath().await?;
        }
    }

    pub(super) async fn take_breath(&self) -> Option<()> {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep(TRY_AGAIN) => Some(()),
            () = self.give_up.cancelled() => None,
        }
    }

    pub fn sealed(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn active(&self) -> std::sync::MutexGuard<'_, Vec<BatchId>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
