//! `rowmill migrate` as a process.

use std::path::Path;
use std::process::Command;

use rowmill_tests::servers::Database;

use crate::support::{ended, target};

fn migrate(directory: &Path, url: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(target().join("release/rowmill"));
    command.arg("migrate").args(arguments).current_dir(directory).env("ROWMILL_STORE_URL", url);
    ended(&mut command)
}

#[test]
fn a_schema_is_looked_at_made_and_found_again() {
    let (directory, database) = (tempfile::tempdir().unwrap(), Database::create().unwrap());
    let migrate = |arguments| migrate(directory.path(), &database.url(), arguments);
    let missing = (1, "the database has no schema of Rowmill's: run `rowmill migrate`\n".to_owned());
    let current = (0, "the database's schema is this program's\n".to_owned());
    assert_eq!(migrate(&["--check"]), missing);
    assert_eq!(migrate(&["--check"]), missing, "the first look changed something");
    assert_eq!(migrate(&[]), current);
    assert_eq!(migrate(&[]), current);
    assert_eq!(migrate(&["--check"]), current);

    let newest = database.sql("SELECT max(version) FROM rowmill.schema_migrations").unwrap();
    let newest = newest.trim();
    database.sql(&format!("UPDATE rowmill.schema_migrations SET version = 9999 WHERE version = {newest}")).unwrap();
    let (status, said) = migrate(&["--check"]);
    assert!(status == 1 && said.contains(&format!("has version 9999, newer than this program's, {newest}: use a newer program")), "{status} {said}");
    let (status, said) = migrate(&[]);
    assert!(status == 2 && said.contains("use a newer program"), "{status} {said}");
}

#[test]
fn looking_at_a_sqlite_store_does_not_touch_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.db");
    let url = format!("sqlite:{}", file.display());
    let (status, said) = migrate(directory.path(), &url, &["--check"]);
    assert!(status == 0 && said.contains("there is nothing to check"), "{status} {said}");
    assert!(!file.exists());
    assert_eq!(migrate(directory.path(), &url, &[]).0, 0);
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(migrate(directory.path(), &url, &["--check"]).0, 0);
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before);
}

#[test]
fn a_database_that_is_not_there_is_an_error_with_its_place_and_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing listens on the first port.
    let (status, said) = migrate(directory.path(), "postgres://rowmill:geheim@127.0.0.1:1/rowmill", &[]);
    assert_eq!(status, 2);
    assert!(said.contains("postgres://rowmill:***@127.0.0.1:1/rowmill") && said.contains("onnection refused"), "{said}");
    assert!(!said.contains("geheim"), "{said}");
    let (status, said) = migrate(directory.path(), "postgres://127.0.0.1:1/rowmill", &["--set", "store.pooler=transaction"]);
    assert!(status == 2 && said.contains("run them against the database itself"), "{status} {said}");
}
