//! The program that runs Alya's algorithm, which ours is measured against.

use std::process::Command;

use rowmill_tests::servers::Database;
use serde_json::Value;

use crate::support::target;

#[test]
fn each_row_is_done_once() {
    let database = Database::create().unwrap();
    let mut command = Command::new(target().join("release/alya-algorithm"));
    let done = command.args(["--url", &database.url(), "--rows", "205", "--batches", "3", "--workers", "4"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let figures: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((figures["rows"].as_u64(), figures["workers"].as_u64()), (Some(205), Some(4)));
    // Two updates for each row, and what claims, commits and summaries cost beside them.
    let each = figures["statements_per_row"].as_f64().unwrap();
    assert!((2.0..4.0).contains(&each), "{figures}");
    let rows = "SELECT count(*), count(DISTINCT (batch, line)), count(*) FILTER (WHERE status = 'success' AND res ->> 'line' = line::text) FROM alya.batchrows";
    assert_eq!(database.sql(rows).unwrap().trim(), "205|205|205");
    let batches = "SELECT count(*), sum(nsuccess) FROM alya.batches WHERE status = 'success' AND doneat IS NOT NULL";
    assert_eq!(database.sql(batches).unwrap().trim(), "3|205");
}
