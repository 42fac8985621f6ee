//! Directories of the machine: what is granted is read, or written where that was said, and nothing leads out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rowmill::grants::GrantSettings;
use rowmill::model::{DirectoryGrant, Ending, Grants};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{run_rows, run_steps};

/// A place with `in/`, which holds a file, a directory and links, and a file beside it.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    let inside = place.path().join("in");
    fs::create_dir_all(inside.join("sub")).unwrap();
    fs::write(place.path().join("outside"), "not yours").unwrap();
    fs::write(inside.join("rates"), "1.25").unwrap();
    fs::write(inside.join("sub/more"), "2.5").unwrap();
    symlink("../outside", inside.join("link-up")).unwrap();
    symlink(place.path().join("outside"), inside.join("link-away")).unwrap();
    symlink("..", inside.join("link-to-parent")).unwrap();
    symlink("sub/more", inside.join("link-within")).unwrap();
    place
}

fn granted(place: &Path, writable: bool) -> Grants {
    let directory = DirectoryGrant { path: place.join("in").to_str().unwrap().to_owned(), writable };
    Grants { directories: BTreeMap::from([("/data".to_owned(), directory)]), ..Grants::default() }
}

fn read(path: &str) -> Value {
    json!({"do": "read", "path": path})
}

fn write(path: &str) -> Value {
    json!({"do": "write", "path": path, "text": "changed"})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_read() {
    let place = place();
    let steps = json!([read("/data/rates"), read("/data/sub/more"), read("/data/link-within"), {"do": "list", "path": "/data/sub"}, {"do": "list", "path": "/data"}]);
    let came = run_steps(&granted(place.path(), false), &GrantSettings::default(), steps).await;
    assert_eq!(came[..4], [json!("1.25"), json!("2.5"), json!("2.5"), json!(["more"])]);
    assert_eq!(came[4], json!(["link-away", "link-to-parent", "link-up", "link-within", "rates", "sub"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sec_1_nothing_leads_out_of_a_directory_and_nothing_is_there_without_a_grant() {
    let place = place();
    let real = place.path().join("outside");
    let ways = [
        "/data/../outside",
        "/data/link-up",
        "/data/link-away",
        "/data/link-to-parent/outside",
        "/data/sub/../../outside",
        "/data//../outside",
        real.to_str().unwrap(),
        "/etc/passwd",
        "/data2/rates",
        "/proc/self/environ",
        "/data/link-to-parent/in/../outside",
        "outside",
        "",
    ];
    for writable in [false, true] {
        let steps: Vec<Value> = ways.iter().map(|way| read(way)).chain(ways.iter().map(|way| write(way))).collect();
        for came in run_steps(&granted(place.path(), writable), &GrantSettings::default(), json!(steps)).await {
            assert!(came["error"].is_string(), "{came}");
            assert!(!came.to_string().contains("not yours"), "{came}");
        }
        assert_eq!(fs::read_to_string(&real).unwrap(), "not yours");
    }
    let came =
        run_steps(&Grants::default(), &GrantSettings::default(), json!([read("/data/rates"), read("/etc/passwd"), {"do": "list", "path": "/"}]))
            .await;
    assert!(came.iter().all(|came| came["error"].as_str().unwrap().contains("it is in no directory that is granted")), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_changed_only_where_that_is_granted() {
    let place = place();
    let steps = json!([write("/data/rates"), write("/data/new"), read("/data/rates")]);
    let came = run_steps(&granted(place.path(), false), &GrantSettings::default(), steps.clone()).await;
    assert!(came[0]["error"].is_string() && came[1]["error"].is_string() && came[2] == "1.25", "{came:?}");
    assert_eq!((fs::read_to_string(place.path().join("in/rates")).unwrap().as_str(), place.path().join("in/new").exists()), ("1.25", false));
    let came = run_steps(&granted(place.path(), true), &GrantSettings::default(), steps).await;
    assert_eq!(came, [json!(null), json!(null), json!("changed")]);
    assert_eq!(fs::read_to_string(place.path().join("in/new")).unwrap(), "changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_there_is_told() {
    let place = place();
    let mut grants = granted(place.path(), false);
    grants.directories.insert("/gone".to_owned(), DirectoryGrant { path: place.path().join("gone").to_str().unwrap().to_owned(), writable: false });
    let run = run_rows(&grants, &GrantSettings::default(), &[json!([])]).await.remove(0);
    let Ending::CannotStart { reason } = &run.ending else { panic!("{:?}", run.ending) };
    assert!(reason.contains("gone, granted as /gone, cannot be opened"), "{reason}");
}
