//! Hears through Redis what other processes say of batches.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::{Client, RedisError};
use tokio_util::sync::CancellationToken;

use super::link::{Link, Reports};
use super::snapshot::Event;
use super::{READ_TIMEOUT, Shared};

/// Every process hears all batches, and looks at those that are watched in it.
pub(super) const CHANNEL: &str = "rowmill:events";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was silent for so long is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(15);
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(client: Client, reader: Arc<Link>, shared: Arc<Shared>, reports: Arc<Reports>, stop: CancellationToken) {
    let listening = async {
        let mut backoff = BACKOFF;
        loop {
            match listen(&client, &reader, &shared, &mut backoff).await {
                Ok(()) => tracing::debug!("the connection that events come through has ended"),
                Err(error) => reports.failed("hear events", &error),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listening => {}
    }
}

/// Listens until the connection ends.
async fn listen(client: &Client, reader: &Link, shared: &Shared, backoff: &mut Duration) -> Result<(), RedisError> {
    let connecting = async {
        let (mut sink, stream) = client.get_async_pubsub().await?.split();
        sink.subscribe(CHANNEL).await?;
        Ok::<_, RedisError>((sink, stream))
    };
    let (mut sink, mut stream) = in_time(connecting).await?;
    *backoff = BACKOFF;
    // Subscribed first, then caught up: what came while there was no connection is found, and nothing falls between.
    let watched = shared.watchers().batches();
    for batch in watched {
        if let Some(snapshot) = reader.read(batch, READ_TIMEOUT).await {
            shared.hear(&snapshot.event());
        }
    }
    loop {
        match tokio::time::timeout(PING_AFTER, stream.next()).await {
            Ok(Some(message)) => match serde_json::from_slice::<Event>(message.get_payload_bytes()) {
                Ok(event) => shared.hear(&event),
                Err(error) => tracing::debug!("an event in Redis is of another version: {error}"),
            },
            Ok(None) => return Ok(()),
            Err(_) => in_time(sink.ping::<redis::Value>()).await.map(|_| ())?,
        }
    }
}

async fn in_time<T>(doing: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = |_| RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not answer in time"));
    tokio::time::timeout(CONNECT_TIMEOUT, doing).await.map_err(late)?
}
