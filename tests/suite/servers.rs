//! The servers that tests start: each is there, answers, and is gone with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowmill_tests::servers::{Database, PgBouncer, Postgres, PostgresOptions, Redis, S3, shared_postgres};

use crate::support::target;

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn sql(url: &str, statement: &str) -> String {
    let psql = Command::new("psql").args(["--no-psqlrc", "-qAtc", statement, url]).output().unwrap();
    assert!(psql.status.success(), "{statement}: {}", String::from_utf8_lossy(&psql.stderr));
    String::from_utf8(psql.stdout).unwrap().trim().to_owned()
}

#[test]
fn postgres_keeps_what_was_committed_when_it_is_killed() {
    let mut postgres = Postgres::start(PostgresOptions::default()).unwrap();
    assert_eq!(sql(&postgres.url(), "SHOW fsync"), "on");
    sql(&postgres.url(), "CREATE TABLE kept AS SELECT 7 AS number");
    let first = postgres.pid();
    postgres.kill();
    assert!(!is_there(first));
    postgres.restart().unwrap();
    assert_eq!(sql(&postgres.tcp_url_of("postgres"), "SELECT number FROM kept"), "7");
    postgres.stop();
    postgres.restart().unwrap();
    let last = postgres.pid();
    drop(postgres);
    assert!(!is_there(last));
}

#[test]
fn redis_is_empty_after_a_restart_or_a_flush() {
    let mut redis = Redis::start().unwrap();
    let said = |redis: &Redis, arguments: &[&str]| {
        let done = Command::new("redis-cli").args(["-u", &redis.url()]).args(arguments).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(said(&redis, &["set", "a", "1"]), "OK");
    redis.flush().unwrap();
    assert_eq!(said(&redis, &["get", "a"]), "");
    assert_eq!(said(&redis, &["set", "a", "1"]), "OK");
    let first = redis.pid();
    redis.kill();
    assert!(!is_there(first));
    redis.restart().unwrap();
    assert_eq!(said(&redis, &["dbsize"]), "0");
    let last = redis.pid();
    drop(redis);
    assert!(!is_there(last));
}

#[test]
fn pgbouncer_gives_each_transaction_a_connection() {
    let database = Database::create().unwrap();
    let mut bouncer = PgBouncer::start(&shared_postgres()).unwrap();
    assert_eq!(sql(&bouncer.url(database.name()), "SELECT current_database()"), database.name());
    bouncer.restart().unwrap();
    assert_eq!(sql(&bouncer.url(database.name()), "SELECT 1"), "1");
    let pid = bouncer.pid();
    drop(bouncer);
    assert!(!is_there(pid));
}

#[test]
fn s3_is_there_and_gone() {
    let s3 = S3::start().unwrap();
    let pid = s3.pid();
    assert!(is_there(pid));
    drop(s3);
    assert!(!is_there(pid));
}

#[test]
fn two_servers_of_a_kind_do_not_meet() {
    let (one, other) = (Redis::start().unwrap(), Redis::start().unwrap());
    assert_ne!(one.port(), other.port());
    assert_ne!(one.pid(), other.pid());
}

#[test]
fn a_database_is_copied_from_a_template_and_dropped() {
    let fill = |url: &str| {
        sql(url, "CREATE TABLE filled AS SELECT 7 AS number");
        Ok(())
    };
    let first = Database::from_template("servers_test", fill).unwrap();
    sql(&first.url(), "DELETE FROM filled");
    let second = Database::from_template("servers_test", |_| panic!("it is there")).unwrap();
    assert_eq!(sql(&second.url(), "SELECT number FROM filled"), "7");
    let name = second.name().to_owned();
    drop(second);
    assert_eq!(sql(&shared_postgres(), &format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")), "0");
}

/// Prints the directory of the shared PostgreSQL server, and its id.
const PRINT_THE_SERVER: &str = r#"dir=${ROWMILL_TEST_POSTGRES#*host=}; dir=${dir%%&*}; echo "$dir"; head -n 1 "$dir/data/postmaster.pid""#;

#[test]
fn with_servers_passes_the_status_on_and_leaves_nothing() {
    let mut with_servers = Command::new(target().join("release/with-servers"));
    let done = with_servers.args(["--", "sh", "-c", &format!("{PRINT_THE_SERVER}; exit 7")]).output().unwrap();
    assert_eq!(done.status.code(), Some(7), "{}", String::from_utf8_lossy(&done.stderr));
    let printed = String::from_utf8(done.stdout).unwrap();
    let (directory, pid) = printed.trim().split_once('\n').unwrap();
    assert!(!is_there(pid.parse().unwrap()));
    assert!(!Path::new(directory).exists());
}

#[test]
fn with_servers_leaves_nothing_when_it_is_stopped_or_killed() {
    for sent in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut with_servers = Command::new(target().join("release/with-servers"));
        // The command ends by a signal that is passed on, or when nobody holds its stdin any more.
        let command = format!("{PRINT_THE_SERVER}; exec cat");
        let mut started = with_servers.args(["--", "sh", "-c", &command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(started.stdout.take().unwrap()).lines();
        let directory = lines.next().unwrap().unwrap();
        let server = lines.next().unwrap().unwrap().parse().unwrap();
        assert!(is_there(server));
        kill(Pid::from_raw(started.id().try_into().unwrap()), sent).unwrap();
        // Waiting would close its stdin, and the command could end by itself before the signal reaches it.
        let stdin = started.stdin.take();
        let status = started.wait().unwrap();
        drop(stdin);
        assert!(!status.success(), "{sent}: {status}");
        if sent == Signal::SIGKILL {
            // It cannot wait for its server, which ends by itself; only the directory stays.
            wait_until_gone(server);
            fs::remove_dir_all(directory).unwrap();
        } else {
            assert!(!is_there(server) && !Path::new(&directory).exists());
        }
    }
}

fn wait_until_gone(pid: u32) {
    let give_up = Instant::now() + Duration::from_secs(60);
    // One that nobody waits for stays as a zombie, which has no memory, files or ports.
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < give_up, "{pid} is still there");
        sleep(Duration::from_millis(10));
    }
}
