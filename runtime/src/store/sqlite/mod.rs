//! The embedded store: one SQLite file, one process. One connection writes, a few read beside it.

mod appends;
mod apps;
mod batch_files;
mod candidates;
mod chains;
mod claim;
mod connect;
mod failed_rows;
mod finish;
mod groups;
mod history;
mod leases;
mod listing;
mod policies;
mod prune;
mod quota;
mod read;
mod record;
mod removals;
mod rounds;
mod schedules;
mod submit;
mod ticks;
mod usage;
mod versions;
mod workers;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::SqliteConnection;
use tokio::sync::broadcast;
use uuid::Uuid;

pub use self::connect::SqliteStore;

use super::columns::{failed, status_of};
use super::{Aborted, ChainStep, LeaseOwner, Overdue, PruneStep, Recorded, ResultCursor, RowPieces, Store, StoreError, StoreEvent};
use crate::model::{
    App, AppendPart, AppendState, AppendToken, Batch, BatchFile, BatchFilter, BatchId, BatchPage, BatchPosition, BatchStatus, ClaimRequest,
    ComingTicks, Due, DueCounts, EventPage, EventPosition, EventsOf, FailedPage, FailedPosition, FailedRows, FinishLease, FoundOp, FuelProfile,
    Grants, Group, JsonText, Lease, LeaseKey, LeasedRow, MarkCall, MarkEnd, NewBatch, NewRow, NewSchedule, NewVersion, OpKey, OutputFile, PastCursor,
    PastOutcome, PastRound, Policy, ProcessorKind, ProcessorVersion, Pruning, RecordedOutcome, RegisteredVersion, Retried, RetryRows, RowResult,
    Schedule, ScheduleKey, TickAction, TickEnd, TickKey, Timestamp, UsageRecord, WorkerInfo, WorkerRecord,
};

/// Rows per statement where many are inserted: SQLite parses and binds the statement once for all of them.
const ROWS_PER_INSERT: usize = 100;

/// What is read at once ends when it has grown to this, so that large rows do not pile up in memory.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// A value that no owner of a lease had before, and never 0, which stands for no owner.
fn new_token() -> i64 {
    // The low half of a UUIDv7 is random, but for its first two bits, which are 10.
    i64::from_ne_bytes(Uuid::now_v7().as_u64_pair().1.to_ne_bytes())
}

/// Collects rows until the page is large: one row at least, so that an empty page is the end.
async fn fetch_page<T>(mut rows: BoxStream<'_, Result<T, sqlx::Error>>, weigh: impl Fn(&T) -> usize) -> Result<Vec<T>, sqlx::Error> {
    let mut page = Vec::new();
    let mut weight = 0;
    while weight < PAGE_BYTES_MAX
        && let Some(row) = rows.try_next().await?
    {
        weight += weigh(&row);
        page.push(row);
    }
    Ok(page)
}

/// What a text weighs in a page.
fn length(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

/// The key and status of a batch, by which most operations begin.
async fn find_batch(db: &mut SqliteConnection, id: BatchId) -> Result<(i64, BatchStatus), StoreError> {
    let found: Option<(i64, String)> = sqlx::query_as("SELECT batch_key, status FROM batches WHERE batch_id = ?")
        .bind(id.to_string())
        .fetch_optional(db)
        .await
        .map_err(failed("look up a batch"))?;
    let (key, status) = found.ok_or(StoreError::NotFound(id))?;
    Ok((key, status_of(&status)))
}

#[async_trait]
impl Store for SqliteStore {
    async fn submit_batch(&self, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
        submit::submit_batch(self, batch, rows).await
    }

    async fn append_rows(&self, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
        submit::append_rows(self, id, rows).await
    }

    async fn append_part(&self, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError> {
        appends::append_part(self, id, part).await
    }

    async fn undo_append(&self, id: BatchId, token: AppendToken) -> Result<bool, StoreError> {
        appends::undo_append(self, id, token).await
    }

    async fn release_batch(&self, id: BatchId) -> Result<u64, StoreError> {
        submit::release_batch(self, id).await
    }

    async fn abort_batch(&self, id: BatchId, reason: Option<String>) -> Result<Aborted, StoreError> {
        finish::abort_batch(self, id, reason).await
    }

    async fn retry_batch(&self, id: BatchId, rows: &RetryRows) -> Result<Retried, StoreError> {
        rounds::retry_batch(self, id, rows).await
    }

    async fn list_rounds(&self, id: BatchId, after: u32, limit: u32) -> Result<Vec<PastRound>, StoreError> {
        rounds::list_rounds(self, id, after, limit).await
    }

    async fn read_past_outcomes(&self, id: BatchId, after: Option<PastCursor>, limit: u32) -> Result<Vec<PastOutcome>, StoreError> {
        rounds::read_past_outcomes(self, id, after, limit).await
    }

    async fn advance_chain(&self) -> Result<Option<ChainStep>, StoreError> {
        chains::advance_chain(self).await
    }

    async fn seal_group(&self, app: &str, name: &str) -> Result<bool, StoreError> {
        groups::seal_group(self, app, name).await
    }

    async fn list_groups(&self, app: &str, from: &str, limit: u32) -> Result<Vec<Group>, StoreError> {
        groups::list_groups(self, app, from, limit).await
    }

    async fn set_priority(&self, id: BatchId, priority: i32) -> Result<(), StoreError> {
        submit::set_priority(self, id, priority).await
    }

    async fn abort_overdue(&self) -> Result<Overdue, StoreError> {
        finish::abort_overdue(self).await
    }

    async fn discard_batch(&self, id: BatchId) -> Result<(), StoreError> {
        submit::discard_batch(self, id).await
    }

    async fn record_batch_file(&self, id: BatchId, file: &BatchFile, context: Option<&JsonText>) -> Result<(), StoreError> {
        batch_files::record_batch_file(self, id, file, context).await
    }

    async fn list_batch_files(&self, id: BatchId, after_row: u32, limit: u32) -> Result<Vec<BatchFile>, StoreError> {
        batch_files::list_batch_files(self, id, after_row, limit).await
    }

    async fn read_batch(&self, id: BatchId) -> Result<Batch, StoreError> {
        read::read_batch(self, id).await
    }

    async fn claim_leases(&self, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError> {
        claim::claim_leases(self, request).await
    }

    async fn read_leased_rows(&self, lease: LeaseKey) -> Result<Vec<LeasedRow>, StoreError> {
        leases::read_leased_rows(self, lease).await
    }

    async fn renew_leases(&self, leases: &[LeaseKey], ttl: Duration) -> Result<Vec<LeaseKey>, StoreError> {
        leases::renew_leases(self, leases, ttl).await
    }

    async fn record_to_finish(
        &self,
        lease: LeaseKey,
        results: &[RowResult],
        took: Duration,
        finisher: Option<LeaseOwner<'_>>,
    ) -> Result<Recorded, StoreError> {
        record::record_results(self, lease, results, took, finisher).await
    }

    async fn give_back_lease(&self, lease: LeaseKey) -> Result<(), StoreError> {
        leases::give_back_lease(self, lease).await
    }

    async fn next_due(&self, kind: Option<ProcessorKind>) -> Result<Option<Duration>, StoreError> {
        leases::next_due(self, kind).await
    }

    async fn claim_finish(&self, worker: &str, kind: Option<ProcessorKind>, ttl: Duration) -> Result<Option<FinishLease>, StoreError> {
        finish::claim_finish(self, worker, kind, ttl).await
    }

    async fn renew_finish(&self, lease: &FinishLease, ttl: Duration) -> Result<(), StoreError> {
        finish::renew_finish(self, lease, ttl).await
    }

    async fn give_back_finish(&self, lease: &FinishLease, after: Duration) -> Result<(), StoreError> {
        finish::give_back_finish(self, lease, after).await
    }

    async fn record_files(&self, lease: &FinishLease, files: &[OutputFile]) -> Result<(), StoreError> {
        finish::record_files(self, lease, files).await
    }

    async fn record_mark(&self, lease: &FinishLease, end: &MarkEnd) -> Result<(), StoreError> {
        finish::record_mark(self, lease, end).await
    }

    async fn read_mark_calls(&self, id: BatchId, round: u32, after: u32, limit: u32) -> Result<Vec<MarkCall>, StoreError> {
        read::read_mark_calls(self, id, round, after, limit).await
    }

    async fn read_results(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RecordedOutcome>, StoreError> {
        read::read_results(self, id, after, limit).await
    }

    async fn list_batches(&self, of: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Result<BatchPage, StoreError> {
        listing::list_batches(self, of, after, limit).await
    }

    async fn list_failed(&self, of: &FailedRows, after: Option<FailedPosition>, limit: u32) -> Result<FailedPage, StoreError> {
        failed_rows::list_failed(self, of, after, limit).await
    }

    async fn list_file_names(&self, id: BatchId) -> Result<Vec<String>, StoreError> {
        read::list_file_names(self, id).await
    }

    async fn read_pieces(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RowPieces>, StoreError> {
        read::read_pieces(self, id, after, limit).await
    }

    async fn put_app(&self, app: &App) -> Result<(), StoreError> {
        apps::put_app(self, app).await
    }

    async fn change_app(&self, from: &App, to: &App) -> Result<bool, StoreError> {
        apps::change_app(self, from, to).await
    }

    async fn set_grants(&self, app: &str, from: &Grants, to: &Grants) -> Result<bool, StoreError> {
        apps::set_grants(self, app, from, to).await
    }

    async fn read_app(&self, name: &str) -> Result<Option<App>, StoreError> {
        apps::read_app(self, name).await
    }

    async fn list_apps(&self) -> Result<Vec<App>, StoreError> {
        apps::list_apps(self).await
    }

    async fn put_processor(&self, new: &NewVersion) -> Result<ProcessorVersion, StoreError> {
        versions::put_processor(self, new).await
    }

    async fn activate_processor(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
        versions::activate_processor(self, app, op, version).await
    }

    async fn deactivate_processor(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
        versions::deactivate_processor(self, app, op, version).await
    }

    async fn rollback_processor(&self, app: &str, op: &str, kind: Option<ProcessorKind>) -> Result<ProcessorVersion, StoreError> {
        versions::rollback_processor(self, app, op, kind).await
    }

    async fn remove_processor(&self, app: &str, op: &str, version: u32) -> Result<Vec<String>, StoreError> {
        removals::remove_processor(self, app, op, version).await
    }

    async fn forget_code(&self, digest: &str) -> Result<(), StoreError> {
        removals::forget_code(self, digest).await
    }

    async fn find_op(&self, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<FoundOp>, StoreError> {
        versions::find_op(self, app, op, kind).await
    }

    async fn put_policy(&self, policy: &Policy) -> Result<(), StoreError> {
        policies::put_policy(self, policy).await
    }

    async fn change_policy(&self, from: &Policy, to: &Policy) -> Result<bool, StoreError> {
        policies::change_policy(self, from, to).await
    }

    async fn set_paused(&self, app: &str, op: Option<&str>, paused: bool) -> Result<(), StoreError> {
        policies::set_paused(self, app, op, paused).await
    }

    async fn list_policies(&self) -> Result<Vec<Policy>, StoreError> {
        policies::list_policies(self).await
    }

    async fn remove_policy(&self, app: &str, op: Option<&str>) -> Result<bool, StoreError> {
        policies::remove_policy(self, app, op).await
    }

    async fn list_processors(&self, app: Option<&str>) -> Result<Vec<RegisteredVersion>, StoreError> {
        versions::list_processors(self, app).await
    }

    async fn beat_worker(&self, worker: &WorkerInfo) -> Result<(), StoreError> {
        workers::beat_worker(self, worker).await
    }

    async fn remove_worker(&self, name: &str) -> Result<(), StoreError> {
        workers::remove_worker(self, name).await
    }

    async fn list_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        workers::list_workers(self).await
    }

    async fn read_clock(&self) -> Result<Timestamp, StoreError> {
        Ok(self.now())
    }

    async fn put_schedule(&self, schedule: &NewSchedule, rows: &[NewRow]) -> Result<Schedule, StoreError> {
        schedules::put_schedule(self, schedule, rows).await
    }

    async fn read_schedule(&self, key: &ScheduleKey) -> Result<Option<Schedule>, StoreError> {
        schedules::read_schedule(self, key).await
    }

    async fn list_schedules(&self, app: Option<&str>, after: Option<&ScheduleKey>, limit: u32) -> Result<Vec<Schedule>, StoreError> {
        schedules::list_schedules(self, app, after, limit).await
    }

    async fn pause_schedule(&self, key: &ScheduleKey) -> Result<bool, StoreError> {
        schedules::pause_schedule(self, key).await
    }

    async fn resume_schedule(&self, key: &ScheduleKey, next_at: Timestamp) -> Result<bool, StoreError> {
        schedules::resume_schedule(self, key, next_at).await
    }

    async fn remove_schedule(&self, key: &ScheduleKey) -> Result<bool, StoreError> {
        schedules::remove_schedule(self, key).await
    }

    async fn coming_ticks(&self, limit: u32) -> Result<Option<ComingTicks>, StoreError> {
        schedules::coming_ticks(self, limit).await
    }

    async fn run_tick(&self, tick: &TickKey, action: &TickAction) -> Result<TickEnd, StoreError> {
        ticks::run_tick(self, tick, action).await
    }

    async fn list_done_ops(&self, after: Option<&OpKey>, limit: u32) -> Result<Vec<OpKey>, StoreError> {
        prune::list_done_ops(self, after, limit).await
    }

    async fn count_due(&self, op: &OpKey, due: &Due) -> Result<DueCounts, StoreError> {
        prune::count_due(self, op, due).await
    }

    async fn begin_prune(&self, op: &OpKey, due: &Due, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
        prune::begin_prune(self, op, due, ttl).await
    }

    async fn resume_prune(&self, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
        prune::resume_prune(self, ttl).await
    }

    async fn begin_removal(&self, id: BatchId, ttl: Duration) -> Result<Pruning, StoreError> {
        prune::begin_removal(self, id, ttl).await
    }

    async fn list_pruned_objects(&self, id: BatchId, limit: u32) -> Result<Vec<String>, StoreError> {
        prune::list_pruned_objects(self, id, limit).await
    }

    async fn forget_objects(&self, id: BatchId, objects: &[String]) -> Result<bool, StoreError> {
        prune::forget_objects(self, id, objects).await
    }

    async fn prune_rows(&self, id: BatchId, rows: u32, ttl: Duration) -> Result<PruneStep, StoreError> {
        prune::prune_rows(self, id, rows, ttl).await
    }

    async fn read_events(&self, of: &EventsOf, after: EventPosition, limit: u32) -> Result<EventPage, StoreError> {
        history::read_events(self, of, after, limit).await
    }

    async fn read_usage(&self, app: &str, op: Option<&str>, since: Timestamp, until: Timestamp, limit: u32) -> Result<Vec<UsageRecord>, StoreError> {
        usage::read_usage(self, app, op, since, until, limit).await
    }

    async fn read_fuel(&self, app: &str) -> Result<Vec<FuelProfile>, StoreError> {
        usage::read_fuel(self, app).await
    }

    async fn count_dropped_logs(&self, id: BatchId) -> Result<u64, StoreError> {
        read::count_dropped_logs(self, id).await
    }

    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.events.subscribe()
    }
}
