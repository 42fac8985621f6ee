//! What a guest can reach in `mark-done` and nowhere else: the number of the call, and the output files of its batch.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use rowmill::model::{Batch, Ending, Limits, OutputFile, ProcessorKind};
use rowmill::sandbox::{FileBytes, MarkRun, Marking, OutputFiles, Session, SessionSpec};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::guests;
use crate::support::sessions::{bare, batch, limits, output, processor, row, spec};

/// `letters.txt` comes in parts of one to three bytes, some of them empty; `large.bin` in parts of 100,000; `torn.txt` fails behind its first part.
struct Files;

const LARGE_BYTES: usize = 2_500_000;

#[async_trait::async_trait]
impl OutputFiles for Files {
    async fn open(&self, file: &OutputFile) -> Result<FileBytes, String> {
        let parts: Vec<Result<Bytes, String>> = match file.object.as_str() {
            "letters" => ["a", "", "bcd", "ef", "", "g"].map(|part| Ok(Bytes::from_static(part.as_bytes()))).into(),
            "large" => vec![b'x'; LARGE_BYTES].chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect(),
            "torn" => vec![Ok(Bytes::from_static(b"some")), Err("it cannot be read at the moment".to_owned())],
            "empty" => Vec::new(),
            _ => return Err("it cannot be opened at the moment".to_owned()),
        };
        Ok(stream::iter(parts).boxed())
    }
}

fn ended(steps: &Value) -> Batch {
    let file = |name: &str, object: &str, size_bytes| OutputFile { name: name.to_owned(), object: object.to_owned(), size_bytes };
    let files = vec![
        file("empty.txt", "empty", 0),
        file("large.bin", "large", LARGE_BYTES as u64),
        file("letters.txt", "letters", 7),
        file("lost.txt", "lost", 1),
        file("torn.txt", "torn", 8),
    ];
    Batch { files, ..batch(ProcessorKind::Batch, "op", &json!({ "mark": steps }).to_string()) }
}

async fn mark_in(limits: Limits, attempt: u32, steps: Value) -> MarkRun {
    let mut session = Session::new(processor(&guests::read("courier")), spec(ended(&steps), limits));
    session.mark_done(Marking { attempt, files: Arc::new(Files) }).await
}

/// What came of each step.
async fn mark(steps: Value) -> Vec<Value> {
    let run = mark_in(limits(), 1, steps).await;
    assert_eq!(run.ended, Ok(()), "{run:?}");
    run.log.unwrap().lines().map(|line| serde_json::from_str(line.strip_prefix("info: ").unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn output_files_are_listed_with_their_sizes() {
    let files = json!([["empty.txt", 0], ["large.bin", 2_500_000], ["letters.txt", 7], ["lost.txt", 1], ["torn.txt", 8]]);
    assert_eq!(mark(json!([{"do": "files"}])).await, [files]);
}

#[tokio::test]
async fn a_read_returns_as_much_as_was_asked_for_however_it_comes() {
    let read = |name: &str, max: u32| json!({"do": "read", "name": name, "max": max});
    let parts = |parts: &[usize], text: &str| json!({ "parts": parts, "text": text });
    let found = mark(json!([read("letters.txt", 3), read("letters.txt", 100), read("letters.txt", 0), read("empty.txt", 10)])).await;
    let wanted = [parts(&[3, 3, 1], "abcdefg"), parts(&[7], "abcdefg"), parts(&[1; 7], "abcdefg"), parts(&[], "")];
    assert_eq!(found, wanted);
    // No more than 1 MiB at a time.
    let large = mark(json!([read("large.bin", u32::MAX)])).await;
    assert_eq!(large[0]["parts"], json!([1 << 20, 1 << 20, LARGE_BYTES - (2 << 20)]));
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    let steps = json!([
        {"do": "read", "name": "none.txt"},
        {"do": "read", "name": "lost.txt"},
        {"do": "read", "name": "torn.txt", "max": 10},
        {"do": "open", "name": "letters.txt", "times": 8},
        {"do": "open", "name": "letters.txt", "times": 9},
        // All of these were dropped.
        {"do": "open", "name": "letters.txt", "times": 8},
    ]);
    let error = |text: &str| json!({ "error": text });
    let wanted = [
        error("NoSuchFile"),
        error("Unavailable(\"it cannot be opened at the moment\")"),
        error("Unavailable(\"it cannot be read at the moment\")"),
        json!(8),
        error("TooManyOpen(8)"),
        json!(8),
    ];
    assert_eq!(mark(steps).await, wanted);
}

#[tokio::test]
async fn a_row_finds_neither_files_nor_a_call() {
    let mut session = Session::new(processor(&guests::read("courier")), spec(ended(&json!([])), limits()));
    let run = session.run_row(&row(1, "{}")).await;
    assert_eq!(output(&run), r#"[{"error":"NotNow"},null]"#);
    session.close().await;
}

#[tokio::test]
async fn a_call_knows_its_number_and_how_it_ends_is_told() {
    let steps = || json!([{"do": "attempt"}, {"do": "retry", "until": 3, "after_ms": 40}]);
    let second = mark_in(limits(), 2, steps()).await;
    let after = Some(std::time::Duration::from_millis(40));
    assert_eq!(second.ended, Err(Ending::Retry { reason: "not yet".to_owned(), after }));
    assert_eq!(second.log.as_deref(), Some("info: 2\n"));
    let third = mark_in(limits(), 3, steps()).await;
    assert_eq!((third.ended, third.log.as_deref()), (Ok(()), Some("info: 3\ninfo: null\n")));
}

#[tokio::test]
async fn a_guest_that_reads_without_end_is_stopped() {
    let read = json!({"do": "read", "name": "large.bin", "max": 1});
    let run = mark_in(Limits { fuel: 1_000_000, ..limits() }, 1, json!(vec![read; 100])).await;
    assert_eq!(run.ended.map_err(bare), Err(Ending::OutOfFuel { used: 10_000_000, limit: 10_000_000, frames: vec![] }));
}

/// A file whose bytes never come. Whoever opens it is told to stop.
struct Stuck(CancellationToken);

#[async_trait::async_trait]
impl OutputFiles for Stuck {
    async fn open(&self, _: &OutputFile) -> Result<FileBytes, String> {
        self.0.cancel();
        Ok(stream::pending().boxed())
    }
}

#[tokio::test]
async fn a_guest_that_waits_for_bytes_is_stopped_with_its_worker() {
    let cancel = CancellationToken::new();
    let steps = json!([{"do": "read", "name": "letters.txt", "max": 10}]);
    let spec = SessionSpec { cancel: cancel.clone(), ..spec(ended(&steps), limits()) };
    let run = Session::new(processor(&guests::read("courier")), spec).mark_done(Marking { attempt: 1, files: Arc::new(Stuck(cancel)) }).await;
    assert_eq!(run, MarkRun { ended: Err(Ending::Cancelled), log: None });
}
