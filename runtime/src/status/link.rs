//! A connection to Redis that is made when it is needed, and not tried again for a while when it failed: a dead Redis costs nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError};

use super::snapshot::Snapshot;
use crate::model::BatchId;

/// After a failure Redis is left alone for so long.
const OPEN_FOR: Duration = Duration::from_secs(3);
/// Between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The hash that holds a batch's state. The braces make all keys of a batch live in one slot of a cluster.
pub(super) fn key(id: BatchId) -> String {
    format!("rowmill:{{{id}}}:status")
}

/// Says now and then that Redis fails: it is no error, but somebody should know.
#[derive(Default)]
pub(super) struct Reports(Mutex<Option<Instant>>);

impl Reports {
    pub fn failed(&self, what: &str, error: &RedisError) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            *last = Some(Instant::now());
            tracing::warn!("Redis cannot be used to {what}: {error}; work goes on without it, and pollers ask the database");
        } else {
            tracing::debug!("Redis cannot be used to {what}: {error}");
        }
    }
}

pub(super) struct Link {
    client: Client,
    reports: Arc<Reports>,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    /// While this lies ahead nothing is tried.
    closed_at: Mutex<Option<Instant>>,
}

impl Link {
    pub fn new(client: Client, reports: Arc<Reports>) -> Link {
        Link { client, reports, connection: tokio::sync::Mutex::default(), closed_at: Mutex::default() }
    }

    /// How long Redis is still left alone.
    pub fn open_for(&self) -> Option<Duration> {
        let closed_at = *self.closed_at.lock().unwrap_or_else(PoisonError::into_inner);
        closed_at.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// A batch's state. None when there is none, and when Redis cannot say.
    pub async fn read(&self, id: BatchId, within: Duration) -> Option<Snapshot> {
        let text: Option<String> = self
            .with(within, "read a status", async |connection: &mut MultiplexedConnection| {
                redis::cmd("HGET").arg(key(id)).arg("snapshot").query_async(connection).await
            })
            .await?;
        let snapshot: Snapshot =
            serde_json::from_str(&text?).inspect_err(|error| tracing::debug!("a status in Redis is of another version: {error}")).ok()?;
        (snapshot.id == id).then_some(snapshot)
    }

    /// Removes a batch's state. Where Redis cannot, it expires.
    pub async fn remove(&self, id: BatchId, within: Duration) {
        let remove = async |connection: &mut MultiplexedConnection| redis::cmd("DEL").arg(key(id)).query_async::<()>(connection).await;
        self.with(within, "remove a status", remove).await;
    }

    /// True when all of it was done.
    pub async fn write(&self, pipeline: &Pipeline, within: Duration) -> bool {
        self.with(within, "write statuses", async |connection: &mut MultiplexedConnection| pipeline.exec_async(connection).await).await.is_some()
    }

    async fn with<T>(&self, within: Duration, what: &str, doing: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>) -> Option<T> {
        if self.open_for().is_some() {
            return None;
        }
        let done = tokio::time::timeout(within, async {
            let mut connection = self.connect(within).await?;
            doing(&mut connection).await
        });
        let error = match done.await {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => error,
            Err(_) => std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not answer in time").into(),
        };
        *self.closed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + OPEN_FOR);
        // Whoever connects at the moment fails as well, and notes it.
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
        self.reports.failed(what, &error);
        None
    }

    async fn connect(&self, within: Duration) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        // The time of each call is bounded by its caller.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(within)).set_response_timeout(None);
        let made = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        *connection = Some(made.clone());
        Ok(made)
    }
}
