//! Batches that come after another, from the shell, with real workers.

use nix::sys::signal::Signal;

use super::{Installation, eventually, transactions};

#[test]
fn the_outputs_of_a_batch_become_the_next_one_whatever_is_killed() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    site.deploy("sleep", "sleeper");
    let file = site.file("many.csv", &transactions(1, 20_000));
    let killed = site.worker("killed", 2);
    let first = site.said(&["submit", "bank", "validate", &file]);
    let (status, next, said) = site.run(&["submit", "bank", "validate", "--after", &first, "--when", "any", "--key", "k"]);
    assert!(status == 0 && said.contains("made when the batch before has ended"), "{said}");
    let strict = site.said(&["submit", "bank", "sleep", "--after", &first]);
    // Given again it is the same; with another condition it is not.
    assert_eq!(site.said(&["submit", "bank", "validate", "--after", &first, "--when", "any", "--key", "k"]), next);
    assert!(site.run(&["submit", "bank", "validate", "--after", &first, "--key", "k"]).2.contains("the key \"k\" is that of batch"));
    eventually(|| (site.status(&first)["done"] == true).then_some(()));
    killed.signal(Signal::SIGKILL);
    let _other = site.worker("other", 2);
    eventually(|| (site.status(&next)["done"] == true).then_some(()));
    let (first_ended, ended) = (site.status(&first), site.status(&next));
    assert_eq!(
        (&ended["rows"], &ended["after"]["batch"], &ended["after"]["condition"]),
        (&first_ended["success"], &first.as_str().into(), &"any".into())
    );
    let sums = "SELECT count(*) FROM (SELECT batch_key, line FROM rowmill.rows GROUP BY batch_key, line HAVING count(*) > 1) twice";
    assert_eq!(site.database.as_ref().unwrap().sql(sums).unwrap().trim(), "0");
    let made: Vec<_> = site.lines(&["rows", &next, "--limit", "60"]).iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(made, (1..=61).filter(|line| *line != 50).collect::<Vec<u64>>());
    eventually(|| (site.status(&strict)["done"] == true).then_some(()));
    let aborted = site.status(&strict);
    assert_eq!(aborted["abort_reason"], format!("batch {first} ended as failed, and this one was to come after its success"));
    let (status, _, said) = site.run(&["release", &strict]);
    assert!(status == 2 && said.contains("only a held batch can be released"), "{said}");
}

#[test]
fn a_chain_runs_to_its_end_in_one_process_over_sqlite() {
    let site = Installation::embedded();
    site.deploy("sleep", "sleeper");
    let file = site.file("naps.ndjson", "{\"ms\":1}\n{\"ms\":2}\n");
    let first = site.said(&["submit", "bank", "sleep", &file]);
    let second = site.said(&["submit", "bank", "sleep", "--after", &first]);
    let unknown = "01a20de3-951f-72d0-9579-9ddfcc5e04e0";
    let (status, out, said) = site.run(&["submit", "bank", "sleep", "--after", unknown]);
    assert!(status == 2 && out.is_empty() && said.contains("app \"bank\" has no batch 01a20de3-951f-72d0-9579-9ddfcc5e04e0"), "{said}");
    assert_eq!(site.run(&["submit", "bank", "sleep", &file, "--after", &first]).0, 2);
    let (status, _, said) = site.run(&["release", &second]);
    assert!(status == 2 && said.contains("its rows are made of the batch that it comes after"), "{said}");
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    assert_eq!((site.status(&second)["rows"].as_u64(), site.status(&second)["done"].as_bool()), (Some(2), Some(true)));
    assert!(site.said(&["status", &second]).contains(&format!("after {first} (success)")));
}

#[test]
fn a_group_is_waited_for_until_it_is_sealed_and_has_ended() {
    let site = Installation::shared();
    site.deploy("validate", "bank-transactions");
    let (good, bad) = (site.file("good.csv", &transactions(1, 40)), site.file("bad.csv", &transactions(41, 60)));
    let _worker = site.worker("one", 2);
    site.said(&["submit", "bank", "validate", &good, "--group", "january"]);
    let mut waiting = site.command(&["group", "bank", "january", "--wait", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let last = site.said(&["submit", "bank", "validate", &bad, "--group", "january"]);
    assert!(waiting.try_wait().unwrap().is_none(), "it is open");
    assert!(site.said(&["group", "bank", "january", "--seal"]).starts_with("january of app bank, "));
    let output = waiting.wait_with_output().unwrap();
    let group: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &group["complete"], &group["batches"]["all"], &group["batches"]["failed"]),
        (Some(1), &true.into(), &2.into(), &1.into())
    );
    assert_eq!((&group["rows"]["rows"], &group["rows"]["success"]), (&60.into(), &59.into()));
    assert!(site.said(&["groups", "bank"]).contains("january  complete  2        1        1       0        60"));
    assert!(site.said(&["status", &last]).contains("in group january"));
    let (status, _, said) = site.run(&["submit", "bank", "validate", &good, "--group", "january"]);
    assert!(status == 2 && said.contains("the group \"january\" of app \"bank\" is sealed"), "{said}");
    let (status, _, said) = site.run(&["group", "bank", "march"]);
    assert!(status == 2 && said.contains("app \"bank\" has no group \"march\""), "{said}");
}
