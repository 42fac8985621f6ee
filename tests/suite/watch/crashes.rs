//! Watchers beside each other, and watchers that are killed.

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Site, Watching, names};
use crate::service::{Installation, eventually, transactions};
use crate::support::guests;

#[test]
fn two_watchers_take_each_file_once() {
    const FILES: u64 = 150;
    let site = Site::new(Installation::shared(), "50ms");
    let watching = [site.start(), site.start()];
    for number in 1..=FILES {
        site.put(&format!("t-{number}.csv"), transactions(1, 5));
    }
    eventually(|| (names(&site.place("done")).len() as u64 == FILES).then_some(()));
    for watching in watching {
        watching.signal(Signal::SIGTERM);
        assert_eq!(watching.ends(), Some(0));
    }
    assert_eq!(site.count("SELECT count(*) FROM rowmill.batches WHERE status = 'queued' AND row_count = 5"), FILES);
    assert_eq!(site.count("SELECT count(DISTINCT name) FROM rowmill.batch_files"), FILES);
    assert_eq!((names(&site.place("incoming")), names(&site.place(".work"))), (vec![], vec![]));
}

/// Files come in, the watcher is killed on the way as often as this, and everything is there once and whole.
fn killed_on_the_way(site: Installation, watchers: usize, files: u32, kills: u32) {
    let site = Site::new(site, "50ms");
    let rows = |number: u32| 1 + number % 7;
    for number in 1..=files {
        site.put(&format!("t-{number}.csv"), transactions(1, rows(number)));
    }
    let done = || names(&site.place("done")).len();
    let mut watching: VecDeque<Watching> = (0..watchers).map(|_| site.start()).collect();
    for kill in 1..=kills {
        // At another moment each time: when so many files are through, and a bit of one more.
        let through = (files * kill / (kills + 1)) as usize;
        eventually(|| (done() >= through).then_some(()));
        std::thread::sleep(Duration::from_micros(u64::from(kill * 733 % 20_000)));
        watching.pop_front().unwrap().kill();
        watching.push_back(site.start());
    }
    let all = |place: &str| names(&site.place(place));
    eventually(|| (all("incoming").is_empty() && all(".work").is_empty()).then_some(()));
    for watching in watching {
        watching.signal(Signal::SIGTERM);
        assert_eq!(watching.ends(), Some(0));
    }
    let mut expected: Vec<String> = (1..=files).map(|number| format!("t-{number}.csv")).collect();
    expected.sort();
    assert_eq!(all("done"), expected);
    assert!(all("failed").is_empty(), "{:?}", all("failed"));
    let mut expected: Vec<String> = (1..=files).map(|number| format!("t-{number}.csv|{0}|{0}|true", rows(number))).collect();
    expected.sort();
    assert_eq!(site.batches(), expected, "each file is one batch, with all its rows");
}

#[test]
fn a_thousand_files_are_taken_once_and_whole_though_the_watcher_is_killed_twenty_times() {
    killed_on_the_way(Installation::shared(), 1, 1_000, 20);
}

/// What one leaves the other goes on with, while it takes files itself.
#[test]
fn of_two_watchers_one_after_the_other_is_killed() {
    killed_on_the_way(Installation::shared(), 2, 300, 12);
}

/// Over SQLite the batches run meanwhile, and each of them leaves its outcomes.
#[test]
fn a_watcher_over_sqlite_is_killed_and_goes_on() {
    killed_on_the_way(Installation::embedded(), 1, 100, 8);
}

#[test]
fn a_large_file_that_was_taken_in_half_is_gone_on_with() {
    let site = Site::new(Installation::shared(), "50ms");
    let rows = 200_000;
    site.put("t-large.csv", transactions(1, rows));
    let mut halves = 0;
    for kill in 1..=6 {
        let watching = site.start();
        eventually(|| (site.count("SELECT coalesce(max(row_count), 0) FROM rowmill.batches") >= kill * 10_000).then_some(()));
        watching.kill();
        halves += site.count("SELECT count(*) FROM rowmill.batches WHERE status = 'wait' AND row_count > 0");
    }
    assert!(halves > 0, "each was faster than its killer");
    let watching = site.start();
    eventually(|| site.place("done").join("t-large.csv").exists().then_some(()));
    watching.kill();
    assert_eq!(site.count("SELECT count(*) FROM rowmill.batches WHERE status <> 'wait'"), 1);
    assert_eq!(site.count("SELECT count(DISTINCT line) FROM rowmill.rows"), u64::from(rows));
    assert_eq!(site.count("SELECT count(*) FROM rowmill.rows"), u64::from(rows));
}

/// What was begun for one app is not left behind when the file is another's by now.
#[test]
fn a_file_that_was_taken_in_half_follows_its_new_type() {
    let site = Site::new(Installation::shared(), "50ms");
    site.site.said(&["deploy", "other", "validate", guests::path("bank-transactions").to_str().unwrap(), "--activate"]);
    let rows = 150_000;
    site.put("t-large.csv", transactions(1, rows));
    let watching = site.start();
    eventually(|| (site.count("SELECT coalesce(max(row_count), 0) FROM rowmill.batches") >= 10_000).then_some(()));
    watching.kill();
    assert_eq!(site.count("SELECT count(*) FROM rowmill.batches WHERE status = 'wait' AND app = 'bank'"), 1, "it was faster than its killer");
    let file = site.site.directory.path().join("watch.toml");
    let types = fs::read_to_string(&file).unwrap();
    fs::write(&file, types.replacen("app = \"bank\"", "app = \"other\"", 1)).unwrap();
    let report = site.once().remove(0);
    assert_eq!((&report["outcome"], &report["rows"]), (&"submitted".into(), &rows.into()), "{report}");
    assert_eq!(site.batches(), [format!("t-large.csv|{rows}|{rows}|true")]);
    assert_eq!(site.count("SELECT count(*) FROM rowmill.batches WHERE app = 'other'"), 1);
}
