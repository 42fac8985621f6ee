//! Pruning that is killed on its way.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Installation, eventually, transactions};

/// Rows of each batch that is there before: more than go between two looks.
const ROWS: u32 = 200_000;
const BATCHES: u32 = 3;

/// Batches that are done, as a worker left them long ago; each has one object.
fn seed(site: &Installation) {
    let database = site.database.as_ref().unwrap();
    let batches = format!(
        "INSERT INTO rowmill.batches (batch_id, app, op, kind, processor_version, processor_digest, context, attempts_max, status, step, row_count, next_row, line_last,
            success, submitted_at, started_at, finished_at)
         SELECT gen_random_uuid(), 'bank', 'old', 'batch', 1, '', '{{}}', 3, 'success', 'done', {ROWS}, {ROWS} + 1, {ROWS}, {ROWS}, b, b, b FROM generate_series(1, {BATCHES}) b"
    );
    database.sql(&batches).unwrap();
    for statement in [
        "INSERT INTO rowmill.rows (batch_key, line, row_no, input) SELECT b.batch_key, n, n, '{}' FROM rowmill.batches b, generate_series(1, b.row_count) n",
        "INSERT INTO rowmill.outcomes (batch_key, fuel, row_no, attempt, failed) SELECT b.batch_key, 1, n, 1, false FROM rowmill.batches b, generate_series(1, b.row_count) n",
    ] {
        database.sql(statement).unwrap();
    }
    for (at, id) in ids(site).into_iter().enumerate() {
        let object = site.objects().join(format!("batches/{id}/{at}"));
        std::fs::create_dir_all(object.parent().unwrap()).unwrap();
        std::fs::write(object, "x").unwrap();
        let file = format!(
            "INSERT INTO rowmill.output_files SELECT batch_key, 0, 'out', 'batches/{id}/{at}', 1 FROM rowmill.batches WHERE batch_id = '{id}'"
        );
        database.sql(&file).unwrap();
    }
}

fn ids(site: &Installation) -> Vec<String> {
    let ids = site.database.as_ref().unwrap().sql("SELECT batch_id FROM rowmill.batches ORDER BY batch_key").unwrap();
    ids.lines().map(str::to_owned).collect()
}

/// A record names an object that is there, or says that it is pruned; and no object is there that no record names.
fn nothing_is_lost(site: &Installation) {
    let database = site.database.as_ref().unwrap();
    let said = database
        .sql("SELECT object FROM rowmill.output_files JOIN rowmill.batches USING (batch_key) WHERE object IS NOT NULL AND files_pruned_at IS NULL")
        .unwrap();
    for object in said.lines() {
        assert!(site.objects().join(object).is_file(), "{object} is named and gone");
    }
    let named = database.sql("SELECT object FROM rowmill.output_files WHERE object IS NOT NULL").unwrap();
    for batch in std::fs::read_dir(site.objects().join("batches")).unwrap() {
        for object in std::fs::read_dir(batch.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let object = path.strip_prefix(site.objects()).unwrap().to_str().unwrap().to_owned();
            assert!(named.lines().any(|named| named == object), "{object} is left behind");
        }
    }
}

#[test]
fn pruning_that_is_killed_leaves_nothing_behind_and_is_gone_on_with() {
    let site = Installation::database_and_directory();
    let database = site.database.as_ref().unwrap();
    seed(&site);
    let due: Value = serde_json::from_str(&site.said(&["prune", "--dry-run", "--json", "--set", "keep.batches=1h"])).unwrap();
    assert_eq!((due[0]["batches"].as_u64(), due[0]["batch_rows"].as_u64()), (Some(BATCHES.into()), Some((ROWS * BATCHES).into())));
    assert_eq!((due[0]["objects"].as_u64(), due[0]["object_bytes"].as_u64()), (Some(BATCHES.into()), Some(BATCHES.into())));
    let whole = ids(&site);
    for (kills, id) in whole.iter().enumerate() {
        let mut pruning = site.command(&["prune", "--set", "keep.batches=1h"]).spawn().unwrap();
        // In the middle of a batch, and further each time.
        eventually(|| {
            let rows = database.sql(&format!("SELECT pruned_rows FROM rowmill.batches WHERE batch_id = '{id}' AND pruned_rows > 0")).unwrap();
            (!rows.trim().is_empty() || !ids(&site).contains(id)).then_some(())
        });
        kill(Pid::from_raw(pruning.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
        pruning.wait().unwrap();
        nothing_is_lost(&site);
        // Who was killed has the batch for a minute.
        database.sql("UPDATE rowmill.batches SET pruning_until = 0 WHERE pruning <> 0").unwrap();
        let left = ids(&site);
        if left.contains(id) {
            let status = site.status(id);
            assert!(status["pruned"]["outcomes"].is_i64() && status["files"].as_array().unwrap().is_empty(), "after {kills} kills: {status}");
            let (code, _, error) = site.run(&["results", id]);
            assert!(code == 2 && error.contains("were pruned on"), "{error}");
        }
    }
    let report: Value = serde_json::from_str(&site.said(&["prune", "--json", "--set", "keep.batches=1h"])).unwrap();
    assert!(report["rows"].as_u64().is_some(), "{report}");
    nothing_is_lost(&site);
    let left = "SELECT (SELECT count(*) FROM rowmill.batches) + (SELECT count(*) FROM rowmill.rows) + (SELECT count(*) FROM rowmill.outcomes) + (SELECT count(*) FROM rowmill.output_files)";
    assert_eq!(database.sql(left).unwrap().trim(), "0");
    let (code, _, error) = site.run(&["status", &whole[0]]);
    assert!(code == 2 && error.contains("there is no batch"), "{error}");
}

#[test]
fn a_batch_is_followed_exported_and_removed_from_the_shell() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let file = site.file("some.csv", &transactions(1, 100));
    let batch = site.said(&["submit", "bank", "validate", &file, "--hold"]);
    let (code, _, error) = site.run(&["export", &batch, "--out", "out", "--remove"]);
    assert!(code == 2 && error.contains("results can be read once it has ended"), "{error}");
    let follower = site.command(&["events", &batch, "--follow", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let _worker = site.worker("one", 2);
    site.said(&["release", &batch]);
    let heard = follower.wait_with_output().unwrap();
    assert!(heard.status.success());
    let heard: Vec<Value> = std::str::from_utf8(&heard.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = heard.iter().map(|event| event["kind"].as_str().unwrap()).filter(|kind| *kind != "progress").collect();
    assert_eq!(kinds, ["submitted", "released", "started", "row-failed", "finished", "summarised"]);
    let behind = heard[heard.len() - 2]["position"].as_str().unwrap();
    assert_eq!(site.lines(&["events", &batch, "--after", behind, "--json"]), heard[heard.len() - 1..]);
    assert!(site.said(&["events", &batch]).contains("bank/validate row-failed: 100 rows"));

    let out: Value = serde_json::from_str(&site.said(&["export", &batch, "--out", "object:exports/1"])).unwrap();
    assert_eq!((out["exported"]["batch"].as_str(), out["removed"].is_null()), (Some(batch.as_str()), true));
    let out: Value = serde_json::from_str(&site.said(&["export", &batch, "--out", "out", "--remove"])).unwrap();
    assert_eq!(out["removed"]["rows"], 100);
    assert_eq!(std::fs::read_to_string(site.directory.path().join("out/rows.ndjson")).unwrap().lines().count(), 100);
    assert!(site.run(&["status", &batch]).2.contains("there is no batch"));
    assert_eq!(site.run(&["export", &batch, "--out", "out", "--remove"]).0, 0, "once more is as once");
    for wrong in [["policies", "set", "bank", "--keep-files", "1y"], ["events", "--after", "here", "--app", "bank"]] {
        assert_eq!(site.run(&wrong).0, 2);
    }
    site.said(&["policies", "set", "bank", "--keep-files", "7d", "--keep-batches", "forever"]);
    assert!(site.said(&["policies"]).contains("files 7d, batches forever"));
}
