//! Who submits: every process that works looks which ticks are due, and asks the store to take them up.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::plan::{MISSED_MAX, Plan, batch_id, plan};
use super::{CronLine, ScheduleError};
use crate::model::{FoundOp, Schedule, TickAction, TickEnd, Timestamp};
use crate::store::{Store, StoreError, VersionError, find_served};

/// Schedules that are looked at at once.
const PAGE: u32 = 100;
/// Others may add schedules, or change them: the store is asked at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A tick comes at a whole millisecond, and this much later it has come.
const LOOK_LEAST: Duration = Duration::from_millis(1);

/// Submits the batches of schedules. Any number of processes may have one.
pub struct Ticker {
    store: Arc<dyn Store>,
    /// Whether it waits until the store comes back when it fails. Else it ends.
    outlasts_failures: bool,
}

impl Ticker {
    pub fn new(store: Arc<dyn Store>, outlasts_failures: bool) -> Ticker {
        Ticker { store, outlasts_failures }
    }

    /// Submits what is due, until it is stopped.
    ///
    /// # Errors
    /// When the store failed, unless it outlasts failures.
    pub async fn run(&self, stopped: &CancellationToken) -> Result<(), StoreError> {
        loop {
            // A look that is left in the middle has done all or nothing of each tick.
            let looked = tokio::select! {
                () = stopped.cancelled() => return Ok(()),
                looked = self.look() => looked,
            };
            let pause = match looked {
                Ok(next) => next.unwrap_or(LOOK_EVERY).clamp(LOOK_LEAST, LOOK_EVERY),
                Err(error) if self.outlasts_failures => {
                    tracing::warn!("schedules wait: {:#}", anyhow::Error::from(error));
                    LOOK_EVERY
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = stopped.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Submits what is due now, until nothing is.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn run_due(&self) -> Result<(), StoreError> {
        while self.look().await? == Some(Duration::ZERO) {}
        Ok(())
    }

    /// Takes up the ticks that are due, one of each schedule. Returns how long it is to the next: nothing when there may be more that are due.
    async fn look(&self) -> Result<Option<Duration>, StoreError> {
        let Some(coming) = self.store.coming_ticks(PAGE).await? else { return Ok(None) };
        let now = coming.now;
        let (mut due, later): (Vec<Schedule>, Vec<Schedule>) = coming.schedules.into_iter().partition(|schedule| schedule.next_at <= now);
        if due.is_empty() {
            return Ok(later.first().map(|schedule| schedule.next_at.since(now)));
        }
        // Not all processes begin with the same one, so that they share what is due at the same moment.
        let begin = Uuid::now_v7().as_u64_pair().1 % due.len() as u64;
        due.rotate_left(usize::try_from(begin).unwrap_or(0));
        for schedule in due {
            self.take_up(&schedule, now).await?;
        }
        Ok(Some(Duration::ZERO))
    }

    async fn take_up(&self, schedule: &Schedule, now: Timestamp) -> Result<(), StoreError> {
        let (action, dropped) = match self.decide(schedule, now).await? {
            Ok(decided) => decided,
            Err(error) => (TickAction::Stop { error: format!("no tick can be found any more, so it was paused: {error}") }, 0),
        };
        let tick = schedule.next_tick();
        let end = match self.store.run_tick(&tick, &action).await {
            // Another version serves by now: the tick is taken up again with that one.
            Err(StoreError::Version(VersionError::Removed { .. })) => return Ok(()),
            // What the store does not take it never will: the tick must not stand in the way of those that follow.
            Err(error @ (StoreError::Invalid(_) | StoreError::Exists(_) | StoreError::OverQuota(_))) => {
                let failed = match action {
                    TickAction::Submit { at, next_at, .. } => TickAction::Fail { at, error: error.to_string(), next_at },
                    _ => TickAction::Stop { error: error.to_string() },
                };
                self.store.run_tick(&tick, &failed).await?;
                return Ok(());
            }
            end => end?,
        };
        say(schedule, &action, end, dropped);
        Ok(())
    }

    /// What becomes of the tick, and how many before it are left out.
    async fn decide(&self, schedule: &Schedule, now: Timestamp) -> Result<Result<(TickAction, usize), ScheduleError>, StoreError> {
        let line = match CronLine::parse(&schedule.cron, &schedule.zone, now) {
            Ok(line) => line,
            Err(error) => return Ok(Err(error)),
        };
        let Some(Plan { at, next_at, dropped }) = plan(&line, schedule.missed, schedule.next_at, now) else {
            return Ok(Err(ScheduleError::Never { line: schedule.cron.clone() }));
        };
        let Some(at) = at else { return Ok(Ok((TickAction::Drop { next_at }, dropped))) };
        let Schedule { app, op, kind, .. } = schedule;
        let action = match find_served(&*self.store, app, op, *kind).await? {
            Ok(FoundOp { version, terms: policy, .. }) => {
                let (processor_version, processor_digest) = (version.version, version.digest);
                let terms = schedule.terms.clone().or(policy).complete(None, None);
                TickAction::Submit { at, batch: batch_id(schedule.id, at), processor_version, processor_digest, terms, next_at }
            }
            Err(not_served) => TickAction::Fail { at, error: not_served.to_string(), next_at },
        };
        Ok(Ok((action, dropped)))
    }
}

/// What was done is told by the one who did it.
fn say(schedule: &Schedule, action: &TickAction, end: TickEnd, dropped: usize) {
    let Schedule { app, name, .. } = schedule;
    match (end, action) {
        (TickEnd::Gone, _) => return,
        (TickEnd::EarlierRuns, _) => tracing::info!(app, schedule = name, "nothing was submitted: the batch of an earlier tick has not ended"),
        (_, TickAction::Submit { at, batch, .. }) => tracing::info!(app, schedule = name, %batch, tick = at.0, "submitted"),
        (_, TickAction::Fail { error, .. } | TickAction::Stop { error }) => tracing::warn!(app, schedule = name, "nothing was submitted: {error}"),
        (_, TickAction::Drop { next_at }) => tracing::info!(app, schedule = name, next_tick = next_at.0, "missed ticks do not count"),
    }
    if dropped > 0 {
        tracing::warn!(app, schedule = name, dropped, "too many ticks were missed: only the last {MISSED_MAX} are submitted");
    }
}
