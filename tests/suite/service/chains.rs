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
    assert_eq!(aborted["abort_reason"], format!("batch {first} ended as failed, and this batch runs only after its success"));
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

/// Nobody works: what was aborted before it ran is over.
#[test]
fn an_aborted_query_and_an_aborted_batch_are_answered_without_a_worker() {
    let site = Installation::database_and_directory();
    site.deploy("statement", "account-statement");
    site.deploy("sleep", "sleeper");
    let query = site.said(&["query", "bank", "statement", "{}", "--no-wait"]);
    site.said(&["abort", &query, "--reason", "not wanted"]);
    let (status, out, said) = site.run(&["answer", &query]);
    assert_eq!((status, out.as_str(), said.as_str()), (1, "", "aborted: not wanted"));
    let (_, out, _) = site.run(&["answer", &query, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["status"], &answer["abort_reason"]), (&"aborted".into(), &"not wanted".into()));
    assert_eq!(site.run(&["status", &query, "--watch"]).0, 1);
    // It is waited for while it is aborted.
    let asked = site.command(&["query", "bank", "statement", "{}", "--key", "k"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let again = eventually(|| {
        let found = site.database.as_ref().unwrap().sql("SELECT batch_id FROM rowmill.batches WHERE status = 'queued'").unwrap();
        (!found.trim().is_empty()).then(|| found.trim().to_owned())
    });
    site.said(&["abort", &again]);
    let asked = asked.wait_with_output().unwrap();
    assert_eq!((asked.status.code(), String::from_utf8_lossy(&asked.stderr).trim()), (Some(1), "aborted"));

    let file = site.file("naps.ndjson", "{\"ms\":1}\n");
    let waits = site
        .command(&["submit", "bank", "sleep", &file, "--wait"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let batch = eventually(|| {
        let found = site.database.as_ref().unwrap().sql("SELECT batch_id FROM rowmill.batches WHERE status = 'queued'").unwrap();
        (!found.trim().is_empty()).then(|| found.trim().to_owned())
    });
    site.said(&["abort", &batch, "--reason", "not wanted"]);
    let waited = waits.wait_with_output().unwrap();
    assert_eq!(waited.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&waited.stdout).trim(), batch);
    assert!(String::from_utf8_lossy(&waited.stderr).contains("aborted: not wanted"), "{waited:?}");
}

/// A batch that fails for a limit that is too low, and one behind it and one behind that.
#[test]
fn a_batch_behind_one_that_is_repaired_by_a_retry_runs() {
    let site = Installation::embedded();
    site.deploy("say", "chronicle");
    site.said(&["apps", "set", "bank", "--timeout", "50ms"]);
    let file = site.file("slow.ndjson", "{\"say\":\"slow\",\"sleep_ms\":400}\n");
    let first = site.said(&["submit", "bank", "say", &file]);
    let second = site.said(&["submit", "bank", "say", "--after", &first]);
    let third = site.said(&["submit", "bank", "say", "--after", &second]);
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    for id in [&second, &third] {
        assert_eq!(site.status(id)["status"], "aborted");
    }
    let (status, _, said) = site.run(&["retry", &second, "--aborted"]);
    assert!(status == 2 && said.contains(&format!("would be aborted again: batch {first} ended as failed")), "{said}");
    site.said(&["apps", "set", "bank", "--timeout", "60s"]);
    let (status, out, said) = site.run(&["retry", &first]);
    assert_eq!((status, out.as_str()), (0, "1"));
    for id in [&second, &third] {
        assert!(said.contains(&format!("batch {id}, which was aborted because of it, waits for it again")), "{said}");
        assert_eq!(site.status(id)["status"], "wait");
    }
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    for id in [&first, &second, &third] {
        assert_eq!((site.status(id)["status"].as_str(), site.status(id)["round"].as_u64()), (Some("success"), Some(2)));
    }
}
