//! Who prunes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Pace;
use super::pace::StepRows;
use crate::blobs::{BlobError, Blobs};
use crate::model::{BatchId, Due, DueCounts, Keep, OpKey, Part, PartialKeep, Policy, Pruning, Timestamp, canonical_op};
use crate::status::StatusBoard;
use crate::store::{Store, StoreError};

/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Others leave a batch that is being pruned alone for so long. Each step begins it anew, so a step may wait for a slow object store.
const TTL: Duration = Duration::from_secs(60);
/// Operations that are read at once.
const OPS_PER_PAGE: u32 = 100;
/// Batches of one operation, before the next has its turn.
const BATCHES_PER_TURN: u32 = 20;
/// Objects that are removed between two records.
const OBJECTS_PER_STEP: u32 = 50;

/// Why nothing more is pruned now. What was done stays, and the rest is gone on with later.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// What was pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Batches as a whole.
    pub batches: u64,
    /// Batches of which parts were.
    pub parts_of: u64,
    /// Rows that were gone through.
    pub rows: u64,
    /// Objects of the object store.
    pub objects: u64,
}

/// What is due of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DueOp {
    #[serde(flatten)]
    pub op: OpKey,
    /// How long its batches are kept.
    pub keep: Keep,
    #[serde(flatten)]
    pub due: DueCounts,
}

/// Prunes. Any number of processes may have one.
#[derive(Clone)]
pub struct Pruner {
    store: Arc<dyn Store>,
    blobs: Blobs,
    status: Arc<StatusBoard>,
    /// What holds where no policy says anything.
    defaults: Keep,
    pace: Pace,
}

impl Pruner {
    pub fn new(store: Arc<dyn Store>, blobs: Blobs, status: Arc<StatusBoard>, defaults: Keep, pace: Pace) -> Pruner {
        Pruner { store, blobs, status, defaults, pace }
    }

    /// Prunes what is due until it is stopped. It outlasts failures: nobody waits for it.
    pub async fn run(&self, stopped: &CancellationToken) {
        loop {
            // What is left in the middle is gone on with by the next.
            let pruned = tokio::select! {
                () = stopped.cancelled() => return,
                pruned = self.prune_due(None, None) => pruned,
            };
            match pruned {
                Ok(report) if report != PruneReport::default() => tracing::info!(?report, "pruned"),
                Ok(_) => {}
                Err(error) => tracing::warn!("pruning waits: {:#}", anyhow::Error::from(error)),
            }
            tokio::select! {
                () = stopped.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Prunes what is due, of one app or one of its operations where these are given, until nothing is. What others left in the middle is gone on with, too, unless an app is
    /// given.
    ///
    /// # Errors
    /// When the store or the object store failed.
    pub async fn prune_due(&self, app: Option<&str>, op: Option<&str>) -> Result<PruneReport, PruneError> {
        let mut report = PruneReport::default();
        let mut rows = StepRows::default();
        if app.is_none() {
            while let Some(pruning) = self.store.resume_prune(TTL).await? {
                self.prune(&pruning, &mut rows, &mut report).await?;
            }
        }
        loop {
            let ops = self.ops_with_due(app, op).await?;
            let mut found = false;
            for (op, due, _) in ops {
                for _ in 0..BATCHES_PER_TURN {
                    let began = Instant::now();
                    let Some(pruning) = self.store.begin_prune(&op, &due, TTL).await? else { break };
                    found = true;
                    tokio::time::sleep(self.pace.pause(began.elapsed())).await;
                    self.prune(&pruning, &mut rows, &mut report).await?;
                }
            }
            if !found {
                return Ok(report);
            }
        }
    }

    /// Removes a batch that is done, whether it is due or not.
    ///
    /// # Errors
    /// `NotFound` and `WrongStatus` of the store; when the store or the object store failed.
    pub async fn remove(&self, id: BatchId) -> Result<PruneReport, PruneError> {
        let pruning = self.store.begin_removal(id, TTL).await?;
        let mut report = PruneReport::default();
        self.prune(&pruning, &mut StepRows::default(), &mut report).await?;
        Ok(report)
    }

    /// What is due and was not pruned yet, by app and operation.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn list_due(&self, app: Option<&str>, op: Option<&str>) -> Result<Vec<DueOp>, PruneError> {
        let mut listed = Vec::new();
        for (op, due, keep) in self.ops_with_due(app, op).await? {
            let due = self.store.count_due(&op, &due).await?;
            if due != DueCounts::default() {
                listed.push(DueOp { op, keep, due });
            }
        }
        Ok(listed)
    }

    /// Operations with batches that are done and are not kept for ever, with what is due of them now.
    async fn ops_with_due(&self, app: Option<&str>, op: Option<&str>) -> Result<Vec<(OpKey, Due, Keep)>, PruneError> {
        let policies = self.store.list_policies().await?;
        if self.defaults.due(Timestamp(0)).is_never() && policies.iter().all(|policy| policy.keep == PartialKeep::default()) {
            return Ok(Vec::new());
        }
        let now = self.store.read_clock().await?;
        let op = op.map(canonical_op);
        let mut found = Vec::new();
        let mut after: Option<OpKey> = None;
        loop {
            let page = self.store.list_done_ops(after.as_ref(), OPS_PER_PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.clone());
            for key in page {
                if app.is_some_and(|app| app != key.app) || op.as_ref().is_some_and(|op| *op != key.op) {
                    continue;
                }
                let keep = self.keep_of(&key, &policies);
                let due = keep.due(now);
                if !due.is_never() {
                    found.push((key, due, keep));
                }
            }
        }
    }

    fn keep_of(&self, key: &OpKey, policies: &[Policy]) -> Keep {
        let said = |op: Option<&str>| {
            let policy = policies.iter().find(|policy| policy.app == key.app && policy.op.as_deref() == op);
            policy.map(|policy| policy.keep).unwrap_or_default()
        };
        said(Some(&key.op)).or(said(None)).complete(&self.defaults)
    }

    /// Removes what is being pruned of a batch: objects first, then what names them, then rows.
    async fn prune(&self, pruning: &Pruning, rows: &mut StepRows, report: &mut PruneReport) -> Result<(), PruneError> {
        let id = pruning.batch;
        tracing::debug!(batch = %id, parts = ?pruning.parts, whole = pruning.whole, "prunes");
        let mut objects_left = pruning.parts.contains(&Part::Files) || pruning.parts.contains(&Part::Inputs);
        loop {
            if objects_left {
                self.remove_objects(id, report).await?;
            }
            let began = Instant::now();
            let step = self.store.prune_rows(id, rows.next(), TTL).await?;
            let took = began.elapsed();
            rows.learn(step.rows, took);
            report.rows += step.rows;
            if !step.left {
                let pruned = if pruning.whole { &mut report.batches } else { &mut report.parts_of };
                *pruned += 1;
                // Who asks from now on is told by the store.
                self.status.forget(id).await;
                return Ok(());
            }
            // It went through all rows: somebody else wants more of the batch to go.
            objects_left = step.rows == 0;
            tokio::time::sleep(self.pace.pause(took)).await;
        }
    }

    async fn remove_objects(&self, id: BatchId, report: &mut PruneReport) -> Result<(), PruneError> {
        loop {
            let objects = self.store.list_pruned_objects(id, OBJECTS_PER_STEP).await?;
            for object in &objects {
                self.blobs.delete(object).await?;
            }
            report.objects += objects.len() as u64;
            // Also where there were none: others may have the rest, or had it a moment ago.
            if !self.store.forget_objects(id, &objects).await? {
                return Ok(());
            }
        }
    }
}
