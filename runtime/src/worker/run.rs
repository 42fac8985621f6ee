//! Runs the rows of a lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assignment::Assignment;
use super::budget::Room;
use super::heartbeat::HeldLease;
use super::patience::Pauses;
use super::record::{WEIGHT_MAX_BYTES, result_of, weight};
use super::{Worker, WorkerError};
use crate::model::{Batch, Ending, Isolation, Lease, LeasedRow, ProcessorKind, RowResult, RowRun};
use crate::registry::FindError;
use crate::sandbox::{Processor, Session, SessionSpec};

/// A guest that never waits would keep its thread: between two rows others get their turn after this time.
const TURN: Duration = Duration::from_millis(1);
/// What has run for this long is recorded, though the lease goes on: rows may turn out slower than the lease was made for.
const RECORD_AFTER: Duration = Duration::from_millis(500);
/// A slot waits so long for code that the object store does not give; then another lease may have it.
const CODE_PATIENCE: Duration = Duration::from_secs(10);
/// From so many crashes of workers on, a row that was leased alone is not run again.
const QUARANTINE_CRASHES: u32 = 4;

/// Results that are not recorded yet, and how the run of a lease ended.
#[derive(Default)]
pub(super) struct Ran {
    pub results: Vec<RowResult>,
    pub took: Duration,
    pub weight: usize,
    /// The guest asked for the batch to be aborted, with this reason.
    pub abort: Option<String>,
    /// Rows remain that were not run.
    pub stopped: bool,
}

/// How the rows of a lease are run: by a guest, or all the same way without one.
enum Runner {
    Guest(Box<Session>),
    Fixed(Ending),
}

/// Where the guest of a lease runs.
pub(super) struct Place {
    /// Its memory, as long as it lives.
    room: Room,
    isolation: Isolation,
    /// One that ran rows of the batch before.
    session: Option<Box<Session>>,
}

impl Runner {
    async fn run_row(&mut self, row: &LeasedRow) -> RowRun {
        match (self, &row.rejected) {
            (_, Some(reason)) => RowRun { ending: Ending::Rejected { reason: reason.clone() }, fuel: 0, log: None },
            (Runner::Guest(session), None) => session.run_row(row).await,
            (Runner::Fixed(ending), None) => RowRun { ending: ending.clone(), fuel: 0, log: None },
        }
    }
}

impl Worker {
    /// Runs a lease's rows in order, of which these are the first, until they end, the worker drains, or the lease is cancelled. Records on the way what cannot
    /// wait.
    pub(super) async fn run_lease(
        &self,
        lease: &Lease,
        assignment: &Assignment,
        held: &HeldLease,
        mut rows: Vec<LeasedRow>,
        place: Place,
    ) -> Result<Ran, WorkerError> {
        let Place { room, isolation, session } = place;
        let mut runner = self.runner(lease, assignment, held, isolation, session).await?;
        let mut ran = Ran::default();
        let mut left = lease.rows;
        while !rows.is_empty() {
            left = left.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            self.run_rows(lease, &assignment.batch, held, &mut runner, rows, &mut ran).await?;
            if left == 0 || ran.stopped || ran.abort.is_some() {
                break;
            }
            // The rows of a lease come in parts when they are large, and a part is read when the one before was recorded.
            self.record_rest(lease, held, &mut ran).await?;
            rows = self.insist(&held.cancel, "cannot read rows", || self.store.read_leased_rows(lease.key)).await?;
        }
        if let Runner::Guest(session) = runner {
            let kept =
                isolation == Isolation::Warm && session.is_live() && !held.cancel.is_cancelled() && !self.drain.is_cancelled() && ran.abort.is_none();
            if kept {
                self.warm.park(lease.batch, session, room);
            } else {
                session.close().await;
            }
        }
        Ok(ran)
    }

    /// Where a guest for rows of this batch runs: in an instance that is there, or in a new one if there is memory for it.
    pub(super) async fn place(&self, assignment: &Assignment) -> Result<Option<Place>, WorkerError> {
        let (batch, needs_bytes) = (&assignment.batch, assignment.limits.memory_bytes);
        // A slow query is one input: there is nothing to keep apart.
        let isolation = match batch.kind {
            ProcessorKind::Batch => self.isolation(&batch.app, &batch.op).await?,
            ProcessorKind::SlowQuery => Isolation::Lease,
        };
        if isolation == Isolation::Warm {
            while let Some((session, room)) = self.warm.take(batch.id) {
                if assignment.is_current(session.capabilities()) {
                    return Ok(Some(Place { room, isolation, session: Some(session) }));
                }
                // It has what its app was granted before.
                session.close().await;
                drop(room);
            }
        }
        Ok(self.budget.admit(&batch.app, needs_bytes).map(|room| Place { room, isolation, session: None }))
    }

    async fn run_rows(
        &self,
        lease: &Lease,
        batch: &Batch,
        held: &HeldLease,
        runner: &mut Runner,
        rows: Vec<LeasedRow>,
        ran: &mut Ran,
    ) -> Result<(), WorkerError> {
        let mut before = Instant::now();
        let mut turn = before;
        for row in rows {
            if self.drain.is_cancelled() || held.cancel.is_cancelled() || held.yields.is_cancelled() {
                ran.stopped = true;
                return Ok(());
            }
            let run = runner.run_row(&row).await;
            let now = Instant::now();
            ran.took += now - before;
            match run.ending {
                Ending::Cancelled => {
                    ran.stopped = true;
                    return Ok(());
                }
                Ending::AbortBatch { reason } => {
                    ran.abort = Some(reason);
                    return Ok(());
                }
                ending => {
                    let result = result_of(&row, RowRun { ending, ..run }, &batch.terms);
                    ran.weight += weight(&result);
                    ran.results.push(result);
                }
            }
            if ran.weight > WEIGHT_MAX_BYTES || ran.took > RECORD_AFTER {
                self.record_rest(lease, held, ran).await?;
            }
            if now - turn > TURN {
                tokio::task::yield_now().await;
                turn = Instant::now();
            }
            before = turn.max(now);
        }
        Ok(())
    }

    async fn runner(
        &self,
        lease: &Lease,
        assignment: &Assignment,
        held: &HeldLease,
        isolation: Isolation,
        warm: Option<Box<Session>>,
    ) -> Result<Runner, WorkerError> {
        if lease.crashes >= QUARANTINE_CRASHES {
            return Ok(Runner::Fixed(Ending::Quarantined { crashes: lease.crashes }));
        }
        let batch = &assignment.batch;
        let (status, id) = (Arc::clone(&self.status), batch.id);
        let progress: crate::sandbox::ProgressSink = Arc::new(move |percent, text| status.publish_said(id, percent, text));
        if let Some(mut session) = warm {
            session.rebind(held.cancel.clone(), Some(progress));
            return Ok(Runner::Guest(session));
        }
        match self.find_processor(batch, held).await? {
            Ok(processor) => {
                let capabilities = match assignment.capabilities(&self.granter, &processor).await {
                    Ok(capabilities) => capabilities,
                    Err(reason) => return Ok(Runner::Fixed(Ending::CannotStart { reason })),
                };
                let limits = assignment.limits.clone();
                let spec = SessionSpec { batch: Batch::clone(batch), limits, cancel: held.cancel.clone(), progress: Some(progress), capabilities };
                let session = Session::new(processor, spec);
                Ok(Runner::Guest(Box::new(if isolation == Isolation::Row { session.with_instance_per_row() } else { session })))
            }
            Err(reason) => Ok(Runner::Fixed(Ending::CannotStart { reason })),
        }
    }

    /// The batch's code, or a sentence for its rows. When the object store or the compiler fails it is asked again for a while: until then the lease is kept, not its rows failed.
    async fn find_processor(&self, batch: &Batch, held: &HeldLease) -> Result<Result<Processor, String>, WorkerError> {
        let mut pauses = Pauses::default();
        let given_up_at = Instant::now() + CODE_PATIENCE;
        loop {
            match self.registry.find(batch).await {
                Ok(processor) => return Ok(Ok(processor)),
                Err(error) => {
                    let error = match error {
                        FindError::Blobs(error) => WorkerError::from(error),
                        FindError::Compiler(error) => WorkerError::Compiler(error),
                        FindError::Unusable(reason) => return Ok(Err(reason)),
                    };
                    let waits = self.settings.outlasts_failures && !held.cancel.is_cancelled() && !self.drain.is_cancelled();
                    if !waits || Instant::now() > given_up_at {
                        return Err(error);
                    }
                    self.report("cannot read a processor", error);
                    tokio::select! {
                        () = held.cancel.cancelled() => {}
                        () = self.drain.cancelled() => {}
                        () = tokio::time::sleep(pauses.next()) => {}
                    }
                }
            }
        }
    }
}
