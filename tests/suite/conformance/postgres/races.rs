//! What must hold when many processes do the same at the same moment. Each task has connections of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rowmill::model::{App, BatchStep, ClaimRequest, Clock, LeasedRow, NewBatch, Pooler, ProcessorKind, RetryRows, SystemClock, Terms};
use rowmill::store::{LeaseOwner, PgConnection, PgSettings, PgStore, Store, StoreError, VersionError};
use rowmill_tests::servers::Database;
use sqlx::Connection;
use tokio::sync::Barrier;

use super::super::build::{SECOND, TTL, batch, failure, query, request, row, rows, success, version};
use super::migrated;

pub(super) async fn connect(database: &Database) -> Arc<PgStore> {
    // One connection listens.
    let settings = PgSettings { url: database.url(), connections: 3, pooler: Pooler::None };
    Arc::new(PgStore::connect(&settings).await.unwrap())
}

/// Both records come as far as the lock of their batch, which somebody else holds, and then go on at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_two_leases_of_a_batch_finish_it_exactly_once() {
    const ROUNDS: u32 = 30;
    let database = migrated();
    let stores = [connect(&database).await, connect(&database).await];
    let mut gate = PgConnection::connect(&database.url()).await.unwrap();
    for round in 0..ROUNDS {
        let new = batch();
        let id = new.id;
        stores[0].submit_batch(new, rows(2)).await.unwrap();
        let mut leases = Vec::new();
        for store in &stores {
            let request = ClaimRequest { rows_max: 1, ..request() };
            let [lease] = store.claim_leases(&request).await.unwrap()[..] else { panic!("there is a row for each") };
            let results: Vec<_> = store.read_leased_rows(lease.key).await.unwrap().iter().map(success).collect();
            leases.push((Arc::clone(store), lease.key, results));
        }
        let mut closed = gate.begin().await.unwrap();
        sqlx::query("SELECT FROM rowmill.batches WHERE step = 'rows' FOR UPDATE").execute(&mut *closed).await.unwrap();
        let records: Vec<_> = leases
            .into_iter()
            .map(|(store, key, results)| tokio::spawn(async move { store.record_results(key, &results, Duration::from_millis(1)).await.unwrap() }))
            .collect();
        until_locked(&mut closed, 2).await;
        closed.commit().await.unwrap();
        let mut last = 0;
        for record in records {
            last += u32::from(record.await.unwrap().last);
        }
        assert_eq!(last, 1, "round {round}: so many records were the last");

        let barrier = Arc::new(Barrier::new(2));
        let claims: Vec<_> = stores
            .iter()
            .map(|store| {
                let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    store.claim_finish("finisher", None, TTL).await.unwrap()
                })
            })
            .collect();
        let mut finishing = Vec::new();
        for claim in claims {
            finishing.extend(claim.await.unwrap());
        }
        let [join] = &finishing[..] else { panic!("round {round}: {finishing:?}") };
        assert_eq!(join.batch, id);
        stores[0].record_files(join, &[]).await.unwrap();
        let mark = stores[1].claim_finish("finisher", None, TTL).await.unwrap().unwrap();
        stores[1].record_mark_done(&mark, None).await.unwrap();
        assert_eq!(stores[0].claim_finish("finisher", None, TTL).await.unwrap(), None);
    }
}

/// Both come as far as the lock of the group, with their batch done and not committed, and then go on at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_two_batches_of_a_group_end_it_exactly_once() {
    const ROUNDS: u32 = 20;
    let database = migrated();
    let told = "CREATE TABLE told (name text); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO told VALUES (NEW.name); RETURN NULL; END $$;
        CREATE TRIGGER tell AFTER UPDATE ON rowmill.groups FOR EACH ROW WHEN (NEW.ended_at IS DISTINCT FROM OLD.ended_at) EXECUTE FUNCTION tell()";
    database.sql(told).unwrap();
    let stores = [connect(&database).await, connect(&database).await];
    let mut gate = PgConnection::connect(&database.url()).await.unwrap();
    for round in 0..ROUNDS {
        let name = format!("group {round}");
        for _ in &stores {
            stores[0].submit_batch(NewBatch { group: Some(name.clone()), ..batch() }, rows(1)).await.unwrap();
        }
        let app = batch().app;
        stores[0].seal_group(&app, &name).await.unwrap();
        for lease in stores[0].claim_leases(&ClaimRequest { leases_max: 2, ..request() }).await.unwrap() {
            let results: Vec<_> = stores[0].read_leased_rows(lease.key).await.unwrap().iter().map(success).collect();
            stores[0].record_results(lease.key, &results, Duration::from_millis(1)).await.unwrap();
        }
        let mut marks = Vec::new();
        while let Some(lease) = stores[0].claim_finish("finisher", None, TTL).await.unwrap() {
            if lease.step == BatchStep::Join { stores[0].record_files(&lease, &[]).await.unwrap() } else { marks.push(lease) }
        }
        let mut closed = gate.begin().await.unwrap();
        sqlx::query("SELECT FROM rowmill.groups WHERE name = $1 FOR UPDATE").bind(&name).execute(&mut *closed).await.unwrap();
        let ends: Vec<_> = stores
            .iter()
            .zip(marks)
            .map(|(store, mark)| {
                let store = Arc::clone(store);
                tokio::spawn(async move { store.record_mark_done(&mark, None).await.unwrap() })
            })
            .collect();
        assert_eq!(ends.len(), 2);
        until_locked(&mut closed, 2).await;
        closed.commit().await.unwrap();
        for end in ends {
            end.await.unwrap();
        }
        assert!(stores[0].read_group(&app, &name).await.unwrap().unwrap().ended_at.is_some(), "round {round}: it has not ended");
    }
    assert_eq!(database.sql("SELECT count(*), count(DISTINCT name) FROM told").unwrap().trim(), format!("{ROUNDS}|{ROUNDS}"));
}

/// The end of a batch does not wait for a caller's own transaction that submits into its group, and a seal does.
#[tokio::test(flavor = "multi_thread")]
async fn who_submits_into_a_group_holds_up_its_seal_and_no_batch() {
    let database = migrated();
    let store = connect(&database).await;
    let grouped = || NewBatch { group: Some("g".to_owned()), ..batch() };
    store.submit_batch(grouped(), rows(1)).await.unwrap();
    let mut caller = PgConnection::connect(&database.url()).await.unwrap();
    let mut standing = caller.begin().await.unwrap();
    store.submit_batch_in(&mut standing, grouped(), rows(1)).await.unwrap();
    let sealing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.seal_group(&batch().app, "g").await.unwrap() }
    });
    let mut watcher = PgConnection::connect(&database.url()).await.unwrap();
    let mut watching = watcher.begin().await.unwrap();
    until_locked(&mut watching, 1).await;
    // All of this goes on beside them.
    store.submit_batch(grouped(), rows(1)).await.unwrap();
    for lease in store.claim_leases(&ClaimRequest { leases_max: 2, ..request() }).await.unwrap() {
        let results: Vec<_> = store.read_leased_rows(lease.key).await.unwrap().iter().map(success).collect();
        store.record_results(lease.key, &results, Duration::from_millis(1)).await.unwrap();
    }
    while let Some(lease) = store.claim_finish("finisher", None, TTL).await.unwrap() {
        if lease.step == BatchStep::Join {
            store.record_files(&lease, &[]).await.unwrap();
        } else {
            store.record_mark_done(&lease, None).await.unwrap();
        }
    }
    assert!(!sealing.is_finished());
    standing.commit().await.unwrap();
    assert!(sealing.await.unwrap());
    let group = store.read_group(&batch().app, "g").await.unwrap().unwrap();
    assert_eq!((group.batches.all, group.batches.open, group.ended_at), (3, 1, None));
}

/// Until so many wait for locks.
pub(super) async fn until_locked(db: &mut PgConnection, count: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *db).await.unwrap() < count {
        assert!(Instant::now() < deadline, "so many never came to wait: {count}");
        sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&mut *db).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_never_runs_more_leases_than_it_may() {
    const TASKS: u32 = 10;
    const MOST: u32 = 3;
    const ROWS: u32 = 300;
    let database = migrated();
    let store = connect(&database).await;
    store.put_app(&App { running_max: Some(MOST), ..App::named(&batch().app) }).await.unwrap();
    let new = batch();
    let id = new.id;
    store.submit_batch(new, rows(ROWS)).await.unwrap();
    let (running, most, barrier) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(TASKS as usize)));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, running, most, barrier) = (connect(&database).await, Arc::clone(&running), Arc::clone(&most), Arc::clone(&barrier));
        tasks.spawn(async move {
            barrier.wait().await;
            let mut turn = task;
            while store.read_batch(id).await.unwrap().counts.success < u64::from(ROWS) {
                let leases = store.claim_leases(&ClaimRequest { leases_max: 2, rows_max: 2, ..request() }).await.unwrap();
                // From when a claim has returned to when its end begins: never longer than the lease runs.
                let count = u32::try_from(leases.len()).unwrap();
                most.fetch_max(running.fetch_add(count, Ordering::SeqCst) + count, Ordering::SeqCst);
                for lease in leases {
                    let rows: Vec<LeasedRow> = store.read_leased_rows(lease.key).await.unwrap();
                    running.fetch_sub(1, Ordering::SeqCst);
                    turn += 1;
                    if turn.is_multiple_of(4) {
                        store.give_back_lease(lease.key).await.unwrap();
                    } else {
                        store.record_results(lease.key, &rows.iter().map(success).collect::<Vec<_>>(), SECOND).await.unwrap();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), MOST, "so many ran at the same time");
}

/// A retry of many rows takes its time. It is held up in the middle here, and others are claimed, recorded and aborted meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_takes_its_time_holds_nobody_up() {
    let database = migrated();
    let (store, other) = (connect(&database).await, connect(&database).await);
    let new = batch();
    let id = new.id;
    store.submit_batch(new, rows(100)).await.unwrap();
    let [lease] = store.claim_leases(&request()).await.unwrap()[..] else { panic!("there are rows") };
    let results: Vec<_> = store.read_leased_rows(lease.key).await.unwrap().iter().map(failure).collect();
    store.record_results(lease.key, &results, SECOND).await.unwrap();
    for _ in 0..2 {
        let lease = store.claim_finish("finisher", None, TTL).await.unwrap().unwrap();
        match lease.step {
            BatchStep::Join => store.record_files(&lease, &[]).await.unwrap(),
            _ => store.record_mark_done(&lease, None).await.unwrap(),
        }
    }
    let mut gate = PgConnection::connect(&database.url()).await.unwrap();
    let mut closed = gate.begin().await.unwrap();
    sqlx::query("SELECT FROM rowmill.outcomes WHERE row_no = 50 FOR UPDATE").execute(&mut *closed).await.unwrap();
    let retrying = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.retry_batch(id, &RetryRows::default()).await }
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *closed).await.unwrap() < 1 {
        assert!(Instant::now() < deadline, "the retry never came to the outcome");
        sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&mut *closed).await.unwrap();
    }
    // Of the same app and operation, and with the batch itself.
    let next = batch();
    other.submit_batch(next.clone(), rows(2)).await.unwrap();
    let [lease] = other.claim_leases(&request()).await.unwrap()[..] else { panic!("it is claimed") };
    assert_eq!(lease.batch, next.id);
    let results: Vec<_> = other.read_leased_rows(lease.key).await.unwrap().iter().map(success).collect();
    assert!(other.record_results(lease.key, &results, SECOND).await.unwrap().last);
    assert!(!other.abort_batch(id, None).await.unwrap().changed);
    assert_eq!(other.read_batch(id).await.unwrap().counts.failed, 100, "it is as it was");
    assert!(other.claim_finish("finisher", None, TTL).await.unwrap().is_some());
    closed.rollback().await.unwrap();
    assert_eq!(retrying.await.unwrap().unwrap().rows, 100);
    assert_eq!(other.read_batch(id).await.unwrap().counts.failed, 0);
}

/// A transaction of a caller's that is open while a version is removed, and has submitted with it: its end decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_for_those_who_may_submit_with_the_version() {
    let database = migrated();
    let store = connect(&database).await;
    for digest in ["one", "two", "three"] {
        store.put_processor(&version("bank", "post", ProcessorKind::Batch, digest)).await.unwrap();
    }
    let mut connection = PgConnection::connect(&database.url()).await.unwrap();
    for (number, commits) in [(1, true), (2, false)] {
        let mut open = connection.begin().await.unwrap();
        store.submit_batch_in(&mut open, NewBatch { processor_version: number, ..batch() }, rows(1)).await.unwrap();
        let removing = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.remove_processor("bank", "post", number).await }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let marked = format!("SELECT count(*) FROM rowmill.processors WHERE version = {number} AND removed_at IS NOT NULL");
        while database.sql(&marked).unwrap().trim() != "1" {
            assert!(Instant::now() < deadline, "the version is never closed to submissions");
        }
        assert!(!removing.is_finished(), "it does not wait");
        let late = store.submit_batch(NewBatch { processor_version: number, ..batch() }, rows(1)).await;
        assert!(matches!(late, Err(StoreError::Version(VersionError::Removed { .. }))), "{late:?}");
        if commits {
            open.commit().await.unwrap();
            let refused = removing.await.unwrap();
            assert!(matches!(refused, Err(StoreError::Version(VersionError::InUse { version: 1, batches: 1 }))), "{refused:?}");
            store.submit_batch(batch(), rows(1)).await.unwrap();
        } else {
            open.rollback().await.unwrap();
            assert_eq!(removing.await.unwrap().unwrap(), ["two"]);
        }
    }
}

/// A claim waits for another, which lets a batch begin whose start comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waited_takes_nothing_before_its_start() {
    let database = migrated();
    let store = connect(&database).await;
    let mut other = PgConnection::connect(&database.url()).await.unwrap();
    let start_at = SystemClock.now().after(SECOND);
    let new = NewBatch { terms: Terms { start_at: Some(start_at), ..Terms::default() }, ..batch() };
    let id = new.id;
    store.submit_batch(new, rows(1)).await.unwrap();
    let mut claiming = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(7881403275)").execute(&mut *claiming).await.unwrap();
    let claim = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim_leases(&request()).await.unwrap() }
    });
    until_locked(&mut claiming, 1).await;
    while SystemClock.now() <= start_at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sqlx::query("UPDATE rowmill.batches SET deferred = false, fresh = true").execute(&mut *claiming).await.unwrap();
    claiming.commit().await.unwrap();
    assert_eq!(claim.await.unwrap().len(), 1);
    let started_at = store.read_batch(id).await.unwrap().started_at;
    assert!(started_at >= Some(start_at), "it started at {started_at:?}, and was to start at {start_at:?}");
}

/// What is set for an app waits for a query that comes in with its lease, and one that comes then waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_counts_from_when_it_is_set() {
    let database = migrated();
    let store = connect(&database).await;
    let mut other = PgConnection::connect(&database.url()).await.unwrap();
    let limited = App { running_max: Some(1), ..App::named("bank") };
    let mut comes_in = other.begin().await.unwrap();
    let leases: bool = sqlx::query_scalar("SELECT rowmill.may_lease_at_once('bank', 'post', 0)").fetch_one(&mut *comes_in).await.unwrap();
    assert!(leases);
    let setting = tokio::spawn({
        let (store, limited) = (Arc::clone(&store), limited.clone());
        async move { store.put_app(&limited).await }
    });
    until_locked(&mut comes_in, 1).await;
    comes_in.commit().await.unwrap();
    setting.await.unwrap().unwrap();
    store.put_app(&App::named("bank")).await.unwrap();

    let mut sets = other.begin().await.unwrap();
    sqlx::query("SELECT rowmill.lock_app('bank')").execute(&mut *sets).await.unwrap();
    sqlx::query("UPDATE rowmill.apps SET running_max = 1 WHERE app = 'bank'").execute(&mut *sets).await.unwrap();
    let submitting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.submit_to_run(query(), row(0), LeaseOwner { worker: "worker", ttl: TTL }).await }
    });
    until_locked(&mut sets, 1).await;
    sets.commit().await.unwrap();
    assert!(submitting.await.unwrap().unwrap().is_none());
}

/// A record that takes long to commit holds up the claims of its batch, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waits_for_a_record_lets_others_claim() {
    let database = migrated();
    let store = connect(&database).await;
    let mut records = PgConnection::connect(&database.url()).await.unwrap();
    let (recorded, other) = (batch(), NewBatch { app: "shop".to_owned(), ..batch() });
    store.submit_batch(recorded.clone(), rows(1)).await.unwrap();
    let mut record = records.begin().await.unwrap();
    sqlx::query("UPDATE rowmill.batches SET fuel = fuel").execute(&mut *record).await.unwrap();
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim_leases(&ClaimRequest { apps_except: vec!["shop".to_owned()], ..request() }).await }
    });
    until_locked(&mut record, 1).await;
    store.submit_batch(other.clone(), rows(1)).await.unwrap();
    let claimed = tokio::time::timeout(SECOND * 20, store.claim_leases(&request())).await.expect("it waits for the record").unwrap();
    assert_eq!(claimed[0].batch, other.id);
    assert!(!waiting.is_finished());
    record.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap()[0].batch, recorded.id);
}
