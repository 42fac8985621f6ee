//! Where batches, rows, leases and outcomes are kept. This is the only room with SQL.
//!
//! The idea: rows are written once and never updated. A worker *leases* a range of them by moving a cursor, *appends* their outcomes under the lease's
//! token, and a row's status is derived from what there is: an outcome, a live lease, or the batch's own status. Every implementation of [`Store`] passes
//! the same conformance suite (tests/suite/conformance).

mod changes;
mod columns;
mod error;
mod events;
mod history;
mod lines;
mod listing;
mod pages;
mod postgres;
mod pruned;
mod quota;
mod rules;
mod scheduled;
mod sizing;
mod sqlite;
mod told;
mod usage;
mod versions;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::model::{
    App, AppendPart, AppendState, AppendToken, Batch, BatchFile, BatchFilter, BatchId, BatchPage, BatchPosition, ClaimRequest, ClaimedWork,
    ComingTicks, Due, DueCounts, EventPage, EventPosition, EventsOf, FailedPage, FailedPosition, FailedRows, FinishLease, FoundOp, FuelProfile,
    Grants, Group, JsonText, Lease, LeaseKey, LeasedRow, MarkCall, MarkEnd, NewBatch, NewRow, NewSchedule, NewVersion, OpKey, OutputFile, PastCursor,
    PastOutcome, PastRound, Policy, ProcessorKind, ProcessorVersion, Pruning, RecordedOutcome, RegisteredVersion, Retried, RetryRows, RowResult,
    Schedule, ScheduleKey, TickAction, TickEnd, TickKey, Timestamp, UsageRecord, WorkerInfo, WorkerRecord,
};

pub use changes::{Aborted, ChainEnd, ChainStep, Overdue, PruneStep, Recorded};
pub use error::{FILES_PER_BATCH_MAX, StoreError};
pub use events::StoreEvent;
pub use pages::{ResultCursor, RowPieces};
pub use postgres::{LogPosition, PgConnection, PgSettings, PgStore, SchemaState};
pub use quota::OverQuota;
pub use sqlite::SqliteStore;
pub use versions::{VersionError, find_served};

/// Who gets a lease without a claim: to finish a batch with the record of its last outcome, or to run a slow query with its submission.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOwner<'a> {
    /// The worker's name, for people who look at leases.
    pub worker: &'a str,
    /// The lease ends this long from then unless it is renewed.
    pub ttl: Duration,
}

/// Batches, rows, leases, outcomes. Every method is one transaction: it does all or nothing. Texts come back as they were given, whatever characters
/// they hold, NUL among them.
///
/// Time is the store's clock. A lease, of rows or to finish a batch, lives while its end lies ahead; from that moment on it is *lost*, as it is when it was
/// taken over, given back, or recorded to its end, and when its batch was aborted. A lost lease never revives, and nothing changes by its key.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Submits a batch with its first rows. One that is there with the same request digest is left as it is, whatever became of it.
    ///
    /// # Errors
    /// `Invalid`: no rows without `hold`, unless it comes after another batch; rows or `hold` where it does, or a batch that it cannot come after; a group that is sealed, or whose name is empty or too long; a line that is 0 in a batch or comes twice, or a slow query that is not one row with line 0, or is held; no
    /// attempts. `Exists`; `OverQuota`.
    async fn submit_batch(&self, batch: NewBatch, rows: Vec<NewRow>) -> Result<(), StoreError>;

    /// Submits a batch of one row, for a worker that has a free slot for it. Where it is a slow query, and no claim would have to look at others first or count for its app, the
    /// worker gets the lease with the submission; else none, and it waits for a claim.
    ///
    /// # Errors
    /// As [`Store::submit_batch`].
    async fn submit_to_run(&self, batch: NewBatch, row: NewRow, _owner: LeaseOwner<'_>) -> Result<Option<ClaimedWork>, StoreError> {
        self.submit_batch(batch, vec![row]).await.map(|()| None)
    }

    /// Appends rows to a held batch, contiguous and in their order, even if other callers append at the same time. Returns how many it has now: the rows of
    /// this call are the last of those.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` unless it is in `wait`; `AppendUnderWay`; `Invalid` for a line that is 0, or that the batch has already; `OverQuota`.
    async fn append_rows(&self, id: BatchId, rows: Vec<NewRow>) -> Result<u64, StoreError>;

    /// Appends a part of a file to a held batch. The rows of all parts become rows of the batch with the last part, and with it the file and the key are recorded. One file at a
    /// time is appended to a batch in several parts. An unfinished append that has expired, or has the same key, is taken back by the first part of another one.
    ///
    /// # Errors
    /// As [`Store::append_rows`]; `AppendUnderWay` for a first part; `AppendLost` for a further one, whose append is not there; `AppendKeyReused`. An error of a further part
    /// leaves the append as it is: see [`Store::undo_append`].
    async fn append_part(&self, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError>;

    /// Takes back the rows of an unfinished append. Returns false if there is none with this token.
    async fn undo_append(&self, id: BatchId, token: AppendToken) -> Result<bool, StoreError>;

    /// Releases a held batch. Returns how many rows it has. A batch that is queued already is left as it is.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` when it is past `queued`; `AppendUnderWay`; `Invalid` when it has no rows.
    async fn release_batch(&self, id: BatchId) -> Result<u64, StoreError>;

    /// Aborts a batch: rows without an outcome are aborted from this moment on, and nothing more is recorded for them. A batch that has all its outcomes is
    /// left as it is, though its files may not be joined yet.
    ///
    /// # Errors
    /// `NotFound`.
    async fn abort_batch(&self, id: BatchId, reason: Option<String>) -> Result<Aborted, StoreError>;

    /// Aborts batches whose deadline has passed, and those with a lease that have run for longer than their app's may, some hundred at most.
    async fn abort_overdue(&self) -> Result<Overdue, StoreError>;

    /// Runs rows of a batch that has ended again, in a new round: its failed rows, or some of them, and those that were aborted, where that is wanted. Their attempts begin
    /// with 1. What became of the round, and of these rows in it, stays: see [`Store::list_rounds`] and [`Store::read_past_outcomes`].
    ///
    /// Batches that were aborted because of this batch wait for it again, and so do those behind them. A chained batch that was
    /// aborted before it had all of its rows runs nothing: its rows are removed, and it waits for its predecessor again.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` unless nothing remains to be done for it; `Invalid` for a slow query, for a batch that was aborted, without the rows that were, when there
    /// is no such row, and for a chained batch that would be aborted again at once.
    async fn retry_batch(&self, id: BatchId, rows: &RetryRows) -> Result<Retried, StoreError>;

    /// The rounds of a batch before the one that it is in, at most `limit`, from behind a round (0 for all). The end is an empty page.
    ///
    /// # Errors
    /// `NotFound`.
    async fn list_rounds(&self, id: BatchId, after: u32, limit: u32) -> Result<Vec<PastRound>, StoreError>;

    /// The outcomes that rows had in rounds before, by the numbers of the rows, then by round, at most `limit`, after `after`. A page of large ones is shorter; the end is an
    /// empty page.
    ///
    /// # Errors
    /// `NotFound`.
    async fn read_past_outcomes(&self, id: BatchId, after: Option<PastCursor>, limit: u32) -> Result<Vec<PastOutcome>, StoreError>;

    /// Makes the next rows of a batch that comes after another, which has ended: some thousand at most. None when there is no such batch, or others are at all of them.
    async fn advance_chain(&self) -> Result<Option<ChainStep>, StoreError>;

    /// Lets no further batch come into a group; one that is sealed stays so. If all of its batches are done it has ended with that. False when there is none.
    async fn seal_group(&self, app: &str, name: &str) -> Result<bool, StoreError>;

    /// The groups of an app by name, from this name on (all of them from the empty one), at most `limit`. Counts its batches, each time.
    async fn list_groups(&self, app: &str, from: &str, limit: u32) -> Result<Vec<Group>, StoreError>;

    /// A group; none before its first batch, and when it has ended and its last batch was removed.
    async fn read_group(&self, app: &str, name: &str) -> Result<Option<Group>, StoreError> {
        Ok(self.list_groups(app, name, 1).await?.pop().filter(|group| group.name == name))
    }

    /// Changes the priority of a batch whose rows have not all ended.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` when none of its rows waits any longer.
    async fn set_priority(&self, id: BatchId, priority: i32) -> Result<(), StoreError>;

    /// Removes a held batch and its rows.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` unless it is in `wait`.
    async fn discard_batch(&self, id: BatchId) -> Result<(), StoreError>;

    /// Records a file that rows of a held batch came from, and with it the context that was made from the file, if one was. A batch has one file that begins with a
    /// row: another takes its place.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` unless it is in `wait`; `Invalid` for a file that begins with a row 0.
    async fn record_batch_file(&self, id: BatchId, file: &BatchFile, context: Option<&JsonText>) -> Result<(), StoreError>;

    /// The files that a batch's rows came from, by their first rows, at most `limit`, from behind the file that begins with `after_row` (0 for all). The end is an
    /// empty page.
    ///
    /// # Errors
    /// `NotFound`.
    async fn list_batch_files(&self, id: BatchId, after_row: u32, limit: u32) -> Result<Vec<BatchFile>, StoreError>;

    /// A batch as it is now.
    ///
    /// # Errors
    /// `NotFound`.
    async fn read_batch(&self, id: BatchId) -> Result<Batch, StoreError>;

    /// Leases rows. Each lease goes to the app that had the least work by its weight and is not at its limit of running leases. Within the app: first
    /// rows whose lease ended without being recorded, then retries that are due, then fresh rows, by priority, the oldest batch first. What is paused is passed
    /// over, and no more rows are leased than rates allow. A lease holds rows of one batch, at most `rows_max`; a larger one that ended gives its first rows, and the rest waits for the next claim. A lease that ended by the clock
    /// counts as a crash and an attempt of its rows; after two crashes its rows are leased one by one.
    async fn claim_leases(&self, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError>;

    /// The same, with what workers read next where it costs the store little.
    async fn claim_work(&self, request: &ClaimRequest) -> Result<Vec<ClaimedWork>, StoreError> {
        let leases = self.claim_leases(request).await?;
        Ok(leases.into_iter().map(|lease| ClaimedWork { lease, batch: None, rows: None }).collect())
    }

    /// The next rows of a lease that are not recorded yet, in order: all of them, or fewer when they are large.
    ///
    /// # Errors
    /// `LeaseLost`.
    async fn read_leased_rows(&self, lease: LeaseKey) -> Result<Vec<LeasedRow>, StoreError>;

    /// Lets leases live for `ttl` from now. Returns those that were lost.
    async fn renew_leases(&self, leases: &[LeaseKey], ttl: Duration) -> Result<Vec<LeaseKey>, StoreError>;

    /// Records the next results of a lease, in order of their rows and without a gap; none is fine, and changes nothing. `took` is the time that running them
    /// took, for the size of further leases. The lease ends with its last row.
    ///
    /// # Errors
    /// `LeaseLost`; `Invalid` for results that are not the lease's next rows, or that end a row as `Aborted`; `TooManyFiles`; `FilesTooLarge`. Logs that
    /// do not fit into what is left of the batch's are dropped, and counted.
    async fn record_results(&self, lease: LeaseKey, results: &[RowResult], took: Duration) -> Result<Recorded, StoreError> {
        self.record_to_finish(lease, results, took, None).await
    }

    /// The same; and if these were the last results of the batch, the finisher gets the lease to finish it, as by [`Store::claim_finish`].
    ///
    /// # Errors
    /// As [`Store::record_results`].
    async fn record_to_finish(
        &self,
        lease: LeaseKey,
        results: &[RowResult],
        took: Duration,
        finisher: Option<LeaseOwner<'_>>,
    ) -> Result<Recorded, StoreError>;

    /// Gives the rows of a lease that are not recorded back, to be claimed at once. It does not count as a crash. A lost lease is left alone.
    async fn give_back_lease(&self, lease: LeaseKey) -> Result<(), StoreError>;

    /// When the next retry is due or the next lease ends, whether of rows or to finish a batch: of what no claim finds now, nothing comes before that. Zero
    /// when such a thing waits already, or a batch is to be finished; none when there is nothing but fresh rows.
    /// What an app at its limit cannot take is not due, nor what is paused, or beyond a rate; its leases are. Only what is of this kind, when there is one.
    async fn next_due(&self, kind: Option<ProcessorKind>) -> Result<Option<Duration>, StoreError>;

    /// Leases the oldest batch, of this kind if there is one, that is to be finished and that nobody finishes now.
    async fn claim_finish(&self, worker: &str, kind: Option<ProcessorKind>, ttl: Duration) -> Result<Option<FinishLease>, StoreError>;

    /// Lets a finish lease live for `ttl` from now.
    ///
    /// # Errors
    /// `LeaseLost`.
    async fn renew_finish(&self, lease: &FinishLease, ttl: Duration) -> Result<(), StoreError>;

    /// Gives a finish lease back, to be claimed `after` from now. It does not count as an attempt. A lost lease is left alone.
    async fn give_back_finish(&self, lease: &FinishLease, after: Duration) -> Result<(), StoreError>;

    /// Ends the step `Join`: the files and the status of the batch are final. A file that is not among these is none of the batch's.
    ///
    /// # Errors
    /// `LeaseLost`; `Invalid` for a file that no row wrote to.
    async fn record_files(&self, lease: &FinishLease, files: &[OutputFile]) -> Result<(), StoreError>;

    /// Records how a call of `mark-done` ended. Ends the step `Mark`, or ends the lease and lets the batch be claimed again when the next call is due. Calls whose worker died
    /// count as calls. A log that does not fit into what is left of the batch's is dropped, and that is recorded.
    ///
    /// # Errors
    /// `LeaseLost`.
    async fn record_mark(&self, lease: &FinishLease, end: &MarkEnd) -> Result<(), StoreError>;

    /// Ends the step `Mark` after a call, with the error that `mark-done` returned.
    ///
    /// # Errors
    /// `LeaseLost`.
    async fn record_mark_done(&self, lease: &FinishLease, error: Option<&str>) -> Result<(), StoreError> {
        self.record_mark(lease, &MarkEnd { called: true, error: error.map(str::to_owned), ..MarkEnd::default() }).await
    }

    /// The calls of `mark-done` in one round of a batch that wrote to their log or failed, in their order, at most `limit`, from behind a call (0 for all). A page of large
    /// logs is shorter; the end is an empty page.
    ///
    /// # Errors
    /// `NotFound`; `Pruned` when the outcomes are not kept any more.
    async fn read_mark_calls(&self, id: BatchId, round: u32, after: u32, limit: u32) -> Result<Vec<MarkCall>, StoreError>;

    /// All rows with their outcomes, as far as they have one, in line order, at most `limit`, after `after`. A page of large rows is shorter; the end is an empty page.
    ///
    /// # Errors
    /// `NotFound`; `Pruned` when the outcomes are not kept any more.
    async fn read_results(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RecordedOutcome>, StoreError>;

    /// Failed rows of an app, of the round that each batch is in, behind a place: those of the newest batch first, in each batch in the order in which its rows came in, at most
    /// `limit`. A page of large rows is shorter, and so is one for which many were looked at that are none of those; the end is a page without a `next`. What was pruned is
    /// not there.
    async fn list_failed(&self, of: &FailedRows, after: Option<FailedPosition>, limit: u32) -> Result<FailedPage, StoreError>;

    /// The batches and slow queries of an app that a filter matches, the newest first, behind a place:
    /// at most `limit`, and 1,000. A page looks at 2,000 batches at most, and is shorter or empty where
    /// the filter matches few of them. The end of the list is a page without a `next`.
    async fn list_batches(&self, of: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Result<BatchPage, StoreError>;

    /// The names of a batch's output files. Their order does not change while the batch is joined.
    ///
    /// # Errors
    /// `NotFound`.
    async fn list_file_names(&self, id: BatchId) -> Result<Vec<String>, StoreError>;

    /// Rows that have pieces, in line order, at most `limit` rows, after `after`. A page of large pieces is shorter; the end is an empty page.
    ///
    /// # Errors
    /// `NotFound`; `Pruned` as for [`Store::read_results`].
    async fn read_pieces(&self, id: BatchId, after: Option<ResultCursor>, limit: u32) -> Result<Vec<RowPieces>, StoreError>;

    /// Registers an app, or changes what is registered of it, but for its grants.
    ///
    /// # Errors
    /// `Invalid`: more than the operator allows; a weight outside 1 to 1,000; a limit of 0 running leases; a name that is empty or longer than [`crate::model::NAME_BYTES_MAX`].
    async fn put_app(&self, app: &App) -> Result<(), StoreError>;

    /// Registers or changes an app as [`Store::put_app`] does, if its weight, limits and quota are still those of `from`; an app that is not registered is
    /// [`App::named`]. Returns false, and changes nothing, if they are not.
    ///
    /// # Errors
    /// As for [`Store::put_app`].
    async fn change_app(&self, from: &App, to: &App) -> Result<bool, StoreError>;

    /// Changes what is granted to an app, which is registered if it was not. False, and nothing is changed, when something else than `from` is granted to it.
    ///
    /// # Errors
    /// `Invalid` for grants that cannot be, and a name as in [`Store::put_app`].
    async fn set_grants(&self, app: &str, from: &Grants, to: &Grants) -> Result<bool, StoreError>;

    /// An app; none that was never registered.
    async fn read_app(&self, name: &str) -> Result<Option<App>, StoreError>;

    /// The apps that are registered, by name.
    async fn list_apps(&self) -> Result<Vec<App>, StoreError>;

    /// Registers code for an app and an operation as a version, and makes it the active one of its kind if `activate` is set. If the newest version of the kind has
    /// the same code, returns that version, and its note becomes `note` if there is one.
    ///
    /// # Errors
    /// `Invalid` for a name as in [`Store::put_app`], and for a note that is too long. `Version`: a quota; code that is being removed; and as for [`Store::activate_processor`].
    async fn put_processor(&self, new: &NewVersion) -> Result<ProcessorVersion, StoreError>;

    /// Lets a version serve what is submitted from now on, instead of the version of the same kind that did. The other kind is not touched. A version that is
    /// active already is left as it is.
    ///
    /// # Errors
    /// `Version`: there is none.
    async fn activate_processor(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError>;

    /// Lets a version no longer serve: none of its kind serves the operation then, until one is activated.
    ///
    /// # Errors
    /// `Version`: there is none; it is not active; a schedule that is not paused submits to its kind.
    async fn deactivate_processor(&self, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError>;

    /// Lets the version serve that was the active one of a kind before, and was not removed. The next rollback goes back further. Without a kind it is the
    /// kind that serves the operation.
    ///
    /// # Errors
    /// `Version`: nothing was active before; both kinds serve, and none is named.
    async fn rollback_processor(&self, app: &str, op: &str, kind: Option<ProcessorKind>) -> Result<ProcessorVersion, StoreError>;

    /// Removes a version: nothing is submitted with it any more. Its number is not given again. Returns the digests of code that no version has any more; whoever called removes it from the object
    /// store, within some minutes, and then says so ([`Store::forget_code`]).
    ///
    /// # Errors
    /// `Version`: there is none; it is active; a batch uses it that has not ended.
    async fn remove_processor(&self, app: &str, op: &str, version: u32) -> Result<Vec<String>, StoreError>;

    /// Code is not in the object store any more: it can be registered again.
    async fn forget_code(&self, digest: &str) -> Result<(), StoreError>;

    /// The active version of a kind for an app and an operation, whatever its letters' case, with the terms that the policies of the operation and of its app give to
    /// what is submitted.
    async fn find_op(&self, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<FoundOp>, StoreError>;

    /// Sets what holds for an app or one of its operations, instead of what was said before. A rate that it had not before begins with its burst.
    ///
    /// # Errors
    /// `Invalid` for a name as in [`Store::put_app`], and a rate or terms that cannot be.
    async fn put_policy(&self, policy: &Policy) -> Result<(), StoreError>;

    /// Sets a policy as [`Store::put_policy`] does, if the policy of this app and operation is still `from`; one that is not set is [`Policy::of`]. Returns false,
    /// and changes nothing, if it is not.
    ///
    /// # Errors
    /// As for [`Store::put_policy`].
    async fn change_policy(&self, from: &Policy, to: &Policy) -> Result<bool, StoreError>;

    /// Pauses an app or one of its operations, or lets it go on.
    ///
    /// # Errors
    /// `Invalid` for a name as in [`Store::put_app`].
    async fn set_paused(&self, app: &str, op: Option<&str>, paused: bool) -> Result<(), StoreError>;

    /// The policies that were set, by app and operation; that of an app comes before those of its operations.
    async fn list_policies(&self) -> Result<Vec<Policy>, StoreError>;

    /// Takes a policy back. Whether there was one.
    async fn remove_policy(&self, app: &str, op: Option<&str>) -> Result<bool, StoreError>;

    /// All versions that were not removed, of one app or of all, by app, operation and version. Batches are counted for one app alone.
    async fn list_processors(&self, app: Option<&str>) -> Result<Vec<RegisteredVersion>, StoreError>;

    /// A worker's sign of life; the first registers it. One that was not seen for a day is forgotten.
    async fn beat_worker(&self, worker: &WorkerInfo) -> Result<(), StoreError>;

    /// A worker has ended.
    async fn remove_worker(&self, name: &str) -> Result<(), StoreError>;

    /// The workers that were seen and have not ended, with what they run now, by name.
    async fn list_workers(&self) -> Result<Vec<WorkerRecord>, StoreError>;

    /// What time it is by the store's clock.
    async fn read_clock(&self) -> Result<Timestamp, StoreError>;

    /// Registers a schedule, or changes it: the whole request is replaced. What its ticks did stays, and whether it is paused. With the cron line and zone that it
    /// had it keeps its next tick, which may be overdue.
    ///
    /// # Errors
    /// `Invalid`: an empty name; more than [`crate::model::SCHEDULE_ROWS_MAX`] rows or [`crate::model::SCHEDULE_BYTES_MAX`] bytes of inputs; a rejected row; and
    /// whatever [`Store::submit_batch`] would refuse.
    async fn put_schedule(&self, schedule: &NewSchedule, rows: &[NewRow]) -> Result<Schedule, StoreError>;

    /// A schedule; none that was never registered, or was removed.
    async fn read_schedule(&self, key: &ScheduleKey) -> Result<Option<Schedule>, StoreError>;

    /// Schedules by app and name, of one app or of all, at most `limit`, after `after`. The end is an empty page.
    async fn list_schedules(&self, app: Option<&str>, after: Option<&ScheduleKey>, limit: u32) -> Result<Vec<Schedule>, StoreError>;

    /// Lets a schedule have no ticks until it is resumed. False when there is none.
    async fn pause_schedule(&self, key: &ScheduleKey) -> Result<bool, StoreError>;

    /// Lets a schedule that is paused have ticks again, this one first; one that is not is left as it is. False when there is none.
    async fn resume_schedule(&self, key: &ScheduleKey, next_at: Timestamp) -> Result<bool, StoreError>;

    /// Removes a schedule. What it submitted stays. False when there is none.
    async fn remove_schedule(&self, key: &ScheduleKey) -> Result<bool, StoreError>;

    /// The schedules whose ticks come first, due or not, at most `limit`. None when nothing is scheduled, or all of it is paused.
    async fn coming_ticks(&self, limit: u32) -> Result<Option<ComingTicks>, StoreError>;

    /// Takes up a tick: its batch is submitted, and the schedule moves on to its next tick. Of all who take up the same tick one does so, and the others find it gone. A
    /// batch whose id is there was submitted for this tick before.
    ///
    /// # Errors
    /// `Invalid` when the next tick would not come after this one.
    async fn run_tick(&self, tick: &TickKey, action: &TickAction) -> Result<TickEnd, StoreError>;

    /// Operations that have batches which are done, by app and operation, at most `limit`, after `after`. The end is an empty page.
    async fn list_done_ops(&self, after: Option<&OpKey>, limit: u32) -> Result<Vec<OpKey>, StoreError>;

    /// How much of an operation is due to be pruned.
    async fn count_due(&self, op: &OpKey, due: &Due) -> Result<DueCounts, StoreError>;

    /// Takes up the oldest batch of an operation that is done and of which something is due. From now on what is due counts as pruned, and others leave the batch
    /// alone for `ttl`. Nothing is removed yet.
    async fn begin_prune(&self, op: &OpKey, due: &Due, ttl: Duration) -> Result<Option<Pruning>, StoreError>;

    /// The same for a batch of any operation whose pruning was left in the middle.
    async fn resume_prune(&self, ttl: Duration) -> Result<Option<Pruning>, StoreError>;

    /// The same for one batch as a whole, whether it is due or not.
    ///
    /// # Errors
    /// `NotFound`; `WrongStatus` unless it is done.
    async fn begin_removal(&self, id: BatchId, ttl: Duration) -> Result<Pruning, StoreError>;

    /// Objects of parts that are being pruned, at most `limit`; those that other batches have, too, are not among them.
    async fn list_pruned_objects(&self, id: BatchId, limit: u32) -> Result<Vec<String>, StoreError>;

    /// Forgets objects that are no longer in the object store, and those that other batches have. Whether some of parts that are being pruned are left.
    async fn forget_objects(&self, id: BatchId, objects: &[String]) -> Result<bool, StoreError>;

    /// Removes what is being pruned of the next rows of a batch, at most so many; behind the last of them the batch itself, if it is to go and has no objects left.
    async fn prune_rows(&self, id: BatchId, rows: u32, ttl: Duration) -> Result<PruneStep, StoreError>;

    /// What happened to a batch, to those of an app, or to all, behind a position, at most `limit` events; of an app fewer. It is written down in the transaction that does it. The end
    /// is a page whose `next` is the position.
    ///
    /// # Errors
    /// `NotFound` for the events of one batch.
    async fn read_events(&self, of: &EventsOf, after: EventPosition, limit: u32) -> Result<EventPage, StoreError>;

    /// What the recorded rows of an app used, of one operation or of all, in hours that begin from `since` until before `until`, by hour, operation and version, at most `limit`.
    async fn read_usage(&self, app: &str, op: Option<&str>, since: Timestamp, until: Timestamp, limit: u32) -> Result<Vec<UsageRecord>, StoreError>;

    /// How much fuel the rows of an app used, by operation and version.
    async fn read_fuel(&self, app: &str) -> Result<Vec<FuelProfile>, StoreError>;

    /// Sums up what records appended for [`Store::read_usage`], some thousand entries at most, where they are not summed up at once. Nothing of what is read changes.
    async fn fold_usage(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many rows of a batch had logs that were dropped, since they did not fit into what its app may log.
    ///
    /// # Errors
    /// `NotFound`.
    async fn count_dropped_logs(&self, id: BatchId) -> Result<u64, StoreError>;

    /// What happens from now on, in this process and, where the store has several, in others. Events may be missing or come twice: they save waiting, and nothing
    /// rests on them.
    fn events(&self) -> broadcast::Receiver<StoreEvent>;
}
