//! Groups of batches, from the shell.

use std::process::Stdio;

use super::{Installation, eventually, transactions};

#[test]
fn a_group_is_waited_for_until_it_is_sealed_and_has_ended() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let (good, bad) = (site.file("good.csv", &transactions(1, 40)), site.file("bad.csv", &transactions(41, 60)));
    let _worker = site.worker("one", 2);
    site.said(&["submit", "bank", "validate", &good, "--group", "january"]);
    let mut waiting = site.command(&["group", "bank", "january", "--wait", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let last = site.said(&["submit", "bank", "validate", &bad, "--group", "january"]);
    eventually(|| (site.status(&last)["done"] == true).then_some(()));
    assert!(waiting.try_wait().unwrap().is_none(), "it is open");
    assert!(site.said(&["group", "bank", "january", "--seal"]).starts_with("january of app bank, ended since 20"));
    let output = waiting.wait_with_output().unwrap();
    let group: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &group["state"], &group["batches"]["all"], &group["batches"]["failed"]),
        (Some(1), &"ended".into(), &2.into(), &1.into())
    );
    assert_eq!((&group["rows"]["rows"], &group["rows"]["success"]), (&60.into(), &59.into()));
    assert!(site.said(&["groups", "bank"]).contains("january  ended  2        0     1        1       0        60"));
    assert!(site.said(&["status", &last]).contains("in group \"january\""));
    assert_eq!(site.status(&last)["group"], "january");
    let (status, _, said) = site.run(&["submit", "bank", "validate", &good, "--group", "january"]);
    assert!(status == 2 && said.contains("the group \"january\" of app \"bank\" is sealed"), "{said}");
    for wrong in [["group", "bank", "march"].as_slice(), &["group", "bank", "march", "--seal"]] {
        let (status, _, said) = site.run(wrong);
        assert!(status == 2 && said.contains("app \"bank\" has no group \"march\""), "{said}");
    }
    // What is retried is waited for once more.
    site.said(&["retry", &last]);
    let (status, out, _) = site.run(&["group", "bank", "january", "--wait"]);
    assert!(status == 1 && out.contains("2 batches, 0 open, 1 success, 1 failed"), "{out}");
}

#[test]
fn a_group_runs_to_its_end_in_one_process_over_sqlite() {
    let site = Installation::embedded();
    site.deploy("sleep", "sleeper");
    let file = site.file("naps.ndjson", "{\"ms\":1}\n{\"ms\":2}\n");
    for _ in 0..2 {
        site.said(&["submit", "bank", "sleep", &file, "--group", "naps"]);
    }
    let (status, _, said) = site.run(&["group", "bank", "naps", "--wait"]);
    assert!(status == 2 && said.contains("add --seal"), "{said}");
    assert!(site.said(&["group", "bank", "naps", "--wait", "--seal"]).contains("2 batches, 0 open, 2 success"));
    // A file that cannot be taken leaves no batch behind that would be waited for.
    let bad = site.file("bad.ndjson", "");
    assert_eq!(site.run(&["submit", "bank", "sleep", &bad, "--group", "none"]).0, 2);
    assert!(site.said(&["group", "bank", "none", "--seal"]).contains("none of app bank, ended"));
}
