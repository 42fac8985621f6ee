//! The files that rows of batches came from.

use rowmill::model::{BatchFile, BatchId, BatchStatus, JsonText};

use super::build::held;
use super::kit::{Kit, is_invalid, is_missing, is_wrong_status};
use super::stages::{Stage, every_stage};

fn file(first_row: u32, name: &str) -> BatchFile {
    BatchFile {
        first_row,
        name: name.to_owned(),
        form: "csv.gz".to_owned(),
        size_bytes: 1 << 40,
        sha256: "0123456789abcdef".repeat(4),
        object: Some(format!("files/{name}")),
        source_object: None,
    }
}

async fn files(kit: &Kit, id: BatchId) -> Vec<BatchFile> {
    kit.store.list_batch_files(id, 0, 100).await.unwrap()
}

pub async fn the_files_of_a_batch_are_listed_by_their_first_rows(kit: Kit) {
    let (id, other) = (kit.hold(3).await, kit.hold(1).await);
    assert_eq!(files(&kit, id).await, []);
    let recorded = [file(1, "first.csv"), BatchFile { object: None, size_bytes: 0, ..file(500, "second.csv") }, file(u32::MAX, "third.csv")];
    for file in [&recorded[2], &recorded[0], &recorded[1]] {
        kit.store.record_batch_file(id, file, None).await.unwrap();
    }
    kit.store.record_batch_file(other, &file(2, "other.csv"), None).await.unwrap();
    assert_eq!(files(&kit, id).await, recorded);
    assert_eq!(files(&kit, other).await, [file(2, "other.csv")]);

    // By page.
    let page = async |after| kit.store.list_batch_files(id, after, 2).await.unwrap();
    assert_eq!((page(0).await, page(500).await, page(u32::MAX).await), (recorded[..2].to_vec(), recorded[2..].to_vec(), Vec::new()));
    assert_eq!(kit.store.list_batch_files(id, 0, 0).await.unwrap(), []);
}

pub async fn a_file_is_recorded_only_while_its_batch_is_held(kit: Kit) {
    for Stage { name, id, status, .. } in every_stage(&kit).await {
        let before = kit.view(id).await;
        let context = JsonText::check(r#"{"new":1}"#).unwrap();
        let recorded = kit.store.record_batch_file(id, &file(1, name), Some(&context)).await;
        if status == BatchStatus::Wait {
            recorded.unwrap();
            assert_eq!(files(&kit, id).await, [file(1, name)]);
            assert_eq!(kit.store.release_batch(id).await.unwrap(), 3);
            assert_eq!(files(&kit, id).await, [file(1, name)], "it is there when the batch is released");
        } else {
            is_wrong_status(recorded, (id, status));
            assert_eq!(kit.view(id).await, before, "{name}");
            assert_eq!(files(&kit, id).await, [], "{name}");
        }
    }
    let unknown = BatchId::generate();
    is_missing(kit.store.record_batch_file(unknown, &file(1, "x"), None).await, unknown);
    is_missing(kit.store.list_batch_files(unknown, 0, 1).await, unknown);
}

pub async fn the_context_of_a_file_takes_the_place_of_that_of_its_batch(kit: Kit) {
    let (id, other) = (kit.hold(1).await, kit.hold(1).await);
    kit.store.record_batch_file(id, &file(1, "a"), None).await.unwrap();
    assert_eq!(kit.batch(id).await.context, JsonText::default());
    let context = JsonText::check("{ \"total\" : 1.50 }").unwrap();
    kit.store.record_batch_file(id, &file(1, "a"), Some(&context)).await.unwrap();
    assert_eq!((kit.batch(id).await.context, kit.batch(other).await.context), (context, JsonText::default()));
}

pub async fn another_file_that_begins_with_a_row_takes_its_place(kit: Kit) {
    let id = kit.hold(1).await;
    kit.store.record_batch_file(id, &file(1, "a"), None).await.unwrap();
    kit.store.record_batch_file(id, &file(1, "a"), None).await.unwrap();
    assert_eq!(files(&kit, id).await, [file(1, "a")]);
    kit.store.record_batch_file(id, &BatchFile { object: None, ..file(1, "b") }, None).await.unwrap();
    assert_eq!(files(&kit, id).await, [BatchFile { object: None, ..file(1, "b") }]);
    is_invalid(kit.store.record_batch_file(id, &file(0, "c"), None).await);
}

pub async fn a_discarded_batch_is_gone_with_its_files(kit: Kit) {
    let (kept, gone) = (kit.hold(1).await, held());
    kit.store.record_batch_file(kept, &file(1, "kept"), None).await.unwrap();
    kit.store.submit_batch(gone.clone(), Vec::new()).await.unwrap();
    kit.store.record_batch_file(gone.id, &file(1, "gone"), None).await.unwrap();
    kit.store.discard_batch(gone.id).await.unwrap();
    is_missing(kit.store.list_batch_files(gone.id, 0, 1).await, gone.id);
    kit.store.submit_batch(gone.clone(), Vec::new()).await.unwrap();
    assert_eq!((files(&kit, gone.id).await, files(&kit, kept).await), (Vec::new(), vec![file(1, "kept")]));
}

pub async fn the_name_of_a_file_may_be_any_text(kit: Kit) {
    let id = kit.hold(1).await;
    for (row, name) in (1..).zip(["", " ", "Überweisungen 2026.csv", "a\nb\0c\u{1a}d", "'; DROP TABLE batch_files; --"]) {
        let file = BatchFile { first_row: row, sha256: name.to_owned(), form: name.to_owned(), object: Some(name.to_owned()), ..file(row, name) };
        kit.store.record_batch_file(id, &file, None).await.unwrap();
        assert_eq!(files(&kit, id).await.last(), Some(&file));
    }
}
