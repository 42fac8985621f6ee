//! `rowmill watch` as a process, over PostgreSQL and over SQLite.

mod crashes;
mod refusals;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::service::{Installation, eventually, transactions};
use crate::support::guests;

/// An installation with a watched directory, `box`.
struct Site {
    site: Installation,
}

/// The types of files in these tests.
const TYPES: &str = r#"
[[watch.type]]
pattern = "t-*.csv*"
app = "bank"
op = "validate"
context = { file = "{name}", size = "{size}" }
priority = 3

[[watch.type]]
pattern = "t-*"
app = "other"
op = "validate"

[[watch.type]]
pattern = "nobody-*.csv"
app = "nobody"
op = "validate"

[[watch.type]]
pattern = "odd-*"
app = "bank"
op = "validate"
"#;

impl Site {
    fn new(site: Installation, age: &str) -> Site {
        site.deploy("validate", "bank-transactions");
        let check = guests::path("transactions-check");
        let checked =
            format!("[[watch.type]]\npattern = \"checked-*.csv\"\napp = \"bank\"\nop = \"validate\"\ncheck = {:?}\n", check.to_str().unwrap());
        let text = format!("[[watch]]\ndirectory = \"box\"\nage = \"{age}\"\n{TYPES}\n{checked}");
        fs::write(site.directory.path().join("watch.toml"), text).unwrap();
        for place in ["incoming", "done", "failed", ".work"] {
            fs::create_dir_all(site.directory.path().join("box").join(place)).unwrap();
        }
        Site { site }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.site.directory.path().join("box").join(name)
    }

    /// A file comes in, whole at once.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.place("new"), content).unwrap();
        fs::rename(self.place("new"), self.place("incoming").join(name)).unwrap();
    }

    fn once(&self) -> Vec<Value> {
        self.site.lines(&["watch", "--types", "watch.toml", "--once", "--json"])
    }

    fn start(&self) -> Watching {
        let log = self.site.directory.path().join("watch.log");
        let mut command = self.site.command(&["watch", "--set", "watch.file=watch.toml", "--json"]);
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        Watching(command.env("ROWMILL_LOG", "info").stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.site.directory.path().join("watch.log")).unwrap_or_default()
    }

    /// Each batch as the name of its file, the rows that it says it has, those that it has, and whether it was released; sorted.
    fn batches(&self) -> Vec<String> {
        let select = |schema: &str| {
            format!(
                "SELECT coalesce(f.name, 'none') || '|' || b.row_count || '|' || (SELECT count(*) FROM {schema}rows r WHERE r.batch_key = b.batch_key)
                    || '|' || CASE WHEN b.status = 'wait' THEN 'false' ELSE 'true' END
                 FROM {schema}batches b LEFT JOIN {schema}batch_files f ON f.batch_key = b.batch_key"
            )
        };
        let mut found: Vec<String> = match &self.site.database {
            Some(database) => database.sql(&select("rowmill.")).unwrap().lines().map(str::to_owned).collect(),
            None => {
                let file = self.site.directory.path().join("rowmill.db");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut db = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
                    sqlx::query_scalar(sqlx::AssertSqlSafe(select(""))).fetch_all(&mut db).await.unwrap()
                })
            }
        };
        found.sort();
        found
    }

    fn count(&self, statement: &str) -> u64 {
        self.site.database.as_ref().unwrap().sql(statement).unwrap().trim().parse().unwrap()
    }
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

struct Watching(Child);

impl Watching {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    fn ends(mut self) -> Option<i32> {
        eventually(|| self.0.try_wait().unwrap()).code()
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn files_become_batches(site: Installation) {
    let site = Site::new(site, "50ms");
    let plain = transactions(1, 20);
    site.put("t-1.csv", &plain);
    site.put("t-2.csv.gz", gzip(&transactions(1, 30)));
    let reports = site.once();
    assert_eq!(reports.iter().map(|report| report["outcome"].as_str().unwrap()).collect::<Vec<_>>(), ["submitted", "submitted"], "{reports:?}");
    let report = |name: &str| reports.iter().find(|report| report["file"] == name).unwrap();
    let (first, second) = (report("t-1.csv"), report("t-2.csv.gz"));
    assert_eq!((&first["rows"], &second["rows"]), (&20.into(), &30.into()));
    assert!(first["moved_to"].as_str().unwrap().ends_with("done/t-1.csv"), "{first}");
    assert_eq!(
        (names(&site.place("done")), names(&site.place("incoming")), names(&site.place(".work"))),
        (vec!["t-1.csv".into(), "t-2.csv.gz".into()], vec![], vec![])
    );
    let status = site.site.status(first["batch"].as_str().unwrap());
    let file = &status["input_files"][0];
    assert_eq!((&status["status"], &status["rows"], &status["priority"]), (&"queued".into(), &20.into(), &3.into()));
    assert_eq!((&file["name"], &file["form"], &file["size_bytes"]), (&"t-1.csv".into(), &"csv".into(), &plain.len().into()));
    let object = file["object"].as_str().unwrap();
    assert!(object.starts_with("files/") && !object.contains("t-1"), "{object}");
    // What was kept is the file, and a batch can be made from it.
    let again = site.site.said(&["submit", "bank", "validate", &format!("object:{object}"), "--format", "csv", "--key", "again"]);
    let copy = &site.site.status(&again)["input_files"][0];
    assert_eq!((&copy["sha256"], &copy["size_bytes"], &copy["object"]), (&file["sha256"], &file["size_bytes"], &Value::Null));
    let compressed = &site.site.status(second["batch"].as_str().unwrap())["input_files"][0];
    assert_eq!((&compressed["form"], &compressed["size_bytes"]), (&"csv.gz".into(), &gzip(&transactions(1, 30)).len().into()));

    // A second file of the same name is another file.
    site.put("t-1.csv", transactions(1, 10));
    let third = site.once().remove(0);
    assert_ne!(third["batch"], first["batch"]);
    let done = names(&site.place("done"));
    assert!(done.len() == 3 && done.iter().any(|name| name.starts_with("t-1~") && name.ends_with(".csv")), "{done:?}");
    assert_eq!(site.site.run(&["work", "--until-idle"]).0, 0);
    assert_eq!(site.site.status(first["batch"].as_str().unwrap())["success"], 20);
}

#[test]
fn files_become_batches_over_postgresql() {
    files_become_batches(Installation::shared());
}

#[test]
fn files_become_batches_over_sqlite() {
    files_become_batches(Installation::embedded());
}

#[test]
fn a_checker_gives_the_batch_its_context_and_its_rows() {
    let site = Site::new(Installation::shared(), "50ms");
    // More than one call, and more than one append.
    let rows: String = (1..=25_000).map(|number| format!("{number},2026-01-31,deposit,DE9710027535,,0.01,eur,\n")).collect();
    site.put("checked-1.csv", format!("id,date,type,account,to_account,amount,currency,memo\n{rows}25000,,total,,,250.00,,\n"));
    let report = site.once().remove(0);
    assert_eq!((&report["outcome"], &report["rows"]), (&"submitted".into(), &25_000.into()), "{report}");
    let database = site.site.database.as_ref().unwrap();
    let context: Value = serde_json::from_str(&database.sql("SELECT context FROM rowmill.batches").unwrap()).unwrap();
    assert_eq!(context, json!({"transactions": 25_000, "total": "250.00"}));
    assert_eq!(site.count("SELECT count(*) FROM rowmill.rows WHERE input LIKE '%\"EUR\"%'"), 25_000);
}

fn a_file_that_is_written_is_left_alone(site: Installation) {
    const AGE: Duration = Duration::from_secs(1);
    let site = Site::new(site, "1s");
    let watching = site.start();
    let name = "t-slow.csv";
    let incoming = site.place("incoming").join(name);
    let mut file = fs::File::create(&incoming).unwrap();
    let text = transactions(1, 400);
    let mut last = Instant::now();
    for part in text.as_bytes().chunks(text.len().div_ceil(40)) {
        // Only who pauses for so long may have the file taken away.
        assert!(incoming.exists() || last.elapsed() >= AGE, "it was taken while it was written");
        last = Instant::now();
        file.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(file);
    eventually(|| site.place("done").join(name).exists().then_some(()));
    watching.signal(Signal::SIGTERM);
    assert_eq!(watching.ends(), Some(0));
    if site.site.database.is_some() {
        assert_eq!((site.count("SELECT count(*) FROM rowmill.batches"), site.count("SELECT row_count FROM rowmill.batches")), (1, 400));
    }
}

#[test]
fn a_file_that_is_written_is_left_alone_over_postgresql() {
    a_file_that_is_written_is_left_alone(Installation::shared());
}

#[test]
fn a_file_that_is_written_is_left_alone_over_sqlite() {
    a_file_that_is_written_is_left_alone(Installation::embedded());
}

#[test]
fn what_is_no_file_is_left_where_it_is_and_told_once() {
    let site = Site::new(Installation::embedded(), "50ms");
    let incoming = site.place("incoming");
    fs::create_dir(incoming.join("t-directory.csv")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", incoming.join("t-link.csv")).unwrap();
    nix::unistd::mkfifo(&incoming.join("t-fifo.csv"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(incoming.join(".t-hidden.csv"), "x").unwrap();
    fs::write(incoming.join("t-1.csv.part"), "x").unwrap();
    let watching = site.start();
    // When two files that came one after the other are through, all was looked at more than once.
    for name in ["t-1.csv", "t-2.csv"] {
        site.put(name, transactions(1, 3));
        eventually(|| site.place("done").join(name).exists().then_some(()));
    }
    watching.signal(Signal::SIGTERM);
    assert_eq!(watching.ends(), Some(0));
    assert_eq!(names(&incoming), [".t-hidden.csv", "t-1.csv.part", "t-directory.csv", "t-fifo.csv", "t-link.csv"]);
    for name in ["t-directory.csv", "t-link.csv", "t-fifo.csv"] {
        assert_eq!(site.log().matches(&format!("\"{name}\" is no regular file")).count(), 1, "{}", site.log());
    }
}
