//! Statements of guests to a real PostgreSQL: they read what the role may read, and change nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rowmill::grants::{GrantSettings, Granter};
use rowmill::model::{Ending, Grants, Limits, SqlGrant};
use rowmill::sandbox::{Capabilities, Sql, SqlFailure, SqlValue};
use rowmill_tests::servers::Database;
use serde_json::{Value, json};
use sqlx::Connection;
use tempfile::TempDir;

use super::{came_of, capabilities, run_steps, session_with};
use crate::support::sessions::{limits, row};
use crate::support::{ended, results, rowmill};

/// A database with accounts, named `bank`, and a role that may read these and nothing else.
pub struct Bank {
    database: Database,
    reader: String,
    directory: TempDir,
    settings: GrantSettings,
}

impl Bank {
    pub async fn open() -> Bank {
        let (database, directory) = (Database::create().unwrap(), TempDir::new().unwrap());
        let mut owner = sqlx::PgConnection::connect(&database.url()).await.unwrap();
        let make = "CREATE TABLE accounts (id bigint PRIMARY KEY, holder text, opened date, balance numeric, tags text[]);
            INSERT INTO accounts VALUES (1, 'Ada', '2025-01-31', 10.25, '{a,b}'), (9007199254740993, 'Bö\"b', '2026-01-31', -3, NULL);
            CREATE SEQUENCE numbers; CREATE TABLE private (a int)";
        sqlx::raw_sql(make).execute(&mut owner).await.unwrap();
        let bank = Bank { reader: format!("reader_{}", database.name()), database, settings: GrantSettings::default(), directory };
        bank.owner_does(&format!(
            "CREATE ROLE {0} LOGIN NOINHERIT; GRANT SELECT ON accounts, numbers TO {0}; GRANT USAGE ON numbers TO {0}",
            bank.reader
        ));
        std::fs::write(bank.directory.path().join("bank"), format!("{}\n", bank.url_as(&format!("{}:hunter2-hunter2", bank.reader)))).unwrap();
        Bank { settings: GrantSettings { databases_directory: Some(bank.directory().to_owned()), ..GrantSettings::default() }, ..bank }
    }

    /// Where files are that name databases.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn url_as(&self, user: &str) -> String {
        self.database.url().replacen("//postgres@", &format!("//{user}@"), 1)
    }

    fn owner_does(&self, statements: &str) {
        self.database.sql(statements).unwrap();
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
    // NULL is of the type that it is compared with.
    assert_eq!(bank.ask(SqlGrant::default(), "SELECT id FROM accounts WHERE id = $1 OR opened = $2", json!([null, null])).await, json!([]));
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
        // The server's files, programs and other connections.
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/x')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        "SELECT pg_reload_conf()",
        "SELECT * FROM private",
        "SELECT * FROM pg_authid",
        "SELECT query_to_xml('DELETE FROM accounts', true, true, '')",
        "SELECT set_config('role', 'postgres', false)",
        "SELECT set_config('session_authorization', 'postgres', false)",
        "SELECT 1 INTO mine",
        "SELECT 1\0) r) o; DELETE FROM accounts",
    ];
    // Something to be ended.
    let mut owner = sqlx::PgConnection::connect(&bank.database.url()).await.unwrap();
    let came = bank.ask_all(SqlGrant::default(), &statements.map(|statement| (statement, json!([])))).await;
    for (statement, came) in statements.iter().zip(&came) {
        assert!(error(came).starts_with("Refused("), "{statement}: {came}");
    }
    assert_eq!((bank.count("SELECT count(*) FROM accounts").await, bank.count("SELECT last_value FROM numbers").await), (2, 1));
    assert_eq!(bank.count("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'").await, 0);
    sqlx::query("SELECT 1").execute(&mut owner).await.unwrap();
    // What a read-only transaction lets through (large objects, before version 16) is not kept, and nobody hears of it.
    bank.ask(SqlGrant::default(), "SELECT lo_create(4711), pg_notify('a', 'b')", json!([])).await;
    assert_eq!(bank.count("SELECT count(*) FROM pg_largeobject_metadata").await, 0);
}

/// As a superuser, or as one that may read files or end connections, a statement that only reads could do harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_could_do_more_than_read_is_not_used() {
    let bank = Bank::open().await;
    let refused = "Unavailable(\"the database is not asked, since its role could do more than read; the worker's log says more\")";
    // It would not be told that it could become one.
    bank.owner_does(&format!("GRANT pg_signal_backend TO {}", bank.reader));
    assert_eq!(error(&bank.ask(SqlGrant::default(), "SELECT 1", json!([])).await), refused);
    bank.owner_does(&format!("REVOKE pg_signal_backend FROM {}", bank.reader));
    assert!(bank.ask(SqlGrant::default(), "SELECT 1", json!([])).await.is_array());
    std::fs::write(bank.directory().join("bank"), bank.database.url()).unwrap();
    assert_eq!(error(&bank.ask(SqlGrant::default(), "SELECT 1", json!([])).await), refused);
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
    // These would take the database longer than anybody waits: it makes no more rows than are read.
    let came = bank.ask(grant.clone(), "SELECT generate_series(1, 1000000000000) AS n", json!([])).await;
    assert_eq!(error(&came), "TooLarge(\"there are more than 10 rows\")");
    let joined = "WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers) SELECT n, a.id FROM numbers, accounts a";
    let came = bank.ask(grant.clone(), joined, json!([])).await;
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
    assert!(matches!(run.ending, Ending::Deadline { .. }) || format!("{:?}", run.ending).contains("Timeout"), "{:?}", run.ending);
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
    // What is left out could come from the environment, and be the runtime's own database.
    std::fs::write(directory.path().join("bank"), "postgres:///db").unwrap();
    assert!(refused(&settings).await.contains("does not name a user, a host and a database"));
    // A message of the server names the user and the database: the guest does not hear it.
    std::fs::write(directory.path().join("bank"), bank.url_as("nobody-here:hunter2")).unwrap();
    let came = run_steps(&granted(SqlGrant::default()), &settings, json!([{"do": "sql", "database": "bank", "statement": "SELECT 1"}])).await;
    assert_eq!(error(&came[0]), "Unavailable(\"the database cannot be reached at the moment\")");
    // Nobody is there.
    std::fs::write(directory.path().join("bank"), "postgres://u:hunter2@127.0.0.1:1/db").unwrap();
    let came = run_steps(&granted(SqlGrant::default()), &settings, json!([{"do": "sql", "database": "bank", "statement": "SELECT 1"}])).await;
    assert_eq!(error(&came[0]), "Unavailable(\"the database cannot be reached at the moment\")");
}

/// A host that takes connections and says nothing holds up no longer than the statement may take; and a mistake of ours ends a call, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_and_a_panic_are_errors_of_the_call() {
    let (listener, directory) = (tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), TempDir::new().unwrap());
    let url = format!("postgres://u:hunter2@{}/bank", listener.local_addr().unwrap());
    std::fs::write(directory.path().join("bank"), url).unwrap();
    let settings = GrantSettings { databases_directory: Some(directory.path().to_owned()), ..GrantSettings::default() };
    let ask = json!({"do": "sql", "database": "bank", "statement": "SELECT 1"});
    let brief = SqlGrant { timeout: Duration::from_millis(200), ..SqlGrant::default() };
    assert_eq!(error(&run_steps(&granted(brief), &settings, json!([ask])).await[0]), "Timeout");
    // An abort does not wait for it.
    let patient = SqlGrant { timeout: Duration::from_secs(3_600), ..SqlGrant::default() };
    let mut session = session_with(capabilities("tests", &granted(patient), &settings).await, limits());
    let cancel = tokio_util::sync::CancellationToken::new();
    session.rebind(cancel.clone(), None);
    let input = json!([ask]).to_string();
    let asking = row(1, &input);
    let (run, ()) = tokio::join!(session.run_row(&asking), async { cancel.cancel() });
    assert_eq!(run.ending, Ending::Cancelled);
    let sql: BTreeMap<String, Arc<dyn Sql>> = BTreeMap::from([("bank".to_owned(), Arc::new(Panics) as Arc<dyn Sql>)]);
    let mut session = session_with(Capabilities { sql, ..Capabilities::default() }, limits());
    for line in 1..3 {
        let came = came_of(&session.run_row(&row(line, &input)).await);
        assert_eq!(error(&came[0]), "Unavailable(\"the host failed; its log says more\")");
    }
}

struct Panics;

#[async_trait]
impl Sql for Panics {
    async fn rows(&self, _: &str, _: Vec<SqlValue>, _: Duration) -> Result<Vec<String>, SqlFailure> {
        panic!("a mistake of the host")
    }
}

/// Also of two batches of one app, which are granted the same apart from each other.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_an_app_are_bounded_and_end() {
    let bank = Bank::open().await;
    let granter = Granter::new(bank.settings.clone());
    // Each looks how many work, and holds its own for a moment.
    let count = "SELECT count(*) AS n, max(pg_sleep(0.05)::text) AS slept FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'rowmill guest' AND state = 'active'";
    let step = json!({"do": "sql", "database": "bank", "statement": count});
    let rows = json!([step, step, step]).to_string();
    let one = async || {
        let mut session = session_with(granter.capabilities("tests", &granted(SqlGrant::default())).await.unwrap(), limits());
        came_of(&session.run_row(&row(1, &rows)).await)
    };
    let came: Vec<Value> = futures_util::future::join_all((0..8).map(|_| one())).await.concat();
    let most = came.iter().map(|rows| rows[0]["n"].as_i64().unwrap_or_else(|| panic!("{rows}"))).max();
    assert!((1..=4).contains(&most.unwrap()), "{came:?}");
    let start = std::time::Instant::now();
    while bank.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rowmill guest' AND datname = current_database()").await > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "a connection is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// In one command, and whatever the log is to tell.
#[tokio::test(flavor = "multi_thread")]
async fn rowmill_run_grants_databases_and_objects_and_tells_no_password() {
    let bank = Bank::open().await;
    let directory = TempDir::new().unwrap();
    let rows = [
        json!([{"do": "sql", "database": "bank", "statement": "SELECT holder FROM accounts WHERE id = $1", "parameters": [1]}, {"do": "put", "name": "a", "text": "x"}, {"do": "object", "name": "a"}]),
        json!([{"do": "sql", "database": "bank", "statement": "SELECT nothing"}]),
    ];
    std::fs::write(directory.path().join("rows.ndjson"), rows.map(|row| format!("{row}\n")).concat()).unwrap();
    let mut run = rowmill(directory.path(), "reaching");
    run.args(["--input", "rows.ndjson", "--value", "a=b", "--http", "https://api.example.com", "--key-value", "--objects", "--sql", "bank"]);
    run.args(["--databases-directory", bank.directory().to_str().unwrap()]).env("ROWMILL_LOG", "trace");
    let (status, said) = ended(&mut run);
    assert_eq!(status, 0, "{said}");
    let results = results(directory.path());
    assert_eq!(results[0]["output"], json!([[{"holder": "Ada"}], null, "x"]));
    assert!(results[1]["output"][0]["error"].as_str().unwrap().starts_with("Refused(\"42703\""), "{results:?}");
    assert!(!said.contains("hunter2"), "{said}");
}
