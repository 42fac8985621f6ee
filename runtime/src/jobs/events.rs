//! What happens to batches, as it happens.

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::{JobError, JobManager};
use crate::model::{BatchEvent, EventKind, EventPosition, EventsOf};
use crate::status::Progress;
use crate::store::StoreEvent;

/// Events that are read at once.
const PAGE: u32 = 500;
/// Others may have told nobody: the store is asked at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And not more often than this, however much happens.
const LOOK_LEAST: Duration = Duration::from_millis(20);

/// What a stream of events begins with, and whether it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventsFrom {
    /// Behind this one; from the oldest that is kept by default.
    pub after: EventPosition,
    /// Waits for those that come. Else the stream ends behind those that are there.
    pub follow: bool,
}

impl JobManager {
    /// What happened to a batch, to those of an app or to all, in order for each batch; and, where that is wanted, what happens from now on, in whatever process. The position of
    /// an event is where to go on after a stop: nothing is missed, and nothing comes twice. The events of one batch end with [`EventKind::Summarised`], and so does their
    /// stream. Events are kept as long as their batch, and for a week after its end, unless something else is said.
    ///
    /// ```no_run
    /// # async fn example(jobs: rowmill::jobs::JobManager, id: rowmill::model::BatchId) -> anyhow::Result<()> {
    /// use futures_util::TryStreamExt;
    /// use rowmill::jobs::EventsFrom;
    /// use rowmill::model::EventsOf;
    ///
    /// let mut events = jobs.events(EventsOf::Batch(id), EventsFrom { follow: true, ..EventsFrom::default() }).await?;
    /// while let Some(event) = events.try_next().await? {
    ///     println!("{} {}: {} of {} rows", event.position, event.kind.as_str(), event.counts.success, event.counts.rows);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoBatch`], [`JobError::OtherApp`]; [`JobError::Store`], also on the way. Where only one app may be used, all events are its own.
    pub async fn events(&self, of: EventsOf, from: EventsFrom) -> Result<BoxStream<'static, Result<BatchEvent, JobError>>, JobError> {
        let of = match of {
            EventsOf::Batch(id) => {
                self.read_batch(id).await?;
                EventsOf::Batch(id)
            }
            EventsOf::App(app) => EventsOf::App(self.find_app(&app).await?.into_owned()),
            EventsOf::All => self.only_app.clone().map_or(EventsOf::All, EventsOf::App),
        };
        let reader = Reader {
            // Before anything is read: what comes between wakes.
            told: self.shared.store.events(),
            progress: if let EventsOf::Batch(id) = of { Some(self.shared.status.watch(id)) } else { None },
            jobs: self.clone(),
            of,
            after: from.after,
            follow: from.follow,
            ended: false,
        };
        let pages = stream::try_unfold(reader, |mut reader| async move {
            let page = reader.next_page().await?;
            Ok::<_, JobError>(page.map(|events| (stream::iter(events.into_iter().map(Ok)), reader)))
        });
        Ok(pages.try_flatten().boxed())
    }
}

struct Reader {
    jobs: JobManager,
    of: EventsOf,
    after: EventPosition,
    follow: bool,
    ended: bool,
    told: Receiver<StoreEvent>,
    progress: Option<watch::Receiver<Progress>>,
}

impl Reader {
    /// The next events; none at the end.
    async fn next_page(&mut self) -> Result<Option<Vec<BatchEvent>>, JobError> {
        while !self.ended {
            let page = self.jobs.shared.store.read_events(&self.of, self.after, PAGE).await?;
            let is_new = page.next != self.after;
            self.after = page.next;
            self.ended = matches!(self.of, EventsOf::Batch(_)) && page.events.last().is_some_and(|event| event.kind == EventKind::Summarised);
            if !page.events.is_empty() {
                return Ok(Some(page.events));
            }
            if is_new {
                continue;
            }
            if !self.follow {
                return Ok(None);
            }
            self.wait().await;
        }
        Ok(None)
    }

    /// Until something may have happened.
    async fn wait(&mut self) {
        tokio::time::sleep(LOOK_LEAST).await;
        let Reader { told, progress, .. } = self;
        let changed = async {
            // The board drops a batch that is done.
            let is_followed = match progress {
                Some(progress) => progress.changed().await.is_ok(),
                None => false,
            };
            if !is_followed {
                std::future::pending::<()>().await;
            }
        };
        let anything = async {
            tokio::select! {
                heard = told.recv() => if heard == Err(RecvError::Closed) { std::future::pending::<()>().await },
                () = changed => {}
            }
        };
        let _ = tokio::time::timeout(LOOK_EVERY, anything).await;
        // All that was told so far is one reason to look.
        while told.try_recv().is_ok() {}
    }
}
