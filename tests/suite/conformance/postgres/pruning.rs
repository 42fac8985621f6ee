//! What is pruned holds up nobody: a step of it stands still in the middle, with all its locks, while everything else goes on.

use std::time::Duration;

use rowmill::model::{BatchStep, ClaimRequest, Due, OpKey, Pooler, Timestamp};
use rowmill::store::{PgConnection, PgSettings, PgStore, Store};
use sqlx::Connection;

use super::super::build::{TTL, batch, failure, held, query, request, row, rows, with_pieces};
use super::super::kit::file;
use super::migrated;

/// Who waits for a lock for so long is not served.
const NO_WAIT: &str = "SET lock_timeout = '100ms'";

async fn run_all(store: &PgStore) {
    while let [lease] = store.claim_leases(&request()).await.unwrap()[..] {
        let results: Vec<_> = store.read_leased_rows(lease.key).await.unwrap().iter().map(|row| with_pieces(row, &[("out", "x")])).collect();
        store.record_results(lease.key, &results, Duration::from_millis(1)).await.unwrap();
    }
    while let Some(lease) = store.claim_finish("finisher", None, TTL).await.unwrap() {
        match lease.step {
            BatchStep::Join => {
                let names = store.list_file_names(lease.batch).await.unwrap();
                let files: Vec<_> = names.iter().map(|name| file(name, &format!("batches/{}", lease.batch))).collect();
                store.record_files(&lease, &files).await.unwrap();
            }
            _ => store.record_mark_done(&lease, None).await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_pruning_holds_up_nobody() {
    let database = migrated();
    let settings = PgSettings { url: database.url(), connections: 4, pooler: Pooler::None };
    let store = PgStore::connect(&settings).await.unwrap();
    let (old, older) = (batch(), batch());
    for new in [&older, &old] {
        store.submit_batch(new.clone(), rows(300)).await.unwrap();
    }
    run_all(&store).await;
    for new in [&older, &old] {
        store.begin_removal(new.id, TTL).await.unwrap();
        let objects = store.list_pruned_objects(new.id, 10).await.unwrap();
        assert!(!store.forget_objects(new.id, &objects).await.unwrap());
    }
    // One is in the middle of its rows, and one is about to be gone.
    let mut steps = Vec::new();
    for (id, by) in [(old.id, 100), (older.id, 1_000)] {
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
        let step = "SELECT went_through, is_left FROM rowmill.prune_rows($1::uuid, $2, 60000, NULL)";
        let step: (i32, bool) = sqlx::query_as(step).bind(id.to_string()).bind(by).fetch_one(&mut connection).await.unwrap();
        assert_eq!(step, (by.min(300), by < 300));
        steps.push(connection);
    }

    // Everything else, by connections that do not wait.
    let admin = format!("ALTER DATABASE \"{}\" {NO_WAIT}", database.name());
    sqlx::query(sqlx::AssertSqlSafe(admin)).execute(&mut PgConnection::connect(&database.url()).await.unwrap()).await.unwrap();
    let store = PgStore::connect(&settings).await.unwrap();
    let ids = [batch(), held(), query(), batch()];
    store.submit_batch(ids[0].clone(), rows(250)).await.unwrap();
    store.submit_batch(ids[1].clone(), rows(2)).await.unwrap();
    store.append_rows(ids[1].id, vec![row(3)]).await.unwrap();
    store.submit_batch(ids[2].clone(), vec![row(0)]).await.unwrap();
    store.submit_batch(ids[3].clone(), rows(5)).await.unwrap();
    store.set_priority(ids[3].id, 7).await.unwrap();
    let [first] = store.claim_leases(&ClaimRequest { rows_max: 3, ..request() }).await.unwrap()[..] else { panic!("there are rows") };
    let results: Vec<_> = store.read_leased_rows(first.key).await.unwrap().iter().map(failure).collect();
    store.record_results(first.key, &results[..1], Duration::from_millis(1)).await.unwrap();
    assert_eq!(store.renew_leases(&[first.key], TTL).await.unwrap(), []);
    store.give_back_lease(first.key).await.unwrap();
    assert!(store.abort_batch(ids[3].id, None).await.unwrap().changed);
    assert!(!store.abort_batch(old.id, None).await.unwrap().changed);
    store.abort_overdue().await.unwrap();
    store.release_batch(ids[1].id).await.unwrap();
    assert_eq!(store.next_due(None).await.unwrap(), Some(Duration::ZERO));
    run_all(&store).await;
    for (new, wanted) in ids.iter().zip([250, 3, 1, 0]) {
        let batch = store.read_batch(new.id).await.unwrap();
        assert_eq!((batch.step, batch.counts.success), (BatchStep::Done, wanted));
    }
    // They are there until those are done with them.
    for id in [old.id, older.id] {
        assert_eq!(store.read_batch(id).await.unwrap().counts.success, 300);
    }
    // Who prunes something else does not wait either.
    let op = OpKey { app: "bank".to_owned(), op: "post".to_owned() };
    let due = Due { batches: Some(Timestamp(i64::MAX)), ..Due::default() };
    let mut others = 0;
    while let Some(pruning) = store.begin_prune(&op, &due, TTL).await.unwrap() {
        let objects = store.list_pruned_objects(pruning.batch, 10).await.unwrap();
        store.forget_objects(pruning.batch, &objects).await.unwrap();
        while store.prune_rows(pruning.batch, 100, TTL).await.unwrap().left {}
        others += 1;
    }
    assert_eq!(others, 4);
    assert!(store.resume_prune(TTL).await.unwrap().is_none());
    for mut step in steps {
        sqlx::query("COMMIT").execute(&mut step).await.unwrap();
    }
    assert!(store.read_batch(older.id).await.is_err());
    let mut left = 0;
    while store.prune_rows(old.id, 100, TTL).await.unwrap().left {
        left += 1;
    }
    assert_eq!(left, 1);
    let kept: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM rowmill.rows) + (SELECT count(*) FROM rowmill.outcomes) + (SELECT count(*) FROM rowmill.output_files) + (SELECT count(*) FROM rowmill.leases) + (SELECT count(*) FROM rowmill.batches)")
        .fetch_one(&mut PgConnection::connect(&database.url()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(kept, 0, "nothing is left of anything");
}
