//! Every text comes back as it was given.

use rowmill::model::{BatchId, JsonText, LeasedRow, Message, NewBatch, NewRow, OutputFile, Piece, RowResult, RowStatus, Verdict, check_name};

use super::build::{MIB, batch, json_of, result, row_with, with_output};
use super::kit::Kit;

const TEXTS: &[&str] = &[
    "",
    " ",
    "  leading and trailing\t ",
    "'; DROP TABLE batches; --",
    "\"quoted\" 'quoted' `quoted` \\back\\slashed\\",
    "$1 ?1 :name @name %s {} %",
    "one\ntwo\r\nthree\rfour\u{2028}five\u{85}six",
    "\u{feff}byte order mark",
    "emoji 🦀👩‍👩‍👧‍👦, composed é, decomposed e\u{301}, 漢字, עברית, \u{202e}backwards",
    "\u{1}\u{7f}\u{1b}[31mcontrols\u{9b}",
    "\u{10ffff}\u{fffd}\u{e000}",
    "null",
    "\\u0000 \\N \\.",
];

fn json_string(text: &str) -> JsonText {
    JsonText::trusted(serde_json::to_string(text).unwrap())
}

/// A batch that has this text wherever a text can stand, taken to its end; and what came back. An
/// app and an operation have it where it can be a name.
async fn comes_back(kit: &Kit, text: &str) {
    let json = json_string(text);
    // Names are short.
    let name: String = text.chars().take(100).collect();
    let of_app = if check_name("it", &name).is_ok() { name.clone() } else { "any".to_owned() };
    let new = NewBatch { app: of_app.clone(), op: of_app.to_lowercase(), processor_digest: text.to_owned(), context: json.clone(), ..batch() };
    let id = new.id;
    let row = NewRow { rejected: Some(text.to_owned()), ..NewRow::new(1, json.clone()) };
    kit.store.submit_batch(new, vec![row]).await.unwrap();
    let found = kit.batch(id).await;
    assert_eq!((found.app.as_str(), found.op, found.processor_digest.as_str()), (of_app.as_str(), of_app.to_lowercase(), text));
    assert_eq!(found.context, json);

    let lease = kit.claim_rows(1).await;
    let leased = kit.read(&lease).await;
    assert_eq!((leased[0].input.as_str(), leased[0].rejected.as_deref()), (json.as_str(), Some(text)));
    let message = Message { id: 1, code: text.to_owned(), field: Some(text.to_owned()), values: vec![text.to_owned(), text.to_owned()] };
    // A piece of blanks alone is not kept: it adds nothing to a file.
    let piece = if text.trim().is_empty() { format!("<{text}>") } else { text.to_owned() };
    let verdict = Verdict::Final {
        status: RowStatus::Success,
        output: Some(json.to_string()),
        messages: vec![message.clone()],
        pieces: vec![Piece { file: name.clone(), text: piece.clone() }],
    };
    kit.record(&lease, &[RowResult { log: Some(text.to_owned()), ..result(&leased[0], verdict) }]).await;
    let found = kit.results(id).await.remove(0);
    assert_eq!((found.input.as_str(), found.output.as_deref(), found.log.as_deref()), (json.as_str(), Some(json.as_str()), Some(text)));
    assert_eq!(found.messages, [message]);
    assert_eq!(kit.store.list_file_names(id).await.unwrap(), [name.as_str()]);
    assert_eq!(kit.pieces_by(id, 1).await[0].pieces, [(0, piece)]);

    let lease = kit.claim_finish().await;
    let file = OutputFile { name: name.clone(), object: text.to_owned(), size_bytes: 0 };
    kit.store.record_files(&lease, std::slice::from_ref(&file)).await.unwrap();
    kit.store.record_mark_done(&kit.claim_finish().await, Some(text)).await.unwrap();
    let found = kit.batch(id).await;
    assert_eq!((found.files, found.mark_error.as_deref()), (vec![file], Some(text)));

    let id = kit.submit(1).await;
    kit.store.abort_batch(id, Some(text.to_owned())).await.unwrap();
    assert_eq!(kit.batch(id).await.abort_reason.as_deref(), Some(text));
    kit.finish_all().await;
}

pub async fn every_text_comes_back_as_it_was_given(kit: Kit) {
    for text in TEXTS {
        comes_back(&kit, text).await;
    }
}

/// A guest may write one, to its log for instance.
pub async fn a_nul_is_a_character_like_any_other(kit: Kit) {
    for text in ["\0", "before\0after", "end\0", "\0\0"] {
        comes_back(&kit, text).await;
    }
}

pub async fn a_text_may_have_a_mebibyte(kit: Kit) {
    comes_back(&kit, &"é".repeat(MIB / 2)).await;
}

pub async fn json_is_kept_to_the_letter(kit: Kit) {
    let texts = [
        "null",
        "true",
        "\"\"",
        "0",
        "-0.0",
        "1e400",
        "123456789012345678901234567890.123456789",
        "[]",
        "{}",
        " { \"b\" : 1,\n\t\"a\" : 2, \"b\" : 3 } ",
        "\"\\u0000\\ud83e\\udd80\\/\"",
    ];
    let rows: Vec<NewRow> = (1..).zip(texts).map(|(line, text)| row_with(line, text.to_owned())).collect();
    let id = kit.submit_rows(rows).await;
    kit.run_rows_with(|row| with_output(row, row.input.clone())).await;
    for (found, wanted) in kit.results(id).await.iter().zip(texts) {
        assert_eq!((found.input.as_str(), found.output.as_deref()), (wanted, Some(wanted)));
    }
}

pub async fn a_text_that_is_absent_is_not_an_empty_one(kit: Kit) {
    let id = kit.submit(3).await;
    let verdict = |output: Option<&str>| Verdict::Final {
        status: RowStatus::Failed,
        output: output.map(str::to_owned),
        messages: Vec::new(),
        pieces: Vec::new(),
    };
    let make = |row: &LeasedRow| match row.row_no {
        1 => RowResult { log: None, ..result(row, verdict(None)) },
        2 => RowResult { log: Some(String::new()), ..result(row, verdict(Some("null"))) },
        _ => RowResult { log: Some("null".to_owned()), ..result(row, verdict(Some("\"\""))) },
    };
    kit.run_rows_with(make).await;
    let found: Vec<(Option<String>, Option<String>)> = kit.results(id).await.into_iter().map(|row| (row.output, row.log)).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(found, [(None, None), (some("null"), some("")), (some("\"\""), some("null"))]);

    let aborted = |id: BatchId, reason: Option<&'static str>| kit.store.abort_batch(id, reason.map(str::to_owned));
    for reason in [None, Some("")] {
        let id = kit.submit(1).await;
        aborted(id, reason).await.unwrap();
        assert_eq!(kit.batch(id).await.abort_reason.as_deref(), reason);
    }
}

pub async fn a_row_may_be_several_mebibytes(kit: Kit) {
    let input = json_of(6 * MIB);
    let id = kit.submit_rows(vec![row_with(1, input.clone())]).await;
    kit.run_rows_with(|row| with_output(row, row.input.clone())).await;
    let found = kit.results(id).await.remove(0);
    assert!(found.input == input && found.output == Some(input));
}
