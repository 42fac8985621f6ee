//! Statements of guests to a real PostgreSQL: they read what the role may read, and change nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rowmill::grants::{GrantSettings, Granter};
use rowmill::model::{Ending, Grants, Limits, SqlGrant};
use rowmill_tests::servers::Database;
use serde_json::{Value, json};
use sqlx::Connection;
use tempfile::TempDir;

use super::{capabilities, run_steps, session_with};
use crate::support::sessions::{limits, row};

/// A database with accounts, named `bank`.
struct Bank {
    database: Database,
    _directory: TempDir,
    settings: GrantSettings,
}

impl Bank {
    async fn open() -> Bank {
        let (database, directory) = (Database::create().unwrap(), TempDir::new().unwrap());
        let mut owner = sqlx::PgConnection::connect(&database.url()).await.unwrap();
        let make = "CREATE TABLE accounts (id bigint PRIMARY KEY, holder text, opened date, balance numeric, tags text[]);
            INSERT INTO accounts VALUES (1, 'Ada', '2025-01-31', 10.25, '{a,b}'), (9007199254740993, 'Bö\"b', '2026-01-31', -3, NULL);
            CREATE SEQUENCE numbers";
        sqlx::raw_sql(make).execute(&mut owner).await.unwrap();
        std::fs::write(directory.path().join("bank"), format!("{}\n", database.url())).unwrap();
        let settings = GrantSettings { databases_directory: Some(directory.path().to_owned()), ..GrantSettings::default() };
        Bank { database, _directory: directory, settings }
    }

    async fn ask(&self, grant: SqlGrant, statement: &str, parameters: Value) -> Value {
        self.ask_all(grant, &[(statement, parameters)]).await.remove(0)
    }

    async fn ask_all(&self, grant: SqlGrant, statements: &[(&str, Value)]) -> Vec<Value> {
        let step =
            |(statement, parameters): &(&str, Value)| json!({"do": "sql", "database": "bank", "statement": statement, "parameters": parameters});
        run_steps(&granted(grant), &self.settings, statements.iter().map(step).collect()).await
    }

    async fn count(&self, statement: &'static str) -> i64 {
        let mut owner = sqlx::PgConnection::connect(&self.database.url()).await.unwrap();
        sqlx::query_scalar(statement).fetch_one(&mut owner).await.unwrap()
    }
}

fn granted(grant: SqlGrant) -> Grants {
    Grants { sql: BTreeMap::from([("bank".to_owned(), grant)]), ..Grants::default() }
}

#[track_caller]
fn error(came: &Value) -> &str {
    came.get("error").unwrap_or_else(|| panic!("{came}")).as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_they_are_and_parameters_go_in_by_type() {
    let bank = Bank::open().await;
    let all = bank.ask(SqlGrant::default(), "SELECT * FROM accounts ORDER BY id", json!([])).await;
    let ada = json!({"id": 1, "holder": "Ada", "opened": "2025-01-31", "balance": 10.25, "tags": ["a", "b"]});
    let bob = json!({"id": 9_007_199_254_740_993_i64, "holder": "Bö\"b", "opened": "2026-01-31", "balance": -3, "tags": null});
    assert_eq!(all, json!([ada, bob]));
    let by_type = "SELECT $1 + 1 AS integer, $2 AS yes, $3 * 2 AS number, $4::date + 1 AS day, $5::int IS NULL AS none, $6 AS text -- and a comment";
    let came = bank.ask(SqlGrant::default(), by_type, json!([41, true, 1.25, "2026-02-28", null, "'; DROP TABLE accounts; --"])).await;
    let expected = json!([{"integer": 42, "yes": true, "number": 2.5, "day": "2026-03-01", "none": true, "text": "'; DROP TABLE accounts; --"}]);
    assert_eq!(came, expected);
    for statement in ["WITH a AS (SELECT 1 AS n) SELECT n FROM a", "VALUES (1)", "TABLE accounts"] {
        assert!(bank.ask(SqlGrant::default(), statement, json!([])).await.is_array(), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_and_no_statement_escapes() {
    let bank = Bank::open().await;
    let statements = [
        "INSERT INTO accounts VALUES (3)",
        "UPDATE accounts SET balance = 0",
        "DELETE FROM accounts",
        "DROP TABLE accounts",
        "CREATE TABLE mine (a int)",
        "TRUNCATE accounts",
        "WITH d AS (DELETE FROM accounts RETURNING id) SELECT * FROM d",
        "SELECT nextval('numbers')",
        "SELECT * FROM accounts FOR UPDATE",
        "SELECT 1; DELETE FROM accounts",
        "SELECT 1); DELETE FROM accounts; --",
        "SELECT 1) r) o; COMMIT; --",
        "SELECT 1) r) o UNION ALL SELECT ('x') --",
        "COMMIT",
        "ROLLBACK",
        "SET transaction_read_only = off",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "COPY accounts TO PROGRAM 'cat'",
        "DO $$ BEGIN DELETE FROM accounts; END $$",
        "PREPARE p AS SELECT 1",
        "LISTEN a",
        "SELECT 1 /*",
        "SELECT 'x",
        "",
        ";",
        "EXPLAIN SELECT 1",
        "$1",
    ];
    let came = bank.ask_all(SqlGrant::default(), &statements.map(|statement| (statement, json!([])))).await;
    for (statement, came) in statements.iter().zip(&came) {
        assert!(error(came).starts_with("Refused("), "{statement}: {came}");
    }
    assert_eq!((bank.count("SELECT count(*) FROM accounts").await, bank.count("SELECT last_value FROM numbers").await), (2, 1));
    assert_eq!(bank.count("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'").await, 0);
}

/// What one statement does to its session is not there for the next.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_leaves_anything_behind() {
    let bank = Bank::open().await;
    let lock = ("SELECT pg_try_advisory_lock(7) AS got", json!([]));
    let set = ("SELECT set_config('search_path', 'evil', false) AS path", json!([]));
    let path = ("SELECT current_setting('search_path') <> 'evil' AS good", json!([]));
    let came = bank.ask_all(SqlGrant::default(), &[lock.clone(), lock, set, path]).await;
    assert_eq!((&came[0], &came[1], &came[3]), (&json!([{"got": true}]), &json!([{"got": true}]), &json!([{"good": true}])));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_bytes_are_bounded() {
    let bank = Bank::open().await;
    let grant = SqlGrant { rows_max: 10, bytes_max: 1_000, ..SqlGrant::default() };
    let ten = bank.ask(grant.clone(), "SELECT n FROM generate_series(1, 10) n", json!([])).await;
    assert_eq!(ten.as_array().unwrap().len(), 10);
    let came = bank.ask(grant.clone(), "SELECT n FROM generate_series(1, 1000000000) n", json!([])).await;
    assert_eq!(error(&came), "TooLarge(\"there are more than 10 rows\")");
    let came = bank.ask(grant.clone(), "SELECT repeat('x', 300) AS x FROM generate_series(1, 5)", json!([])).await;
    assert_eq!(error(&came), "TooLarge(\"the rows have more than 1000 bytes\")");
    let came = bank.ask(grant.clone(), "SELECT repeat('x', 100000000) AS x", json!([])).await;
    assert_eq!(error(&came), "TooLarge(\"a row alone has more than 1000 bytes\")");
    let long = format!("SELECT '{}' AS x", "x".repeat(70_000));
    assert!(error(&bank.ask(grant, &long, json!([])).await).contains("65536 bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_ended_by_its_time_by_the_deadline_and_by_nothing_of_its_own() {
    let bank = Bank::open().await;
    let grant = SqlGrant { timeout: Duration::from_millis(200), ..SqlGrant::default() };
    let came = bank.ask(grant, "SELECT set_config('statement_timeout', '0', false), pg_sleep(3600)", json!([])).await;
    assert_eq!(error(&came), "Timeout");
    let timeout = Duration::from_millis(300);
    let patient = SqlGrant { timeout: Duration::from_secs(3_600), ..SqlGrant::default() };
    let mut session = session_with(capabilities("tests", &granted(patient), &bank.settings).await, Limits { timeout, ..limits() });
    let sleep = json!([{"do": "sql", "database": "bank", "statement": "SELECT pg_sleep(3600)"}]);
    let run = session.run_row(&row(1, &sleep.to_string())).await;
    // Whoever is first: the row's deadline, or the statement's time, which is what was left of it.
    assert!(run.ending == Ending::Deadline { limit: timeout } || format!("{:?}", run.ending).contains("Timeout"), "{:?}", run.ending);
    let start = std::time::Instant::now();
    while bank.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rowmill guest' AND state = 'active'").await > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "it goes on in the database");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_or_not_there_is_told_without_its_url() {
    let bank = Bank::open().await;
    let other = json!([{"do": "sql", "database": "other", "statement": "SELECT 1"}]);
    assert_eq!(error(&run_steps(&granted(SqlGrant::default()), &bank.settings, other.clone()).await[0]), "NoSuchDatabase");
    assert_eq!(error(&run_steps(&Grants::default(), &bank.settings, other).await[0]), "NoSuchDatabase");
    let directory = TempDir::new().unwrap();
    let settings = GrantSettings { databases_directory: Some(directory.path().to_owned()), ..GrantSettings::default() };
    let refused =
        async |settings: &GrantSettings| Granter::new(settings.clone()).capabilities("tests", &granted(SqlGrant::default())).await.err().unwrap();
    assert!(refused(&settings).await.contains("where the database \"bank\" is cannot be read from"));
    std::fs::write(directory.path().join("bank"), "mysql://u:hunter2@db").unwrap();
    let reason = refused(&settings).await;
    assert!(reason.contains("is no URL of PostgreSQL") && !reason.contains("hunter2"), "{reason}");
    assert!(refused(&GrantSettings::default()).await.contains("set grants.databases_directory"));
    // Nobody is there.
    std::fs::write(directory.path().join("bank"), "postgres://u:hunter2@127.0.0.1:1/db").unwrap();
    let came = run_steps(&granted(SqlGrant::default()), &settings, json!([{"do": "sql", "database": "bank", "statement": "SELECT 1"}])).await;
    assert_eq!(error(&came[0]), "Unavailable(\"the database cannot be reached at the moment\")");
}
