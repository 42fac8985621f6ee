//! Operations on schedules.

use super::batches::{check_context, check_inputs};
use super::{BatchRequest, JobError, JobManager, QueryRequest};
use crate::model::{Missed, NewRow, NewSchedule, Overlap, ProcessorKind, Schedule, ScheduleKey, Timestamp, canonical_name};
use crate::schedule::{CronLine, ScheduleError};

/// Something to submit again and again.
#[derive(Clone, Debug)]
pub struct ScheduleRequest {
    /// One of its app's.
    pub name: String,
    /// Five fields (minute, hour, day of month, month, day of week), or six with the second before them; or a name such as `@daily`.
    pub cron: String,
    /// The IANA time zone in which the line is read.
    pub zone: String,
    pub submits: Scheduled,
    pub missed: Missed,
    pub overlap: Overlap,
}

/// What a schedule submits: neither held nor with a key, a start or a deadline.
#[derive(Clone, Debug)]
pub enum Scheduled {
    Batch(BatchRequest),
    Query(QueryRequest),
}

impl ScheduleRequest {
    /// A batch at each tick, in UTC, with the defaults: missed ticks do not count, and batches may overlap.
    pub fn batch(name: impl Into<String>, cron: impl Into<String>, request: BatchRequest) -> ScheduleRequest {
        ScheduleRequest::new(name.into(), cron.into(), Scheduled::Batch(request))
    }

    /// The same with a slow query.
    pub fn query(name: impl Into<String>, cron: impl Into<String>, request: QueryRequest) -> ScheduleRequest {
        ScheduleRequest::new(name.into(), cron.into(), Scheduled::Query(request))
    }

    fn new(name: String, cron: String, submits: Scheduled) -> ScheduleRequest {
        ScheduleRequest { name, cron, zone: "UTC".to_owned(), submits, missed: Missed::default(), overlap: Overlap::default() }
    }

    #[must_use]
    pub fn in_zone(self, zone: impl Into<String>) -> ScheduleRequest {
        ScheduleRequest { zone: zone.into(), ..self }
    }
}

impl JobManager {
    /// Registers a schedule, or changes the one of this name: its whole request is replaced, what its ticks did stays, and so does whether it is paused. Another cron line
    /// or zone begins with the first tick from now on. The processor of the kind
    /// that it submits to may be registered later, but before the first tick.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, rows: Vec<rowmill::model::NewRow>) -> anyhow::Result<()> {
    /// use rowmill::jobs::{BatchRequest, ScheduleRequest};
    /// use rowmill::model::{Missed, Overlap};
    ///
    /// let request = BatchRequest::new("bank", "validate").with_rows(rows);
    /// let nightly = ScheduleRequest::batch("nightly", "30 2 * * MON-FRI", request).in_zone("Europe/Berlin");
    /// let schedule = jobs.put_schedule(ScheduleRequest { missed: Missed::Once, overlap: Overlap::Skip, ..nightly }).await?;
    /// println!("its first tick: {}", schedule.next_at.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::Schedule`] for a cron line that cannot be read or never comes, and for an unknown zone; [`JobError::OtherApp`],
    /// [`JobError::InputTooLarge`], [`JobError::ContextTooLarge`], [`JobError::ScheduledOtherwise`]; [`JobError::Store`] for a name, and for rows, that cannot be.
    pub async fn put_schedule(&self, request: ScheduleRequest) -> Result<Schedule, JobError> {
        let ScheduleRequest { name, cron, zone, submits, missed, overlap } = request;
        let (app, op, kind, context, rows, terms) = match submits {
            Scheduled::Batch(
                BatchRequest { hold: true, .. }
                | BatchRequest { key: Some(_), .. }
                | BatchRequest { after: Some(_), .. }
                | BatchRequest { group: Some(_), .. }
                | BatchRequest { start_at: Some(_), .. }
                | BatchRequest { deadline_at: Some(_), .. },
            )
            | Scheduled::Query(
                QueryRequest { key: Some(_), .. } | QueryRequest { start_at: Some(_), .. } | QueryRequest { deadline_at: Some(_), .. },
            ) => return Err(JobError::ScheduledOtherwise),
            Scheduled::Batch(BatchRequest { app, op, context, rows, terms, .. }) => (app, op, ProcessorKind::Batch, context, rows, terms),
            Scheduled::Query(QueryRequest { app, op, context, input, terms, .. }) => {
                (app, op, ProcessorKind::SlowQuery, context, vec![NewRow::new(0, input)], terms)
            }
        };
        let app = self.check_app(&app)?.into_owned();
        check_context(&context)?;
        check_inputs(&rows)?;
        let key = ScheduleKey::new(app, &*canonical_name(&name));
        let known = self.shared.store.read_schedule(&key).await?;
        let (line, next_at) = self.first_tick(&cron, &zone, known.and_then(|known| known.last_at)).await?;
        let zone = line.zone().to_owned();
        let new = NewSchedule { key, op, kind, cron, zone, terms, missed, overlap, context, next_at };
        Ok(self.shared.store.put_schedule(&new, &rows).await?)
    }

    /// A schedule, without its context and rows.
    ///
    /// # Errors
    /// [`JobError::NoSchedule`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn read_schedule(&self, app: &str, name: &str) -> Result<Schedule, JobError> {
        let (app, canonical) = (&*self.find_app(app).await?, &*canonical_name(name));
        let mut found = None;
        if canonical != name {
            // A schedule may have this name from before names were composed.
            found = self.shared.store.read_schedule(&ScheduleKey::new(app, name)).await?;
        }
        if found.is_none() {
            found = self.shared.store.read_schedule(&ScheduleKey::new(app, canonical)).await?;
        }
        found.ok_or_else(|| no_schedule(app, canonical))
    }

    /// A page of the schedules, of one app or of all, by app and name. The next one begins after the last schedule of this one; the end is an empty page.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// let first = jobs.list_schedules(None, None, 100).await?;
    /// let second = jobs.list_schedules(None, first.last().map(|schedule| schedule.key()).as_ref(), 100).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn list_schedules(&self, app: Option<&str>, after: Option<&ScheduleKey>, limit: u32) -> Result<Vec<Schedule>, JobError> {
        let app = match app {
            Some(app) => Some(self.find_app(app).await?),
            None => None,
        };
        Ok(self.shared.store.list_schedules(app.as_deref().or(self.only_app.as_deref()), after, limit).await?)
    }

    /// The ticks of a schedule that come next, at most so many; those that it would have if it were resumed now, when it is paused.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// for tick in jobs.next_ticks("bank", "nightly", 5).await? {
    ///     println!("{}", tick.0);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoSchedule`], [`JobError::OtherApp`], [`JobError::Schedule`], [`JobError::Store`].
    pub async fn next_ticks(&self, app: &str, name: &str, count: usize) -> Result<Vec<Timestamp>, JobError> {
        let schedule = self.read_schedule(app, name).await?;
        let (line, from_now) = self.first_tick(&schedule.cron, &schedule.zone, schedule.last_at).await?;
        let first = if schedule.paused { from_now } else { schedule.next_at };
        Ok(std::iter::successors(Some(first), |at| line.next_after(*at)).take(count).collect())
    }

    /// Lets a schedule have no ticks until it is resumed. What it has submitted goes on.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// jobs.pause_schedule("bank", "nightly").await?;
    /// jobs.resume_schedule("bank", "nightly").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoSchedule`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn pause_schedule(&self, app: &str, name: &str) -> Result<(), JobError> {
        let schedule = self.read_schedule(app, name).await?;
        let paused = self.shared.store.pause_schedule(&schedule.key()).await?;
        if paused { Ok(()) } else { Err(no_schedule(app, name)) }
    }

    /// Lets a schedule that is paused have ticks again, from now on: those of the pause were not missed. One that is not paused stays as it is.
    ///
    /// # Errors
    /// As for [`JobManager::pause_schedule`]; [`JobError::Schedule`].
    pub async fn resume_schedule(&self, app: &str, name: &str) -> Result<(), JobError> {
        let schedule = self.read_schedule(app, name).await?;
        let (_, next_at) = self.first_tick(&schedule.cron, &schedule.zone, schedule.last_at).await?;
        let resumed = self.shared.store.resume_schedule(&schedule.key(), next_at).await?;
        if resumed { Ok(()) } else { Err(no_schedule(app, name)) }
    }

    /// Removes a schedule. What it has submitted stays.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager) -> anyhow::Result<()> {
    /// jobs.remove_schedule("bank", "nightly").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoSchedule`], [`JobError::OtherApp`], [`JobError::Store`].
    pub async fn remove_schedule(&self, app: &str, name: &str) -> Result<(), JobError> {
        let schedule = self.read_schedule(app, name).await?;
        let removed = self.shared.store.remove_schedule(&schedule.key()).await?;
        if removed { Ok(()) } else { Err(no_schedule(app, name)) }
    }

    /// A line, and its first tick from now on, by the store's clock. Should that have been set back, then behind the tick that was the last.
    async fn first_tick(&self, cron: &str, zone: &str, last: Option<Timestamp>) -> Result<(CronLine, Timestamp), JobError> {
        let now = self.shared.store.read_clock().await?;
        let line = CronLine::parse(cron, zone, now)?;
        let first = line.next_after(last.map_or(now, |last| last.max(now))).ok_or_else(|| ScheduleError::Never { line: cron.to_owned() })?;
        Ok((line, first))
    }
}

fn no_schedule(app: &str, name: &str) -> JobError {
    JobError::NoSchedule { app: app.to_owned(), name: name.to_owned() }
}
