//! Values and secrets, and where secrets must not be seen.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rowmill::grants::{GrantSettings, Granter};
use rowmill::model::{Ending, Grants, ProcessorKind};
use rowmill::sandbox::{Session, SessionSpec};
use serde_json::json;
use tempfile::TempDir;

use super::{came_of, capabilities, reaching, run_rows, run_steps};
use crate::support::sessions::{batch, limits, row, spec};

const SECRET: &str = "hunter2-\"and\"-more\\";

/// A directory with the secret `token`, and the grant of it by the key `key`.
fn secrets() -> (TempDir, GrantSettings, Grants) {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("token"), format!("{SECRET}\n")).unwrap();
    std::fs::write(directory.path().join("number"), "1234567890").unwrap();
    let settings = GrantSettings { secrets_directory: Some(directory.path().to_owned()), ..GrantSettings::default() };
    let mut grants = Grants::default();
    grants.secrets.insert("key".to_owned(), "token".to_owned());
    grants.secrets.insert("digits".to_owned(), "number".to_owned());
    grants.values.insert("branch".to_owned(), "3".to_owned());
    (directory, settings, grants)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reads_what_is_granted_and_nothing_else() {
    let (_directory, settings, grants) = secrets();
    let read = |key: &str| json!({"do": "config", "key": key});
    let came = run_steps(&grants, &settings, json!([read("branch"), read("other"), read("PATH"), read("token"), read("../token")])).await;
    assert_eq!(came, [json!("3"), json!(null), json!(null), json!(null), json!(null)]);
    let none = run_steps(&Grants::default(), &settings, json!([read("branch")])).await;
    assert_eq!(none, [json!({"error": "no configuration is granted to this app"})]);
}

/// Everything that is kept of a row, as one text.
async fn kept(place: &str, key: &str) -> String {
    let (_directory, settings, grants) = secrets();
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress: rowmill::sandbox::ProgressSink = {
        let told = Arc::clone(&told);
        Arc::new(move |_, text| told.lock().unwrap().push(text))
    };
    let spec = SessionSpec {
        capabilities: Arc::new(capabilities("tests", &grants, &settings).await),
        progress: Some(progress),
        ..spec(batch(ProcessorKind::Batch, "op", "{}"), limits())
    };
    let mut session = Session::new(reaching().clone(), spec);
    let run = session.run_row(&row(1, &json!([{"do": "tell", "key": key, "place": place}]).to_string())).await;
    session.close().await;
    format!("{:?} {} {:?} {:?}", run.ending, run.ending.explain(), run.log, told.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_2_a_secret_is_hidden_wherever_a_guest_tells_it() {
    for place in ["log", "long-log", "message", "file-text", "file-name", "output", "progress", "panic", "failure", "retry", "abort"] {
        let kept = kept(place, "key").await;
        assert!(!kept.contains("hunter2") && !kept.contains("-more"), "{place}: {kept}");
        assert!(kept.contains("***"), "{place}: {kept}");
    }
}

/// Where a number should be there is no place for stars: the row fails, and tells nothing.
#[tokio::test(flavor = "multi_thread")]
async fn sec_2_a_secret_that_is_a_number_leaves_no_output() {
    let kept = kept("number", "digits").await;
    assert!(kept.contains("BadOutput") && !kept.contains("123456"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_2_a_guest_that_fails_to_start_tells_no_secret() {
    let (_directory, settings, mut grants) = secrets();
    grants.secrets.insert("init".to_owned(), "token".to_owned());
    let run = run_rows(&grants, &settings, &[json!([])]).await.remove(0);
    let Ending::CannotStart { reason } = &run.ending else { panic!("{:?}", run.ending) };
    assert_eq!(reason, "init: told to fail with ***");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_told_without_its_value() {
    let (directory, settings, mut grants) = secrets();
    let refused = async |settings: &GrantSettings, grants: &Grants| {
        Granter::new(settings.clone()).capabilities("tests", grants).await.err().expect("it is there")
    };
    grants.secrets.insert("key".to_owned(), "missing".to_owned());
    let reason = refused(&settings, &grants).await;
    assert!(reason.starts_with("a secret that app \"tests\" was granted cannot be had: the secret \"missing\" cannot be read from"), "{reason}");
    let nowhere = refused(&GrantSettings::default(), &grants).await;
    assert!(nowhere.contains("set grants.secrets_directory"), "{nowhere}");
    // A secret is changed where it stands, and the next batch has it.
    std::fs::write(directory.path().join("missing"), "now it is there").unwrap();
    assert_eq!(came_of(&run_rows(&grants, &settings, &[json!([{"do": "config", "key": "key"}])]).await[0]), [json!("***")]);
    assert!(Path::new(directory.path()).exists());
}
