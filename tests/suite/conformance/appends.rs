//! Files that are appended in parts: their rows count with the last part, or are taken back.

use std::time::Duration;

use rowmill::model::{AppendKey, AppendPart, AppendState, AppendToken, BatchFile, BatchId, BatchStatus, JsonText, Line, NewRow};
use rowmill::store::StoreError;

use super::build::{counts, row, rows};
use super::kit::{Kit, is_invalid};

const TTL: Duration = Duration::from_secs(30);

/// An append whose parts have two rows each.
struct Append {
    id: BatchId,
    token: AppendToken,
    key: Option<AppendKey>,
}

impl Append {
    fn to(id: BatchId) -> Append {
        Append { id, token: AppendToken::generate(), key: None }
    }

    fn with_key(id: BatchId, digest: &str) -> Append {
        Append { key: Some(AppendKey { name: "january".to_owned(), digest: digest.to_owned() }), ..Append::to(id) }
    }

    async fn part(&self, kit: &Kit, begins: bool, ends: bool) -> Result<AppendState, StoreError> {
        let rows = (0..2).map(|_| NewRow::new(Line::Next, JsonText::default())).collect();
        self.rows(kit, begins, ends, rows).await
    }

    async fn rows(&self, kit: &Kit, begins: bool, ends: bool, rows: Vec<NewRow>) -> Result<AppendState, StoreError> {
        let file = ends.then(|| BatchFile {
            first_row: 1,
            name: "january.csv".to_owned(),
            form: "csv".to_owned(),
            size_bytes: 1,
            sha256: "00".to_owned(),
            object: None,
            source_object: None,
        });
        let part = AppendPart { token: self.token, key: self.key.clone(), begins, ends, rows, file, ttl: TTL };
        kit.store.append_part(self.id, part).await
    }
}

fn is_under_way<T: std::fmt::Debug>(result: &Result<T, StoreError>, id: BatchId) {
    assert!(matches!(result, Err(StoreError::AppendUnderWay(found)) if *found == id), "{result:?}");
}

fn is_append_lost<T: std::fmt::Debug>(result: &Result<T, StoreError>, id: BatchId) {
    assert!(matches!(result, Err(StoreError::AppendLost(found)) if *found == id), "{result:?}");
}

async fn lines(kit: &Kit, id: BatchId) -> Vec<u32> {
    kit.results(id).await.iter().map(|row| row.line).collect()
}

pub async fn the_rows_of_a_file_count_with_its_last_part(kit: Kit) {
    let id = kit.hold(3).await;
    let append = Append::to(id);
    assert_eq!(append.part(&kit, true, false).await.unwrap(), AppendState { rows: 5, was_there: false });
    append.part(&kit, false, false).await.unwrap();
    let found = kit.batch(id).await;
    assert_eq!((found.counts, found.open_append.map(|open| open.rows)), (counts(3, 0, 0, 0), Some(4)));
    assert_eq!(lines(&kit, id).await, [1, 2, 3]);
    assert_eq!(append.part(&kit, false, true).await.unwrap().rows, 9);
    let found = kit.batch(id).await;
    assert_eq!((found.counts, found.open_append), (counts(9, 0, 0, 0), None));
    assert_eq!(lines(&kit, id).await, (1..=9).collect::<Vec<_>>());
    assert_eq!(kit.store.list_batch_files(id, 0, 10).await.unwrap()[0].first_row, 4);
    assert_eq!(kit.store.release_batch(id).await.unwrap(), 9);
    kit.run_rows().await;
    assert_eq!(kit.counts(id).await, counts(9, 9, 0, 0));
}

pub async fn others_are_refused_while_a_file_is_appended(kit: Kit) {
    let id = kit.hold(3).await;
    let append = Append::to(id);
    append.part(&kit, true, false).await.unwrap();
    is_under_way(&kit.store.release_batch(id).await, id);
    is_under_way(&kit.store.append_rows(id, vec![row(9)]).await, id);
    is_under_way(&Append::to(id).part(&kit, true, true).await, id);
    is_append_lost(&Append::to(id).part(&kit, false, true).await, id);
    // Each part moves the expiry forward, one without rows, too.
    kit.pass(TTL - Duration::from_millis(1));
    append.rows(&kit, false, false, Vec::new()).await.unwrap();
    kit.pass(TTL - Duration::from_millis(1));
    is_under_way(&kit.store.release_batch(id).await, id);
    assert_eq!(append.part(&kit, false, true).await.unwrap().rows, 7);
    assert_eq!(kit.store.append_rows(id, vec![row(9)]).await.unwrap(), 8);
}

pub async fn a_file_that_is_taken_back_leaves_the_batch_as_it_was(kit: Kit) {
    // Once with lines in order, and once without, before and in the file.
    for (first, part) in [(&[1, 2, 3], &[7, 8]), (&[1, 2, 3], &[9, 8]), (&[3, 1, 2], &[7, 8])] {
        let id = kit.hold(0).await;
        let given = |lines: &[u32]| lines.iter().map(|line| row(*line)).collect::<Vec<_>>();
        kit.store.append_rows(id, given(first)).await.unwrap();
        let before = kit.view(id).await;
        let append = Append::to(id);
        append.rows(&kit, true, false, given(part)).await.unwrap();
        is_invalid(append.rows(&kit, false, false, given(&part[..1])).await);
        assert!(kit.store.undo_append(id, append.token).await.unwrap());
        assert!(!kit.store.undo_append(id, append.token).await.unwrap());
        assert_eq!(kit.view(id).await, before);
        is_append_lost(&append.part(&kit, false, true).await, id);
        // The lines are free again.
        assert_eq!(kit.store.append_rows(id, given(part)).await.unwrap(), 5);
        kit.store.discard_batch(id).await.unwrap();
    }
}

pub async fn a_file_that_was_cut_off_is_taken_back_by_whatever_comes_next(kit: Kit) {
    for next in ["release", "append", "file", "abort", "discard"] {
        let id = kit.hold(3).await;
        let append = Append::to(id);
        append.part(&kit, true, false).await.unwrap();
        if next != "abort" && next != "discard" {
            kit.pass(TTL);
        }
        match next {
            "release" => assert_eq!(kit.store.release_batch(id).await.unwrap(), 3),
            "append" => assert_eq!(kit.store.append_rows(id, vec![row(4)]).await.unwrap(), 4),
            "file" => assert_eq!(Append::to(id).part(&kit, true, true).await.unwrap().rows, 5),
            "discard" => kit.store.discard_batch(id).await.unwrap(),
            // Whatever ends the hold does so in its transaction, also of a file that has not expired.
            _ => kit.abort(id).await,
        }
        if next == "discard" {
            continue;
        }
        let found = kit.batch(id).await;
        let rows = match next {
            "append" => 4,
            "file" => 5,
            _ => 3,
        };
        assert_eq!((found.counts.rows, found.open_append), (rows, None), "{next}");
        assert_eq!(lines(&kit, id).await.len() as u64, rows, "{next}");
        is_append_lost(&append.part(&kit, false, true).await, id);
        if next != "abort" {
            kit.abort(id).await;
        }
    }
}

pub async fn an_append_with_a_key_comes_in_once(kit: Kit) {
    let id = kit.hold(3).await;
    let cut_off = Append::with_key(id, "a");
    cut_off.part(&kit, true, false).await.unwrap();
    // A repeat takes over at once, and begins anew.
    let repeat = Append::with_key(id, "a");
    repeat.part(&kit, true, false).await.unwrap();
    is_append_lost(&cut_off.part(&kit, false, true).await, id);
    assert_eq!(repeat.part(&kit, false, true).await.unwrap(), AppendState { rows: 7, was_there: false });
    let known = AppendState { rows: 7, was_there: true };
    assert_eq!(Append::with_key(id, "a").part(&kit, true, true).await.unwrap(), known);
    let other = Append::with_key(id, "b").part(&kit, true, true).await;
    assert!(matches!(other, Err(StoreError::AppendKeyReused { .. })), "{other:?}");
    // The same after the hold, and no more once the batch was removed.
    kit.store.release_batch(id).await.unwrap();
    assert_eq!(Append::with_key(id, "a").part(&kit, true, false).await.unwrap(), known);
    assert_eq!(kit.batch(id).await.counts, counts(7, 0, 0, 0));
    assert_eq!(kit.status(id).await, BatchStatus::Queued);
}

pub async fn of_rows_that_are_appended_beside_a_file_none_is_lost(kit: Kit) {
    let id = kit.hold(0).await;
    for file in 0..3 {
        let append = Append::to(id);
        append.part(&kit, true, false).await.unwrap();
        append.part(&kit, false, true).await.unwrap();
        let next = rows(1).into_iter().map(|row| NewRow { line: Line::Next, ..row }).collect();
        assert_eq!(kit.store.append_rows(id, next).await.unwrap(), (file + 1) * 5);
    }
    assert_eq!(lines(&kit, id).await, (1..=15).collect::<Vec<_>>());
}

/// They are no page by themselves: a reader would take an empty page for the end.
pub async fn rows_of_a_file_with_lower_lines_hide_no_row_of_the_batch(kit: Kit) {
    let id = kit.hold(0).await;
    kit.store.append_rows(id, vec![row(20), row(10)]).await.unwrap();
    let append = Append::to(id);
    append.rows(&kit, true, false, (1..=5).map(row).collect()).await.unwrap();
    let page = kit.store.read_results(id, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|row| row.line).collect::<Vec<_>>(), [10, 20]);
}
