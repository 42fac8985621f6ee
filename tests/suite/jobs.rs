//! Every operation of `JobManager`, on SQLite and on PostgreSQL, with real guests.

mod batches;
mod events;
mod groups;
mod guests_of_apps;
mod keeping;
mod kinds;
mod languages;
mod marks;
mod queries;
mod requests;
mod schedules;
mod trials;
mod versions;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use rowmill::blobs::Blobs;
use rowmill::jobs::{BatchRequest, JobError, JobManager};
use rowmill::model::{BatchId, JsonText, NewRow, Pooler, SystemClock, WorkerInfo};
use rowmill::sandbox::Sandbox;
use rowmill::status::{RedisSettings, StatusBoard};
use rowmill::store::{PgSettings, PgStore, SqliteStore, Store};
use rowmill::worker::{WorkerError, WorkerSettings};
use rowmill_tests::servers::Database;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::guests;

/// What should take milliseconds never takes longer than this.
pub const SOON: Duration = Duration::from_secs(60);

/// A store, a place for objects, and whoever works with them.
pub struct Site {
    pub store: Arc<dyn Store>,
    /// The same, where it is PostgreSQL.
    postgres: Option<Arc<PgStore>>,
    pub blobs: Blobs,
    pub jobs: JobManager,
    worker: Option<JoinHandle<Result<(), WorkerError>>>,
    pub objects: TempDir,
    database: Option<Database>,
}

impl Site {
    pub async fn sqlite() -> Site {
        let objects = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&objects.path().join("store.db"), Arc::new(SystemClock)).await.unwrap();
        Site::new(Arc::new(store), objects, StatusBoard::in_process())
    }

    pub async fn postgres() -> Site {
        let database = Database::create().unwrap();
        let settings = PgSettings { url: database.url(), connections: 8, pooler: Pooler::None };
        PgStore::migrate(&settings).await.unwrap();
        let store = Arc::new(PgStore::connect(&settings).await.unwrap());
        // Nobody listens on the first port: Redis is down from start to end, and everything is right all the same.
        let nowhere = RedisSettings { url: "redis://127.0.0.1:1".to_owned(), cache: Duration::from_secs(60) };
        let status = StatusBoard::with_redis(&nowhere).unwrap();
        let site = Site::new(Arc::clone(&store) as Arc<dyn Store>, tempfile::tempdir().unwrap(), status);
        Site { postgres: Some(store), database: Some(database), ..site }
    }

    fn new(store: Arc<dyn Store>, objects: TempDir, status: StatusBoard) -> Site {
        let blobs = Blobs::local(objects.path()).unwrap();
        let jobs = manager(&store, &blobs, settings("one"), status);
        Site { store, postgres: None, blobs, jobs, worker: None, objects, database: None }
    }

    /// With processors for `bank`: `validate`, `statement`, `sleep` and `misbehave`.
    pub async fn with_processors(self) -> Site {
        for (op, guest) in [("Validate", "bank-transactions"), ("STATEMENT", "account-statement"), ("sleep", "sleeper"), ("misbehave", "misbehaving")]
        {
            self.jobs.register_processor("bank", op, guests::read(guest)).await.unwrap();
        }
        self
    }

    /// Works like this.
    pub fn working_by(self, settings: WorkerSettings) -> Site {
        let jobs = manager(&self.store, &self.blobs, settings, StatusBoard::in_process());
        Site { jobs, ..self }
    }

    pub fn begin_work(&mut self) {
        let jobs = self.jobs.clone();
        self.worker = Some(tokio::spawn(async move { jobs.run().await }));
    }

    pub async fn end_work(&mut self) {
        self.jobs.shutdown();
        if let Some(worker) = self.worker.take() {
            tokio::time::timeout(SOON, worker).await.unwrap().unwrap().unwrap();
        }
    }

    /// As a process on another machine would have it: nothing is shared but the store and the objects.
    fn another(&self, cache: &TempDir) -> JobManager {
        let sandbox = Sandbox::new(8, cache.path()).unwrap();
        JobManager::new(Arc::clone(&self.store), self.blobs.clone(), Arc::new(StatusBoard::in_process()), sandbox, settings("another"))
    }

    /// Waits until nothing remains to be done for a batch. A final status is not that: its processor may still have to be told,
    /// and until then the batch and its version are in use.
    pub async fn wait(&self, id: BatchId) -> rowmill::model::Batch {
        tokio::time::timeout(SOON, self.jobs.wait_until_done(id)).await.unwrap().unwrap()
    }

    /// Gives an app, its groups and its schedules another name, past the rules for names.
    async fn rename(&self, from: &str, to: &str) {
        let columns = [
            ("apps", "app"),
            ("processors", "app"),
            ("activations", "app"),
            ("batches", "app"),
            ("batches", "group_name"),
            ("groups", "app"),
            ("groups", "name"),
            ("schedules", "app"),
            ("schedules", "name"),
        ];
        let file = format!("sqlite:{}", self.objects.path().join("store.db").display());
        let (url, schema) = self.database.as_ref().map_or((file, ""), |database| (database.url(), "rowmill."));
        for (table, column) in columns {
            let rename = format!("UPDATE {schema}{table} SET {column} = '{to}' WHERE {column} = '{from}'");
            if schema.is_empty() {
                sqlx::raw_sql(sqlx::AssertSqlSafe(rename)).execute(&mut SqliteConnection::connect(&url).await.unwrap()).await.unwrap();
            } else {
                sqlx::raw_sql(sqlx::AssertSqlSafe(rename)).execute(&mut PgConnection::connect(&url).await.unwrap()).await.unwrap();
            }
        }
    }

    pub async fn submit(&self, op: &str, rows: Vec<NewRow>) -> BatchId {
        self.jobs.batch_submit(BatchRequest::new("bank", op).with_rows(rows)).await.unwrap()
    }
}

fn manager(store: &Arc<dyn Store>, blobs: &Blobs, settings: WorkerSettings, status: StatusBoard) -> JobManager {
    let sandbox = Sandbox::new(settings.instances_max(), &guests::cache()).unwrap();
    JobManager::new(Arc::clone(store), blobs.clone(), Arc::new(status), sandbox, settings)
}

pub fn settings(name: &str) -> WorkerSettings {
    WorkerSettings {
        name: name.to_owned(),
        slots: 2,
        query_slots: 1,
        heartbeat: Duration::from_secs(1),
        drain_grace: Duration::from_millis(100),
        ..WorkerSettings::local()
    }
}

fn worker_info(name: &str) -> WorkerInfo {
    WorkerInfo { name: name.to_owned(), host: "here".to_owned(), pid: 1, slots: 1, query_slots: 1, draining: false }
}

pub fn row(line: u32, input: &str) -> NewRow {
    NewRow::new(line, JsonText::check(input).unwrap())
}

/// A good transaction.
pub fn transaction(line: u32) -> NewRow {
    let input = serde_json::json!({
        "id": format!("TX{line:08}"), "account": "DE0123456789", "amount": "10.25", "currency": "EUR", "date": "2026-01-31", "type": "deposit",
    });
    row(line, &input.to_string())
}

/// The sentence of an error, which is of this kind.
macro_rules! refused {
    ($result:expr, $kind:pat) => {
        match $result {
            Err(error @ $kind) => error.to_string(),
            other => panic!("{:?}", other.map(|_| "it was done")),
        }
    };
}
use refused;

/// Each of these on both stores, with processors and a worker.
macro_rules! on_each_store {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::jobs::Site::sqlite().await.with_processors().await).await;
            })*
        }
        mod on_postgresql {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::jobs::Site::postgres().await.with_processors().await).await;
            })*
        }
    };
}
pub(crate) use on_each_store;

/// What `JobError` says, for those who only look at its kind.
fn is_store(error: &JobError, part: &str) {
    assert!(matches!(error, JobError::Store(_)) && error.to_string().contains(part), "{error}");
}
