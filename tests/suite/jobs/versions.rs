//! Versions of processors: what serves, what a batch keeps, what is compiled how often, and what is left when they go.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rowmill::jobs::{BatchRequest, JobError, JobManager};
use rowmill::model::{BatchId, BatchStatus, CodeQuota, RowStatus};
use rowmill::sandbox::{CompilerSettings, Sandbox, SandboxSettings};
use rowmill::status::StatusBoard;
use rowmill::store::{StoreError, VersionError};
use tempfile::TempDir;

use super::{Site, is_store, on_each_store, refused, row, transaction};
use crate::support::wat::{Wat, answer};
use crate::support::{guests, target};

on_each_store! {
    life_4_a_batch_ends_on_its_own_version_whatever_becomes_of_it
    what_is_deployed_serves_when_it_is_activated
    two_versions_are_compared_by_their_interfaces
    code_goes_with_its_last_version_and_comes_again
    an_app_keeps_no_more_than_it_may
    comp_4_the_same_bytes_uploaded_a_hundred_times_are_compiled_once
    compiled_code_is_shared_by_those_who_share_the_key
}

/// Counts how often it is started, in a file.
fn counting_compiler(directory: &Path) -> CompilerSettings {
    let program = directory.join("compiler.sh");
    let text = format!(
        "#!/bin/sh\necho >> {}\nexec {} compile-processor \"$@\"\n",
        directory.join("count").display(),
        target().join("release/rowmill").display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    CompilerSettings { program: Some((program, Vec::new())), at_once: 2, ..CompilerSettings::default() }
}

fn compiles(directory: &Path) -> usize {
    std::fs::read_to_string(directory.join("count")).map_or(0, |count| count.lines().count())
}

/// As another machine has it, with an empty cache and a compiler that counts.
fn machine(site: &Site, directory: &Path, key: Option<&str>) -> JobManager {
    let settings = SandboxSettings {
        compiler: counting_compiler(directory),
        key: key.map(|key| key.as_bytes().to_vec()),
        ..SandboxSettings::new(8, directory.join("cache"))
    };
    let sandbox = Sandbox::open(settings).unwrap();
    JobManager::new(Arc::clone(&site.store), site.blobs.clone(), Arc::new(StatusBoard::in_process()), sandbox, super::settings("another"))
}

/// A processor that answers with this number of two digits.
fn answering(number: u32) -> Vec<u8> {
    Wat::batch().body("process-row", &answer(2_000, 2)).fields(&format!("(data (i32.const 2000) \"{number}\")")).module()
}

async fn life_4_a_batch_ends_on_its_own_version_whatever_becomes_of_it(mut site: Site) {
    let jobs = site.jobs.clone();
    site.begin_work();
    // Rows that take a while, on version 1 of `sleep`.
    let id = site.submit("sleep", (1..=40).map(|line| row(line, r#"{"ms":100}"#)).collect()).await;
    while site.store.read_batch(id).await.unwrap().counts.success == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let two = jobs.register_processor("bank", "sleep", guests::read("bank-transactions")).await.unwrap();
    assert_eq!(jobs.rollback("bank", "sleep", None).await.unwrap().version, 1);
    assert_eq!(jobs.activate("bank", "sleep", two.version).await.unwrap().version, 2);
    let refused = jobs.remove_version("bank", "sleep", 1).await.unwrap_err();
    assert!(matches!(refused, JobError::Store(StoreError::Version(VersionError::InUse { version: 1, batches: 1 }))), "{refused}");
    // What comes now is another version's.
    let new = site.submit("sleep", vec![transaction(1)]).await;
    assert_eq!(jobs.rollback("bank", "sleep", None).await.unwrap().version, 1);
    let (batch, new) = (site.wait(id).await, site.wait(new).await);
    assert_eq!(
        (batch.status, batch.processor_version, batch.counts.success),
        (BatchStatus::Success, 1, 40),
        "each row ran on the version that it had"
    );
    assert_eq!((new.status, new.processor_version), (BatchStatus::Success, 2));
    jobs.remove_version("bank", "sleep", 2).await.unwrap();
    let rows = jobs.batch_rows(new.id, None, 1).await.unwrap();
    assert_eq!(rows[0].status, Some(RowStatus::Success), "its results stay");
    site.end_work().await;
}

async fn what_is_deployed_serves_when_it_is_activated(mut site: Site) {
    let jobs = site.jobs.clone();
    let first = jobs.deploy("bank", "answer", answering(11), Some("the first")).await.unwrap();
    let said = refused!(jobs.batch_submit(BatchRequest::new("bank", "answer").with_rows(vec![row(1, "{}")])).await, JobError::NoProcessor(_));
    assert!(said.ends_with("deploy one and activate it (rowmill deploy --activate)"), "{said}");
    jobs.activate("bank", "answer", first.version).await.unwrap();
    site.begin_work();
    let output = async |jobs: &JobManager| {
        let id = jobs.batch_submit(BatchRequest::new("bank", "answer").with_rows(vec![row(1, "{}")])).await.unwrap();
        jobs.wait(id).await.unwrap();
        jobs.batch_rows(id, None, 1).await.unwrap().remove(0).output.unwrap()
    };
    assert_eq!(output(&jobs).await, "11");
    jobs.deploy("bank", "answer", answering(22), None).await.unwrap();
    assert_eq!(output(&jobs).await, "11");
    jobs.deploy_and_activate("bank", "answer", answering(33), None).await.unwrap();
    assert_eq!(output(&jobs).await, "33");
    jobs.rollback("bank", "answer", None).await.unwrap();
    assert_eq!(output(&jobs).await, "11");
    let listed = jobs.list_versions("bank", Some("Answer")).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|listed| (listed.version.version, listed.active, listed.note.as_deref())).collect();
    assert_eq!(listed, [(1, true, Some("the first")), (2, false, None), (3, false, None)]);
    site.end_work().await;
    // Another app's versions are not seen where only one app is.
    let shop = jobs.restricted_to("shop");
    refused!(shop.list_versions("bank", None).await, JobError::OtherApp { .. });
    refused!(shop.activate("bank", "answer", 1).await, JobError::OtherApp { .. });
    refused!(shop.rollback("bank", "answer", None).await, JobError::OtherApp { .. });
    refused!(shop.remove_version("bank", "answer", 2).await, JobError::OtherApp { .. });
    refused!(shop.deploy("bank", "answer", answering(44), None).await, JobError::OtherApp { .. });
}

async fn two_versions_are_compared_by_their_interfaces(site: Site) {
    let jobs = &site.jobs;
    let logging = Wat::batch().import_log().body("close", "(call $log (i32.const 1) (i32.const 0) (i32.const 0))").module();
    let bytes = [answering(11), logging].map(|wasm| wasm.len() as u64);
    jobs.deploy("bank", "answer", answering(11), None).await.unwrap();
    let logging = Wat::batch().import_log().body("close", "(call $log (i32.const 1) (i32.const 0) (i32.const 0))").module();
    jobs.deploy("bank", "answer", logging, None).await.unwrap();
    jobs.deploy("bank", "answer", guests::read("account-statement"), None).await.unwrap();
    let diff = jobs.diff_versions("bank", "answer", 1, 2).await.unwrap();
    assert_eq!([diff.before.size_bytes, diff.after.size_bytes], bytes);
    assert!(diff.imports_added.contains(&"rowmill:jobs/host@0.1.0".to_owned()) && diff.imports_removed.is_empty(), "{diff:?}");
    assert!(diff.exports_added.is_empty() && diff.exports_removed.is_empty(), "{diff:?}");
    let diff = jobs.diff_versions("bank", "ANSWER", 2, 3).await.unwrap();
    assert_eq!(
        (diff.exports_removed, diff.exports_added),
        (vec!["rowmill:jobs/batch@0.1.0".to_owned()], vec!["rowmill:jobs/slow-query@0.1.0".to_owned()])
    );
    is_store(&jobs.diff_versions("bank", "answer", 1, 4).await.unwrap_err(), "has no version 4");
}

async fn code_goes_with_its_last_version_and_comes_again(site: Site) {
    let jobs = &site.jobs;
    let objects = async |site: &Site| site.blobs.list("processors/", 100).await.unwrap().len();
    let before = objects(&site).await;
    for (op, number) in [("one", 11), ("two", 11), ("one", 22)] {
        jobs.register_processor("bank", op, answering(number)).await.unwrap();
    }
    assert_eq!(objects(&site).await, before + 2);
    jobs.remove_version("bank", "one", 1).await.unwrap();
    assert_eq!(objects(&site).await, before + 2, "the other operation has it");
    is_store(&jobs.remove_version("bank", "two", 1).await.unwrap_err(), "version 1 serves what is submitted");
    jobs.register_processor("bank", "two", answering(22)).await.unwrap();
    jobs.remove_version("bank", "two", 1).await.unwrap();
    assert_eq!(objects(&site).await, before + 1);
    // The same code again, while others remove it: whoever is told that it is registered finds it.
    for round in 0..10 {
        let version = jobs.deploy("bank", "one", answering(11), None).await.unwrap().version;
        let (removed, deployed) = tokio::join!(jobs.remove_version("bank", "one", version), jobs.deploy("shop", "one", answering(11), None));
        removed.unwrap();
        let shop = deployed.unwrap();
        site.blobs.get(&format!("processors/{}.wasm", shop.digest)).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        jobs.remove_version("shop", "one", shop.version).await.unwrap();
    }
    assert_eq!(objects(&site).await, before + 1);
}

async fn an_app_keeps_no_more_than_it_may(site: Site) {
    let jobs = site.jobs.clone().with_code_quota(CodeQuota { versions_max: 5, bytes_max: 1 << 30 });
    // It has four.
    jobs.deploy("bank", "answer", answering(11), None).await.unwrap();
    is_store(&jobs.deploy("bank", "answer", answering(22), None).await.unwrap_err(), "app \"bank\" keeps 5 versions, as many as it may");
    let little = site.jobs.clone().with_code_quota(CodeQuota { versions_max: 100, bytes_max: 1_000 });
    is_store(&little.restricted_to("bank").deploy("bank", "answer", answering(22), None).await.unwrap_err(), "and may keep 1000");
}

async fn comp_4_the_same_bytes_uploaded_a_hundred_times_are_compiled_once(site: Site) {
    let directory = tempfile::tempdir().unwrap();
    let jobs = machine(&site, directory.path(), None);
    let wasm: bytes::Bytes = guests::read("bank-transactions").into();
    let mut uploads = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (jobs, wasm) = (jobs.clone(), wasm.clone());
        uploads.spawn(async move { jobs.deploy(&format!("app-{}", number % 10), "validate", wasm, None).await.unwrap().version });
    }
    assert!(uploads.join_all().await.into_iter().all(|version| version == 1));
    assert_eq!(compiles(directory.path()), 1);
    // A file that cannot be compiled is not tried by each of them, either.
    let bomb: bytes::Bytes = wat::parse_str("(component (core module (memory i64 1)))").unwrap().into();
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (jobs, bomb) = (jobs.clone(), bomb.clone());
        uploads.spawn(async move { jobs.deploy("app", "bomb", bomb, None).await.unwrap_err().to_string() });
    }
    assert!(uploads.join_all().await.iter().all(|said| said == "this is no processor that can be used"));
    let tried = compiles(directory.path()) - 1;
    assert!(tried < 50, "{tried} of a hundred who came at the same moment");
}

async fn compiled_code_is_shared_by_those_who_share_the_key(site: Site) {
    let run = async |jobs: &JobManager, id: BatchId| {
        let working = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.run().await }
        });
        let batch = site.wait(id).await;
        jobs.shutdown();
        working.await.unwrap().unwrap();
        batch.status
    };
    let submit = async || site.submit("answer", vec![row(1, "{}")]).await;
    let directories: Vec<TempDir> = (0..6).map(|_| tempfile::tempdir().unwrap()).collect();
    let place = |at: usize| directories[at].path();
    let one = machine(&site, place(0), Some("the installation's key"));
    let digest = one.register_processor("bank", "answer", answering(11)).await.unwrap().digest;
    assert_eq!(compiles(place(0)), 1);
    let two = machine(&site, place(1), Some("the installation's key"));
    assert_eq!(run(&two, submit().await).await, BatchStatus::Success);
    assert_eq!(compiles(place(1)), 0, "it was compiled elsewhere");
    // Other keys know nothing of it.
    for (at, key) in [(2, Some("another key")), (3, None)] {
        let other = machine(&site, place(at), key);
        assert_eq!(run(&other, submit().await).await, BatchStatus::Success);
        assert_eq!(compiles(place(at)), 1, "{key:?}");
    }
    // What another key left in the object store is not run, and what is damaged there neither.
    let object = site.blobs.list(&format!("compiled/{digest}/"), 10).await.unwrap().remove(0);
    for (at, damage) in [(4, None), (5, Some(100))] {
        let mut sealed = site.blobs.get(&object).await.unwrap().to_vec();
        if let Some(byte) = damage {
            sealed[byte] ^= 1;
            site.blobs.put(&object, sealed.into()).await.unwrap();
        }
        let other = machine(&site, place(at), Some("the installation's key"));
        assert_eq!(run(&other, submit().await).await, BatchStatus::Success);
        assert_eq!(compiles(place(at)), 1, "the one who compiled it last has another key, or it is damaged");
    }
    // With its version the compiled code goes, too.
    site.jobs.register_processor("bank", "answer", answering(22)).await.unwrap();
    site.jobs.remove_version("bank", "answer", 1).await.unwrap();
    assert_eq!(site.blobs.list(&format!("compiled/{digest}/"), 10).await.unwrap(), [""; 0]);
}
