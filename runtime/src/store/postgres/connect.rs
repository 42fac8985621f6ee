//! Connections.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::listen::{self, Own};
use super::schema::{self, SchemaState};
use crate::model::{AppBounds, Clock, Pooler};
use crate::store::columns::failed;
use crate::store::events::Events;
use crate::store::{StoreError, StoreEvent};

/// Whoever stands still in a transaction for so long loses it, and its locks.
const STANDSTILL: (&str, &str) = ("idle_in_transaction_session_timeout", "10s");
/// Our statements are over before they would be compiled.
const NO_JIT: (&str, &str) = ("jit", "off");
/// The same, where a connection cannot be told.
const SET_LOCAL: &str = "SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL jit = off";
/// A connection that was used so short a time ago is not tried out first.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a unit that leads is made.
const CONNECTED: &str = "whoever leads is connected";

/// How many connections lead: see [`PgStore::unit`].
const LEADING: u32 = 1;
/// Connections that a process needs: one leads, one listens, and one is for transactions.
const CONNECTIONS_MIN: u32 = LEADING + 2;

/// How to reach a database.
#[derive(Clone)]
pub struct PgSettings {
    /// `postgres://user:password@host:port/database?…`; `?host=/directory` for a Unix socket.
    pub url: String,
    /// Connections of this process, at most; 3 at least.
    pub connections: u32,
    pub pooler: Pooler,
}

impl fmt::Debug for PgSettings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSettings").field("connections", &self.connections).field("pooler", &self.pooler).finish_non_exhaustive()
    }
}

impl PgSettings {
    pub(super) fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let options = PgConnectOptions::from_str(&self.url).map_err(|error| {
            StoreError::Invalid(format!("the URL of the database cannot be read ({error}); it looks like postgres://user@host/database"))
        })?;
        let options = options.application_name("rowmill");
        Ok(match self.pooler {
            Pooler::None => options.options([STANDSTILL, NO_JIT]),
            // A pooler refuses settings that it does not know.
            Pooler::Transaction => options.statement_cache_capacity(0).extra_float_digits(None),
        })
    }
}

/// A [`super::Store`] in the schema `rowmill` of a PostgreSQL database, version 13 or later.
pub struct PgStore {
    pool: PgPool,
    /// The connection that statements take first. Nobody waits for it, and it is in no pool: that would try out each connection that comes back, for which the next statement
    /// would wait.
    lead: Arc<Mutex<Lead>>,
    pooler: Pooler,
    pub(super) events: Events,
    pub(super) own: Own,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) bounds: AppBounds,
    listening: Option<tokio::task::AbortHandle>,
}

impl PgStore {
    /// Connects to a database whose schema is this program's.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none, and for a schema that is missing, older or newer, with what to do about it; `Failed` when it cannot be reached.
    pub async fn connect(settings: &PgSettings) -> Result<PgStore, StoreError> {
        if settings.connections < CONNECTIONS_MIN {
            let connections = settings.connections;
            return Err(StoreError::Invalid(format!(
                "a process needs {CONNECTIONS_MIN} connections to PostgreSQL at least; {connections} are allowed"
            )));
        }
        let options = settings.options()?;
        // Behind a pooler nothing leads: each transaction meets another connection.
        let leading = if settings.pooler == Pooler::None { LEADING } else { 0 };
        let pool = of_at_most(settings.connections - leading).connect_with(options.clone()).await.map_err(failed("connect to its database"))?;
        let mut store = PgStore {
            pool,
            lead: Arc::new(Mutex::new(Lead { options, connection: None, used_at: Instant::now(), in_doubt: false, closed: false })),
            pooler: settings.pooler,
            events: Events::new(),
            own: Own::default(),
            clock: None,
            bounds: AppBounds::open(),
            listening: None,
        };
        let state = schema::read_state(&mut *store.unit().await?).await?;
        if state != SchemaState::Current {
            return Err(StoreError::Invalid(state.to_string()));
        }
        if settings.pooler == Pooler::None {
            store.listening = Some(tokio::spawn(listen::listen(store.pool.clone(), store.events.clone(), store.own.clone())).abort_handle());
        }
        Ok(store)
    }

    /// Brings the schema to this program's version. Any number of processes may do so at the same time.
    ///
    /// # Errors
    /// `Invalid` when the schema is newer than the program, or through a pooler in transaction mode; `Failed`.
    pub async fn migrate(settings: &PgSettings) -> Result<(), StoreError> {
        schema::migrate(settings).await
    }

    /// What state the schema is in.
    ///
    /// # Errors
    /// `Failed` when the database cannot be reached.
    pub async fn schema_state(settings: &PgSettings) -> Result<SchemaState, StoreError> {
        schema::look(settings).await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
        let close_lead = async {
            let mut lead = self.lead.lock().await;
            lead.closed = true;
            if let Some(connection) = lead.connection.take() {
                // It is gone either way.
                let _ = connection.close().await;
            }
        };
        tokio::join!(self.pool.close(), close_lead);
    }

    /// A connection for one statement, which is a transaction of its own. While little is to be done it is always the same one: the pool hands its connections out in turn, and a
    /// server process that has not worked for a while is slow, since what it has prepared is out of the processor's caches.
    pub(super) async fn unit(&self) -> Result<Unit, StoreError> {
        let connecting = failed("get a connection to its database");
        match self.pooler {
            Pooler::None => Ok(match Arc::clone(&self.lead).try_lock_owned() {
                Ok(mut lead) => {
                    lead.prepare().await.map_err(connecting)?;
                    Unit::Leading(lead)
                }
                Err(_) => Unit::Statement(self.pool.acquire().await.map_err(connecting)?),
            }),
            Pooler::Transaction => Ok(Unit::Transaction(self.begin().await?)),
        }
    }

    /// Whether statements get a name, under which a connection keeps them prepared. Through a pooler the next transaction may meet another connection.
    pub(super) fn named(&self) -> bool {
        self.pooler == Pooler::None
    }

    /// Tells in this process what it submits, as soon as that is committed. Where nobody listens to notifications, too. `submit` says whether others are notified: not of what was
    /// submitted before, nor of what was leased with its submission.
    pub(super) async fn tell_own(&self, event: Option<StoreEvent>, submit: impl Future<Output = Result<bool, StoreError>>) -> Result<(), StoreError> {
        let Some(event) = event else { return submit.await.map(drop) };
        let listens = self.listening.is_some();
        if listens {
            self.own.send(&event);
        }
        let submitted = submit.await;
        let is_new = matches!(submitted, Ok(true));
        let untold = if listens { self.own.answered(&event, is_new) } else { is_new };
        if untold {
            self.events.tell(event);
        }
        submitted.map(drop)
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let beginning = failed("begin a transaction");
        let mut transaction = self.pool.begin().await.map_err(beginning)?;
        if self.pooler == Pooler::Transaction {
            // What the connection could not be told.
            sqlx::raw_sql(SET_LOCAL).execute(&mut *transaction).await.map_err(beginning)?;
        }
        Ok(transaction)
    }
}

impl Drop for PgStore {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// The connection that leads.
pub(super) struct Lead {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    used_at: Instant,
    /// A statement was begun and is not known to have ended well.
    in_doubt: bool,
    closed: bool,
}

impl Lead {
    /// Has it connected, and no statement in doubt.
    async fn prepare(&mut self) -> Result<(), sqlx::Error> {
        if self.closed {
            return Err(sqlx::Error::PoolClosed);
        }
        if let Some(connection) = &mut self.connection
            && (self.in_doubt || self.used_at.elapsed() > TRUSTED_FOR)
            && connection.ping().await.is_err()
        {
            self.connection = None;
        }
        if self.connection.is_none() {
            let connecting = PgConnection::connect_with(&self.options);
            self.connection = Some(tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| sqlx::Error::PoolTimedOut)??);
        }
        self.in_doubt = true;
        Ok(())
    }

    fn is_done(&mut self) {
        self.in_doubt = false;
        self.used_at = Instant::now();
    }
}

fn of_at_most(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(CONNECT_TIMEOUT).test_before_acquire(false).before_acquire(
        |connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        },
    )
}

/// Ends a transaction that found something wrong: at once, since it holds locks.
pub(super) async fn refuse<T>(db: Transaction<'static, Postgres>, error: StoreError) -> Result<T, StoreError> {
    // When the connection is lost the locks go with it.
    let _ = db.rollback().await;
    Err(error)
}

/// A connection for one statement, which is to be read to its end (`execute`, `fetch_all`): it commits behind its last row, where `fetch_one` and
/// `fetch_optional` have returned already. Through a pooler the statement needs a transaction around it: it is prepared and run in two steps, which could otherwise go
/// to two connections.
pub(super) enum Unit {
    Leading(OwnedMutexGuard<Lead>),
    Statement(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Unit {
    pub(super) async fn done(self) -> Result<(), StoreError> {
        match self {
            Unit::Leading(mut lead) => {
                lead.is_done();
                Ok(())
            }
            Unit::Statement(_) => Ok(()),
            Unit::Transaction(transaction) => transaction.commit().await.map_err(failed("commit a statement")),
        }
    }

    /// Waits until a statement that failed has let go of its locks.
    pub(super) async fn undone(self) {
        // When the connection is lost the locks go with it.
        let _ = match self {
            Unit::Leading(mut lead) => match lead.connection.as_mut().expect(CONNECTED).ping().await {
                Ok(()) => {
                    lead.is_done();
                    Ok(())
                }
                lost => lost,
            },
            Unit::Statement(mut connection) => connection.ping().await,
            Unit::Transaction(transaction) => transaction.rollback().await,
        };
    }
}

impl Deref for Unit {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Unit::Leading(lead) => lead.connection.as_ref().expect(CONNECTED),
            Unit::Statement(connection) => connection,
            Unit::Transaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Unit {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Unit::Leading(lead) => lead.connection.as_mut().expect(CONNECTED),
            Unit::Statement(connection) => connection,
            Unit::Transaction(transaction) => transaction,
        }
    }
}
