//! Keys and values in Redis: a hash for each app, whose fields are the app's keys, so that no key of an app can be another's.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};

use super::{ENTRY_BYTES, NUMBER_BYTES, PAGE_KEYS, ValueStore, full, no_number};

/// A call takes this long at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure Redis is left alone for so long: rows should not wait for it one after the other.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// What an app has counts as long as there is something: Redis may have been emptied.
const USED: &str = "local used = redis.call('EXISTS', KEYS[1]) == 1 and tonumber(redis.call('GET', KEYS[2]) or '0') or 0\n";

/// ARGV: what an entry counts, the most of all, then keys and values in turn. Returns whether they were set.
const SET: &str = "
local sizes = {}
for i = 3, #ARGV, 2 do
    local key, value = ARGV[i], ARGV[i + 1]
    local before = sizes[key]
    if before == nil then
        before = redis.call('HEXISTS', KEYS[1], key) == 1 and ARGV[1] + #key + redis.call('HSTRLEN', KEYS[1], key) or 0
    end
    sizes[key] = ARGV[1] + #key + #value
    used = used - before + sizes[key]
end
if used > tonumber(ARGV[2]) then return 0 end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], string.format('%.0f', used))
return 1";

/// ARGV: what an entry counts, then keys.
const DELETE: &str = "
for i = 2, #ARGV do
    local length = redis.call('HSTRLEN', KEYS[1], ARGV[i])
    if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then used = used - ARGV[1] - #ARGV[i] - length end
end
redis.call('SET', KEYS[2], string.format('%.0f', math.max(used, 0)))
return 1";

/// ARGV: what an entry counts, the most of all, the key, what is added, digits of a number. Returns the sum; `full`, or `none` where there is no number.
const INCREMENT: &str = "
local key = ARGV[3]
local old = redis.call('HGET', KEYS[1], key)
if old and not string.match(old, '^%d+$') then return 'none' end
if not old and used + ARGV[1] + #key + ARGV[5] > tonumber(ARGV[2]) then return 'full' end
local added = redis.pcall('HINCRBY', KEYS[1], key, ARGV[4])
if type(added) == 'table' then return 'none' end
local sum = redis.call('HGET', KEYS[1], key)
used = used - (old and ARGV[1] + #key + #old or 0) + ARGV[1] + #key + #sum
redis.call('SET', KEYS[2], string.format('%.0f', used))
return sum";

/// ARGV: the cursor, and about how many. Values stay in Redis.
const LIST: &str = "
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local keys = {}
for i = 1, #page[2], 2 do keys[#keys + 1] = page[2][i] end
return {page[1], keys}";

pub(in crate::grants) struct RedisValues {
    client: Client,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    left_alone_until: Mutex<Option<Instant>>,
}

impl RedisValues {
    /// Does not connect yet.
    ///
    /// # Errors
    /// A sentence, when the URL cannot be used.
    pub fn open(url: &str) -> Result<RedisValues, String> {
        let client = Client::open(url).map_err(|error| format!("Redis cannot be used for keys and values: {error}"))?;
        Ok(RedisValues { client, connection: tokio::sync::Mutex::default(), left_alone_until: Mutex::default() })
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        let made = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        *connection = Some(made.clone());
        Ok(made)
    }

    async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let away = || "the keys and values cannot be reached at the moment".to_owned();
        let left_alone = *self.left_alone_until.lock().unwrap_or_else(PoisonError::into_inner);
        if left_alone.is_some_and(|until| until > Instant::now()) {
            return Err(away());
        }
        let called = async { command.query_async(&mut self.connect().await?).await };
        let error = match tokio::time::timeout(2 * PATIENCE, called).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not answer in time").into(),
        };
        tracing::warn!("Redis cannot be used for keys and values: {error}");
        *self.left_alone_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LEFT_ALONE);
        *self.connection.lock().await = None;
        Err(away())
    }
}

/// The hash of an app, and what it weighs. What comes before and behind the app's name is the same for all, so two apps never have the same key, whatever their names. The
/// braces keep both in one slot of a cluster.
fn keys_of(app: &str) -> [String; 2] {
    [format!("rowmill:{{kv:{app}}}:values"), format!("rowmill:{{kv:{app}}}:bytes")]
}

fn script(text: &str, app: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    let [values, bytes] = keys_of(app);
    command.arg(format!("{USED}{text}")).arg(2).arg(values).arg(bytes);
    command
}

#[async_trait]
impl ValueStore for RedisValues {
    async fn get(&self, app: &str, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let [values, _] = keys_of(app);
        self.call(redis::cmd("HMGET").arg(values).arg(keys)).await
    }

    async fn set(&self, app: &str, entries: &[(String, Vec<u8>)], total_max: u64) -> Result<(), String> {
        let mut command = script(SET, app);
        command.arg(ENTRY_BYTES).arg(total_max);
        for (key, value) in entries {
            command.arg(key).arg(value);
        }
        if self.call::<i64>(&command).await? == 1 { Ok(()) } else { Err(full(total_max)) }
    }

    async fn delete(&self, app: &str, keys: &[String]) -> Result<(), String> {
        self.call::<i64>(script(DELETE, app).arg(ENTRY_BYTES).arg(keys)).await.map(drop)
    }

    async fn exists(&self, app: &str, key: &str) -> Result<bool, String> {
        let [values, _] = keys_of(app);
        self.call(redis::cmd("HEXISTS").arg(values).arg(key)).await
    }

    async fn list_keys(&self, app: &str, cursor: u64) -> Result<(Vec<String>, Option<u64>), String> {
        let (next, keys): (u64, Vec<String>) = self.call(script(LIST, app).arg(cursor).arg(PAGE_KEYS)).await?;
        Ok((keys, (next != 0).then_some(next)))
    }

    async fn increment(&self, app: &str, key: &str, delta: u64, total_max: u64) -> Result<u64, String> {
        let sum: String = self.call(script(INCREMENT, app).arg(ENTRY_BYTES).arg(total_max).arg(key).arg(delta).arg(NUMBER_BYTES)).await?;
        match sum.as_str() {
            "full" => Err(full(total_max)),
            sum => sum.parse().map_err(|_| no_number(key)),
        }
    }
}
