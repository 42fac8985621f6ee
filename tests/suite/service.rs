//! The program as a service: real workers and commands over PostgreSQL, Redis and S3, as processes.

mod appends;
mod apps;
mod chains;
mod failed;
mod groups;
mod listing;
mod outputs;
mod pruning;
mod rounds;
mod terms;
mod versions;
mod waiting;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowmill_tests::servers::{Database, Redis, S3};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{guests, target};

/// What should take a second never takes longer than this.
const SOON: Duration = Duration::from_secs(120);

/// An installation, and the environment that its processes get.
pub struct Installation {
    pub directory: TempDir,
    environment: Vec<(&'static str, String)>,
    pub database: Option<Database>,
    _servers: Option<(Redis, S3)>,
}

impl Installation {
    /// Over PostgreSQL, Redis and S3.
    pub fn shared() -> Installation {
        let (database, redis, s3) = (Database::create().unwrap(), Redis::start().unwrap(), S3::start().unwrap());
        let environment = vec![
            ("ROWMILL_STORE_URL", database.url()),
            ("ROWMILL_REDIS_URL", redis.url()),
            ("ROWMILL_OBJECTS_URL", format!("s3://{}/jobs", S3::BUCKET)),
            ("ROWMILL_OBJECTS_ENDPOINT", s3.endpoint()),
            ("ROWMILL_OBJECTS_ACCESS_KEY_ID", S3::ACCESS_KEY_ID.to_owned()),
            ("ROWMILL_OBJECTS_SECRET_ACCESS_KEY", S3::SECRET_ACCESS_KEY.to_owned()),
            ("ROWMILL_WORKER_HEARTBEAT", "300ms".to_owned()),
            ("ROWMILL_WORKER_DRAIN_GRACE", "300ms".to_owned()),
        ];
        let installation = Installation { directory: TempDir::new().unwrap(), environment, database: Some(database), _servers: Some((redis, s3)) };
        assert_eq!(installation.run(&["migrate"]).0, 0);
        installation
    }

    /// Over PostgreSQL, and objects in a directory.
    pub fn database_and_directory() -> Installation {
        let database = Database::create().unwrap();
        let environment = vec![("ROWMILL_STORE_URL", database.url()), ("ROWMILL_OBJECTS_URL", "file:objects".to_owned())];
        let installation = Installation { directory: TempDir::new().unwrap(), environment, database: Some(database), _servers: None };
        assert_eq!(installation.run(&["migrate"]).0, 0);
        installation
    }

    /// Where the objects are, when they are in a directory.
    pub fn objects(&self) -> PathBuf {
        self.directory.path().join("objects")
    }

    /// Without any configuration.
    pub fn embedded() -> Installation {
        Installation { directory: TempDir::new().unwrap(), environment: Vec::new(), database: None, _servers: None }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(target().join("release/rowmill"));
        command.args(arguments).current_dir(self.directory.path()).env("ROWMILL_CACHE_DIR", guests::cache());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Its status, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// What a command printed, which succeeded.
    pub fn said(&self, arguments: &[&str]) -> String {
        let (status, out, err) = self.run(arguments);
        assert_eq!(status, 0, "{arguments:?}: {out} {err}");
        out
    }

    pub fn deploy(&self, op: &str, guest: &str) {
        let path = guests::path(guest);
        self.said(&["deploy", "bank", op, path.to_str().unwrap(), "--activate"]);
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        name.to_owned()
    }

    pub fn status(&self, batch: &str) -> Value {
        serde_json::from_str(&self.said(&["status", batch, "--json"])).unwrap()
    }

    /// Rows, from `rows` or `results`.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.said(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn worker(&self, name: &str, slots: u32) -> Worker {
        let log = self.directory.path().join(format!("{name}.log"));
        let mut command = self.command(&["work", "--set", &format!("worker.name={name}"), "--set", &format!("worker.slots={slots}")]);
        command.env("ROWMILL_LOG", "info").stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        Worker { child: command.spawn().unwrap(), log }
    }

    /// Waits until a worker holds so many leases.
    fn wait_until_it_runs(&self, name: &str, leases: u64) {
        eventually(|| {
            let workers: Value = serde_json::from_str(&self.said(&["workers", "--json"])).unwrap();
            let worker = workers.as_array().unwrap().iter().find(|worker| worker["name"] == name)?;
            let held = worker["runs"].as_array().unwrap().iter().map(|run| run["leases"].as_u64().unwrap()).sum::<u64>();
            (held >= leases).then_some(())
        });
    }
}

struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its exit status.
    fn ends(mut self) -> Option<i32> {
        let status = eventually(|| self.child.try_wait().unwrap());
        status.code()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer.
#[track_caller]
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < SOON, "it did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn transactions(first: u32, last: u32) -> String {
    let rows = (first..=last).map(|number| {
        let amount = if number.is_multiple_of(50) { "much".to_owned() } else { format!("{number}.25") };
        format!("T{number:06},DE9710027535,{amount},EUR,2026-01-31,deposit\n")
    });
    format!("id,account,amount,currency,date,type\n{}", rows.collect::<String>())
}

#[test]
fn a_batch_goes_from_the_shell_through_a_worker_to_a_directory() {
    let site = Installation::shared();
    site.deploy("Validate", "bank-transactions");
    let first = site.file("first.csv", &transactions(1, 120));
    let second = site.file("second.csv", &transactions(121, 200));
    let batch = site.said(&["submit", "bank", "validate", &first, "--hold", "--priority", "-3"]);
    assert_eq!((site.status(&batch)["status"].clone(), site.status(&batch)["priority"].clone()), ("wait".into(), (-3).into()));
    assert_eq!(site.said(&["append", &batch, &second]), "200");
    let (status, _, said) = site.run(&["results", &batch]);
    assert!(status == 2 && said.contains("is wait: results can be read once it has ended"), "{said}");
    assert_eq!(site.said(&["release", &batch]), "200");
    assert_eq!(site.lines(&["rows", &batch, "--limit", "3"])[2]["status"], Value::Null);

    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    let status = site.status(&batch);
    assert_eq!((&status["status"], &status["success"], &status["failed"], &status["done"]), (&"failed".into(), &196.into(), &4.into(), &true.into()));
    let results = site.lines(&["results", &batch]);
    assert_eq!(results.iter().map(|row| row["line"].as_u64().unwrap()).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    let failed = site.lines(&["rows", &batch, "--status", "failed", "--limit", "3"]);
    assert_eq!(failed.iter().map(|row| row["line"].as_u64().unwrap()).collect::<Vec<_>>(), [50, 100, 150]);

    let summary: Value = serde_json::from_str(&site.said(&["results", &batch, "--out", "results"])).unwrap();
    let out = site.directory.path().join("results");
    assert_eq!(summary["files"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::read_to_string(out.join("files/postings.csv")).unwrap().lines().count(), 196);
    assert_eq!(std::fs::read_to_string(out.join("failed.ndjson")).unwrap().lines().count(), 4);
    assert_eq!(site.run(&["abort", &batch]).0, 1, "it has ended");
    assert_eq!(site.said(&["workers"]), "WORKER  HOST  PID  SLOTS  QUERIES  SEEN  RUNS");
}

#[test]
fn a_worker_that_stood_still_records_nothing_of_what_others_took_over() {
    let site = Installation::shared();
    site.deploy("sleep", "sleeper");
    let rows = site.file("rows.ndjson", &"{\"ms\":400}\n".repeat(6));
    let stale = site.worker("stale", 2);
    let batch = site.said(&["submit", "bank", "sleep", &rows]);
    site.wait_until_it_runs("stale", 2);
    stale.signal(Signal::SIGSTOP);
    let recorded = site.status(&batch)["success"].as_u64().unwrap();
    let other = site.worker("other", 2);
    eventually(|| (site.status(&batch)["done"] == true).then_some(()));
    let before = site.lines(&["results", &batch]);
    assert!(before.iter().all(|row| row["status"] == "success"), "{before:?}");
    let twice = before.iter().filter(|row| row["attempts"] == 2).count();
    assert!(twice >= 1 && twice as u64 + recorded <= 6, "{twice} of {before:?}, after {recorded}");

    // Its guests have slept enough, and it wants to record what they did.
    stale.signal(Signal::SIGCONT);
    eventually(|| stale.log().contains("a lease was lost").then_some(()));
    let next = site.said(&["submit", "bank", "sleep", &rows]);
    site.wait_until_it_runs("stale", 1);
    eventually(|| (site.status(&next)["done"] == true).then_some(()));
    assert_eq!(site.lines(&["results", &batch]), before, "something was recorded by a lost lease");
    for worker in [stale, other] {
        worker.signal(Signal::SIGTERM);
        assert_eq!(worker.ends(), Some(0));
    }
    assert_eq!(serde_json::from_str::<Value>(&site.said(&["workers", "--json"])).unwrap(), serde_json::json!([]));
}

#[test]
fn a_guest_whose_lease_was_taken_over_is_stopped() {
    let site = Installation::shared();
    site.deploy("sleep", "sleeper");
    site.said(&["apps", "set", "bank", "--timeout", "1h"]);
    let rows = site.file("hour.ndjson", "{}\n");
    let stale = site.worker("stale", 1);
    let batch = site.said(&["submit", "bank", "sleep", &rows]);
    site.wait_until_it_runs("stale", 1);
    stale.signal(Signal::SIGSTOP);
    let other = site.worker("other", 1);
    site.wait_until_it_runs("other", 1);
    stale.signal(Signal::SIGCONT);
    eventually(|| stale.log().contains("a lease was lost").then_some(()));
    assert!(!other.log().contains("a lease was lost"), "{}", other.log());
    site.said(&["abort", &batch]);
    for worker in [stale, other] {
        worker.signal(Signal::SIGTERM);
        assert_eq!(worker.ends(), Some(0));
    }
}

#[test]
fn the_rows_of_a_killed_worker_are_run_again_and_those_of_one_that_ends_are_given_back() {
    let site = Installation::shared();
    site.deploy("sleep", "sleeper");
    let naps = site.file("naps.ndjson", &"{\"ms\":300}\n".repeat(4));
    let killed = site.worker("killed", 2);
    let batch = site.said(&["submit", "bank", "sleep", &naps]);
    site.wait_until_it_runs("killed", 2);
    killed.signal(Signal::SIGKILL);
    let other = site.worker("other", 4);
    eventually(|| (site.status(&batch)["done"] == true).then_some(()));
    let rows = site.lines(&["results", &batch]);
    assert!(rows.iter().any(|row| row["attempts"] == 2) && rows.iter().all(|row| row["status"] == "success"), "{rows:?}");

    site.said(&["apps", "set", "bank", "--timeout", "1h"]);
    let hours = site.file("hours.ndjson", &"{}\n".repeat(3));
    let batch = site.said(&["submit", "bank", "sleep", &hours]);
    site.wait_until_it_runs("other", 3);
    other.signal(Signal::SIGTERM);
    // It does not wait for them longer than its grace.
    assert_eq!(other.ends(), Some(0));
    let database = site.database.as_ref().unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM rowmill.leases WHERE token <> 0").unwrap().trim(), "0", "a lease was not given back");
    site.said(&["abort", &batch, "--reason", "nobody sleeps so long"]);
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    let status = site.status(&batch);
    assert_eq!((&status["status"], &status["aborted"], &status["abort_reason"]), (&"aborted".into(), &3.into(), &"nobody sleeps so long".into()));
}

#[test]
fn one_process_over_sqlite_does_the_whole_work() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    site.deploy("statement", "account-statement");
    let file = site.file("t.csv", &transactions(1, 100));
    let (status, out, err) = site.run(&["submit", "bank", "VALIDATE", &file, "--wait", "--json"]);
    let batch: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {err}"));
    assert_eq!((status, &batch["success"], &batch["failed"]), (1, &98.into(), &2.into()));
    let question = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":700,"transactions":[]}"#;
    assert!(site.said(&["query", "bank", "statement", question]).contains(r#""closing_cents":700"#));
    let id = site.said(&["query", "bank", "statement", question, "--no-wait"]);
    assert_eq!(site.run(&["answer", &id]).0, 3, "try later");
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    assert!(site.said(&["answer", &id, "--json"]).contains(r#""status":"success""#));

    site.said(&["apps", "set", "bank", "--weight", "3", "--running-max", "2", "--fuel", "1000000"]);
    let apps: Value = serde_json::from_str(&site.said(&["apps", "--json"])).unwrap();
    assert_eq!((&apps[0]["weight"], &apps[0]["running_max"], &apps[0]["limits"]["fuel"]), (&3.into(), &2.into(), &1_000_000.into()));
    let path = guests::path("bank-transactions");
    let bench: Value =
        serde_json::from_str(&site.said(&["bench", "--processor", path.to_str().unwrap(), "--rows", "500", "--batches", "7"])).unwrap();
    assert_eq!((&bench["rows"], &bench["batches"], &bench["store"]), (&500.into(), &7.into(), &"sqlite".into()));
    assert!(bench["process"]["rows_per_second"].as_f64().unwrap() > 0.0, "{bench}");
}

#[test]
fn a_submission_with_a_key_is_made_again_after_a_crash_and_is_whole() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let file = site.file("many.csv", &transactions(1, 150_000));
    let mut killed = 0;
    for attempt in 0..6 {
        let key = format!("run {attempt}");
        let submit = ["submit", "bank", "validate", &file, "--key", &key];
        let mut child = site.command(&submit).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100 + 150 * attempt));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever was there of it, it is whole now, and stays so.
        let id = site.said(&submit);
        assert_eq!(site.said(&submit), id);
        let status = site.status(&id);
        assert_eq!((&status["status"], &status["rows"]), (&"queued".into(), &150_000.into()));
        let twice = site.database.as_ref().unwrap().sql("SELECT count(*) FROM rowmill.rows GROUP BY batch_key, line HAVING count(*) > 1").unwrap();
        assert_eq!(twice.trim(), "");
    }
    assert!(killed > 0, "each was faster than its killer");
}

#[test]
fn a_key_is_for_one_submission() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let (file, other) = (site.file("t.csv", &transactions(1, 3)), site.file("other.csv", &transactions(1, 4)));
    let bad = site.file("bad.csv", "id,id\n1,2\n");
    let submit = |file: &str, more: &[&str]| site.run(&[&["submit", "bank", "validate", file, "--key", "k"], more].concat());
    // A file that is at fault leaves the key free.
    assert_eq!(submit(&bad, &[]).0, 2);
    let (status, id, said) = submit(&file, &[]);
    assert!(status == 0 && said.contains("3 rows, queued"), "{said}");
    let (status, again, said) = submit(&file, &[]);
    assert!(status == 0 && again == id && said.contains("3 rows, submitted before and queued by now"), "{said}");
    for (file, more) in [(&other, &[][..]), (&file, &["--priority", "1"]), (&file, &["--hold"])] {
        let (status, _, said) = submit(file, more);
        assert!(status == 2 && said.contains("the key \"k\" is that of batch"), "{said}");
    }
    let (status, _, said) = submit("-", &["--format", "csv"]);
    assert!(status == 2 && said.contains("stdin cannot be: give it a file"), "{said}");
}

#[test]
fn what_cannot_be_done_gets_a_sentence_and_status_2() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let (good, empty) = (site.file("t.csv", &transactions(1, 3)), site.file("empty.csv", ""));
    let header = site.file("header.csv", "id,account\n");
    let wasm = site.file("no.wasm", "text");
    let unknown = "01a20de3-951f-72d0-9579-9ddfcc5e04e0";
    let done = site.said(&["submit", "bank", "validate", &good]);
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    for (arguments, sentence) in [
        (&["status", unknown][..], "there is no batch 01a20de3-951f-72d0-9579-9ddfcc5e04e0"),
        (&["abort", unknown], "there is no batch"),
        (&["results", unknown], "there is no batch"),
        (&["status", "nonsense"], "invalid value 'nonsense'"),
        (&["submit", "bank", "nope", &good], "app \"bank\" has no batch processor that serves the operation \"nope\""),
        (&["submit", "bank", "validate", &empty], "it is empty"),
        (&["submit", "bank", "validate", &header], "it has a header and no record"),
        (&["submit", "bank", "validate", "missing.csv"], "cannot read missing.csv"),
        (&["submit", "bank", "validate", &good, "--context", "{oops"], "--context: not valid JSON"),
        (&["append", &done, &good], "rows can be appended only while it is held"),
        (&["release", &done], "only a held batch can be released"),
        (&["query", "bank", "validate", "{}"], "(its batch processor does not run slow queries)"),
        (&["query", "bank", "validate", "{oops"], "not valid JSON"),
        (&["answer", &done], "is of the kind batch, and this is for slow_query"),
        (&["deploy", "bank", "text", &wasm], "this is not a WebAssembly file"),
        (&["apps", "set", "bank", "--running-max", "0"], "it should be a number from 1 on, or none"),
        (&["workers", "--set", "store.url=postgres://127.0.0.1:1/x"], "the store is postgres://127.0.0.1:1/x"),
    ] {
        let (status, out, err) = site.run(arguments);
        assert!(status == 2 && out.is_empty() && err.contains(sentence), "{arguments:?}: {status} {out} {err}");
    }
    let batches = site.lines(&["rows", &done]).len();
    assert_eq!(batches, 3, "nothing was changed");
}
