//! Names of output files, and the files themselves.

use rowmill::model::{BatchId, BatchStep, LeasedRow, OutputFile, Piece, RowResult, RowStatus, Verdict};
use rowmill::store::{FILES_PER_BATCH_MAX, StoreError};

use super::build::{counts, result, success, with_pieces};
use super::kit::{Kit, file, is_invalid, is_lost};

async fn names(kit: &Kit, id: BatchId) -> Vec<String> {
    let mut names = kit.store.list_file_names(id).await.unwrap();
    names.sort();
    names
}

pub async fn a_name_is_listed_once_however_many_rows_write_to_it(kit: Kit) {
    let id = kit.submit(4).await;
    assert_eq!(names(&kit, id).await, [] as [&str; 0]);
    let (first, second) = (kit.claim_rows(2).await, kit.claim_rows(2).await);
    kit.record_each(&second, |row| with_pieces(row, &[("b", "1"), ("a", "2"), ("b", "3")])).await;
    let order = kit.store.list_file_names(id).await.unwrap();
    kit.record_each(&first, |row| with_pieces(row, &[("c", "4"), ("a", "5")])).await;
    assert_eq!(names(&kit, id).await, ["a", "b", "c"]);
    assert_eq!(kit.store.list_file_names(id).await.unwrap()[..2], order, "a file has another number now");
}

pub async fn names_belong_to_their_batch(kit: Kit) {
    let (first, second, none) = (kit.submit(1).await, kit.submit(1).await, kit.submit(1).await);
    for (name, id) in [("a", first), ("b", second)] {
        let lease = kit.claim_rows(1).await;
        kit.record_each(&lease, |row| with_pieces(row, &[(name, "1")])).await;
        assert_eq!(names(&kit, id).await, [name]);
    }
    kit.run_rows().await;
    assert_eq!(names(&kit, none).await, [] as [&str; 0]);
    assert_eq!(kit.pieces_by(none, 10).await, []);
}

pub async fn names_differ_in_every_letter(kit: Kit) {
    let id = kit.submit(1).await;
    let wanted = ["", " ", "A", "a", "a ", "á", "a\u{301}", "名前.csv", "a'b", "a\"b", "a/b", "%"];
    let lease = kit.claim_rows(1).await;
    let texts = wanted.map(|name| format!("of {name}"));
    let pieces: Vec<(&str, &str)> = wanted.into_iter().zip(texts.iter().map(String::as_str)).collect();
    kit.record_each(&lease, |row| with_pieces(row, &pieces)).await;
    let found = kit.store.list_file_names(id).await.unwrap();
    let mut sorted = wanted;
    sorted.sort_unstable();
    assert_eq!(names(&kit, id).await, sorted);
    for (file, text) in &kit.pieces_by(id, 1).await[0].pieces {
        assert_eq!(format!("of {}", found[*file]), *text);
    }
}

/// A result with one piece for each of these files.
fn with_files(row: &LeasedRow, files: std::ops::Range<usize>) -> RowResult {
    let pieces = files.map(|number| Piece { file: format!("file {number:03}"), text: "text".to_owned() }).collect();
    result(row, Verdict::Final { status: RowStatus::Success, output: None, messages: Vec::new(), pieces })
}

/// The names that a record which went too far may use.
async fn refused(kit: &Kit, lease: &rowmill::model::Lease, results: &[RowResult]) -> Vec<String> {
    match kit.try_record(lease, results).await {
        Err(StoreError::TooManyFiles { mut allowed }) => {
            allowed.sort();
            allowed
        }
        other => panic!("it was not refused for its files: {other:?}"),
    }
}

pub async fn a_batch_has_only_so_many_files(kit: Kit) {
    let id = kit.submit(5).await;
    let lease = kit.claim_rows(5).await;
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[with_files(&rows[0], 0..FILES_PER_BATCH_MAX - 2)]).await;
    let before = kit.view(id).await;

    let too_many = [success(&rows[1]), with_files(&rows[2], 5..FILES_PER_BATCH_MAX + 1)];
    let allowed = refused(&kit, &lease, &too_many).await;
    assert_eq!(kit.view(id).await, before, "the refused record changed something");
    // All that the batch has, and so many new ones that it has as many as it may.
    assert_eq!(allowed.len(), FILES_PER_BATCH_MAX);
    let known = |name: &String| (0..=FILES_PER_BATCH_MAX).any(|number| *name == format!("file {number:03}"));
    assert!(allowed.iter().all(known), "{allowed:?}");
    let had = |number: usize| allowed.contains(&format!("file {number:03}"));
    assert!((0..FILES_PER_BATCH_MAX - 2).all(had), "{allowed:?}");

    // With only the allowed ones it goes through, and the lease was not hurt.
    let pieces: Vec<(&str, &str)> = allowed.iter().map(|name| (name.as_str(), "text")).collect();
    kit.record(&lease, &[success(&rows[1]), with_pieces(&rows[2], &pieces)]).await;
    assert_eq!(names(&kit, id).await, allowed);
    let full = kit.view(id).await;
    assert_eq!(refused(&kit, &lease, &[with_pieces(&rows[3], &[("one more", "text")])]).await, allowed);
    assert_eq!(kit.view(id).await, full);
    assert!(kit.record(&lease, &[with_files(&rows[3], 0..5), success(&rows[4])]).await.last);
}

pub async fn a_file_without_text_does_not_come_to_be_and_takes_no_place(kit: Kit) {
    let id = kit.submit(3).await;
    let lease = kit.claim_rows(3).await;
    let rows = kit.read(&lease).await;
    let blanks: Vec<String> = (0..FILES_PER_BATCH_MAX).map(|number| format!("blank {number}")).collect();
    let mut pieces: Vec<(&str, &str)> =
        blanks.iter().map(String::as_str).zip(["", " ", "\r\n", "\t \u{2003}", "\u{a0}"].into_iter().cycle()).collect();
    pieces.push(("full", "1"));
    kit.record(&lease, &[with_pieces(&rows[0], &pieces)]).await;
    assert_eq!(names(&kit, id).await, ["full"]);
    kit.record(&lease, &[with_pieces(&rows[1], &[("blank 1", "\n"), ("full", " ")])]).await;
    kit.record(&lease, &[with_pieces(&rows[2], &[("full", ""), ("full", " 2 "), ("full", "")])]).await;
    assert_eq!(names(&kit, id).await, ["full"]);
    let pieces: Vec<Vec<(usize, String)>> = kit.pieces_by(id, 1).await.into_iter().map(|row| row.pieces).collect();
    assert_eq!(pieces, [[(0, "1".to_owned())], [(0, " 2 ".to_owned())]]);
    // A file that was blank in one row comes to be with the first text for it.
    let other = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[with_pieces(&rows[0], &[("late", "")])]).await;
    assert_eq!(names(&kit, other).await, [] as [&str; 0]);
    kit.record(&lease, &[with_pieces(&rows[1], &[("late", "text")])]).await;
    assert_eq!(names(&kit, other).await, ["late"]);
}

pub async fn the_files_of_several_rows_are_limited_together(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    let half = FILES_PER_BATCH_MAX / 2;
    let allowed = refused(&kit, &lease, &[with_files(&rows[0], 0..half), with_files(&rows[1], half..FILES_PER_BATCH_MAX + 10)]).await;
    assert_eq!((allowed.len(), names(&kit, id).await.len()), (FILES_PER_BATCH_MAX, 0));
    kit.record(&lease, &[with_files(&rows[0], 0..half), with_files(&rows[1], half..FILES_PER_BATCH_MAX)]).await;
    assert_eq!(kit.counts(id).await, counts(2, 2, 0, 0));

    // And another batch has all of them for itself.
    let other = kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| with_files(row, 100..100 + FILES_PER_BATCH_MAX)).await;
    assert_eq!(names(&kit, other).await.len(), FILES_PER_BATCH_MAX);
}

/// A lost lease is told so, whatever it wanted to record.
pub async fn a_lost_lease_is_not_told_about_files(kit: Kit) {
    let id = kit.submit(1).await;
    let lease = kit.claim_rows(1).await;
    let rows = kit.read(&lease).await;
    kit.go_silent();
    is_lost(kit.try_record(&lease, &[with_files(&rows[0], 0..FILES_PER_BATCH_MAX + 1)]).await);
    is_lost(kit.try_record(&lease, &[with_files(&rows[0], 0..1)]).await);
    assert_eq!(names(&kit, id).await, [] as [&str; 0]);
}

/// A batch whose one row wrote to these files, leased to be joined.
async fn to_be_joined(kit: &Kit, names: &[(&str, &str)]) -> (BatchId, rowmill::model::FinishLease) {
    let id = kit.submit(1).await;
    kit.run_rows_with(|row| with_pieces(row, names)).await;
    (id, kit.claim_finish().await)
}

pub async fn files_can_be_seen_once_they_were_joined(kit: Kit) {
    let (id, lease) = to_be_joined(&kit, &[("b.csv", "1"), ("c", "2"), ("a.txt", "3")]).await;
    assert_eq!(kit.batch(id).await.files, []);
    let large = OutputFile { size_bytes: 1 << 41, ..file("a.txt", "outputs/1/a") };
    // In any order, and without one that came to nothing.
    kit.store.record_files(&lease, &[file("b.csv", "outputs/1/b"), large.clone()]).await.unwrap();
    assert_eq!(kit.batch(id).await.files, [large.clone(), file("b.csv", "outputs/1/b")]);
    kit.finish_all().await;
    assert_eq!(kit.batch(id).await.files, [large, file("b.csv", "outputs/1/b")]);
}

pub async fn files_of_an_aborted_batch_can_be_seen_too(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, |row| with_pieces(row, &[("a", "1")])).await;
    kit.abort(id).await;
    assert_eq!(kit.pieces_by(id, 10).await.len(), 1);
    let lease = kit.claim_finish().await;
    kit.store.record_files(&lease, &[file("a", "object")]).await.unwrap();
    assert_eq!(kit.batch(id).await.files, [file("a", "object")]);
}

/// What no row wrote to cannot be recorded: it would be lost in silence.
pub async fn only_files_of_the_batch_are_recorded(kit: Kit) {
    let (_, of_other) = to_be_joined(&kit, &[("other", "1")]).await;
    let (id, lease) = to_be_joined(&kit, &[("a", "1")]).await;
    let before = kit.view(id).await;
    for wrong in ["other", "A", ""] {
        is_invalid(kit.store.record_files(&lease, &[file("a", "object"), file(wrong, "object")]).await);
        assert_eq!(kit.view(id).await, before);
    }
    assert_eq!(kit.batch(id).await.step, BatchStep::Join);
    kit.store.record_files(&lease, &[file("a", "object")]).await.unwrap();
    kit.store.record_files(&of_other, &[file("other", "object")]).await.unwrap();
}

pub async fn the_order_of_names_and_pieces_is_the_same_for_each_attempt_to_join(kit: Kit) {
    let (id, _) = to_be_joined(&kit, &[("z", "1"), ("m", "2"), ("a", "3"), ("q", "4")]).await;
    let (names, pieces) = (kit.store.list_file_names(id).await.unwrap(), kit.pieces_by(id, 10).await);
    kit.go_silent();
    kit.claim_finish().await;
    assert_eq!((kit.store.list_file_names(id).await.unwrap(), kit.pieces_by(id, 10).await), (names, pieces));
}
