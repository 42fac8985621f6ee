//! Rows through an instance.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, Trap};

use super::bindings::{batch, slow_query, types};
use super::capabilities::{Capabilities, caught};
use super::ending::{HostPanic, ending_of_error, ending_of_failure, ending_of_init, ending_of_return};
use super::guest::{GuestState, ProgressSink, make_store};
use super::load::{Processor, World};
use super::output_files::{MarkState, Marking};
use super::places::frames_of;
use super::turns::{StopSign, Turns};
use crate::model::{Batch, BatchStatus, Ending, LeasedRow, Limits, ProcessorKind, RowRun};

/// How long a guest may go on after its batch was aborted, when it looks at `cancelled` to leave in good order.
const GRACE: Duration = Duration::from_millis(300);

/// What a session is for.
pub struct SessionSpec {
    /// The batch or query whose rows are run. Its counts and status matter only to `mark_done`.
    pub batch: Batch,
    pub limits: Limits,
    /// Stops the guest, a moment after `cancelled` tells it so.
    pub cancel: CancellationToken,
    pub progress: Option<ProgressSink>,
    /// What the batch's app was granted.
    pub capabilities: Arc<Capabilities>,
}

/// What the sandbox reports of one call of `mark-done`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRun {
    /// Nothing, or what the processor returned, or how it was stopped.
    pub ended: Result<(), Ending>,
    /// Log, stdout and stderr, bounded.
    pub log: Option<String>,
}

/// Runs rows of one batch, one after the other, in one instance that is made when it is first needed and again after a trap.
pub struct Session {
    processor: Processor,
    spec: SessionSpec,
    /// The batch's id and context as the guest gets them.
    id: String,
    context: String,
    live: Option<Live>,
    /// The instance cannot be started: every further row ends like this.
    broken: Option<Ending>,
    /// No row finds what another left.
    instance_per_row: bool,
    turns: Turns,
}

struct Live {
    store: Store<GuestState>,
    guest: Guest,
}

enum Guest {
    Batch(batch::BatchProcessor),
    SlowQuery(slow_query::SlowQueryProcessor),
}

/// How a guarded call ended.
pub(super) enum Guarded<T> {
    Returned(wasmtime::Result<T>),
    /// With the functions that were on the guest's stack. None if it waited for what it was granted.
    Deadline(Vec<String>),
    Cancelled,
}

/// Fuel and time of one call.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    fuel: u64,
    timeout: Duration,
}

impl Allowance {
    pub(super) fn row(limits: &Limits) -> Allowance {
        Allowance { fuel: limits.fuel, timeout: limits.timeout }
    }

    /// For one row, or one slow query, with this input.
    fn input(limits: &Limits, kind: ProcessorKind, input: &str) -> Allowance {
        let timeout = if kind == ProcessorKind::SlowQuery { limits.query_timeout } else { limits.timeout };
        Allowance { fuel: limits.fuel_for(input.len()), timeout }
    }

    pub(super) fn start(limits: &Limits) -> Allowance {
        let factor = Limits::START_FACTOR;
        Allowance { fuel: limits.fuel.saturating_mul(u64::from(factor)), timeout: limits.timeout.saturating_mul(factor) }
    }
}

impl Session {
    pub fn new(processor: Processor, spec: SessionSpec) -> Session {
        let (id, context) = (spec.batch.id.to_string(), spec.batch.context.as_str().to_owned());
        Session { processor, spec, id, context, live: None, broken: None, instance_per_row: false, turns: Turns::default() }
    }

    /// The same, where each row gets an instance of its own.
    #[must_use]
    pub fn with_instance_per_row(self) -> Session {
        Session { instance_per_row: true, ..self }
    }

    /// The same session with other turns. Tests force turns with it; its fuel stays the same.
    #[must_use]
    pub fn with_turns(self, turns: Turns) -> Session {
        Session { turns, ..self }
    }

    /// Goes on with further rows of its batch, under another lease.
    pub fn rebind(&mut self, cancel: CancellationToken, progress: Option<ProgressSink>) {
        if let Some(live) = &mut self.live {
            live.store.data_mut().rebind(cancel.clone(), progress.clone());
        }
        self.spec.cancel = cancel;
        self.spec.progress = progress;
    }

    /// What its guest may reach.
    pub fn capabilities(&self) -> &Arc<Capabilities> {
        &self.spec.capabilities
    }

    /// Whether it has an instance in which further rows can be run.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Runs one row, or the one input of a slow query.
    pub async fn run_row(&mut self, row: &LeasedRow) -> RowRun {
        if self.live.is_none()
            && let Err(run) = self.start(true).await
        {
            return run;
        }
        let Some(live) = &mut self.live else { unreachable!("it was started above") };
        let allowance = Allowance::input(&self.spec.limits, self.processor.kind(), &row.input);
        arm(&mut live.store, allowance);
        let bound = live.store.data().bound();
        let returned = match &live.guest {
            Guest::Batch(guest) => {
                let row = types::Row { line: row.line, input: &row.input, attempt: row.attempt };
                guard(guest.rowmill_jobs_batch().call_process_row(&mut live.store, row), &bound, &self.spec.cancel).await
            }
            Guest::SlowQuery(guest) => {
                let query = types::BatchInfo { id: &self.id, context: &self.context };
                let call = guest.rowmill_jobs_slow_query().call_run(&mut live.store, query, &row.input, row.attempt);
                guard(call, &bound, &self.spec.cancel).await
            }
        };
        let returned = within_fuel(&live.store, returned);
        let fuel = used(&live.store, allowance);
        let log = live.store.data().log.clone();
        let ending = match returned {
            Guarded::Returned(Ok(returned)) => ending_of_return(returned, &self.spec.limits, &self.spec.capabilities.masks),
            stopped => {
                let ending = stopped_ending(stopped, &live.store, allowance);
                self.live = None;
                ending
            }
        };
        let run = RowRun { ending, fuel, log: log.take() };
        if self.instance_per_row {
            self.end().await;
        }
        run
    }

    /// Tells the processor that its batch is final, in an instance in which no row was run.
    pub async fn mark_done(&mut self, marking: Marking) -> MarkRun {
        if let Err(run) = self.start(false).await {
            return MarkRun { ended: Err(run.ending), log: run.log };
        }
        let Some(live) = &mut self.live else { unreachable!("it was started above") };
        live.store.data_mut().mark = Some(MarkState::new(marking, self.spec.batch.files.clone()));
        let batch = &self.spec.batch;
        let files: Vec<types::OutputFile<'_>> =
            batch.files.iter().map(|file| types::OutputFile { name: &file.name, object: &file.object, size: file.size_bytes }).collect();
        let summary = types::Summary {
            batch: types::BatchInfo { id: &self.id, context: &self.context },
            status: match batch.status {
                BatchStatus::Success => types::BatchStatus::Success,
                BatchStatus::Aborted => types::BatchStatus::Aborted,
                _ => types::BatchStatus::Failed,
            },
            rows: batch.counts.rows,
            success: batch.counts.success,
            failed: batch.counts.failed,
            aborted: batch.counts.aborted,
            files: &files,
        };
        let allowance = Allowance::start(&self.spec.limits);
        arm(&mut live.store, allowance);
        let bound = live.store.data().bound();
        let returned = match &live.guest {
            Guest::Batch(guest) => guard(guest.rowmill_jobs_batch().call_mark_done(&mut live.store, summary), &bound, &self.spec.cancel).await,
            Guest::SlowQuery(guest) => {
                guard(guest.rowmill_jobs_slow_query().call_mark_done(&mut live.store, summary), &bound, &self.spec.cancel).await
            }
        };
        let returned = within_fuel(&live.store, returned);
        let log = live.store.data().log.clone();
        live.store.data_mut().mark = None;
        let ended = match returned {
            Guarded::Returned(Ok(Ok(()))) => Ok(()),
            Guarded::Returned(Ok(Err(failure))) => Err(ending_of_failure(failure, &self.spec.capabilities.masks)),
            stopped => {
                // It looks at the last words of the log.
                let ending = stopped_ending(stopped, &live.store, allowance);
                self.live = None;
                Err(ending)
            }
        };
        MarkRun { ended, log: log.take() }
    }

    /// Lets the instance end in good order, if there is one.
    pub async fn close(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        arm(&mut live.store, Allowance::start(&self.spec.limits));
        let bound = live.store.data().bound();
        let closed = match &live.guest {
            Guest::Batch(guest) => guard(guest.rowmill_jobs_lifecycle().call_close(&mut live.store), &bound, &self.spec.cancel).await,
            Guest::SlowQuery(guest) => guard(guest.rowmill_jobs_lifecycle().call_close(&mut live.store), &bound, &self.spec.cancel).await,
        };
        if let Guarded::Returned(Err(error)) = closed {
            tracing::debug!("close of {}/{} failed: {error:#}", self.spec.batch.app, self.spec.batch.op);
        }
    }

    /// Makes an instance and calls `init`, and `begin` when it is for rows.
    pub(super) async fn start(&mut self, for_rows: bool) -> Result<(), RowRun> {
        if let Some(ending) = &self.broken {
            return Err(RowRun { ending: ending.clone(), fuel: 0, log: None });
        }
        let allowance = Allowance::start(&self.spec.limits);
        let SessionSpec { limits, cancel, progress, capabilities, .. } = &self.spec;
        let made = make_store(&self.processor.engine, limits, cancel.clone(), progress.clone(), capabilities, self.turns);
        let mut store = match made {
            Ok(store) => store,
            Err(error) => return Err(self.break_with(Ending::CannotStart { reason: format!("{error:#}") }, 0, None)),
        };
        arm(&mut store, allowance);
        let info = types::BatchInfo { id: &self.id, context: &self.context };
        match start_in(&mut store, &self.processor.world, &self.spec, for_rows.then_some(info), allowance).await {
            Ok(guest) => {
                self.live = Some(Live { store, guest });
                Ok(())
            }
            Err(ending) => {
                let fuel = used(&store, allowance);
                let log = store.data().log.take();
                Err(self.break_with(ending, fuel, log))
            }
        }
    }

    fn break_with(&mut self, ending: Ending, fuel: u64, log: Option<String>) -> RowRun {
        if ending != Ending::Cancelled {
            self.broken = Some(ending.clone());
        }
        RowRun { ending, fuel, log }
    }
}

/// Instantiates, and calls `init`, and `begin` with what it is told.
async fn start_in(
    store: &mut Store<GuestState>,
    world: &World,
    spec: &SessionSpec,
    begin: Option<types::BatchInfo<'_>>,
    allowance: Allowance,
) -> Result<Guest, Ending> {
    let (cancel, bound) = (&spec.cancel, store.data().bound());
    let app = types::AppInfo { app: &spec.batch.app, op: &spec.batch.op, version: spec.batch.processor_version };
    let (guest, init) = match world {
        World::Batch(pre) => {
            let guest = started("the instance", guard(pre.instantiate_async(&mut *store), &bound, cancel).await, store, allowance)?;
            let init = guard(guest.rowmill_jobs_lifecycle().call_init(&mut *store, app), &bound, cancel).await;
            (Guest::Batch(guest), init)
        }
        World::SlowQuery(pre) => {
            let guest = started("the instance", guard(pre.instantiate_async(&mut *store), &bound, cancel).await, store, allowance)?;
            let init = guard(guest.rowmill_jobs_lifecycle().call_init(&mut *store, app), &bound, cancel).await;
            (Guest::SlowQuery(guest), init)
        }
    };
    let masks = &spec.capabilities.masks;
    started("init", init, store, allowance)?.map_err(|reason| ending_of_init(reason, masks))?;
    if let (Guest::Batch(guest), Some(info)) = (&guest, begin) {
        let begun = guard(guest.rowmill_jobs_batch().call_begin(&mut *store, info), &bound, cancel).await;
        started("begin", begun, store, allowance)?.map_err(|failure| ending_of_failure(failure, masks))?;
    }
    Ok(guest)
}

/// What a part of the start returned, or why there is no instance.
pub(super) fn started<T>(part: &str, end: Guarded<T>, store: &Store<GuestState>, allowance: Allowance) -> Result<T, Ending> {
    match within_fuel(store, end) {
        Guarded::Returned(Ok(value)) => Ok(value),
        stopped => match stopped_ending(stopped, store, allowance) {
            Ending::Cancelled => Err(Ending::Cancelled),
            ending => Err(Ending::CannotStart { reason: format!("{part}: {}", ending.explain()) }),
        },
    }
}

/// Gives the next call its fuel and its time.
///
/// One unit more than it may use: a guest looks at its fuel at loop heads and calls only, and returns from a last stretch that cost too much without having
/// looked. That the spare unit is gone tells.
pub(super) fn arm(store: &mut Store<GuestState>, allowance: Allowance) {
    store.set_fuel(allowance.fuel.saturating_add(1)).expect("the engine meters fuel");
    let state = store.data_mut();
    state.deadline = Instant::now() + allowance.timeout;
    state.http.begin_call();
}

fn fuel_left(store: &Store<GuestState>) -> u64 {
    store.get_fuel().expect("the engine meters fuel")
}

/// Fuel used since the store was armed. What was used over the limit is not told apart from the limit.
pub(super) fn used(store: &Store<GuestState>, allowance: Allowance) -> u64 {
    allowance.fuel.saturating_add(1).saturating_sub(fuel_left(store)).min(allowance.fuel)
}

/// A call that used more than its fuel ends the same way whether or not it returned before it looked.
pub(super) fn within_fuel<T>(store: &Store<GuestState>, end: Guarded<T>) -> Guarded<T> {
    match end {
        Guarded::Returned(Ok(_)) if fuel_left(store) == 0 => Guarded::Returned(Err(Trap::OutOfFuel.into())),
        end => end,
    }
}

/// Why a call did not return a value.
pub(super) fn stopped_ending<T>(stopped: Guarded<T>, store: &Store<GuestState>, allowance: Allowance) -> Ending {
    match stopped {
        Guarded::Returned(Ok(_)) => unreachable!("callers take values themselves"),
        Guarded::Returned(Err(error)) => {
            ending_of_error(&error, &store.data().log, &store.data().capabilities.masks, used(store, allowance), allowance.fuel)
        }
        Guarded::Deadline(frames) => Ending::Deadline { limit: allowance.timeout, frames },
        Guarded::Cancelled => Ending::Cancelled,
    }
}

/// When a call ends at the latest, and how it is told.
pub(super) struct Bound {
    pub(super) deadline: Instant,
    pub(super) stop: StopSign,
}

/// Polls a call until it returns, its deadline passes or it is cancelled. One that returns without waiting, as most do, needs no timers.
pub(super) async fn guard<T>(call: impl Future<Output = wasmtime::Result<T>>, bound: &Bound, cancel: &CancellationToken) -> Guarded<T> {
    // In its place: such a future is large, and each that takes it would move it.
    let call = pin!(call);
    let mut call = pin!(caught(call));
    let returned = match poll!(call.as_mut()) {
        Poll::Ready(returned) => returned,
        Poll::Pending => tokio::select! {
            biased;
            returned = call.as_mut() => returned,
            () = tokio::time::sleep_until(bound.deadline.into()) => {
                bound.stop.raise();
                // A guest that yielded or waits in `poll.rs` gets its thread once more, and its call ends at once with an error that knows its stack.
                let frames = match poll!(call.as_mut()) {
                    Poll::Ready(Ok(Err(error))) => frames_of(&error),
                    _ => Vec::new(),
                };
                return Guarded::Deadline(frames);
            }
            () = stopped(cancel) => return Guarded::Cancelled,
        },
    };
    Guarded::Returned(returned.unwrap_or_else(|_| Err(wasmtime::Error::new(HostPanic))))
}

async fn stopped(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
