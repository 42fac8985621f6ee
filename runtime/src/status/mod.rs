//! How far batches are, for those who poll and those who watch: kept in the process and, where there is Redis, shared through it.
//!
//! It is a cache. A missing state is looked up in the store by whoever needs it; an old one never takes the place of a newer one; and nothing here fails or
//! waits when Redis is slow, down or empty.

mod cache;
mod link;
mod snapshot;
mod subscriber;
mod watchers;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::cache::Cache;
use self::link::{Link, Reports};
use self::watchers::Watchers;
use self::writer::Writer;
use crate::model::{BatchCounts, BatchId, BatchStatus};

pub use self::snapshot::{Progress, QueryAnswer, Snapshot};

/// A reader does not wait longer for Redis.
const READ_TIMEOUT: Duration = Duration::from_millis(250);
/// Without Redis, a state that is not final is believed for so long: other processes may work on the batch.
const BELIEVED: Duration = Duration::from_secs(1);

/// Where the status is shared.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://…` or `rediss://…`
    pub url: String,
    /// How long a status is kept there; 100 times as long once it is final.
    pub cache: Duration,
}

/// Redis cannot even be tried.
#[derive(Debug, thiserror::Error)]
#[error("the URL of Redis cannot be used: it looks like redis://user:password@host:6379/0")]
pub struct StatusError(#[source] redis::RedisError);

/// The status of batches. One per process.
pub struct StatusBoard {
    shared: Arc<Shared>,
    remote: Option<Remote>,
}

/// What the board and its tasks share.
pub(crate) struct Shared {
    watchers: Mutex<Watchers>,
    cache: Mutex<Cache>,
}

struct Remote {
    reader: Arc<Link>,
    writer: Arc<Writer>,
    /// Ends the tasks with the board.
    _tasks: DropGuard,
}

impl Default for StatusBoard {
    fn default() -> StatusBoard {
        StatusBoard::in_process()
    }
}

impl StatusBoard {
    /// For one process, or where other processes are asked through the store.
    pub fn in_process() -> StatusBoard {
        StatusBoard { shared: Arc::new(Shared { watchers: Mutex::default(), cache: Mutex::default() }), remote: None }
    }

    /// Shares the status through Redis, which need not be there now or ever. Starts tasks in the tokio runtime that it is called in.
    ///
    /// # Errors
    /// [`StatusError`] when the URL is none.
    pub fn with_redis(settings: &RedisSettings) -> Result<StatusBoard, StatusError> {
        let client = redis::Client::open(settings.url.as_str()).map_err(StatusError)?;
        let board = StatusBoard::in_process();
        let stop = CancellationToken::new();
        let reports = Arc::new(Reports::default());
        let reader = Arc::new(Link::new(client.clone(), Arc::clone(&reports)));
        // Of its own: a large state that is written does not keep readers waiting.
        let writer = Arc::new(Writer::new(Link::new(client.clone(), Arc::clone(&reports)), settings.cache));
        tokio::spawn(Arc::clone(&writer).run(stop.clone()));
        tokio::spawn(subscriber::run(client, Arc::clone(&reader), Arc::clone(&board.shared), reports, stop.clone()));
        Ok(StatusBoard { remote: Some(Remote { reader, writer, _tasks: stop.drop_guard() }), ..board })
    }

    /// What is known of a batch, without asking the database. None when that is nothing: then the store knows. Takes at most a quarter of a second, and no time
    /// when Redis was found to be down a moment ago.
    pub async fn read(&self, id: BatchId) -> Option<Snapshot> {
        let (local, known) = {
            let cache = self.shared.cache();
            (cache.get(id, BELIEVED), cache.get(id, Duration::MAX).map(|known| known.age()))
        };
        if let Some(settled) = local.as_ref().filter(|snapshot| snapshot.is_settled()) {
            return Some(settled.clone());
        }
        let remote = match &self.remote {
            Some(remote) => remote.reader.read(id, READ_TIMEOUT).await,
            None => None,
        };
        // What this process knows better the store does, too.
        let remote = remote.filter(|remote| known.is_none_or(|known| remote.age() >= known));
        match (remote, local) {
            (Some(remote), _) => Some(remote),
            (None, local) => local,
        }
    }

    /// A batch as it is now. Never waits; an older state than the known one is dropped.
    pub fn publish(&self, snapshot: Snapshot) {
        let done = snapshot.done;
        let id = snapshot.id;
        self.shared.watchers().merge(&snapshot.event());
        if let Some(newest) = self.shared.cache().put(snapshot) {
            self.send(newest);
        }
        if done {
            self.shared.watchers().forget(id);
        }
    }

    /// Forgets a batch that is not kept any more, here and in Redis. Other processes may know it a little longer.
    pub async fn forget(&self, id: BatchId) {
        self.shared.cache().forget(id);
        if let Some(remote) = &self.remote {
            remote.reader.remove(id, READ_TIMEOUT).await;
        }
    }

    /// Counts after a record in a round of a batch. Records of one batch may arrive here out of order; counts of a round only grow, so the larger ones are the newer.
    pub fn publish_counts(&self, batch: BatchId, round: u32, counts: BatchCounts) {
        self.shared.watchers().change(batch, |progress| progress.merge_counts(round, counts));
        self.change(batch, |snapshot| {
            let newer = (round, counts.rows, snapshot::ended(&counts)) > (snapshot.round, snapshot.counts.rows, snapshot::ended(&snapshot.counts));
            if newer && round > snapshot.round {
                (snapshot.round, snapshot.status, snapshot.done) = (round, BatchStatus::Inprog, false);
                snapshot.files.clear();
            }
            if newer {
                snapshot.counts = counts;
                if !snapshot.status.is_final() && snapshot::ended(&counts) > 0 {
                    snapshot.status = BatchStatus::Inprog;
                }
            }
            newer
        });
    }

    /// A slow query's own word.
    pub fn publish_said(&self, batch: BatchId, percent: u8, text: String) {
        let said = Some((percent, text));
        self.shared.watchers().change(batch, |progress| {
            progress.said.clone_from(&said);
            true
        });
        self.change(batch, |snapshot| {
            let running = !snapshot.status.is_final();
            if running {
                snapshot.said = said;
            }
            running
        });
    }

    /// Follows a batch from now on, and through Redis also where other processes work on it. What is known of it already is there at once, or soon after.
    pub fn watch(&self, batch: BatchId) -> watch::Receiver<Progress> {
        let known = self.shared.cache().get(batch, Duration::MAX);
        let receiver = self.shared.watchers().watch(batch, known.as_ref());
        if let Some(remote) = &self.remote
            && !known.is_some_and(|known| known.done)
        {
            let (reader, shared) = (Arc::clone(&remote.reader), Arc::clone(&self.shared));
            tokio::spawn(async move {
                if let Some(snapshot) = reader.read(batch, READ_TIMEOUT).await {
                    shared.hear(&snapshot.event());
                }
            });
        }
        receiver
    }

    /// States that wait to be written to Redis: one per batch at most, and bounded.
    pub fn pending(&self) -> usize {
        self.remote.as_ref().map_or(0, |remote| remote.writer.pending())
    }

    /// Writes what waits to be written, and gives up after this time.
    pub async fn flush(&self, within: Duration) {
        if let Some(remote) = &self.remote
            && tokio::time::timeout(within, remote.writer.flush()).await.is_err()
        {
            tracing::info!("the last states of {} batches were not written to Redis in time", remote.writer.pending());
        }
    }

    fn change(&self, batch: BatchId, change: impl FnOnce(&mut Snapshot) -> bool) {
        if let Some(newest) = self.shared.cache().change(batch, change) {
            self.send(newest);
        }
    }

    fn send(&self, snapshot: Snapshot) {
        if let Some(remote) = &self.remote {
            remote.writer.put(snapshot);
        }
    }
}

impl Shared {
    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process's word.
    fn hear(&self, event: &snapshot::Event) {
        let mut watchers = self.watchers();
        watchers.merge(event);
        if event.done {
            watchers.forget(event.id);
        }
    }
}
