//! banktxns and infiled: files become batches.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::example;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn banktxns_takes_a_file_that_matches_its_total_and_refuses_the_other() {
    let shown = example("banktxns", &[]);
    let at = |path: &str| fs::read_to_string(shown.directory.path().join(path)).unwrap();
    let taken = json_lines(&at("taken.ndjson"));
    let of = |name: &str| taken.iter().find(|report| report["file"] == name).unwrap();
    let good = of("transactions-2026-01-31.csv");
    assert_eq!((&good["outcome"], &good["rows"]), (&"submitted".into(), &5.into()));
    let bad = of("transactions-2026-02-01.csv");
    let reason = &bad["reasons"][0];
    assert_eq!(
        (&bad["outcome"], &reason["code"], &reason["values"]),
        (&"failed".into(), &"total-differs".into(), &serde_json::json!(["1700.00", "1618.49"]))
    );
    let postings = "1,T1,DE9710027535,125000,EUR\n2,T2,DE9710027535,-4000,EUR\n3,T3,DE9710027535,-30050,EUR\n3,T3,FR0012345678,30050,EUR\n4,T4,DE9710027535,-1999,EUR\n";
    assert_eq!(at("results/files/postings.csv"), postings);
    let failed = json_lines(&at("results/failed.ndjson"));
    assert_eq!((failed.len(), &failed[0]["rowmill"]["codes"]), (1, &serde_json::json!(["memo-missing"])));
    for said in [postings, "total-differs", "5 rows, 4 success, 1 failed", "transactions-2026-01-31.csv"] {
        assert!(shown.out.contains(said), "{said}\n{}", shown.out);
    }
}

#[tokio::test]
async fn infiled_takes_each_file_once_though_it_is_killed() {
    let shown = tokio::task::spawn_blocking(|| example("infiled", &[])).await.unwrap();
    let place = |name: &str| names(&shown.directory.path().join("box").join(name));
    let mut expected: Vec<String> = (1..=20).map(|number| format!("plain-{number}.csv")).collect();
    expected.extend(["checked-1.csv".to_owned(), "compressed.csv.gz".to_owned()]);
    expected.sort();
    assert_eq!(place("done"), expected);
    let refused = ["checked-2.csv", "not-compressed.csv.gz", "notes.txt"];
    assert_eq!(place("failed"), refused.iter().flat_map(|name| [(*name).to_owned(), format!("{name}.reasons.json")]).collect::<Vec<_>>());
    assert_eq!((place("incoming"), place(".work")), (vec!["unfinished.csv.part".to_owned()], vec![]));
    for said in [
        "the watcher was killed when",
        "done: 22, failed: 3, left: unfinished.csv.part",
        "total-differs",
        "unknown_file",
        "it is not compressed with gzip",
    ] {
        assert!(shown.out.contains(said), "{said}\n{}", shown.out);
    }
    // One batch for each, and each has run.
    let url = shown.directory.path().join("rowmill.db");
    let mut db = <sqlx::SqliteConnection as sqlx::Connection>::connect(url.to_str().unwrap()).await.unwrap();
    let batches: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT f.name, b.row_count, b.status FROM batches b JOIN batch_files f ON f.batch_key = b.batch_key ORDER BY f.name")
            .fetch_all(&mut db)
            .await
            .unwrap();
    assert_eq!(batches.iter().map(|(name, _, _)| name.clone()).collect::<Vec<_>>(), expected);
    assert!(batches.iter().all(|(_, rows, status)| *rows == 5 && status == "failed"), "{batches:?}");
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM batches").fetch_one(&mut db).await.unwrap();
    assert_eq!(all, 22);
}
