//! Objects: an app's own, in a directory and on a real server that speaks S3, with the same ends in both.

use std::time::Duration;

use async_trait::async_trait;
use rowmill::blobs::{BlobSettings, Blobs};
use rowmill::grants::{GrantSettings, Granter};
use rowmill::model::{Ending, Grants, Limits, ObjectsGrant};
use rowmill::sandbox::{Capabilities, ObjectInfo, Objects, ObjectsFailure};
use rowmill_tests::servers::S3;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{came_of, run_steps, session_with};
use crate::blobs::s3_settings;
use crate::support::sessions::{bare, limits, row};

fn granted() -> Grants {
    with(ObjectsGrant::default())
}

fn with(grant: ObjectsGrant) -> Grants {
    Grants { objects: Some(grant), ..Grants::default() }
}

/// Where objects are kept, until the test ends.
struct Place {
    granter: Granter,
    blobs: Blobs,
    _directory: TempDir,
    s3: Option<S3>,
}

impl Place {
    fn new(settings: &BlobSettings, directory: TempDir, s3: Option<S3>) -> Place {
        let blobs = Blobs::open(settings).unwrap();
        let granter = Granter::new(GrantSettings { objects: Some(blobs.clone()), ..GrantSettings::default() });
        Place { granter, blobs, _directory: directory, s3 }
    }

    fn directory() -> Place {
        let directory = TempDir::new().unwrap();
        Place::new(&BlobSettings::new(format!("file://{}/objects", directory.path().display())), directory, None)
    }

    fn bucket() -> Place {
        let s3 = S3::start().unwrap();
        Place::new(&BlobSettings { patience: Duration::from_secs(3_600), ..s3_settings(&s3) }, TempDir::new().unwrap(), Some(s3))
    }

    fn both() -> [Place; 2] {
        [Place::directory(), Place::bucket()]
    }

    async fn steps_of(&self, app: &str, grants: &Grants, steps: Value) -> Vec<Value> {
        grants.check().unwrap();
        let mut session = session_with(self.granter.capabilities(app, grants).await.unwrap(), limits());
        came_of(&session.run_row(&row(1, &steps.to_string())).await)
    }

    async fn kept(&self) -> Vec<String> {
        let mut objects = self.blobs.list("", 1_000).await.unwrap();
        objects.sort();
        objects
    }
}

fn put(name: &str, text: &str) -> Value {
    json!({"do": "put", "name": name, "text": text})
}

#[track_caller]
fn error(came: &Value) -> &str {
    came.get("error").unwrap_or_else(|| panic!("{came}")).as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_there_until_it_is_removed() {
    for place in Place::both() {
        let steps = json!([
            {"do": "object", "name": "a"}, put("a", "\u{e4}\u{0}1"), {"do": "object", "name": "a"}, put("b-2.csv", ""), put("b-1.csv", "12345"), {"do": "objects"},
            put("a", "other"), {"do": "object", "name": "a"}, {"do": "objects", "prefix": "b-"}, {"do": "remove", "name": "a"}, {"do": "remove", "name": "a"}, {"do": "object", "name": "a"},
        ]);
        let came = place.steps_of("bank", &granted(), steps).await;
        let all = json!([["a", 4], ["b-1.csv", 5], ["b-2.csv", 0]]);
        let some = json!([["b-1.csv", 5], ["b-2.csv", 0]]);
        let none = json!(null);
        let expected = [&none, &none, &json!("\u{e4}\u{0}1"), &none, &none, &all, &none, &json!("other"), &some, &none, &none, &none];
        assert_eq!(came.iter().collect::<Vec<_>>(), expected);
        // The next instance finds it, where an operator would look for it.
        assert_eq!(place.steps_of("bank", &granted(), json!([{"do": "object", "name": "b-1.csv"}])).await, [json!("12345")]);
        assert_eq!(place.kept().await, ["apps/bank/b-1.csv", "apps/bank/b-2.csv"]);
    }
}

/// OUT-2: names that lead elsewhere, in all that takes a name.
#[tokio::test(flavor = "multi_thread")]
async fn no_name_leads_out_of_the_place_of_the_app() {
    let long = "x".repeat(129);
    let names = [
        "",
        ".",
        "..",
        "../shop/a",
        "/etc/passwd",
        "apps/shop/a",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\u{1b}[31m",
        "%2e%2e",
        "p\u{430}ypal",
        ".hidden",
        " x",
        &long,
    ];
    for place in Place::both() {
        place.steps_of("shop", &granted(), json!([put("a", "of shop")])).await;
        let steps: Vec<Value> =
            names.iter().flat_map(|name| [put(name, "x"), json!({"do": "object", "name": name}), json!({"do": "remove", "name": name})]).collect();
        for came in place.steps_of("bank", &granted(), json!(steps)).await {
            assert!(error(&came).starts_with("BadName(") && error(&came).contains("cannot be the name of an object"), "{came}");
        }
        // A part of a name is only compared.
        let lists = json!([{"do": "objects", "prefix": "../shop/"}, {"do": "objects", "prefix": "/"}, {"do": "objects", "prefix": "apps/"}]);
        assert_eq!(place.steps_of("bank", &granted(), lists).await, [json!([]), json!([]), json!([])]);
        assert_eq!(place.kept().await, ["apps/shop/a"]);
    }
}

/// Names of apps that a careless path would mix up.
#[tokio::test(flavor = "multi_thread")]
async fn no_app_meets_the_objects_of_another() {
    for place in Place::both() {
        let apps = ["bank", "Bank", "bank/", "/bank", "../bank", "bank/../bank", "..", "", "bank\0", "bank%2f", "batches"];
        for app in apps {
            let came = place.steps_of(app, &granted(), json!([{"do": "objects"}, {"do": "object", "name": "k"}, put("k", app)])).await;
            assert_eq!(came, [json!([]), json!(null), json!(null)], "{app:?}");
        }
        for app in apps {
            let came =
                place.steps_of(app, &granted(), json!([{"do": "object", "name": "k"}, {"do": "objects"}, {"do": "remove", "name": "k"}])).await;
            assert_eq!(came, [json!(app), json!([["k", app.len()]]), json!(null)], "{app:?}");
        }
        assert!(place.kept().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_their_bytes_and_their_number_are_bounded() {
    for place in Place::both() {
        let grants = with(ObjectsGrant { object_bytes_max: 1_000, total_bytes_max: 2_500, count_max: 3 });
        let sized = |name: &str, bytes: usize| json!({"do": "put", "name": name, "bytes": bytes});
        let steps = json!([
            sized("a", 1_001), sized("a", 1_000), sized("b", 1_000), sized("c", 501), sized("c", 500), sized("d", 0), sized("a", 1_000), sized("b", 0), sized("a", 1_001),
            {"do": "remove", "name": "c"}, sized("d", 1_000), {"do": "objects"},
        ]);
        let came = place.steps_of("bank", &grants, steps).await;
        assert_eq!(error(&came[0]), "TooLarge(\"the object has 1001 bytes, and may have 1000 at most\")");
        assert_eq!(error(&came[3]), "Full(\"the app's objects may have 2500 bytes together, and would have 2501\")");
        assert_eq!(error(&came[5]), "Full(\"the app may have 3 objects, and this would be one more\")");
        assert!(error(&came[8]).starts_with("TooLarge("));
        for at in [1, 2, 4, 6, 7, 9, 10] {
            assert!(came[at].is_null(), "{at}: {came:?}");
        }
        assert_eq!(came[11], json!([["a", 1_000], ["b", 0], ["d", 1_000]]));
        // Of another app nothing counts, and what became too large is not read.
        assert_eq!(place.steps_of("shop", &grants, json!([sized("a", 1_000)])).await, [json!(null)]);
        let came = place
            .steps_of("bank", &with(ObjectsGrant { object_bytes_max: 999, ..ObjectsGrant::default() }), json!([{"do": "object", "name": "a"}]))
            .await;
        assert_eq!(error(&came[0]), "TooLarge(\"\\\"a\\\" has more than 999 bytes\")");
    }
}

/// Many instances at once: whoever counts, nobody adds meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_at_the_same_time_is_bounded_all_the_same() {
    let place = Place::directory();
    let grants = with(ObjectsGrant { count_max: 5, ..ObjectsGrant::default() });
    let steps = |of: usize| json!((0..3).map(|number| put(&format!("{of}-{number}"), "x")).collect::<Vec<_>>());
    let came = futures_util::future::join_all((0..4).map(|of| place.steps_of("bank", &grants, steps(of)))).await.concat();
    assert_eq!(came.iter().filter(|came| came.is_null()).count(), 5, "{came:?}");
    assert_eq!(place.kept().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_a_page_are_all_listed() {
    let place = Place::directory();
    for number in 0..1_001 {
        place.blobs.put(&format!("apps/bank/{number:04}"), "x".into()).await.unwrap();
    }
    let came = place.steps_of("bank", &granted(), json!([{"do": "objects"}, put("one-more", "x")])).await;
    assert_eq!((came[0].as_array().unwrap().len(), &came[0][1_000]), (1_001, &json!(["1000", 1])));
    assert!(error(&came[1]).starts_with("Full("), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_an_error_of_the_call() {
    let s3 = S3::start().unwrap();
    let mut place = Place::new(&BlobSettings { patience: Duration::from_millis(500), ..s3_settings(&s3) }, TempDir::new().unwrap(), Some(s3));
    let steps = json!([put("a", "x"), {"do": "object", "name": "a"}, {"do": "objects"}, {"do": "remove", "name": "b"}]);
    assert_eq!(place.steps_of("bank", &granted(), steps.clone()).await, [json!(null), json!("x"), json!([["a", 1]]), json!(null)]);
    place.s3.as_mut().unwrap().kill();
    for came in place.steps_of("bank", &granted(), steps.clone()).await {
        assert_eq!(error(&came), "Unavailable(\"the objects cannot be reached at the moment\")");
    }
    place.s3.as_mut().unwrap().restart().unwrap();
    assert_eq!(place.steps_of("bank", &granted(), steps).await[..2], [json!(null), json!("x")]);
}

/// LIFE-3: in a host call.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_is_ended_by_the_deadline_and_by_an_abort() {
    let mut place = Place::bucket();
    place.s3.as_mut().unwrap().signal(nix::sys::signal::Signal::SIGSTOP);
    let timeout = Duration::from_millis(300);
    let capabilities = async || place.granter.capabilities("bank", &granted()).await.unwrap();
    for step in [put("a", "x"), json!({"do": "object", "name": "a"}), json!({"do": "objects"})] {
        let mut session = session_with(capabilities().await, Limits { timeout, ..limits() });
        let run = session.run_row(&row(1, &json!([step]).to_string())).await;
        assert_eq!(bare(run.ending), Ending::Deadline { limit: timeout, frames: vec![] }, "{step}");
    }
    let mut session = session_with(capabilities().await, limits());
    let cancel = tokio_util::sync::CancellationToken::new();
    session.rebind(cancel.clone(), None);
    let input = json!([put("a", "x")]).to_string();
    let put = row(1, &input);
    let (run, ()) = tokio::join!(session.run_row(&put), async { cancel.cancel() });
    assert_eq!(run.ending, Ending::Cancelled);
}

struct Panics;

#[async_trait]
impl Objects for Panics {
    async fn put(&self, _: &str, _: Vec<u8>) -> Result<(), ObjectsFailure> {
        panic!("a mistake of the host")
    }

    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, ObjectsFailure> {
        panic!("a mistake of the host")
    }

    async fn delete(&self, _: &str) -> Result<(), ObjectsFailure> {
        panic!("a mistake of the host")
    }

    async fn list(&self, _: &str, _: Option<&str>) -> Result<Vec<ObjectInfo>, ObjectsFailure> {
        panic!("a mistake of the host")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_host_ends_the_call_and_nothing_else() {
    let capabilities = Capabilities { objects: Some(std::sync::Arc::new(Panics)), ..Capabilities::default() };
    let mut session = session_with(capabilities, limits());
    for line in 1..3 {
        let steps = json!([put("a", "x"), {"do": "object", "name": "a"}, {"do": "remove", "name": "a"}, {"do": "objects"}]);
        for came in came_of(&session.run_row(&row(line, &steps.to_string())).await) {
            assert_eq!(error(&came), "Unavailable(\"the host failed; its log says more\")");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_there_are_no_objects() {
    let steps = json!([put("a", "b"), {"do": "object", "name": "a"}, {"do": "remove", "name": "a"}, {"do": "objects"}]);
    for came in run_steps(&Grants::default(), &GrantSettings::default(), steps).await {
        assert_eq!(error(&came), "Denied");
    }
}
