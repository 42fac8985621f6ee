//! Stores that break a promise on purpose: a suite that finds nothing wrong with them proves nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rowmill::model::{
    self, App, AppendPart, AppendState, AppendToken, Batch, BatchFile, BatchFilter, BatchId, BatchPage, BatchPosition, BatchStatus, ClaimRequest,
    ClaimedWork, ComingTicks, Due, DueCounts, EventPage, EventPosition, EventsOf, FailedPage, FailedPosition, FailedRows, FinishLease, FoundOp,
    FuelProfile, Grants, Group, JsonText, Lease, LeaseKey, LeasedRow, MarkCall, MarkEnd, NewBatch, NewRow, NewSchedule, NewVersion, OpKey,
    OutputFile, PastCursor, PastOutcome, PastRound, Policy, ProcessorKind, ProcessorVersion, Pruning, RecordedOutcome, RegisteredVersion, Retried,
    RetryRows, RowResult, RowStatus, ScheduleKey, TickAction, TickEnd, TickKey, Timestamp, UsageRecord, Verdict, WorkerInfo, WorkerRecord,
};
use rowmill::store::{Aborted, ChainStep, LeaseOwner, Overdue, PruneStep, Recorded, ResultCursor, RowPieces, Store, StoreError, StoreEvent};
use tokio::sync::broadcast;

use super::{Kit, Schedule};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    AcceptsStaleLeases,
    AcceptsStaleFinishLeases,
    CountsOneTooMany,
    DropsAResult,
    DropsPieces,
    FinishesTwice,
    ForgetsChains,
    ForgetsRetries,
    GivesMoreLeasesThanAskedFor,
    HidesCrashes,
    IgnoresAborts,
    KeepsWhatIsGivenBack,
    LeasesRowsTwice,
    LosesResults,
    NeverSaysLast,
    RenewsForEver,
    RetriesAtOnce,
    SaysLastTwice,
    ShowsAbortedRowsAsSuccess,
    SortsByRow,
    SleepsTooLong,
}

const FAULTS: &[Fault] = &[
    Fault::AcceptsStaleLeases,
    Fault::AcceptsStaleFinishLeases,
    Fault::CountsOneTooMany,
    Fault::DropsAResult,
    Fault::DropsPieces,
    Fault::FinishesTwice,
    Fault::ForgetsChains,
    Fault::ForgetsRetries,
    Fault::GivesMoreLeasesThanAskedFor,
    Fault::HidesCrashes,
    Fault::IgnoresAborts,
    Fault::KeepsWhatIsGivenBack,
    Fault::LeasesRowsTwice,
    Fault::LosesResults,
    Fault::NeverSaysLast,
    Fault::RenewsForEver,
    Fault::RetriesAtOnce,
    Fault::SaysLastTwice,
    Fault::ShowsAbortedRowsAsSuccess,
    Fault::SortsByRow,
    Fault::SleepsTooLong,
];

/// Within so many schedules each fault must show.
const SEEDS: u64 = 40;

pub async fn a_store_that_breaks_a_promise_is_caught(kit: Kit) {
    let mut missed = Vec::new();
    for fault in FAULTS {
        let mut seeds = 0..SEEDS;
        let caught = loop {
            let Some(seed) = seeds.next() else { break None };
            if let Err(error) = run(&kit, *fault, seed).await {
                break Some((seed, error));
            }
        };
        match caught {
            Some((seed, error)) => println!("{fault:?}: caught by seed {seed}: {}", error.root_cause()),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
    // And it is the fault that was caught.
    for seed in 0..5 {
        run(&kit, Fault::None, seed).await.unwrap();
    }
}

async fn run(kit: &Kit, fault: Fault, seed: u64) -> anyhow::Result<()> {
    let Kit { store, clock, .. } = &kit.another().await;
    let faulty = Faulty { store: store.clone(), fault, seen: Mutex::default() };
    Schedule::run(Arc::new(faulty), clock.clone(), seed).await
}

/// A good store, and what is wrong with it.
struct Faulty {
    store: Arc<dyn Store>,
    fault: Fault,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    leases: HashMap<i64, LeaseKey>,
    finishes: HashMap<BatchId, FinishLease>,
}

impl Faulty {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The key that opens the lease now, whatever the key is.
    fn key(&self, key: LeaseKey) -> LeaseKey {
        let newest = self.seen.lock().unwrap().leases.get(&key.id).copied();
        newest.filter(|_| self.has(Fault::AcceptsStaleLeases)).unwrap_or(key)
    }

    fn finish(&self, lease: &FinishLease) -> FinishLease {
        let newest = self.seen.lock().unwrap().finishes.get(&lease.batch).copied();
        newest.filter(|_| self.has(Fault::AcceptsStaleFinishLeases)).unwrap_or(*lease)
    }
}

#[async_trait]
impl Store for Faulty {
    async fn submit_batch(&self, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
        self.store.submit_batch(batch, rows).await
    }

    async fn submit_to_run(&self, batch: NewBatch, row: NewRow, owner: LeaseOwner<'_>) -> Result<Option<ClaimedWork>, StoreError> {
        self.store.submit_to_run(batch, row, owner).await
    }

    async fn append_rows(&self, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
        self.store.append_rows(id, rows).await
    }

    async fn append_part(&self, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError> {
        self.store.append_part(id, part).await
    }

    async fn undo_append(&self, id: BatchId, token: AppendToken) -> Result<bool, StoreError> {
        self.store.undo_append(id, token).await
    }

    async fn release_batch(&self, id: BatchId) -> Result<u64, StoreError> {
        self.store.release_batch(id).await
    }

    async fn abort_batch(&self, id: BatchId, reason: Option<String>) -> Result<Aborted, StoreError> {
        let Batch { status, mut counts, .. } = self.store.read_batch(id).await?;
        if !self.has(Fault::IgnoresAborts) || status.is_final() {
            return self.store.abort_batch(id, reason).await;
        }
        counts.aborted = counts.rows - counts.success - counts.failed;
        Ok(Aborted { status: BatchStatus::Aborted, counts, changed: counts.aborted > 0 })
    }

    async fn discard_batch(&self, id: BatchId) -> Result<(), StoreError> {
        self.store.discard_batch(id).await
    }

    async fn retry_batch(&self, id: BatchId, rows: &RetryRows) -> Result<Retried, StoreError> {
        self.store.retry_batch(id, rows).await
    }

    async fn list_rounds(&self, id: BatchId, after: u32, limit: u32) -> Result<Vec<PastRound>, StoreError> {
        self.store.list_rounds(id, after, limit).await
    }

    async fn read_past_outcomes(&self, id: BatchId, after: Option<PastCursor>, limit: u32) -> Result<Vec<PastOutcome>, StoreError> {
        self.store.read_past_outcomes(id, after, limit).await
    }

    async fn advance_chain(&self) -> Result<Option<ChainStep>, StoreError> {
        if self.has(Fault::ForgetsChains) {
            return Ok(None);
        }
        self.store.advance_chain().await
    }

    async fn seal_group(&self, app: &str, name: &str) -> Result<bool, StoreError> {
        self.store.seal_group(app, name).await
    }

    async fn list_groups(&self, app: &str, from: &str, limit: u32) -> Result<Vec<Group>, StoreError> {
        self.store.list_groups(app, from, limit).await
    }

    async fn record_batch_file(&self, id: BatchId, file: &BatchFile, context: Option<&JsonText>) -> Result<(), StoreError> {
        self.store.record_batch_file(id, file, context).await
    }

    async fn list_batch_files(&self, id: BatchId, after_row: u32, limit: u32) -> Result<Vec<BatchFile>, StoreError> {
        self.store.list_batch_files(id, after_row, limit).await
    }

    async fn read_batch(&self, id: BatchId) -> Result<Batch, StoreError> {
        let mut batch = self.store.read_batch(id).await?;
        if self.has(Fault::CountsOneTooMany) && batch.counts.success > 2 {
            batch.counts.success += 1;
        }
        Ok(batch)
    }

    async fn claim_leases(&self, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError> {
        let more = u32::from(self.has(Fault::GivesMoreLeasesThanAskedFor));
        let mut leases = self.store.claim_leases(&ClaimRequest { leases_max: request.leases_max + more, ..request.clone() }).await?;
        if self.has(Fault::LeasesRowsTwice) && leases.len() == 2 {
            leases[1] = leases[0];
        }
        for lease in &mut leases {
            if self.has(Fault::HidesCrashes) {
                lease.crashes = 0;
            }
            self.seen.lock().unwrap().leases.insert(lease.key.id, lease.key);
        }
        Ok(leases)
    }

    async fn read_leased_rows(&self, lease: LeaseKey) -> Result<Vec<LeasedRow>, StoreError> {
        self.store.read_leased_rows(self.key(lease)).await
    }

    async fn renew_leases(&self, leases: &[LeaseKey], ttl: Duration) -> Result<Vec<LeaseKey>, StoreError> {
        let factor = if self.has(Fault::RenewsForEver) { 1_000 } else { 1 };
        self.store.renew_leases(leases, ttl * factor).await
    }

    async fn record_to_finish(
        &self,
        lease: LeaseKey,
        results: &[RowResult],
        took: Duration,
        finisher: Option<LeaseOwner<'_>>,
    ) -> Result<Recorded, StoreError> {
        let mut results = results.to_vec();
        if self.has(Fault::DropsAResult) && results.len() > 2 {
            results.pop();
        }
        for result in &mut results {
            match &mut result.verdict {
                Verdict::Retry { after } if self.has(Fault::RetriesAtOnce) => *after = Duration::ZERO,
                Verdict::Final { pieces, .. } if self.has(Fault::DropsPieces) => pieces.clear(),
                Verdict::Retry { .. } if self.has(Fault::ForgetsRetries) => {
                    result.verdict = Verdict::Final { status: RowStatus::Success, output: None, messages: Vec::new(), pieces: Vec::new() };
                }
                _ => {}
            }
        }
        let mut recorded = self.store.record_to_finish(self.key(lease), &results, took, finisher).await?;
        if self.has(Fault::NeverSaysLast) {
            recorded.last = false;
        } else if self.has(Fault::SaysLastTwice) {
            recorded.last |= recorded.counts.success + recorded.counts.failed + 1 == recorded.counts.rows;
        }
        Ok(recorded)
    }

    async fn give_back_lease(&self, lease: LeaseKey) -> Result<(), StoreError> {
        if self.has(Fault::KeepsWhatIsGivenBack) { Ok(()) } else { self.store.give_back_lease(lease).await }
    }

    async fn next_due(&self, kind: Option<ProcessorKind>) -> Result<Option<Duration>, StoreError> {
        let due = self.store.next_due(kind).await?;
        Ok(due.map(|due| if self.has(Fault::SleepsTooLong) { due + due / 8 } else { due }))
    }

    async fn claim_finish(&self, worker: &str, kind: Option<ProcessorKind>, ttl: Duration) -> Result<Option<FinishLease>, StoreError> {
        let claimed = self.store.claim_finish(worker, kind, ttl).await?;
        let mut seen = self.seen.lock().unwrap();
        if let Some(lease) = claimed {
            seen.finishes.insert(lease.batch, lease);
        } else if self.has(Fault::FinishesTwice) {
            return Ok(seen.finishes.values().next().copied());
        }
        Ok(claimed)
    }

    async fn renew_finish(&self, lease: &FinishLease, ttl: Duration) -> Result<(), StoreError> {
        self.store.renew_finish(&self.finish(lease), ttl).await
    }

    async fn give_back_finish(&self, lease: &FinishLease, after: Duration) -> Result<(), StoreError> {
        self.store.give_back_finish(&self.finish(lease), after).await
    }

    async fn record_files(&self, lease: &FinishLease, files: &[OutputFile]) -> Result<(), StoreError> {
        self.store.record_files(&self.finish(lease), files).await
    }

    async fn record_mark(&self, lease: &FinishLease, end: &MarkEnd) -> Result<(), StoreError> {
        self.store.record_mark(&self.finish(lease), end).await
    }

    async fn read_mark_calls(&self, id: BatchId, round: u32, after: u32, limit: u32) -> Result<Vec<MarkCall>, StoreError> {
        self.store.read_mark_calls(id, round, after, limit).await
    }

    async fn read_results(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RecordedOutcome>, StoreError> {
        let mut page = self.store.read_results(id, after, limit).await?;
        if self.has(Fault::LosesResults) && page.len() > 3 {
            page.remove(1);
        }
        if self.has(Fault::SortsByRow) {
            page.sort_by_key(|row| row.row_no);
        }
        for row in &mut page {
            if self.has(Fault::ShowsAbortedRowsAsSuccess) && row.status == Some(RowStatus::Aborted) {
                row.status = Some(RowStatus::Success);
            }
        }
        Ok(page)
    }

    async fn list_batches(&self, of: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Result<BatchPage, StoreError> {
        self.store.list_batches(of, after, limit).await
    }

    async fn list_failed(&self, of: &FailedRows, after: Option<FailedPosition>, limit: u32) -> Result<FailedPage, StoreError> {
        self.store.list_failed(of, after, limit).await
    }

    async fn list_file_names(&self, id: BatchId) -> Result<Vec<String>, StoreError> {
        self.store.list_file_names(id).await
    }

    async fn read_pieces(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RowPieces>, StoreError> {
        self.store.read_pieces(id, after, limit).await
    }

    async fn put_app(&self, app: &App) -> Result<(), StoreError> {
        self.store.put_app(app).await
    }

    async fn change_app(&self, from: &App, to: &App) -> Result<bool, StoreError> {
        self.store.change_app(from, to).await
    }

    async fn set_grants(&self, app: &str, from: &Grants, to: &Grants) -> Result<bool, StoreError> {
        self.store.set_grants(app, from, to).await
    }

    async fn read_app(&self, name: &str) -> Result<Option<App>, StoreError> {
        self.store.read_app(name).await
    }

    async fn list_apps(&self) -> Result<Vec<App>, StoreError> {
        self.store.list_apps().await
    }

    async fn put_processor(&self, new: &NewVersion) -> Result<ProcessorVersion, StoreError> {
        self.store.put_processor(new).await
    }

    async fn activate_processor(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
        self.store.activate_processor(app, op, version).await
    }

    async fn deactivate_processor(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
        self.store.deactivate_processor(app, op, version).await
    }

    async fn rollback_processor(&self, app: &str, op: &str, kind: Option<ProcessorKind>) -> Result<ProcessorVersion, StoreError> {
        self.store.rollback_processor(app, op, kind).await
    }

    async fn remove_processor(&self, app: &str, op: &str, version: u32) -> Result<Vec<String>, StoreError> {
        self.store.remove_processor(app, op, version).await
    }

    async fn forget_code(&self, digest: &str) -> Result<(), StoreError> {
        self.store.forget_code(digest).await
    }

    async fn find_op(&self, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<FoundOp>, StoreError> {
        self.store.find_op(app, op, kind).await
    }

    async fn put_policy(&self, policy: &Policy) -> Result<(), StoreError> {
        self.store.put_policy(policy).await
    }

    async fn change_policy(&self, from: &Policy, to: &Policy) -> Result<bool, StoreError> {
        self.store.change_policy(from, to).await
    }

    async fn set_paused(&self, app: &str, op: Option<&str>, paused: bool) -> Result<(), StoreError> {
        self.store.set_paused(app, op, paused).await
    }

    async fn list_policies(&self) -> Result<Vec<Policy>, StoreError> {
        self.store.list_policies().await
    }

    async fn remove_policy(&self, app: &str, op: Option<&str>) -> Result<bool, StoreError> {
        self.store.remove_policy(app, op).await
    }

    async fn set_priority(&self, id: BatchId, priority: i32) -> Result<(), StoreError> {
        self.store.set_priority(id, priority).await
    }

    async fn abort_overdue(&self) -> Result<Overdue, StoreError> {
        self.store.abort_overdue().await
    }

    async fn list_processors(&self, app: Option<&str>) -> Result<Vec<RegisteredVersion>, StoreError> {
        self.store.list_processors(app).await
    }

    async fn beat_worker(&self, worker: &WorkerInfo) -> Result<(), StoreError> {
        self.store.beat_worker(worker).await
    }

    async fn remove_worker(&self, name: &str) -> Result<(), StoreError> {
        self.store.remove_worker(name).await
    }

    async fn list_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.store.list_workers().await
    }

    async fn read_usage(&self, app: &str, op: Option<&str>, since: Timestamp, until: Timestamp, limit: u32) -> Result<Vec<UsageRecord>, StoreError> {
        self.store.read_usage(app, op, since, until, limit).await
    }

    async fn read_fuel(&self, app: &str) -> Result<Vec<FuelProfile>, StoreError> {
        self.store.read_fuel(app).await
    }

    async fn count_dropped_logs(&self, id: BatchId) -> Result<u64, StoreError> {
        self.store.count_dropped_logs(id).await
    }

    async fn read_clock(&self) -> Result<Timestamp, StoreError> {
        self.store.read_clock().await
    }

    async fn put_schedule(&self, schedule: &NewSchedule, rows: &[NewRow]) -> Result<model::Schedule, StoreError> {
        self.store.put_schedule(schedule, rows).await
    }

    async fn read_schedule(&self, key: &ScheduleKey) -> Result<Option<model::Schedule>, StoreError> {
        self.store.read_schedule(key).await
    }

    async fn list_schedules(&self, app: Option<&str>, after: Option<&ScheduleKey>, limit: u32) -> Result<Vec<model::Schedule>, StoreError> {
        self.store.list_schedules(app, after, limit).await
    }

    async fn pause_schedule(&self, key: &ScheduleKey) -> Result<bool, StoreError> {
        self.store.pause_schedule(key).await
    }

    async fn resume_schedule(&self, key: &ScheduleKey, next_at: Timestamp) -> Result<bool, StoreError> {
        self.store.resume_schedule(key, next_at).await
    }

    async fn remove_schedule(&self, key: &ScheduleKey) -> Result<bool, StoreError> {
        self.store.remove_schedule(key).await
    }

    async fn coming_ticks(&self, limit: u32) -> Result<Option<ComingTicks>, StoreError> {
        self.store.coming_ticks(limit).await
    }

    async fn run_tick(&self, tick: &TickKey, action: &TickAction) -> Result<TickEnd, StoreError> {
        self.store.run_tick(tick, action).await
    }

    async fn list_done_ops(&self, after: Option<&OpKey>, limit: u32) -> Result<Vec<OpKey>, StoreError> {
        self.store.list_done_ops(after, limit).await
    }

    async fn count_due(&self, op: &OpKey, due: &Due) -> Result<DueCounts, StoreError> {
        self.store.count_due(op, due).await
    }

    async fn begin_prune(&self, op: &OpKey, due: &Due, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
        self.store.begin_prune(op, due, ttl).await
    }

    async fn resume_prune(&self, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
        self.store.resume_prune(ttl).await
    }

    async fn begin_removal(&self, id: BatchId, ttl: Duration) -> Result<Pruning, StoreError> {
        self.store.begin_removal(id, ttl).await
    }

    async fn list_pruned_objects(&self, id: BatchId, limit: u32) -> Result<Vec<String>, StoreError> {
        self.store.list_pruned_objects(id, limit).await
    }

    async fn forget_objects(&self, id: BatchId, objects: &[String]) -> Result<bool, StoreError> {
        self.store.forget_objects(id, objects).await
    }

    async fn prune_rows(&self, id: BatchId, rows: u32, ttl: Duration) -> Result<PruneStep, StoreError> {
        self.store.prune_rows(id, rows, ttl).await
    }

    async fn read_events(&self, of: &EventsOf, after: EventPosition, limit: u32) -> Result<EventPage, StoreError> {
        self.store.read_events(of, after, limit).await
    }

    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.store.events()
    }
}
