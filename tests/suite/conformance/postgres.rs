//! PostgreSQL, and PostgreSQL behind a pooler: the suite, and what it promises beyond the trait since it has many processes.

mod late_leases;
mod plans;
mod positions;
mod pruning;
mod races;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rowmill::model::{App, AppQuota, BatchId, Clock, JsonText, NewBatch, NewSchedule, Pooler, ScheduleKey};
use rowmill::store::{LeaseOwner, OverQuota, PgConnection, PgSettings, PgStore, SchemaState, Store, StoreError, StoreEvent};
use rowmill_tests::servers::{Database, PgBouncer, shared_postgres};
use sqlx::Connection;

use super::build::{TTL, batch, json_of, query, retry, row, row_with, rows, success};
use super::conformance;
use super::kit::Harness;
use super::quotas;
use super::scheduled::{schedule, submit};

/// A database of its own.
pub struct PgHarness(Database);

#[async_trait]
impl Harness for PgHarness {
    fn schedules() -> u64 {
        50
    }

    async fn fresh() -> PgHarness {
        PgHarness(migrated())
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(PgStore::connect(&settings(&self.0.url(), Pooler::None)).await?.with_clock(clock)))
    }
}

/// A copy of a database with the schema.
fn migrated() -> Database {
    Database::from_template("rowmill", |url| Ok(on_a_thread(PgStore::migrate(&settings(url, Pooler::None)))?)).unwrap()
}

/// A runtime cannot be started inside the one that a test runs in.
fn on_a_thread<T: Send>(doing: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        scope.spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(doing)).join().unwrap()
    })
}

fn settings(url: &str, pooler: Pooler) -> PgSettings {
    PgSettings { url: url.to_owned(), connections: 8, pooler }
}

mod direct {
    use super::{PgHarness, conformance};

    conformance!(PgHarness);
}

/// A database of its own behind a PgBouncer in transaction mode.
pub struct PooledHarness {
    database: Database,
    pooler: PgBouncer,
}

#[async_trait]
impl Harness for PooledHarness {
    fn schedules() -> u64 {
        15
    }

    async fn fresh() -> PooledHarness {
        PooledHarness { database: migrated(), pooler: PgBouncer::start(&shared_postgres()).unwrap() }
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
        let url = self.pooler.url(self.database.name());
        Ok(Arc::new(PgStore::connect(&settings(&url, Pooler::Transaction)).await?.with_clock(clock)))
    }
}

mod pooled {
    use super::{PooledHarness, conformance};

    conformance!(PooledHarness);
}

#[tokio::test]
async fn apps_hold_no_more_than_the_operator_says() {
    let database = migrated();
    let store = PgStore::connect(&settings(&database.url(), Pooler::None)).await.unwrap();
    store.put_app(&quotas::given_before()).await.unwrap();
    quotas::bounded(&store.with_bounds(quotas::bounds())).await;
}

/// Far from the limit submissions wait for nobody, also when one of them is part of a long transaction; near it they wait for its end.
#[tokio::test]
async fn a_submission_that_is_under_way_counts_when_it_commits() {
    let database = migrated();
    let store = Arc::new(PgStore::connect(&settings(&database.url(), Pooler::None)).await.unwrap());
    let quota = |queued_rows| App { quota: AppQuota { queued_rows: Some(queued_rows), ..AppQuota::default() }, ..App::named("bank") };
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    store.put_app(&quota(1_000_000)).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    store.submit_batch_in(&mut transaction, batch(), rows(3)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), store.submit_batch(batch(), rows(2))).await.unwrap().unwrap();
    store.put_app(&quota(6)).await.unwrap();
    let near = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.submit_batch(batch(), rows(2)).await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut *transaction).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    transaction.commit().await.unwrap();
    assert!(matches!(near.await.unwrap(), Err(StoreError::OverQuota(OverQuota::QueuedRows { rows: 7, limit: 6, .. }))));
}

#[tokio::test]
async fn a_schema_is_made_once_however_many_make_it() {
    let database = Database::create().unwrap();
    let settings = settings(&database.url(), Pooler::None);
    assert_eq!(PgStore::schema_state(&settings).await.unwrap(), SchemaState::Missing);
    let Err(StoreError::Invalid(why)) = PgStore::connect(&settings).await.map(|_| ()) else { panic!("it has no schema") };
    assert!(why.contains("run `rowmill migrate`"), "{why}");
    let all: tokio::task::JoinSet<_> = (0..4)
        .map(|_| {
            let settings = settings.clone();
            async move { PgStore::migrate(&settings).await }
        })
        .collect();
    all.join_all().await.into_iter().for_each(|made| made.unwrap());
    assert_eq!(PgStore::schema_state(&settings).await.unwrap(), SchemaState::Current);
    PgStore::connect(&settings).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused() {
    let database = migrated();
    let settings = settings(&database.url(), Pooler::None);
    database.sql("UPDATE rowmill.schema_migrations SET version = version + 1000 WHERE version = 2").unwrap();
    assert!(matches!(PgStore::schema_state(&settings).await.unwrap(), SchemaState::Newer { version: 1002, .. }));
    let Err(StoreError::Invalid(why)) = PgStore::connect(&settings).await.map(|_| ()) else { panic!("it is newer") };
    assert!(why.contains("use a newer program"), "{why}");
    let Err(StoreError::Invalid(_)) = PgStore::migrate(&settings).await else { panic!("it is newer") };

    database.sql("DELETE FROM rowmill.schema_migrations WHERE version > 1").unwrap();
    let Err(StoreError::Invalid(why)) = PgStore::connect(&settings).await.map(|_| ()) else { panic!("it is older") };
    assert!(why.contains("has version 1") && why.contains("run `rowmill migrate`"), "{why}");

    database.sql("UPDATE rowmill.schema_migrations SET success = false").unwrap();
    assert_eq!(PgStore::schema_state(&settings).await.unwrap(), SchemaState::Broken { version: 1 });
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_its_password() {
    for url in ["", "rowmill", "postgres//rowmill:geheim@host", "mysql://rowmill:geheim@host/x"] {
        let error = PgStore::connect(&settings(url, Pooler::None)).await.map(|_| ()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("geheim"), "{error:?}");
    }
}

/// Takes what comes until it is the wanted event.
async fn until(events: &mut tokio::sync::broadcast::Receiver<StoreEvent>, wanted: StoreEvent) {
    let waiting = async { while events.recv().await.unwrap() != wanted {} };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{wanted:?} never came"));
}

#[tokio::test]
async fn other_processes_hear_of_what_happens() {
    let database = migrated();
    let settings = settings(&database.url(), Pooler::None);
    let (here, there) = (PgStore::connect(&settings).await.unwrap(), PgStore::connect(&settings).await.unwrap());
    let mut events = there.events();
    let new = batch();
    let (id, app, kind) = (new.id, new.app.clone(), new.kind);
    // It listens from this event on, which it makes itself.
    until(&mut events, StoreEvent::Work(rowmill::model::ProcessorKind::SlowQuery)).await;
    here.submit_batch(new, rows(1)).await.unwrap();
    until(&mut events, StoreEvent::Submitted { app: app.clone(), kind }).await;
    here.abort_batch(id, None).await.unwrap();
    until(&mut events, StoreEvent::Aborted(id)).await;
    let lease = here.claim_finish("finisher", None, Duration::from_secs(30)).await.unwrap().unwrap();
    here.record_files(&lease, &[]).await.unwrap();
    until(&mut events, StoreEvent::Final(id)).await;

    // Its connection is lost, and it listens again.
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()").unwrap();
    until(&mut events, StoreEvent::Work(rowmill::model::ProcessorKind::SlowQuery)).await;
    here.submit_batch(batch(), rows(1)).await.unwrap();
    until(&mut events, StoreEvent::Submitted { app, kind }).await;

    let scheduled = NewSchedule { key: ScheduleKey::new("scheduled", "a"), ..schedule("") };
    let put = here.put_schedule(&scheduled, &rows(1)).await.unwrap();
    here.run_tick(&put.next_tick(), &submit(&put, BatchId::generate())).await.unwrap();
    until(&mut events, StoreEvent::Submitted { app: "scheduled".to_owned(), kind }).await;
}

#[tokio::test]
async fn what_is_submitted_again_here_hides_nothing_of_other_processes() {
    let database = migrated();
    let settings = settings(&database.url(), Pooler::None);
    let there = PgStore::connect(&settings).await.unwrap();
    let here = PgStore::connect(&settings).await.unwrap();
    let mut events = here.events();
    // It listens from this event on.
    until(&mut events, StoreEvent::Work(rowmill::model::ProcessorKind::SlowQuery)).await;
    let new = NewBatch { request_digest: Some("the same".to_owned()), ..batch() };
    let submitted = StoreEvent::Submitted { app: new.app.clone(), kind: new.kind };
    here.submit_batch(new.clone(), rows(1)).await.unwrap();
    until(&mut events, submitted.clone()).await;
    here.submit_batch(new, rows(1)).await.unwrap();
    there.submit_batch(batch(), rows(1)).await.unwrap();
    until(&mut events, submitted).await;
}

#[tokio::test]
async fn a_batch_is_submitted_in_a_transaction_of_the_caller() {
    let database = migrated();
    database.sql("CREATE TABLE orders (id int)").unwrap();
    let store = PgStore::connect(&settings(&database.url(), Pooler::None)).await.unwrap();
    let url = database.url();
    let mut mine = <rowmill::store::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    for commit in [false, true] {
        let new = batch();
        let id = new.id;
        let mut transaction = sqlx::Connection::begin(&mut mine).await.unwrap();
        sqlx::query("INSERT INTO orders VALUES (1)").execute(&mut *transaction).await.unwrap();
        store.submit_batch_in(&mut transaction, new, rows(3)).await.unwrap();
        assert!(matches!(store.read_batch(id).await, Err(StoreError::NotFound(_))));
        if commit {
            transaction.commit().await.unwrap();
            assert_eq!(store.read_batch(id).await.unwrap().counts.rows, 3);
        } else {
            transaction.rollback().await.unwrap();
            assert!(matches!(store.read_batch(id).await, Err(StoreError::NotFound(_))));
        }
    }
    assert_eq!(database.sql("SELECT count(*) FROM orders").unwrap().trim(), "1");
}

/// Claims wait for each other, so what is large is read by itself.
#[tokio::test]
async fn a_claim_brings_along_what_is_small() {
    let database = migrated();
    let store = PgStore::connect(&settings(&database.url(), Pooler::None)).await.unwrap();
    let large = json_of(70 << 10);
    let context = JsonText::check(large.clone()).unwrap();
    for (new, rows, brings) in [
        (batch(), rows(100), (true, true)),
        (batch(), vec![row_with(1, large)], (true, false)),
        (NewBatch { context, ..batch() }, rows(3), (false, true)),
    ] {
        store.submit_batch(new, rows).await.unwrap();
        let [claimed] = &store.claim_work(&super::build::request()).await.unwrap()[..] else { panic!() };
        assert_eq!((claimed.batch.is_some(), claimed.rows.is_some()), brings);
    }
}

/// A slow query that finds nothing before it is leased by the statement that submits it.
#[tokio::test]
async fn a_query_is_leased_with_its_submission() {
    let database = migrated();
    let store = PgStore::connect(&settings(&database.url(), Pooler::None)).await.unwrap();
    let owner = LeaseOwner { worker: "worker", ttl: TTL };
    for app in ["bank", "bank", "shop"] {
        // Those of batches do not wait for the same slots.
        store.submit_batch(batch(), rows(1)).await.unwrap();
        let work = store.submit_to_run(NewBatch { app: app.to_owned(), ..query() }, row(0), owner).await.unwrap().expect("it need not be claimed");
        assert!(work.batch.is_some() && work.rows.is_some());
    }
}

/// The tables of rows and outcomes are only appended to, whatever happens to their batch.
#[tokio::test]
async fn rows_and_outcomes_leave_nothing_dead_behind() {
    let database = migrated();
    let store = PgStore::connect(&settings(&database.url(), Pooler::None)).await.unwrap();
    let new = batch();
    let id = new.id;
    store.submit_batch(new, rows(3_000)).await.unwrap();
    let mut done = 0;
    while let [lease] = store.claim_leases(&super::build::request()).await.unwrap()[..] {
        // The first time each tenth row is to be run again.
        let again = |row: &rowmill::model::LeasedRow| row.attempt == 1 && row.row_no.is_multiple_of(10);
        let result = |row: &rowmill::model::LeasedRow| if again(row) { retry(row, Duration::ZERO) } else { success(row) };
        let results: Vec<_> = store.read_leased_rows(lease.key).await.unwrap().iter().map(result).collect();
        done = store.record_results(lease.key, &results, Duration::from_millis(1)).await.unwrap().counts.success;
    }
    assert_eq!((done, store.read_batch(id).await.unwrap().counts.success), (3_000, 3_000));
    // What a connection counted is written when it ends.
    store.close().await;
    let counted = "SELECT sum(n_tup_ins), sum(n_tup_upd + n_tup_del + n_dead_tup) FROM pg_stat_user_tables WHERE relname IN ('rows', 'outcomes')";
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while database.sql(counted).unwrap().trim() != "6000|0" {
        assert!(std::time::Instant::now() < deadline, "{}", database.sql(counted).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many rows of the large tables the database went through so far.
fn rows_read(database: &Database) -> u64 {
    let counted = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables
        WHERE relname IN ('rows', 'outcomes', 'line_order')";
    database.sql(counted).unwrap().trim().parse().unwrap()
}

/// Whatever the database thinks of its tables, a page costs what is in it, and not what is in the batch.
#[tokio::test]
async fn reading_page_by_page_goes_through_each_row_a_few_times() {
    const ROWS: u32 = 6_000;
    for (ascending, analyzed) in [(true, false), (true, true), (false, false), (false, true)] {
        let database = migrated();
        let settings = settings(&database.url(), Pooler::None);
        let store = PgStore::connect(&settings).await.unwrap();
        let new = batch();
        let id = new.id;
        let mut submitted = rows(ROWS);
        if !ascending {
            submitted.reverse();
        }
        store.submit_batch(new, submitted).await.unwrap();
        let before = rows_read(&database);
        let mut done = 0;
        while let [lease] = store.claim_leases(&super::build::request()).await.unwrap()[..] {
            let results: Vec<_> = store
                .read_leased_rows(lease.key)
                .await
                .unwrap()
                .iter()
                .map(|row| super::build::with_pieces(row, &[("a", "1"), ("b", "2")]))
                .collect();
            done += results.len();
            store.record_results(lease.key, &results, Duration::from_millis(1)).await.unwrap();
        }
        assert_eq!(done, ROWS as usize);
        if analyzed {
            database.sql("ANALYZE").unwrap();
        }
        let (mut after, mut read) = (None, 0);
        loop {
            let page = store.read_results(id, after, 100).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(rowmill::store::ResultCursor { line: last.line, row_no: last.row_no });
            read += page.len();
        }
        let (mut after, mut pieces) = (None, 0);
        loop {
            let page = store.read_pieces(id, after, 100).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.at);
            pieces += page.iter().map(|row| row.pieces.len()).sum::<usize>();
        }
        assert_eq!((read, pieces), (ROWS as usize, 2 * ROWS as usize));
        // What a connection counted is written when it ends.
        store.close().await;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        // Two tables for leases and results, pieces, and the order of lines.
        while rows_read(&database) < before + u64::from(ROWS) {
            assert!(std::time::Instant::now() < deadline, "nothing was counted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let each = (rows_read(&database) - before) / u64::from(ROWS);
        let tables =
            database.sql("SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE seq_tup_read + idx_tup_fetch > 0").unwrap();
        assert!(each <= 16, "ascending {ascending}, analyzed {analyzed}: each row was read {each} times\n{tables}");
    }
}
