//! What workers do with batches that are over in a schedule.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rowmill::model::{BatchStatus, BatchStep, FinishLease, MarkEnd, OutputFile};
use rowmill::store::StoreError;

use super::Schedule;
use super::model::{BatchModel, FinishModel};

impl Schedule {
    pub(super) async fn claim_finish(&mut self) -> Result<()> {
        let (now, ttl) = (self.now(), Duration::from_secs(u64::from(self.random.below(20)) + 1));
        let claimed = self.store.claim_finish("finisher", None, ttl).await?;
        self.tell(("claim finish", claimed));
        let Some(lease) = claimed else {
            let waits = self.model.batches.iter().find(|batch| batch.waits_to_be_finished(now));
            ensure!(waits.is_none(), "nothing is to be finished, it says, but {waits:?}");
            return Ok(());
        };
        let at = self.model.find(lease.batch)?;
        let batch = &mut self.model.batches[at];
        ensure!(batch.waits_to_be_finished(now), "it is not to be finished: {batch:?}");
        batch.finish_attempts += 1;
        batch.mark_due = None;
        ensure!((lease.step, lease.attempt) == (batch.step, batch.finish_attempts), "{lease:?} for {batch:?}");
        batch.finish = Some(FinishModel { lease, expires_at: now.after(ttl) });
        self.finishes.push(lease);
        self.compare(at).await
    }

    pub(super) async fn finish(&mut self) -> Result<()> {
        let Some(lease) = self.random.pick(&self.finishes).copied() else { return Ok(()) };
        let way = self.random.below(8);
        self.finish_under(&lease, way).await
    }

    pub(super) async fn finish_under(&mut self, lease: &FinishLease, way: u32) -> Result<()> {
        let now = self.now();
        let at = self.model.find(lease.batch)?;
        let batch = &mut self.model.batches[at];
        let held = batch.is_finished_by(lease, now);
        self.story.push(format!("{} finish {way} {lease:?} held: {held}", now.0));
        match way {
            0 => {
                self.store.give_back_finish(lease, Duration::ZERO).await?;
                if held {
                    (batch.finish, batch.finish_attempts) = (None, batch.finish_attempts - 1);
                }
            }
            1 => {
                let ttl = Duration::from_secs(u64::from(self.random.below(20)) + 1);
                held_or_lost(self.store.renew_finish(lease, ttl).await, held)?;
                if let Some(finish) = batch.finish.as_mut().filter(|_| held) {
                    finish.expires_at = now.after(ttl);
                }
            }
            2..5 => {
                let files = output_files(batch);
                let right = held && batch.step == BatchStep::Join;
                held_or_lost(self.store.record_files(lease, &files).await, right)?;
                if right {
                    let failed = batch.counts().failed > 0;
                    batch.status = match batch.status {
                        BatchStatus::Aborted => BatchStatus::Aborted,
                        _ if failed => BatchStatus::Failed,
                        _ => BatchStatus::Success,
                    };
                    (batch.step, batch.finished_at, batch.finish, batch.finish_attempts) = (BatchStep::Mark, Some(now), None, 0);
                    self.ends.entry(lease.batch).or_default()[1] += 1;
                }
            }
            _ => {
                let error = self.random.chance(50).then(|| "it failed".to_owned());
                let again = error.is_some() && self.random.chance(60);
                let end = MarkEnd {
                    called: again || self.random.chance(80),
                    log: self.random.chance(30).then(|| "it said".to_owned()),
                    again_after: again.then(|| Duration::from_secs(u64::from(self.random.below(20)))),
                    error,
                };
                let right = held && batch.step == BatchStep::Mark;
                held_or_lost(self.store.record_mark(lease, &end).await, right)?;
                if right {
                    batch.mark_calls += batch.finish_attempts - u32::from(!end.called);
                    (batch.mark_error, batch.finish) = (end.error, None);
                    if let Some(after) = end.again_after {
                        (batch.mark_due, batch.finish_attempts) = (Some(now.after(after)), 0);
                    } else {
                        batch.step = BatchStep::Done;
                        self.ends.entry(lease.batch).or_default()[2] += 1;
                    }
                }
            }
        }
        self.compare(at).await
    }
}

/// One object for each file that a row wrote to.
pub(super) fn output_files(batch: &BatchModel) -> Vec<OutputFile> {
    let mut names: Vec<String> = batch.pieces().into_iter().flat_map(|(_, pieces)| pieces).map(|(file, _)| file).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| OutputFile { object: format!("object of {name}"), name, size_bytes: 9 }).collect()
}

fn held_or_lost(result: std::result::Result<(), StoreError>, held: bool) -> Result<()> {
    match result {
        Ok(()) if held => Ok(()),
        Err(StoreError::LeaseLost) if !held => Ok(()),
        other => bail!("{other:?} though the lease is held: {held}"),
    }
}
