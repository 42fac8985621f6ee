//! What rows return.

use rowmill::jobs::BatchRequest;
use rowmill::model::{BatchStatus, Limits, RowStatus};

use super::{Arena, failure, free};
use crate::jobs::row;
use crate::support::guests;
use crate::support::wat::{RETURNED, Wat};

#[tokio::test(flavor = "multi_thread")]
async fn out_1_what_cannot_be_kept_fails_its_row_and_the_batch_goes_on() {
    let arena = Arena::open().await;
    arena.limit(Limits { memory_bytes: Limits::MEMORY_MAX_BYTES, fuel: Limits::most().fuel, ..free() }).await;
    arena.deploy("return", guests::read("misbehaving")).await;
    let deeds = [
        (r#"{"do":"bad-json"}"#, "its output is not valid JSON: "),
        (r#"{"do":"huge-output"}"#, "it returned 2097154 bytes of output, messages and pieces, the limit is 1048576"),
        (r#"{"do":"huge-output","n":50000000}"#, "what it passed cannot be read: "),
        (r#"{"do":"many-messages","n":101}"#, "it returned 101 messages, the limit is 100"),
        (r#"{"do":"many-messages","n":1000000}"#, "what it passed cannot be read: "),
        (r#"{"do":"huge-piece"}"#, "it returned 10485779 bytes of output, messages and pieces, the limit is 1048576"),
    ];
    let ok = r#"{"do":"ok"}"#;
    let inputs: Vec<&str> = deeds.iter().flat_map(|(deed, _)| [ok, *deed]).chain([ok]).collect();
    let (batch, rows) = arena.attack("return", &inputs).await;
    assert_eq!((batch.status, batch.counts.failed), (BatchStatus::Failed, deeds.len() as u64));
    for (at, (deed, reason)) in deeds.iter().enumerate() {
        assert_eq!(rows[2 * at].output.as_deref(), Some("\"attempt 1\""), "before {deed}");
        let told = failure(&rows[2 * at + 1]);
        assert!(told.code == "bad_output" && told.values[0].starts_with(reason), "{deed}: {told:?}");
    }
    // A hundred megabytes of one guest's memory.
    let huge = format!("(i32.store (i32.const {}) (i32.const 65536)) (i32.store (i32.const {}) (i32.const 104857600))", RETURNED + 12, RETURNED + 16);
    arena.deploy("hundred", Wat::batch().pages(1_700).body("process-row", &huge).module()).await;
    let told = arena.attack_row("hundred", "{}").await;
    assert!(told.code == "bad_output" && told.values[0].starts_with("what it passed cannot be read: "), "{told:?}");
    arena.close().await;
}

/// A processor that writes a piece to the file that its input names.
fn naming() -> Vec<u8> {
    // The input is a JSON string: its name stands between the quotes.
    let piece = 2_000;
    let store = |at: u32, value: &str| format!("(i32.store (i32.const {at}) {value})");
    let body = [
        store(piece, "(i32.add (local.get $input) (i32.const 1))"),
        store(piece + 4, "(i32.sub (local.get $input_len) (i32.const 2))"),
        store(piece + 8, "(i32.const 2100)"),
        store(piece + 12, "(i32.const 4)"),
        store(RETURNED + 28, &format!("(i32.const {piece})")),
        store(RETURNED + 32, "(i32.const 1)"),
    ];
    Wat::batch().fields("(data (i32.const 2100) \"mine\")").body("process-row", &body.concat()).module()
}

#[tokio::test(flavor = "multi_thread")]
async fn out_2_names_of_files_lead_nowhere_else() {
    let arena = Arena::open().await;
    let site = &arena.site;
    arena.deploy("name", naming()).await;
    // Another app's file, under the name that its object has.
    site.jobs.register_processor("victim", "name", naming()).await.unwrap();
    let victim = site.jobs.batch_submit(BatchRequest::new("victim", "name").with_rows(vec![row(1, "\"a.txt\"")])).await.unwrap();
    let object = site.wait(victim).await.files[0].object.clone();
    let before = site.blobs.list("", 1_000).await.unwrap();
    assert!(before.contains(&object), "{before:?}");
    let long = "x".repeat(10 << 10);
    let names = [
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\\\b",
        "a\\u0000b",
        "a\\nb",
        "",
        ".hidden",
        " x",
        "pаypal.csv",
        "ﬁle",
        "a:b",
        "con\u{202e}txt",
        "~",
        "$HOME",
        "%2e%2e%2fx",
        &long,
        &object,
    ];
    let inputs: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).chain(["\"a.txt\""]).collect();
    let (batch, rows) = arena.attack("name", &inputs).await;
    for (name, row) in names.iter().zip(&rows) {
        let told = failure(row);
        assert!(told.code == "bad_output" && told.values[0].contains("cannot be the name of an output file"), "{name}: {told:?}");
        assert!(told.values[0].len() < 1_000, "it repeats a name of {} bytes", name.len());
    }
    assert_eq!(rows.last().unwrap().status, Some(RowStatus::Success));
    // The same name is another object for each batch, below its own prefix, and the victim's is what it was.
    let prefix = format!("batches/{}/", batch.id);
    let objects = site.blobs.list("", 1_000).await.unwrap();
    let own: Vec<&String> = objects.iter().filter(|object| object.starts_with(&prefix)).collect();
    assert_eq!((batch.files.len(), own), (1, vec![&batch.files[0].object]));
    assert!(before.iter().all(|object| objects.contains(object)));
    assert_eq!(site.blobs.get(&object).await.unwrap(), "mine\n");
    arena.close().await;
}
