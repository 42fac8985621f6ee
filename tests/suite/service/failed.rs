//! Failed rows of an app, from the shell.

use super::{Installation, eventually, transactions};

#[test]
fn what_failed_in_any_batch_is_listed_and_gone_on_with() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let _worker = site.worker("one", 2);
    // Each fiftieth is bad.
    let batches: Vec<String> = [(1, 120), (121, 160)]
        .into_iter()
        .map(|(first, last)| {
            let batch = site.said(&["submit", "bank", "validate", &site.file("some.csv", &transactions(first, last))]);
            eventually(|| (site.status(&batch)["done"] == true).then_some(()));
            batch
        })
        .collect();
    let found = site.lines(&["failed", "bank"]);
    let places: Vec<_> = found.iter().map(|row| (row["batch"].as_str().unwrap(), row["input"]["id"].as_str().unwrap())).collect();
    assert_eq!(places, [(batches[1].as_str(), "T000150"), (batches[0].as_str(), "T000050"), (batches[0].as_str(), "T000100")]);
    assert_eq!((&found[0]["op"], &found[0]["round"]), (&"validate".into(), &1.into()));
    let code = found[0]["messages"][0]["code"].as_str().unwrap();
    assert_eq!(site.lines(&["failed", "bank", "--code", code, "--op", "VALIDATE", "--since", "1h"]), found);
    for nothing in [["--code", "no-such-code"], ["--op", "other"], ["--since", "2100-01-01T00:00:00Z"]] {
        assert_eq!(site.said(&["failed", "bank", nothing[0], nothing[1]]), "");
    }
    let (status, out, said) = site.run(&["failed", "bank", "--limit", "2"]);
    let behind = found[1]["position"].as_str().unwrap();
    assert!(status == 0 && out.lines().count() == 2 && said.contains(&format!("there may be more: --after {behind}")), "{said}");
    assert_eq!(site.lines(&["failed", "bank", "--after", behind]), found[2..]);
    let (status, _, said) = site.run(&["failed", "bank", "--after", "here"]);
    assert!(status == 2 && said.contains("it looks like 812-17"), "{said}");
}
