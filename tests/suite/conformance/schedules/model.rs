//! What a store must say, kept in plain vectors: a schedule compares the store with it after each step.

use anyhow::{Context, Result, bail, ensure};
use rowmill::model::{
    BatchCounts, BatchId, BatchStatus, BatchStep, ClaimRequest, FinishLease, Lease, LeaseKey, LeasedRow, PastOutcome, PastRound, RecordedOutcome,
    RowResult, RowStatus, Timestamp, Verdict,
};

/// From so many crashes on, rows are leased one by one.
const SPLIT_CRASHES: u32 = 2;

#[derive(Debug, Default)]
pub struct Model {
    /// In the order in which they were submitted.
    pub batches: Vec<BatchModel>,
    pub leases: Vec<LeaseModel>,
}

#[derive(Clone, Debug)]
pub struct BatchModel {
    pub id: BatchId,
    pub status: BatchStatus,
    pub step: BatchStep,
    pub rows: Vec<RowModel>,
    pub round: u32,
    pub past_rounds: Vec<PastRound>,
    /// By row, then by round.
    pub past_outcomes: Vec<PastOutcome>,
    /// So many rows have been leased.
    pub cursor: usize,
    pub fuel: u64,
    pub abort_reason: Option<String>,
    pub mark_error: Option<String>,
    pub mark_calls: u32,
    /// When `mark-done` is to be called again.
    pub mark_due: Option<Timestamp>,
    pub submitted_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub finish: Option<FinishModel>,
    /// Tries at this step that were not given back.
    pub finish_attempts: u32,
}

#[derive(Clone, Debug)]
pub struct RowModel {
    pub line: u32,
    pub input: String,
    /// The try that runs or comes.
    pub attempt: u32,
    pub place: Place,
    pub outcome: Option<RowResult>,
}

/// Pieces of a row, each with the name of its file.
pub type NamedPieces = Vec<(String, String)>;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Fresh,
    /// In the lease at this place of `Model::leases`.
    Leased(usize),
    Retry {
        due_at: Timestamp,
    },
    /// It has an outcome, or its batch was aborted.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FinishModel {
    pub lease: FinishLease,
    pub expires_at: Timestamp,
}

/// A lease that a worker holds, or that waits for one, or that is gone.
#[derive(Clone, Debug)]
pub struct LeaseModel {
    /// None for what was split off from a lease when that was taken over.
    pub key: Option<LeaseKey>,
    pub batch: usize,
    /// Those that it held at first, for workers that come back too late.
    pub held: Vec<LeasedRow>,
    /// Those that are not recorded yet.
    pub left: Vec<u32>,
    pub crashes: u32,
    pub owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Owner {
    Worker {
        until: Timestamp,
    },
    /// It was given back.
    Nobody,
    /// It ended with its last row, was taken over, or its batch was aborted.
    Gone,
}

impl LeaseModel {
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.owner, Owner::Worker { until } if until > now)
    }

    fn can_be_taken(&self, now: Timestamp) -> bool {
        match self.owner {
            Owner::Worker { until } => until <= now,
            Owner::Nobody => true,
            Owner::Gone => false,
        }
    }
}

impl BatchModel {
    pub fn counts(&self) -> BatchCounts {
        let ended = |wanted| self.rows.iter().filter(|row| row.status() == Some(wanted)).count() as u64;
        let (rows, success, failed) = (self.rows.len() as u64, ended(RowStatus::Success), ended(RowStatus::Failed));
        let aborted = if self.status == BatchStatus::Aborted { rows - success - failed } else { 0 };
        BatchCounts { rows, success, failed, aborted }
    }

    /// What its results must be, in line order.
    pub fn results(&self) -> Vec<RecordedOutcome> {
        let aborted = (self.status == BatchStatus::Aborted).then_some(RowStatus::Aborted);
        let mut results: Vec<RecordedOutcome> = (1..)
            .zip(&self.rows)
            .map(|(row_no, row)| {
                let result = row.outcome.as_ref();
                let (output, messages) = match result.map(|result| &result.verdict) {
                    Some(Verdict::Final { output, messages, .. }) => (output.clone(), messages.clone()),
                    _ => (None, Vec::new()),
                };
                RecordedOutcome {
                    row_no,
                    line: row.line,
                    status: row.status().or(aborted),
                    output,
                    messages,
                    attempts: result.map_or(0, |result| result.attempt),
                    fuel: result.map_or(0, |result| result.fuel),
                    log: result.and_then(|result| result.log.clone()),
                    input: row.input.clone(),
                }
            })
            .collect();
        results.sort_by_key(|row| (row.line, row.row_no));
        results
    }

    /// Its pieces by row, in line order, with the names of their files.
    pub fn pieces(&self) -> Vec<(u32, NamedPieces)> {
        let mut rows: Vec<(u32, u32, NamedPieces)> = Vec::new();
        for (row_no, row) in (1..).zip(&self.rows) {
            if let Some(RowResult { verdict: Verdict::Final { pieces, .. }, .. }) = &row.outcome
                && !pieces.is_empty()
            {
                rows.push((row.line, row_no, pieces.iter().map(|piece| (piece.file.clone(), piece.text.clone())).collect()));
            }
        }
        rows.sort();
        rows.into_iter().map(|(_, row_no, pieces)| (row_no, pieces)).collect()
    }

    /// A slow query: without files it is final with its record.
    pub fn is_query(&self) -> bool {
        matches!(self.rows[..], [RowModel { line: 0, .. }])
    }

    /// Its rows are leased.
    fn begin(&mut self, now: Timestamp) {
        self.status = BatchStatus::Inprog;
        self.started_at = self.started_at.or(Some(now));
    }

    /// Whether a row is run again by a retry of the batch.
    fn is_retried(&self, row: &RowModel, code: Option<&str>) -> bool {
        match row.outcome.as_ref().map(|outcome| &outcome.verdict) {
            Some(Verdict::Final { status: RowStatus::Failed, messages, .. }) => {
                code.is_none_or(|code| messages.iter().any(|message| message.code == code))
            }
            Some(_) => false,
            None => true,
        }
    }

    /// How many rows a retry runs again; none when it is refused.
    pub fn rows_to_retry(&self, code: Option<&str>, aborted: bool) -> Option<u64> {
        let may = self.step == BatchStep::Done && !self.is_query() && (aborted || self.status != BatchStatus::Aborted);
        Some(self.rows.iter().filter(|row| self.is_retried(row, code)).count() as u64).filter(|rows| may && *rows > 0)
    }

    /// Begins a new round. Returns the rows whose outcomes are past now.
    pub fn retry(&mut self, code: Option<&str>, files: Vec<rowmill::model::OutputFile>, now: Timestamp) -> Vec<u32> {
        let round = PastRound {
            round: self.round,
            status: self.status,
            counts: self.counts(),
            abort_reason: self.abort_reason.take(),
            mark_error: self.mark_error.take(),
            mark_calls: std::mem::take(&mut self.mark_calls),
            started_at: self.started_at.take(),
            finished_at: self.finished_at.take().expect("it has ended"),
            files,
        };
        let mut past = Vec::new();
        for at in 0..self.rows.len() {
            if !self.is_retried(&self.rows[at], code) {
                continue;
            }
            let (row_no, leased) = (u32::try_from(at + 1).expect("rows are few"), at < self.cursor);
            let row = &mut self.rows[at];
            row.attempt = 1;
            row.place = if leased { Place::Retry { due_at: now } } else { Place::Fresh };
            if let Some(RowResult { attempt, fuel, log, verdict: Verdict::Final { output, messages, .. }, .. }) = row.outcome.take() {
                let round = self.round;
                self.past_outcomes.push(PastOutcome { round, row_no, line: row.line, output, messages, attempts: attempt, fuel, log });
                past.push(row_no);
            }
        }
        self.past_outcomes.sort_by_key(|outcome| (outcome.row_no, outcome.round));
        self.past_rounds.push(round);
        (self.round, self.status, self.step) = (self.round + 1, BatchStatus::Queued, BatchStep::Rows);
        (self.finish, self.finish_attempts) = (None, 0);
        past
    }

    fn has_fresh_rows(&self) -> bool {
        matches!(self.status, BatchStatus::Queued | BatchStatus::Inprog) && self.rows.iter().any(|row| row.place == Place::Fresh)
    }

    pub fn waits_to_be_finished(&self, now: Timestamp) -> bool {
        let free = self.finish.is_none_or(|finish| finish.expires_at <= now) && self.mark_due.is_none_or(|due| due <= now);
        matches!(self.step, BatchStep::Join | BatchStep::Mark) && free
    }

    /// This lease is the one under which the batch is finished now.
    pub fn is_finished_by(&self, lease: &FinishLease, now: Timestamp) -> bool {
        self.finish.is_some_and(|finish| finish.lease.token == lease.token && finish.expires_at > now)
    }
}

impl RowModel {
    fn status(&self) -> Option<RowStatus> {
        match self.outcome.as_ref()?.verdict {
            Verdict::Final { status, .. } => Some(status),
            Verdict::Retry { .. } => None,
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        matches!(self.place, Place::Retry { due_at } if due_at <= now)
    }
}

impl Model {
    pub fn find(&self, id: BatchId) -> Result<usize> {
        self.batches.iter().position(|batch| batch.id == id).with_context(|| format!("there is no batch {id}"))
    }

    fn lease_to_take(&self, now: Timestamp) -> Option<&LeaseModel> {
        self.leases.iter().find(|lease| lease.can_be_taken(now))
    }

    fn has_due_retries(&self, now: Timestamp) -> bool {
        self.batches.iter().flat_map(|batch| &batch.rows).any(|row| row.is_due(now))
    }

    /// A claim finds nothing now.
    pub fn nothing_to_claim(&self, now: Timestamp) -> Result<()> {
        if let Some(lease) = self.lease_to_take(now) {
            bail!("the claim gave fewer leases than asked for, but this one can be taken: {lease:?}");
        }
        ensure!(!self.has_due_retries(now), "the claim gave fewer leases than asked for, but retries are due");
        ensure!(!self.batches.iter().any(BatchModel::has_fresh_rows), "the claim gave fewer leases than asked for, but there are fresh rows");
        Ok(())
    }

    /// Checks a lease that the store gave, and its rows, and notes who has them now.
    pub fn claim(&mut self, lease: &Lease, rows: &[LeasedRow], request: &ClaimRequest, now: Timestamp) -> Result<()> {
        let at = self.find(lease.batch)?;
        ensure!(self.batches[at].step == BatchStep::Rows && self.batches[at].status != BatchStatus::Wait, "the batch has no rows to run");
        ensure!(lease.rows as usize == rows.len() && !rows.is_empty(), "it says {} rows and has {}", lease.rows, rows.len());
        ensure!(lease.rows <= request.rows_max, "{} rows are more than asked for", lease.rows);
        let numbers: Vec<u32> = rows.iter().map(|row| row.row_no).collect();
        ensure!(numbers.is_sorted_by(|a, b| a < b), "rows out of order: {numbers:?}");
        for number in &numbers {
            ensure!((1..=self.batches[at].rows.len()).contains(&(*number as usize)), "there is no row {number}");
        }
        let place = |model: &Model, number: u32| model.batches[at].rows[number as usize - 1].place;

        let crashes = match place(self, numbers[0]) {
            Place::Leased(old) => self.take_over(old, at, &numbers, request, now)?,
            Place::Retry { .. } => {
                ensure!(self.lease_to_take(now).is_none(), "retries were leased while a lease could be taken");
                let all_due = numbers.iter().all(|number| self.batches[at].rows[*number as usize - 1].is_due(now));
                ensure!(all_due, "not all rows of {numbers:?} are retries that are due");
                self.batches[at].begin(now);
                0
            }
            Place::Fresh => {
                ensure!(self.lease_to_take(now).is_none(), "fresh rows were leased while a lease could be taken");
                ensure!(!self.has_due_retries(now), "fresh rows were leased while retries were due");
                ensure!(self.batches.iter().position(BatchModel::has_fresh_rows) == Some(at), "an older batch has fresh rows");
                let fresh = (1..).zip(&self.batches[at].rows).filter(|(_, row)| row.place == Place::Fresh).map(|(number, _)| number);
                let next: Vec<u32> = fresh.take(numbers.len()).collect();
                ensure!(next == numbers, "the next fresh rows are {next:?}, not {numbers:?}");
                self.batches[at].cursor += numbers.len();
                self.batches[at].begin(now);
                0
            }
            Place::Ended => bail!("row {} was leased though it ended", numbers[0]),
        };
        ensure!(lease.crashes == crashes, "{} crashes are said, there were {crashes}", lease.crashes);
        let new = self.leases.len();
        for leased in rows {
            let row = &mut self.batches[at].rows[leased.row_no as usize - 1];
            row.place = Place::Leased(new);
            let wanted = LeasedRow { row_no: leased.row_no, line: row.line, input: row.input.clone(), attempt: row.attempt, rejected: None };
            ensure!(*leased == wanted, "leased {leased:?} instead of {wanted:?}");
        }
        let owner = Owner::Worker { until: now.after(request.ttl) };
        self.leases.push(LeaseModel { key: Some(lease.key), batch: at, held: rows.to_vec(), left: numbers, crashes, owner });
        Ok(())
    }

    /// Ends an old lease whose first rows these are; the others wait for the next claim. Returns its crashes.
    fn take_over(&mut self, old: usize, batch: usize, rows: &[u32], request: &ClaimRequest, now: Timestamp) -> Result<u32> {
        let lease = &mut self.leases[old];
        ensure!(lease.can_be_taken(now), "row {} was leased while another lease holds it", rows[0]);
        let crashed = matches!(lease.owner, Owner::Worker { .. });
        let crashes = lease.crashes + u32::from(crashed);
        let most = if crashes >= SPLIT_CRASHES { 1 } else { request.rows_max as usize };
        let wanted = &lease.left[..most.min(lease.left.len())];
        ensure!(wanted == rows, "{rows:?} were taken over, instead of {wanted:?}");
        let all = std::mem::take(&mut lease.left);
        lease.owner = Owner::Gone;
        for number in &all {
            self.batches[batch].rows[*number as usize - 1].attempt += u32::from(crashed);
        }
        let rest = all[rows.len()..].to_vec();
        if !rest.is_empty() {
            for number in &rest {
                self.batches[batch].rows[*number as usize - 1].place = Place::Leased(self.leases.len());
            }
            self.leases.push(LeaseModel { key: None, batch, held: Vec::new(), left: rest, crashes, owner: Owner::Nobody });
        }
        Ok(crashes)
    }

    /// Notes results that the store took. Returns whether the batch has all its outcomes now.
    pub fn record(&mut self, lease: usize, results: &[RowResult], now: Timestamp) -> bool {
        let LeaseModel { batch, left, owner, .. } = &mut self.leases[lease];
        left.drain(..results.len());
        if left.is_empty() {
            *owner = Owner::Gone;
        }
        let batch = &mut self.batches[*batch];
        for result in results {
            let row = &mut batch.rows[result.row_no as usize - 1];
            batch.fuel += result.fuel;
            match result.verdict {
                Verdict::Final { .. } => (row.place, row.outcome) = (Place::Ended, Some(result.clone())),
                Verdict::Retry { after } => (row.place, row.attempt) = (Place::Retry { due_at: now.after(after) }, result.attempt + 1),
            }
        }
        let last = batch.rows.iter().all(|row| row.place == Place::Ended);
        if last && batch.is_query() && batch.pieces().is_empty() {
            batch.step = BatchStep::Mark;
            batch.status = if batch.counts().failed > 0 { BatchStatus::Failed } else { BatchStatus::Success };
            batch.finished_at = Some(now);
        } else if last {
            batch.step = BatchStep::Join;
        }
        last
    }

    /// Returns whether it was aborted by this.
    pub fn abort(&mut self, at: usize, reason: Option<&str>) -> bool {
        let batch = &mut self.batches[at];
        if batch.step != BatchStep::Rows {
            return false;
        }
        (batch.status, batch.step, batch.abort_reason) = (BatchStatus::Aborted, BatchStep::Join, reason.map(str::to_owned));
        batch.rows.iter_mut().for_each(|row| row.place = Place::Ended);
        self.leases.iter_mut().filter(|lease| lease.batch == at).for_each(|lease| lease.owner = Owner::Gone);
        true
    }

    /// When something can be claimed again that cannot be claimed now, fresh rows aside.
    pub fn next_due(&self) -> Option<Timestamp> {
        let at_once = Timestamp(0);
        let leases = self.leases.iter().filter_map(|lease| match lease.owner {
            Owner::Worker { until } => Some(until),
            Owner::Nobody => Some(at_once),
            Owner::Gone => None,
        });
        let retries = self.batches.iter().flat_map(|batch| &batch.rows).filter_map(|row| match row.place {
            Place::Retry { due_at } => Some(due_at),
            _ => None,
        });
        let to_finish = self.batches.iter().filter(|batch| matches!(batch.step, BatchStep::Join | BatchStep::Mark));
        let finished_at = |batch: &BatchModel| batch.finish.map_or(batch.mark_due.unwrap_or(at_once), |finish| finish.expires_at);
        leases.chain(retries).chain(to_finish.map(finished_at)).min()
    }
}
