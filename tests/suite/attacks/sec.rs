//! What is another's: environment, files, values, secrets, batches. What rows leave for each other (SEC-3) stands with the guests of apps.

use std::path::Path;

use rowmill::grants::GrantSettings;
use rowmill::jobs::{BatchRequest, JobError};
use rowmill::model::{BatchId, Grants, HttpGrant, KeyValueGrant, RecordedOutcome, RowStatus};
use rowmill::worker::WorkerSettings;
use rowmill_tests::reaching::with_what_it_imports;
use serde_json::{Value, json};

use super::{Arena, HOSTILE};
use crate::jobs::{row, settings};
use crate::support::guests;

const SECRET: &str = "hunter2-of-the-victim";
const VICTIM: &str = "victim";

/// All that can be imported, with what is this app's own.
fn grants(value: &str, secret: Option<&str>) -> Grants {
    let http = HttpGrant { allow: ["https://api.example.com".parse().unwrap()].into(), ..HttpGrant::default() };
    let mut grants = with_what_it_imports(Grants { http: Some(http), key_value: Some(KeyValueGrant::default()), ..Grants::default() });
    grants.values.insert("mine".to_owned(), value.to_owned());
    grants.secrets.extend(secret.map(|name| ("token".to_owned(), name.to_owned())));
    grants
}

/// An arena in which the victim has a value, a secret and keys, and the hostile app the same kinds of grants.
async fn arena(secrets: &Path) -> Arena {
    std::fs::write(secrets.join("victims"), SECRET).unwrap();
    let settings =
        WorkerSettings { grants: GrantSettings { secrets_directory: Some(secrets.to_owned()), ..GrantSettings::default() }, ..settings("arena") };
    let arena = Arena::working_by(settings).await;
    for (app, grants) in [(VICTIM, grants("the victim's value", Some("victims"))), (HOSTILE, grants("my value", None))] {
        assert!(arena.site.jobs.set_grants(app, &Grants::default(), &grants).await.unwrap());
        arena.site.jobs.register_processor(app, "reach", guests::read("reaching")).await.unwrap();
    }
    arena
}

async fn rows_of(arena: &Arena, app: &str, steps: &[Value]) -> (BatchId, Vec<RecordedOutcome>) {
    let rows = (1..).zip(steps).map(|(line, steps)| row(line, &steps.to_string())).collect();
    let id = arena.site.jobs.batch_submit(BatchRequest::new(app, "reach").with_rows(rows)).await.unwrap();
    arena.beside(arena.site.wait(id)).await;
    (id, arena.rows(id).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_1_a_guest_finds_nothing_of_the_host_and_of_other_apps() {
    let secrets = tempfile::tempdir().unwrap();
    let arena = arena(secrets.path()).await;
    let own = json!([{"do": "set", "key": "k", "value": "the victim's"}, {"do": "get", "key": "k"}, {"do": "config", "key": "token"}]);
    let (_, rows) = rows_of(&arena, VICTIM, &[own]).await;
    // A secret is hidden from whoever reads results, the victim's own people too.
    assert_eq!(rows[0].output.as_deref(), Some(r#"[null,"the victim's","***"]"#));
    let objects = arena.site.objects.path().display().to_string();
    let read = |path: &str| json!({"do": "read", "path": path});
    let config = |key: &str| json!({"do": "config", "key": key});
    let steps = json!([
        config("mine"), config("token"), config("victims"), config("PATH"), config("HOME"), config("../victims"), {"do": "keys"}, {"do": "get", "key": "k"},
        {"do": "get", "key": "victim:k"}, read("/etc/passwd"), read("/proc/self/environ"), read(&format!("{objects}/store.db")),
        read(secrets.path().join("victims").to_str().unwrap()), {"do": "list", "path": "/"}, {"do": "write", "path": "/tmp/x", "text": "x"},
    ]);
    let (_, rows) = rows_of(&arena, HOSTILE, &[steps]).await;
    let came: Vec<Value> = serde_json::from_str(rows[0].output.as_ref().unwrap()).unwrap();
    assert_eq!(came[0], "my value");
    assert!(came[1..6].iter().all(Value::is_null), "{came:?}");
    assert_eq!(came[6..9], [json!([]), Value::Null, Value::Null]);
    assert!(came[9..].iter().all(|came| came["error"].is_string()), "{came:?}");
    assert!(!json!(came).to_string().contains("victim's"), "{came:?}");
    arena.close().await;
}

/// The sentence of a refusal, with its id taken out.
#[track_caller]
fn sentence<T>(refused: Result<T, JobError>, id: BatchId) -> String {
    match refused {
        Err(error) => error.to_string().replace(&id.to_string(), "ID"),
        Ok(_) => panic!("it was given"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_1_what_is_anothers_and_what_does_not_exist_are_the_same() {
    let secrets = tempfile::tempdir().unwrap();
    let arena = arena(secrets.path()).await;
    let (theirs, _) = rows_of(&arena, VICTIM, &[json!([])]).await;
    let jobs = arena.site.jobs.restricted_to(HOSTILE);
    let mut told = Vec::new();
    for id in [theirs, BatchId::generate()] {
        told.push(vec![
            sentence(jobs.batch_status(id).await, id),
            sentence(jobs.batch_done(id).await, id),
            sentence(jobs.batch_rows(id, None, 10).await, id),
            sentence(jobs.batch_append(id, vec![row(2, "{}")], true).await, id),
            sentence(jobs.release(id).await, id),
            sentence(jobs.set_priority(id, 9).await, id),
            sentence(jobs.batch_abort(id, None).await, id),
            sentence(jobs.batch_logs(id, None).await, id),
            sentence(jobs.row_log(id, 1).await, id),
            sentence(jobs.dropped_logs(id).await, id),
            sentence(jobs.batch_retry(id, &rowmill::model::RetryRows::default()).await, id),
            sentence(jobs.batch_rounds(id, 0, 10).await, id),
            sentence(jobs.batch_files(id, 0, 10).await, id),
            sentence(jobs.slow_query_done(id).await, id),
            sentence(jobs.slow_query_abort(id, None).await, id),
            sentence(jobs.remove_batch(id).await, id),
            sentence(jobs.wait(id).await, id),
        ]);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0][0], "there is no batch ID of app \"hostile\"");
    // By the name of the app it is refused before anything is looked at.
    for refused in [
        jobs.batch_submit(BatchRequest::new(VICTIM, "reach").with_rows(vec![row(1, "[]")])).await.map(drop),
        jobs.list_versions(VICTIM, None).await.map(drop),
        jobs.fuel_profiles(VICTIM).await.map(drop),
        jobs.put_policy(&rowmill::model::Policy::of(VICTIM, None)).await,
        jobs.set_paused(VICTIM, None, true).await,
    ] {
        assert!(matches!(refused, Err(JobError::OtherApp { .. })), "{refused:?}");
    }
    assert!(!format!("{:?}", jobs.list_apps().await).contains(VICTIM));
    assert!(!format!("{:?}", jobs.list_policies().await).contains(VICTIM));
    assert!(!format!("{:?}", jobs.list_schedules(None, None, 10).await).contains(VICTIM));
    arena.close().await;
}

/// Looks for a text in every file below a directory.
fn find_in_files(directory: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find_in_files(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_2_a_secret_that_is_told_everywhere_is_kept_nowhere() {
    let secrets = tempfile::tempdir().unwrap();
    let arena = arena(secrets.path()).await;
    let places = ["log", "long-log", "message", "file-text", "output", "progress", "panic", "failure", "retry", "file-name"];
    let steps: Vec<Value> = places.iter().map(|place| json!([{"do": "tell", "key": "token", "place": place}])).collect();
    let (id, rows) = rows_of(&arena, VICTIM, &steps).await;
    let (aborted, _) = rows_of(&arena, VICTIM, &[json!([{"do": "tell", "key": "token", "place": "abort"}])]).await;
    assert_eq!(rows[0].status, Some(RowStatus::Success));
    let batches = (arena.site.store.read_batch(id).await.unwrap(), arena.site.store.read_batch(aborted).await.unwrap());
    let told = format!("{rows:?} {batches:?}");
    assert!(!told.contains("hunter2") && told.matches("***").count() >= places.len() - 2, "{told}");
    // Neither in the database with its log, nor in the objects.
    let kept = arena.site.objects.path();
    assert_eq!(find_in_files(kept, b"hunter2"), Vec::<String>::new());
    assert!(!find_in_files(kept, b"***").is_empty(), "nothing was looked at");
    arena.close().await;
}
