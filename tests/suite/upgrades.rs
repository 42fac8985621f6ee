//! Stores with data of before: what a newer program finds in them.

use std::path::Path;
use std::sync::Arc;

use rowmill::model::{BatchFilter, Pooler, ProcessorKind, SystemClock};
use rowmill::store::{PgSettings, PgStore, SqliteStore, Store, StoreError, VersionError};
use rowmill_tests::servers::Database;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

/// The migrations of a store before one of them, as a program of that time had them.
async fn migrations_before(store: &str, number: u32) -> Migrator {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(store), TempDir::new().unwrap());
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.split('_').next().unwrap().parse::<u32>().unwrap() < number {
            std::fs::copy(entry.path(), to.path().join(name)).unwrap();
        }
    }
    Migrator::new(to.path()).await.unwrap()
}

/// Versions of four operations, from when one version served an operation, whatever its kind.
fn one_kind_at_a_time(schema: &str) -> String {
    let processors = [
        // Batches again after queries; the last version was never active.
        ("post", 1, "batch", "NULL"),
        ("post", 2, "slow_query", "NULL"),
        ("post", 3, "batch", "NULL"),
        ("post", 4, "slow_query", "NULL"),
        // Queries took the place of batches, whose version was removed in one of the operations.
        ("ask", 1, "batch", "NULL"),
        ("ask", 2, "slow_query", "NULL"),
        ("gone", 1, "batch", "7"),
        ("gone", 2, "slow_query", "NULL"),
        // Queries were rolled back.
        ("undone", 1, "batch", "NULL"),
        ("undone", 2, "slow_query", "NULL"),
    ];
    let activations = [
        ("post", 1, 1, "NULL"),
        ("post", 2, 2, "NULL"),
        ("post", 3, 3, "NULL"),
        ("ask", 1, 1, "NULL"),
        ("ask", 2, 2, "NULL"),
        ("gone", 1, 1, "NULL"),
        ("gone", 2, 2, "NULL"),
        ("undone", 1, 1, "NULL"),
        ("undone", 2, 2, "9"),
    ];
    let processors = processors.map(|(op, version, kind, removed)| format!("('bank', '{op}', {version}, '{kind}', '{op}{version}', 5, {removed})"));
    let activations = activations.map(|(op, number, version, undone)| format!("('bank', '{op}', {number}, {version}, {number}, {undone})"));
    format!(
        "INSERT INTO {schema}processors (app, op, version, kind, digest, created_at, removed_at) VALUES {};
         INSERT INTO {schema}activations (app, op, activation_no, version, activated_at, undone_at) VALUES {};",
        processors.join(", "),
        activations.join(", ")
    )
}

/// The same serves as before, and from here on both kinds can.
async fn both_kinds_can_serve(store: &dyn Store) {
    let served = async |op: &str| {
        let found = async |kind| store.find_op("bank", op, kind).await.unwrap().map(|found| found.version.version);
        [found(ProcessorKind::Batch).await, found(ProcessorKind::SlowQuery).await]
    };
    let listed = store.list_processors(Some("bank")).await.unwrap();
    assert_eq!(listed.len(), 9, "all that was not removed");
    let active: Vec<(&str, u32)> =
        listed.iter().filter(|listed| listed.active).map(|listed| (listed.version.op.as_str(), listed.version.version)).collect();
    assert_eq!(active, [("ask", 2), ("gone", 2), ("post", 3), ("undone", 1)]);
    assert_eq!(served("post").await, [Some(3), None]);
    assert_eq!(served("ask").await, [None, Some(2)]);
    assert_eq!(served("gone").await, [None, Some(2)]);
    assert_eq!(served("undone").await, [Some(1), None]);

    assert_eq!(store.rollback_processor("bank", "post", None).await.unwrap().version, 1, "what was active before of the kind that serves");
    store.activate_processor("bank", "post", 4).await.unwrap();
    assert_eq!(served("post").await, [Some(1), Some(4)]);
    store.activate_processor("bank", "ask", 1).await.unwrap();
    assert_eq!(served("ask").await, [Some(1), Some(2)]);
    let nothing = store.rollback_processor("bank", "gone", None).await;
    assert!(matches!(nothing, Err(StoreError::Version(VersionError::NothingBefore { .. }))), "{nothing:?}");
}

#[tokio::test]
async fn an_embedded_store_from_when_one_kind_served_an_operation() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let mut before = SqliteConnectOptions::new().filename(&file).create_if_missing(true).connect().await.unwrap();
    migrations_before("sqlite", 75).await.run(&mut before).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(one_kind_at_a_time(""))).execute(&mut before).await.unwrap();
    before.close().await.unwrap();
    let store = SqliteStore::open(&file, Arc::new(SystemClock)).await.unwrap();
    both_kinds_can_serve(&store).await;
}

#[tokio::test]
async fn a_database_from_when_one_kind_served_an_operation() {
    let database = Database::create().unwrap();
    let mut before = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let mut migrations = migrations_before("postgres", 75).await;
    migrations.create_schema("rowmill");
    migrations.dangerous_set_table_name("rowmill.schema_migrations");
    migrations.run(&mut before).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(one_kind_at_a_time("rowmill."))).execute(&mut before).await.unwrap();
    before.close().await.unwrap();
    let settings = PgSettings { url: database.url(), connections: 8, pooler: Pooler::None };
    PgStore::migrate(&settings).await.unwrap();
    both_kinds_can_serve(&PgStore::connect(&settings).await.unwrap()).await;
}

/// Batches of two apps with a file of the same name, from when files did not know their app.
fn files_without_an_app(schema: &str) -> String {
    let batch = |app: &str, id: u32| {
        format!(
            "INSERT INTO {schema}batches (batch_id, app, op, kind, processor_version, processor_digest, context, attempts_max, status, submitted_at)
             VALUES ('01a20de3-951f-72d0-9579-9ddfcc5e04e{id}', '{app}', 'post', 'batch', 1, 'd', '{{}}', 3, 'wait', 1);
             INSERT INTO {schema}batch_files (batch_key, first_row, name, form, size_bytes, sha256)
             SELECT batch_key, 1, 'in.csv', 'csv', 7, 'aa' FROM {schema}batches WHERE app = '{app}';"
        )
    };
    format!("{} {}", batch("bank", 1), batch("shop", 2))
}

async fn files_are_found_by_their_app(store: &dyn Store) {
    for app in ["bank", "shop"] {
        let named = BatchFilter { file_name: Some("in.csv".to_owned()), ..BatchFilter::of(app) };
        let with_digest = BatchFilter { file_sha256: Some("aa".to_owned()), ..BatchFilter::of(app) };
        for of in [named, with_digest] {
            let found = store.list_batches(&of, None, 10).await.unwrap().batches;
            assert!(matches!(&found[..], [one] if one.app == app && one.file.is_some()), "{found:?}");
        }
    }
}

#[tokio::test]
async fn an_embedded_store_from_when_files_did_not_know_their_app() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let mut before = SqliteConnectOptions::new().filename(&file).create_if_missing(true).connect().await.unwrap();
    migrations_before("sqlite", 90).await.run(&mut before).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(files_without_an_app(""))).execute(&mut before).await.unwrap();
    before.close().await.unwrap();
    files_are_found_by_their_app(&SqliteStore::open(&file, Arc::new(SystemClock)).await.unwrap()).await;
}

#[tokio::test]
async fn a_database_from_when_files_did_not_know_their_app() {
    let database = Database::create().unwrap();
    let mut before = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let mut migrations = migrations_before("postgres", 90).await;
    migrations.create_schema("rowmill");
    migrations.dangerous_set_table_name("rowmill.schema_migrations");
    migrations.run(&mut before).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(files_without_an_app("rowmill."))).execute(&mut before).await.unwrap();
    before.close().await.unwrap();
    let settings = PgSettings { url: database.url(), connections: 3, pooler: Pooler::None };
    PgStore::migrate(&settings).await.unwrap();
    files_are_found_by_their_app(&PgStore::connect(&settings).await.unwrap()).await;
}
