//! What workers do with rows in a schedule.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rowmill::model::{ClaimRequest, LeaseKey, LeasedRow, Message, Piece, RowResult, RowStatus, Verdict};
use rowmill::store::StoreError;

use super::Schedule;
use super::model::{LeaseModel, Owner};

impl Schedule {
    pub(super) async fn claim(&mut self) -> Result<()> {
        let (leases_max, rows_max) = (self.random.below(5), 1 + self.random.below(8));
        self.claim_up_to(leases_max, rows_max).await.map(drop)
    }

    /// Returns how many leases there were.
    pub(super) async fn claim_up_to(&mut self, leases_max: u32, rows_max: u32) -> Result<usize> {
        let request = ClaimRequest {
            kind: None,
            apps_except: Vec::new(),
            worker: format!("worker {}", self.random.below(3)),
            leases_max,
            rows_max,
            target: Duration::from_millis(250),
            slots: 1 + self.random.below(3),
            ttl: Duration::from_secs(1 + u64::from(self.random.below(20))),
        };
        let now = self.now();
        let leases = self.store.claim_leases(&request).await?;
        self.tell(("claim", leases_max, rows_max, &leases));
        ensure!(leases.len() <= leases_max as usize, "{} leases instead of {leases_max}", leases.len());
        for lease in &leases {
            let rows = self.store.read_leased_rows(lease.key).await.context("read a fresh lease")?;
            self.model.claim(lease, &rows, &request, now).with_context(|| format!("{lease:?} with the rows {rows:?}"))?;
        }
        if leases.len() < leases_max as usize {
            self.model.nothing_to_claim(now)?;
        }
        Ok(leases.len())
    }

    /// One that a worker had at some time, rather one that it still has.
    fn some_lease(&mut self) -> Option<(usize, LeaseKey)> {
        let now = self.now();
        let live = self.random.chance(75);
        let had = self.model.leases.iter().enumerate();
        let had: Vec<_> = had.filter(|(_, lease)| !live || lease.is_live(now)).filter_map(|(at, lease)| Some((at, lease.key?))).collect();
        self.random.pick(&had).copied()
    }

    pub(super) async fn record(&mut self) -> Result<()> {
        let Some((at, key)) = self.some_lease() else { return Ok(()) };
        let LeaseModel { held, left, .. } = &self.model.leases[at];
        let next = held.iter().filter(|row| left.contains(&row.row_no));
        // A worker that lost its lease does not know, and tries to record what it held.
        let mut rows: Vec<LeasedRow> = if left.is_empty() { held.clone() } else { next.cloned().collect() };
        rows.truncate(self.random.index(rows.len() + 1));
        let mut results: Vec<RowResult> = rows.iter().map(|row| self.result(row)).collect();
        if self.random.chance(12) && !results.is_empty() {
            self.spoil(&mut results);
        }
        self.record_under(at, key, &results).await
    }

    pub(super) async fn record_under(&mut self, at: usize, key: LeaseKey, results: &[RowResult]) -> Result<()> {
        let (now, lease) = (self.now(), &self.model.leases[at]);
        let (batch, live) = (lease.batch, lease.is_live(now));
        let numbers: Vec<u32> = results.iter().map(|result| result.row_no).collect();
        let well_formed = lease.left.starts_with(&numbers);
        let took = Duration::from_micros(u64::from(self.random.below(50_000)));
        let recorded = self.store.record_results(key, results, took).await;
        self.tell(("record", key, &numbers, &recorded));
        match recorded {
            Err(StoreError::LeaseLost) => ensure!(!live, "a live lease was refused"),
            Err(StoreError::Invalid(text)) => ensure!(live && !well_formed, "results were refused: {text}"),
            Err(error) => bail!(error),
            Ok(recorded) => {
                ensure!(live, "results were recorded under a lease that was lost");
                ensure!(well_formed, "results were recorded that are not the next rows");
                let last = self.model.record(at, results, now);
                let batch = &self.model.batches[batch];
                ensure!(recorded.counts == batch.counts(), "{recorded:?} instead of {:?}", batch.counts());
                ensure!(recorded.last == last, "the record says that it was the last: {}, and was: {last}", recorded.last);
                self.ends.entry(batch.id).or_default()[0] += u32::from(recorded.last);
                for result in results.iter().filter(|result| matches!(result.verdict, Verdict::Final { .. })) {
                    *self.taken.entry((batch.id, result.row_no)).or_default() += 1;
                }
            }
        }
        self.compare(batch).await
    }

    pub(super) fn result(&mut self, row: &LeasedRow) -> RowResult {
        self.serial += 1;
        let serial = self.serial;
        let of = |status, output, messages, pieces| Verdict::Final { status, output, messages, pieces };
        let verdict = match self.random.below(10) {
            0..6 => {
                let pieces = if self.random.chance(40) { vec![piece(self.random.below(4), serial)] } else { Vec::new() };
                of(RowStatus::Success, Some(serial.to_string()), Vec::new(), pieces)
            }
            6 | 7 => of(RowStatus::Failed, None, vec![Message { id: 1, code: serial.to_string(), field: None, values: Vec::new() }], Vec::new()),
            _ => Verdict::Retry { after: Duration::from_millis(u64::from(self.random.below(15_000))) },
        };
        RowResult {
            row_no: row.row_no,
            attempt: row.attempt,
            fuel: u64::from(self.random.below(1_000)),
            input_bytes: 0,
            log: Some(format!("log {serial}")),
            verdict,
        }
    }

    fn spoil(&mut self, results: &mut Vec<RowResult>) {
        let at = self.random.index(results.len());
        match self.random.below(4) {
            0 => results[at].row_no = results[at].row_no.saturating_sub(1),
            1 => results.push(results[at].clone()),
            2 => results.swap(0, at),
            _ => results[at].row_no += 1 + self.random.below(3),
        }
    }

    pub(super) async fn read(&mut self) -> Result<()> {
        let Some((at, key)) = self.some_lease() else { return Ok(()) };
        self.tell(("read", key));
        let (lease, live) = (&self.model.leases[at], self.model.leases[at].is_live(self.now()));
        match self.store.read_leased_rows(key).await {
            Err(StoreError::LeaseLost) if !live => Ok(()),
            Ok(rows) if live => {
                let left: Vec<&LeasedRow> = lease.held.iter().filter(|row| lease.left.contains(&row.row_no)).collect();
                ensure!(rows.iter().eq(left.iter().copied()), "read {rows:?} instead of {left:?}");
                Ok(())
            }
            read => bail!("{read:?} of a lease that lives: {live}"),
        }
    }

    pub(super) async fn give_back(&mut self) -> Result<()> {
        let Some((at, key)) = self.some_lease() else { return Ok(()) };
        self.tell(("give back", key));
        self.store.give_back_lease(key).await?;
        if self.model.leases[at].is_live(self.now()) {
            self.model.leases[at].owner = Owner::Nobody;
        }
        self.compare(self.model.leases[at].batch).await
    }

    pub(super) async fn renew(&mut self) -> Result<()> {
        let (now, ttl) = (self.now(), Duration::from_secs(u64::from(self.random.below(20)) + 1));
        let (mut keys, mut lost) = (Vec::new(), Vec::new());
        for lease in &mut self.model.leases {
            let (Some(key), true) = (lease.key, self.random.chance(50)) else { continue };
            keys.push(key);
            if lease.is_live(now) {
                lease.owner = Owner::Worker { until: now.after(ttl) };
            } else {
                lost.push(key);
            }
        }
        self.tell(("renew", &keys, ttl));
        let mut told = self.store.renew_leases(&keys, ttl).await?;
        for keys in [&mut told, &mut lost] {
            keys.sort_by_key(|key| (key.id, key.token));
        }
        ensure!(told == lost, "{told:?} were said to be lost, {lost:?} were");
        Ok(())
    }
}

fn piece(file: u32, serial: u64) -> Piece {
    Piece { file: format!("file {file}"), text: serial.to_string() }
}
