//! Versions of processors from the shell, and many processes that compile the same file.

use std::process::Stdio;

use serde_json::Value;

use super::{Installation, eventually, transactions};
use crate::support::wat::Wat;
use crate::support::{guests, target};

impl Installation {
    fn versions(&self) -> Vec<Value> {
        serde_json::from_str(&self.said(&["processors", "bank", "validate", "--json"])).unwrap()
    }
}

#[test]
fn versions_are_deployed_activated_compared_rolled_back_and_removed() {
    let site = Installation::embedded();
    let transactions_path = guests::path("bank-transactions");
    let [first, second] = [transactions_path.to_str().unwrap(), "statement.wasm"];
    std::fs::copy(guests::path("account-statement"), site.directory.path().join(second)).unwrap();
    let rows = site.file("rows.csv", &transactions(1, 3));
    let (status, out, said) = site.run(&["deploy", "bank", "Validate", first, "--note", "the first"]);
    assert_eq!((status, out.as_str()), (0, "1"));
    assert!(said.ends_with("it serves once it is active: rowmill activate bank validate 1"), "{said}");
    let (status, _, said) = site.run(&["submit", "bank", "validate", &rows]);
    assert!(status == 2 && said.contains("deploy one and activate it (rowmill deploy --activate)"), "{said}");
    let (status, out, said) = site.run(&["activate", "bank", "validate", "1"]);
    assert!((status, out.as_str()) == (0, "1") && said == "validate of app bank: version 1 serves now, for batches of rows", "{said}");
    let batch = site.said(&["submit", "bank", "validate", &rows]);

    assert_eq!(site.said(&["deploy", "bank", "validate", second, "--activate"]), "2");
    let versions = site.versions();
    let [one, two] = &versions[..] else { panic!("{versions:?}") };
    assert_eq!((&one["version"], &one["active"], &one["batches"], &one["note"]), (&1.into(), &true.into(), &1.into(), &"the first".into()));
    assert_eq!((&two["version"], &two["active"], &two["kind"]), (&2.into(), &true.into(), &"slow_query".into()));
    assert_eq!(one["size_bytes"], std::fs::metadata(first).unwrap().len());
    let table = site.said(&["processors", "bank"]);
    assert!(table.starts_with("OP") && table.contains("the first") && table.contains(&one["digest"].as_str().unwrap()[..12]), "{table}");
    let diff = site.said(&["diff", "bank", "validate", "1", "2"]);
    assert!(diff.contains("- exports rowmill:jobs/batch@0.1.0\n+ exports rowmill:jobs/slow-query@0.1.0"), "{diff}");
    assert!(diff.contains("kind: for batches of rows to for slow queries"), "{diff}");

    let third = Wat::batch().module();
    std::fs::write(site.directory.path().join("third.wasm"), third).unwrap();
    assert_eq!(site.said(&["deploy", "bank", "validate", "third.wasm", "--activate"]), "3");
    assert_eq!(site.versions().iter().map(|version| version["active"] == true).collect::<Vec<_>>(), [false, true, true]);
    for (arguments, sentence) in [
        (&["processors", "remove", "bank", "validate", "2"][..], "version 2 serves what is submitted: activate another version of its kind first"),
        (&["processors", "remove", "bank", "validate", "1"], "version 1 is used by 1 batches or queries that have not ended"),
        (&["activate", "bank", "validate", "4"], "app \"bank\" has no version 4 of a processor for the operation \"validate\""),
        (&["deactivate", "bank", "validate", "1"], "version 1 does not serve: rowmill processors shows the active versions"),
        (
            &["rollback", "bank", "validate"],
            "has a batch processor (version 3) and a slow-query processor (version 2) that serve the operation \"validate\"",
        ),
        (
            &["rollback", "bank", "validate", "--kind", "query"],
            "has no version of a slow-query processor for the operation \"validate\" that was active before",
        ),
        (&["rollback", "bank", "validate", "--kind", "slow"], "[possible values: batch, query]"),
        (&["rollback", "bank", "other"], "that was active before"),
        (&["processors"], "say whose: rowmill processors APP"),
        (&["processors", "bank", "remove", "bank", "validate", "1"], "what is to be done comes before the app"),
    ] {
        let (status, out, said) = site.run(arguments);
        assert!(status == 2 && out.is_empty() && said.contains(sentence), "{arguments:?}: {status} {out} {said}");
    }
    assert_eq!(site.said(&["rollback", "bank", "validate", "--kind", "batch"]), "1");
    assert_eq!(site.run(&["work", "--until-idle"]).0, 0);
    assert_eq!(site.status(&batch)["status"], "success");
    site.said(&["processors", "remove", "bank", "validate", "3"]);
    assert_eq!(site.versions().len(), 2);
}

/// As in Alya: one operation takes files of rows, and answers questions.
#[test]
fn an_operation_has_a_processor_of_batches_and_one_of_slow_queries() {
    let site = Installation::embedded();
    let rows = site.file("rows.csv", &transactions(1, 3));
    let question = r#"{"account":"DE0123456789","from":"2026-01-01","to":"2026-01-31","opening_cents":500,"transactions":[]}"#;
    site.deploy("accounts", "bank-transactions");
    let (status, _, said) = site.run(&["query", "bank", "accounts", question]);
    assert!(status == 2 && said.contains("has no slow-query processor that serves the operation \"accounts\" (its batch processor"), "{said}");
    site.deploy("accounts", "account-statement");
    let (status, _, said) = site.run(&["submit", "bank", "accounts", &rows, "--wait"]);
    assert_eq!(status, 0, "{said}");
    assert!(site.said(&["query", "bank", "accounts", question]).contains("closing_cents"));
    let apps: Value = serde_json::from_str(&site.said(&["apps", "--json"])).unwrap();
    let kinds: Vec<&Value> = apps[0]["processors"].as_array().unwrap().iter().map(|version| &version["kind"]).collect();
    assert_eq!(kinds, ["batch", "slow_query"]);
    assert!(site.said(&["apps"]).contains("accounts v1 (batch), accounts v2 (slow_query)"));

    let schedule = ["schedules", "set", "bank", "daily", "accounts", "--cron", "@daily", "--query", question];
    let (status, _, said) = site.run(&schedule);
    assert!(status == 0 && said.is_empty(), "{said}");
    let (status, _, said) = site.run(&["deactivate", "bank", "accounts", "2"]);
    let sentence = "the schedule \"daily\" submits to the slow-query processor of the operation \"accounts\": pause or remove the schedule first";
    assert!(status == 2 && said.contains(sentence), "{said}");
    let (status, out, said) = site.run(&["deactivate", "bank", "accounts", "1"]);
    assert!((status, out.as_str()) == (0, "1"), "{said}");
    assert_eq!(said, "accounts of app bank: version 1 does not serve any more, and no other version serves batches of rows");
    let (status, _, said) = site.run(&["submit", "bank", "accounts", &rows]);
    assert!(status == 2 && said.contains("(its slow-query processor does not run batches)"), "{said}");
    assert!(site.said(&["query", "bank", "accounts", question]).contains("closing_cents"));
    site.said(&["activate", "bank", "accounts", "1"]);
    site.said(&["submit", "bank", "accounts", &rows]);
}

#[test]
fn an_app_keeps_no_more_versions_than_the_operator_says() {
    let site = Installation::embedded();
    site.deploy("validate", "bank-transactions");
    let path = guests::path("account-statement");
    let deploy = ["deploy", "bank", "statement", path.to_str().unwrap(), "--set"];
    let (status, _, said) = site.run(&[&deploy[..], &["processors.versions_max=1"]].concat());
    assert!(status == 2 && said.contains("keeps 1 versions, as many as it may"), "{said}");
    let (status, _, said) = site.run(&[&deploy[..], &["processors.upload_max=64KiB"]].concat());
    assert!(status == 2 && said.contains("this file has") && said.contains("bytes, and may have 65536"), "{said}");
    let (status, _, said) = site.run(&[&deploy[..], &["processors.key=short"]].concat());
    assert!(status == 2 && said.contains("text of 32 bytes or more") && !said.contains("short"), "{said}");
    assert_eq!(site.run(&[&deploy[..], &["processors.versions_max=2"]].concat()).0, 0);
}

/// Processes on one machine wait for the one that compiles.
#[test]
fn comp_4_many_processes_compile_the_same_file_once() {
    let directory = tempfile::tempdir().unwrap();
    // It takes a while to compile.
    let slow: String = (0..2_000)
        .map(|number| format!("(func (param i32) (result i32) {} (local.get 0))", "(drop (i32.mul (local.get 0) (i32.const 7)))".repeat(number % 40)))
        .collect();
    std::fs::write(directory.path().join("slow.wasm"), Wat::batch().fields(&slow).module()).unwrap();
    std::fs::write(directory.path().join("rows.ndjson"), "{}\n").unwrap();
    let children: Vec<_> = (0..8)
        .map(|number| {
            let mut command = std::process::Command::new(target().join("release/rowmill"));
            command.args(["run", "--processor", "slow.wasm", "--input", "rows.ndjson", "--out", &number.to_string()]).current_dir(directory.path());
            command.env("ROWMILL_CACHE_DIR", directory.path().join("cache")).env("ROWMILL_LOG", "rowmill::sandbox=info");
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut compiled = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        compiled += said.matches("compiled digest=").count();
    }
    assert_eq!(compiled, 1);
    let mut names: Vec<String> =
        std::fs::read_dir(directory.path().join("cache")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() == 2 && names[0].ends_with(".cwasm") && names[1] == "key", "{names:?}");
}

/// One of them is killed while it compiles: another goes on in its place, and its compiler ends with it.
#[test]
fn whoever_waits_for_a_process_that_is_killed_compiles() {
    let directory = tempfile::tempdir().unwrap();
    let functions = "(func (param i32) (result i32) (local.get 0))".repeat(60_000);
    std::fs::write(directory.path().join("slow.wasm"), Wat::batch().fields(&functions).module()).unwrap();
    std::fs::write(directory.path().join("rows.ndjson"), "{}\n").unwrap();
    let start = |name: &str| {
        let mut command = std::process::Command::new(target().join("release/rowmill"));
        command.args(["run", "--processor", "slow.wasm", "--input", "rows.ndjson", "--out", name]).current_dir(directory.path());
        command.env("ROWMILL_CACHE_DIR", directory.path().join("cache"));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let locked = || {
        let names = std::fs::read_dir(directory.path().join("cache")).ok()?;
        names.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "lock")).then_some(())
    };
    let mut first = start("first");
    eventually(locked);
    let second = start("second");
    first.kill().unwrap();
    first.wait().unwrap();
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_processor_that_cannot_start_is_deployed_only_by_force() {
    let site = Installation::embedded();
    let path = guests::path("misbehaving-init");
    let deploy = ["deploy", "bank", "error", path.to_str().unwrap(), "--activate"];
    let (status, out, said) = site.run(&deploy);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(said.contains("this processor cannot start: init: the configuration is wrong on purpose ("), "{said}");
    assert!(said.contains("to register it as it is: rowmill deploy --force"), "{said}");
    assert_eq!(site.said(&[&deploy[..], &["--force"]].concat()), "1");
}
