//! What is kept, what goes, and what is exported before.

use std::path::Path;
use std::time::Duration;

use rowmill::export::{MANIFEST, Place};
use rowmill::jobs::{BatchRequest, ExportOptions, JobError};
use rowmill::model::{BatchFile, BatchFilter, BatchId, JsonText, KeepFor, Part, PartialKeep, Policy, RetryRows};
use rowmill::store::StoreError;
use serde_json::Value;

use super::{Site, is_store, on_each_store, refused, row, transaction};

const KEEP: ExportOptions = ExportOptions { remove: false, overwrite: false };
const REMOVE: ExportOptions = ExportOptions { remove: true, overwrite: false };

on_each_store! {
    what_is_not_kept_any_longer_goes_with_its_objects
    parts_that_were_pruned_say_so
    what_an_operation_keeps_goes_before_what_its_app_does
    an_app_prunes_and_removes_what_is_its_own
    an_export_is_whole
    a_retried_batch_is_exported_with_what_was_before
    an_exported_batch_is_removed_and_asked_for_again_it_is_as_it_was
    a_removal_that_was_left_in_the_middle_is_gone_on_with
    what_cannot_be_exported_is_not_removed
}

fn kept(files: Option<KeepFor>, outcomes: Option<KeepFor>, batches: Option<KeepFor>) -> PartialKeep {
    PartialKeep { files, outcomes, batches, ..PartialKeep::default() }
}

const AT_ONCE: Option<KeepFor> = Some(KeepFor::For(Duration::ZERO));

/// A batch of good and bad rows that is done, with a file that it came from.
async fn done(site: &mut Site) -> BatchId {
    if site.worker.is_none() {
        site.begin_work();
    }
    let id = site
        .jobs
        .batch_submit(BatchRequest::new("bank", "validate").with_rows(vec![transaction(1), row(2, "{}"), transaction(3)]).held())
        .await
        .unwrap();
    let kept = site.jobs.keep_file(&id.to_string(), std::io::Cursor::new(b"a,b\n1,2\n".to_vec())).await.unwrap();
    let file = BatchFile {
        first_row: 1,
        name: "in.csv".to_owned(),
        form: "csv".to_owned(),
        size_bytes: kept.size_bytes,
        sha256: kept.sha256,
        object: Some(kept.object),
        source_object: None,
    };
    site.jobs.record_batch_file(id, &file, None).await.unwrap();
    site.jobs.release(id).await.unwrap();
    let batch = site.wait(id).await;
    assert!(!batch.files.is_empty());
    id
}

/// Objects of batches in the object store.
fn objects(site: &Site) -> usize {
    fn files(directory: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
        entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
    }
    ["batches", "files"].into_iter().map(|name| files(&site.objects.path().join(name))).sum()
}

async fn put(site: &Site, op: Option<&str>, keep: PartialKeep) {
    site.jobs.put_policy(&Policy { keep, ..Policy::of("bank", op) }).await.unwrap();
}

async fn what_is_not_kept_any_longer_goes_with_its_objects(mut site: Site) {
    let id = done(&mut site).await;
    site.end_work().await;
    assert!(site.jobs.list_due(None, None).await.unwrap().is_empty(), "everything is kept for ever");
    assert_eq!(site.jobs.prune(None, None).await.unwrap(), rowmill::prune::PruneReport::default());
    let there = objects(&site);
    assert!(there >= 2, "{there}");
    put(&site, Some("validate"), kept(None, None, AT_ONCE)).await;
    let due = site.jobs.list_due(None, None).await.unwrap();
    assert_eq!((due.len(), due[0].op.op.as_str(), due[0].due.batches, due[0].due.batch_rows), (1, "validate", 1, 3));
    assert_eq!(due[0].due.objects, there as u64);
    assert!(site.jobs.batch_rows(id, None, 10).await.is_ok(), "looking changes nothing");
    let pruned = site.jobs.prune(None, None).await.unwrap();
    assert_eq!((pruned.batches, pruned.parts_of, pruned.rows, pruned.objects), (1, 0, 3, there as u64));
    refused!(site.jobs.batch_rows(id, None, 10).await, JobError::NoBatch { .. });
    assert_eq!(objects(&site), 0);
}

async fn parts_that_were_pruned_say_so(mut site: Site) {
    let id = done(&mut site).await;
    site.end_work().await;
    put(&site, None, PartialKeep { inputs: AT_ONCE, ..kept(AT_ONCE, None, None) }).await;
    assert_eq!(site.jobs.prune(Some("bank"), None).await.unwrap().parts_of, 1);
    assert_eq!(objects(&site), 0);
    let rows = site.jobs.batch_rows(id, None, 10).await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.input.is_empty()) && rows[0].output.is_some());
    put(&site, None, kept(None, AT_ONCE, None)).await;
    assert_eq!(site.jobs.prune(Some("bank"), Some("VALIDATE")).await.unwrap().parts_of, 1);
    let sentence = refused!(site.jobs.batch_rows(id, None, 10).await, JobError::Store(StoreError::Pruned { part: Part::Outcomes, .. }));
    assert!(sentence.contains("no outcomes any more: they were pruned on 20"), "{sentence}");
    let batch = site.jobs.batch_done(id).await.unwrap().unwrap();
    assert_eq!((batch.counts.success, batch.counts.failed, batch.files.len()), (2, 1, 0));
    assert!(batch.pruned.files.is_some() && batch.pruned.inputs.is_some() && batch.pruned.outcomes.is_some());
}

async fn what_an_operation_keeps_goes_before_what_its_app_does(mut site: Site) {
    let id = done(&mut site).await;
    site.end_work().await;
    put(&site, None, kept(None, None, AT_ONCE)).await;
    put(&site, Some("validate"), kept(None, None, Some(KeepFor::Ever))).await;
    assert_eq!(site.jobs.prune(None, None).await.unwrap().batches, 0);
    put(&site, Some("validate"), kept(None, None, Some(KeepFor::For(Duration::from_secs(86_400))))).await;
    assert_eq!(site.jobs.prune(None, None).await.unwrap().batches, 0);
    put(&site, Some("validate"), PartialKeep::default()).await;
    assert_eq!(site.jobs.prune(None, Some("statement")).await.unwrap().batches, 0);
    assert_eq!(site.jobs.prune(None, None).await.unwrap().batches, 1);
    refused!(site.jobs.batch_done(id).await, JobError::NoBatch { .. });
}

async fn an_app_prunes_and_removes_what_is_its_own(mut site: Site) {
    let id = done(&mut site).await;
    site.end_work().await;
    put(&site, None, kept(None, None, AT_ONCE)).await;
    let shop = site.jobs.restricted_to("shop");
    refused!(shop.prune(Some("bank"), None).await, JobError::OtherApp { .. });
    refused!(shop.list_due(Some("bank"), None).await, JobError::OtherApp { .. });
    refused!(shop.list_batches(&BatchFilter::of("bank"), None, 9).await, JobError::OtherApp { .. });
    refused!(shop.id_of_key("bank", "k"), JobError::OtherApp { .. });
    assert_eq!(shop.prune(None, None).await.unwrap().batches, 0);
    refused!(shop.remove_batch(id).await, JobError::NoBatch { .. });
    let out = tempfile::tempdir().unwrap();
    refused!(shop.export_batch(id, Place::Directory(out.path()), REMOVE).await, JobError::NoBatch { .. });
    refused!(shop.export_batch(id, Place::Objects("exports"), KEEP).await, JobError::FilesOfAllApps { .. });
    assert_eq!(site.jobs.restricted_to("bank").prune(None, None).await.unwrap().batches, 1);
}

fn lines(path: &Path) -> Vec<Value> {
    lines_of(&std::fs::read(path).unwrap())
}

fn lines_of(text: &[u8]) -> Vec<Value> {
    std::str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn an_export_is_whole(mut site: Site) {
    let id = done(&mut site).await;
    site.end_work().await;
    let out = tempfile::tempdir().unwrap();
    let exported = site.jobs.export_batch(id, Place::Directory(out.path()), KEEP).await.unwrap();
    assert!(exported.removed.is_none() && !exported.was_there);
    let rows = lines(&out.path().join("rows.ndjson"));
    assert_eq!(rows.iter().map(|row| row["status"].as_str().unwrap()).collect::<Vec<_>>(), ["success", "failed", "success"]);
    assert!(rows.iter().all(|row| row["input"].is_object()) && rows[0]["output"].is_object());
    assert_eq!(lines(&out.path().join("failed.ndjson")).len(), 1);
    let summary: Value = serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    assert_eq!(
        (summary["id"].as_str(), summary["success"].as_u64(), summary["input_files"][0]["name"].as_str()),
        (Some(id.to_string().as_str()), Some(2), Some("in.csv"))
    );
    for file in summary["files"].as_array().unwrap() {
        let copy = out.path().join(file["path"].as_str().unwrap());
        assert_eq!(Some(std::fs::metadata(copy).unwrap().len()), file["size_bytes"].as_u64());
    }
    // The manifest names each file as it is; and in the object store it is the same.
    let objects = site.jobs.export_batch(id, Place::Objects("exports/1"), KEEP).await.unwrap();
    assert_eq!(
        objects.manifest.files.iter().map(|file| &file.path).collect::<Vec<_>>(),
        exported.manifest.files.iter().map(|file| &file.path).collect::<Vec<_>>()
    );
    for file in &exported.manifest.files {
        let (here, there) = (std::fs::read(out.path().join(&file.path)).unwrap(), site.blobs.get(&format!("exports/1/{}", file.path)).await.unwrap());
        assert_eq!(here.len() as u64, file.size_bytes);
        assert_eq!(here, there);
    }
    assert_eq!(lines(&out.path().join("rows.ndjson")), rows);
    // Again, it is written again; another batch has no place there.
    assert_eq!(site.jobs.export_batch(id, Place::Directory(out.path()), KEEP).await.unwrap().manifest, exported.manifest);
    site.worker = None;
    let hidden =
        std::fs::read_dir(out.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count();
    assert_eq!(hidden, 0);
}

async fn a_retried_batch_is_exported_with_what_was_before(mut site: Site) {
    let id = done(&mut site).await;
    let names = |batch: &rowmill::model::Batch| batch.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    let first = site.jobs.batch_done(id).await.unwrap().unwrap();
    site.jobs.batch_retry(id, &RetryRows::default()).await.unwrap();
    let second = site.wait(id).await;
    site.end_work().await;
    assert_eq!((second.round, names(&second)), (2, names(&first)));
    let out = tempfile::tempdir().unwrap();
    let exported = site.jobs.export_batch(id, Place::Directory(out.path()), KEEP).await.unwrap();
    // The bad row failed once before, and is as it was last among the rows.
    let history = lines(&out.path().join("history.ndjson"));
    let [past] = &history[..] else { panic!("{history:?}") };
    assert_eq!(
        (past["round"].as_u64(), past["row"].as_u64(), past["line"].as_u64(), past["status"].as_str()),
        (Some(1), Some(2), Some(2), Some("failed"))
    );
    let rows = lines(&out.path().join("rows.ndjson"));
    assert_eq!((rows.len(), &rows[1]["messages"], rows[1].get("round")), (3, &past["messages"], None));
    let summary: Value = serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    let before = &summary["past_rounds"][0];
    assert_eq!((summary["round"].as_u64(), before["round"].as_u64(), before["failed"].as_u64()), (Some(2), Some(1), Some(1)));
    // Files of both rounds are there, each as its object is.
    for (round, batch, view, place) in [(1, &first, &before["files"], "rounds/1"), (2, &second, &summary["files"], "files")] {
        let paths: Vec<String> = view.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect();
        assert_eq!(paths, names(batch).iter().map(|name| format!("{place}/{name}")).collect::<Vec<_>>(), "round {round}");
        for (file, path) in batch.files.iter().zip(paths) {
            assert!(exported.manifest.files.iter().any(|there| there.path == path));
            assert_eq!(std::fs::read(out.path().join(path)).unwrap(), site.blobs.get(&file.object).await.unwrap());
        }
    }
    // What of it was pruned is not there, and the export says so.
    put(&site, None, kept(AT_ONCE, None, None)).await;
    site.jobs.prune(None, None).await.unwrap();
    let objects = site.jobs.export_batch(id, Place::Objects("exports/1"), REMOVE).await.unwrap();
    assert!(objects.manifest.pruned.files.is_some() && objects.removed.is_some());
    let paths: Vec<&str> = objects.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["rows.ndjson", "failed.ndjson", "history.ndjson", "mark.ndjson", "summary.json"]);
    assert_eq!(lines_of(&site.blobs.get("exports/1/history.ndjson").await.unwrap()), history);
}

async fn an_exported_batch_is_removed_and_asked_for_again_it_is_as_it_was(mut site: Site) {
    let (id, other) = (done(&mut site).await, done(&mut site).await);
    site.end_work().await;
    let (out, there) = (tempfile::tempdir().unwrap(), objects(&site));
    let place = || Place::Directory(out.path());
    let exported = site.jobs.export_batch(id, place(), REMOVE).await.unwrap();
    assert_eq!(exported.removed.unwrap().rows, 3);
    refused!(site.jobs.batch_done(id).await, JobError::NoBatch { .. });
    assert_eq!(objects(&site), there / 2);
    let again = site.jobs.export_batch(id, place(), REMOVE).await.unwrap();
    assert!(again.was_there && again.manifest == exported.manifest);
    let refusal = site.jobs.export_batch(other, place(), REMOVE).await;
    assert!(matches!(&refusal, Err(JobError::NotExported { source, .. }) if source.to_string().contains(&id.to_string())), "{refusal:?}");
    assert!(site.jobs.batch_done(other).await.unwrap().is_some(), "and it is there");
    refused!(site.jobs.export_batch(id, place(), KEEP).await, JobError::NoBatch { .. });
}

async fn a_removal_that_was_left_in_the_middle_is_gone_on_with(mut site: Site) {
    let id = done(&mut site).await;
    site.end_work().await;
    let out = tempfile::tempdir().unwrap();
    let place = || Place::Directory(out.path());
    let exported = site.jobs.export_batch(id, place(), KEEP).await.unwrap();
    // As a process leaves it that is killed then.
    site.store.begin_removal(id, Duration::from_secs(60)).await.unwrap();
    site.store.prune_rows(id, 1, Duration::from_secs(60)).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    refused!(site.jobs.export_batch(id, Place::Directory(elsewhere.path()), REMOVE).await, JobError::NotExported { .. });
    assert!(!elsewhere.path().join(MANIFEST).exists());
    let again = site.jobs.export_batch(id, place(), REMOVE).await.unwrap();
    assert!(again.was_there && again.manifest == exported.manifest);
    refused!(site.jobs.batch_done(id).await, JobError::NoBatch { .. });
    assert_eq!(objects(&site), 0);
}

async fn what_cannot_be_exported_is_not_removed(mut site: Site) {
    let held = site.jobs.batch_submit(BatchRequest::new("bank", "validate").held().with_context(JsonText::check("{}").unwrap())).await.unwrap();
    let out = tempfile::tempdir().unwrap();
    refused!(site.jobs.export_batch(held, Place::Directory(out.path()), REMOVE).await, JobError::NotFinal { .. });
    is_store(&site.jobs.remove_batch(held).await.unwrap_err(), "only a batch that is done can be removed");
    let id = done(&mut site).await;
    site.end_work().await;
    std::fs::write(out.path().join("taken"), "").unwrap();
    refused!(site.jobs.export_batch(id, Place::Directory(&out.path().join("taken")), REMOVE).await, JobError::NotExported { .. });
    for prefix in ["batches/x", "../x", ""] {
        refused!(site.jobs.export_batch(id, Place::Objects(prefix), REMOVE).await, JobError::NotExported { .. });
    }
    // An output file is gone from the object store: the export is not whole, and nothing goes.
    let object = site.jobs.batch_done(id).await.unwrap().unwrap().files[0].object.clone();
    site.blobs.delete(&object).await.unwrap();
    refused!(site.jobs.export_batch(id, Place::Directory(out.path()), REMOVE).await, JobError::NotExported { .. });
    assert!(!out.path().join(MANIFEST).exists());
    assert_eq!(site.jobs.batch_rows(id, None, 10).await.unwrap().len(), 3);
}
