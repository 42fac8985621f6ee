//! PostgreSQL: any number of processes on any number of machines.
//!
//! Everything stands in the schema `rowmill`, so that it can live in a database beside other tables. Claims and records are functions of the database
//! (migrations/postgres/0002_functions.sql says why). Time is the database's, but in tests.

mod appends;
mod apps;
mod batch_files;
mod chains;
mod claim;
mod connect;
mod failed_rows;
mod finish;
mod groups;
mod held;
mod history;
mod leases;
mod listen;
mod listing;
mod log;
mod policies;
mod prune;
mod quota;
mod read;
mod record;
mod removals;
mod rounds;
mod rows;
mod schedules;
mod schema;
mod submit;
mod text;
mod ticks;
mod usage;
mod versions;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgDatabaseError;
use tokio::sync::broadcast;

pub use self::connect::{PgSettings, PgStore};
pub use self::log::LogPosition;
pub use self::schema::SchemaState;
pub use sqlx::PgConnection;

use super::{Aborted, ChainStep, LeaseOwner, Overdue, PruneStep, Recorded, ResultCursor, RowPieces, Store, StoreError, StoreEvent};
use crate::model::{
    App, AppBounds, AppendPart, AppendState, AppendToken, Batch, BatchFile, BatchFilter, BatchId, BatchPage, BatchPosition, ClaimRequest,
    ClaimedWork, Clock, ComingTicks, Due, DueCounts, EventPage, EventPosition, EventsOf, FailedPage, FailedPosition, FailedRows, FinishLease,
    FoundOp, FuelProfile, Grants, Group, JsonText, Lease, LeaseKey, LeasedRow, MarkCall, MarkEnd, NewBatch, NewRow, NewSchedule, NewVersion, OpKey,
    OutputFile, PastCursor, PastOutcome, PastRound, Policy, ProcessorKind, ProcessorVersion, Pruning, RecordedOutcome, RegisteredVersion, Retried,
    RetryRows, RowResult, Schedule, ScheduleKey, TickAction, TickEnd, TickKey, Timestamp, UsageRecord, WorkerInfo, WorkerRecord,
};

/// What is read at once ends when it has grown to this, so that large rows do not pile up in memory.
const PAGE_BYTES_MAX: i64 = 4 << 20;

/// A time span for the database.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// A length for the database; texts are shorter than 1 GiB there.
fn bytes(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// What a function of the database refused to do: its code, and the detail.
fn refused(error: &sqlx::Error) -> Option<(&str, &str)> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some((error.code(), error.detail().unwrap_or_default()))
}

impl PgStore {
    /// The time for the database; none for its own.
    fn now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.now().0)
    }

    /// Submits a batch in a transaction of the caller's: it exists if and when that commits.
    ///
    /// # Errors
    /// As [`Store::submit_batch`]. An error of the database leaves the transaction as PostgreSQL does: it can only be rolled back.
    pub async fn submit_batch_in(&self, transaction: &mut PgConnection, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
        submit::submit_batch_in(transaction, false, self.now(), &self.bounds, batch, rows).await
    }

    /// The same store, where apps may hold and be given no more than this.
    #[must_use]
    pub fn with_bounds(mut self, bounds: AppBounds) -> PgStore {
        self.bounds = bounds;
        self
    }

    /// The same store with a clock that tests move.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> PgStore {
        self.clock = Some(clock);
        self
    }
}

#[async_trait]
impl Store for PgStore {
    async fn submit_batch(&self, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError> {
        submit::submit_batch(self, batch, rows).await
    }

    async fn submit_to_run(&self, batch: NewBatch, row: NewRow, owner: LeaseOwner<'_>) -> Result<Option<ClaimedWork>, StoreError> {
        submit::submit_to_run(self, batch, row, owner).await
    }

    async fn append_rows(&self, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError> {
        held::append_rows(self, id, rows).await
    }

    async fn append_part(&self, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError> {
        appends::append_part(self, id, part).await
    }

    async fn undo_append(&self, id: BatchId, token: AppendToken) -> Result<bool, StoreError> {
        appends::undo_append(self, id, token).await
    }

    async fn release_batch(&self, id: BatchId) -> Result<u64, StoreError> {
        held::release_batch(self, id).await
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
        held::set_priority(self, id, priority).await
    }

    async fn abort_overdue(&self) -> Result<Overdue, StoreError> {
        finish::abort_overdue(self).await
    }

    async fn discard_batch(&self, id: BatchId) -> Result<(), StoreError> {
        held::discard_batch(self, id).await
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

    async fn claim_work(&self, request: &ClaimRequest) -> Result<Vec<ClaimedWork>, StoreError> {
        claim::claim_work(self, request).await
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
        schedules::read_clock(self).await
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

    async fn fold_usage(&self) -> Result<(), StoreError> {
        usage::fold_usage(self).await
    }

    async fn count_dropped_logs(&self, id: BatchId) -> Result<u64, StoreError> {
        read::count_dropped_logs(self, id).await
    }

    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.events.subscribe()
    }
}
