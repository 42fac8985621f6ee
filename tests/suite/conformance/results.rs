//! Results and pieces are read, in line order, page by page.

use rowmill::model::{BatchId, LeasedRow, Message, RowResult, RowStatus, Verdict};
use rowmill::store::ResultCursor;

use super::build::{MIB, json_of, result, row, row_with, rows_with_lines, success, with_output, with_pieces};
use super::kit::Kit;
use super::random::Random;

/// The lines of a batch in the order in which they come in, and the order that results must have, by row.
fn shuffled_lines() -> (Vec<u32>, Vec<(u32, u32)>) {
    let mut lines: Vec<u32> = (1..=120).collect();
    Random::new(11).shuffle(&mut lines);
    let mut ordered: Vec<(u32, u32)> = lines.iter().copied().zip(1..).collect();
    ordered.sort_unstable();
    (lines, ordered)
}

async fn order(kit: &Kit, id: BatchId, page_rows: u32) -> Vec<(u32, u32)> {
    kit.results_by(id, page_rows).await.iter().map(|row| (row.line, row.row_no)).collect()
}

pub async fn results_come_in_line_order_whatever_the_page(kit: Kit) {
    let (lines, ordered) = shuffled_lines();
    let ascending: Vec<u32> = (1..=60).map(|row_no| row_no * 3).collect();
    let wanted: Vec<(u32, u32)> = ascending.iter().copied().zip(1..).collect();
    for (lines, wanted) in [(lines, ordered), (ascending, wanted)] {
        let id = kit.submit_lines(&lines).await;
        for page_rows in 1..=u32::try_from(lines.len()).unwrap() + 1 {
            assert_eq!(order(&kit, id, page_rows).await, wanted, "pages of {page_rows}");
        }
    }
}

pub async fn lines_that_stop_growing_in_a_later_append_are_sorted_too(kit: Kit) {
    let id = kit.hold(0).await;
    let mut lines: Vec<u32> = Vec::new();
    for part in [&[5, 6, 7][..], &[8], &[], &[4], &[9, 10], &[1, 20], &[30, 40], &[2]] {
        kit.store.append_rows(id, rows_with_lines(part)).await.unwrap();
        lines.extend(part);
        let mut wanted: Vec<(u32, u32)> = lines.iter().copied().zip(1..).collect();
        wanted.sort_unstable();
        assert_eq!(order(&kit, id, 100).await, wanted);
        assert_eq!(order(&kit, id, 1).await, wanted);
    }
}

/// A reader may be in the middle when rows are appended.
pub async fn a_cursor_stays_good_when_lines_stop_growing(kit: Kit) {
    let id = kit.hold(0).await;
    kit.store.append_rows(id, rows_with_lines(&[10, 20, 30])).await.unwrap();
    let page = kit.store.read_results(id, None, 2).await.unwrap();
    let after = Some(ResultCursor { line: page[1].line, row_no: page[1].row_no });
    kit.store.append_rows(id, rows_with_lines(&[25, 5, 21])).await.unwrap();
    let rest: Vec<u32> = kit.store.read_results(id, after, 10).await.unwrap().iter().map(|row| row.line).collect();
    assert_eq!(rest, [21, 25, 30]);
}

pub async fn a_page_of_nothing_and_a_page_past_the_end_are_empty(kit: Kit) {
    let empty = kit.hold(0).await;
    assert_eq!(kit.store.read_results(empty, None, 10).await.unwrap(), []);
    assert_eq!(kit.store.read_pieces(empty, None, 10).await.unwrap(), []);
    for lines in [&[1, 2][..], &[2, 1]] {
        let id = kit.submit_lines(lines).await;
        assert_eq!(kit.store.read_results(id, None, 0).await.unwrap(), []);
        let last = ResultCursor { line: 2, row_no: if lines[0] == 1 { 2 } else { 1 } };
        assert_eq!(kit.store.read_results(id, Some(last), 10).await.unwrap(), []);
        assert_eq!(kit.store.read_results(id, Some(ResultCursor { line: u32::MAX, row_no: u32::MAX }), 10).await.unwrap(), []);
    }
}

pub async fn a_row_has_no_status_before_it_has_an_outcome(kit: Kit) {
    let id = kit.submit_lines(&[3, 1, 2]).await;
    assert_eq!(kit.statuses(id).await, [None; 3]);
    let lease = kit.claim_rows(3).await;
    let rows = kit.read(&lease).await;
    assert_eq!(kit.statuses(id).await, [None; 3]);
    kit.record(&lease, &[success(&rows[0])]).await;
    assert_eq!(kit.statuses(id).await, [None, None, Some(RowStatus::Success)]);
    kit.record(&lease, &[success(&rows[1])]).await;
    assert_eq!(kit.statuses(id).await, [Some(RowStatus::Success), None, Some(RowStatus::Success)]);
}

/// Twelve rows whose results or inputs are of a MiB: no page holds them all, and no row is lost.
async fn comes_in_short_pages(kit: &Kit, id: BatchId) {
    let page = kit.store.read_results(id, None, 100).await.unwrap();
    assert!((1..12).contains(&page.len()), "a page of {} MiB", page.len());
    let found: Vec<u32> = kit.results_by(id, 100).await.iter().map(|row| row.row_no).collect();
    assert_eq!(found, (1..=12).collect::<Vec<u32>>());
}

pub async fn a_page_of_large_rows_is_shorter(kit: Kit) {
    let text = "m".repeat(MIB);
    let message = |text: &str| Message { id: 1, code: "large".to_owned(), field: None, values: vec![text.to_owned()] };
    let bare = |row: &LeasedRow, messages| result(row, Verdict::Final { status: RowStatus::Failed, output: None, messages, pieces: Vec::new() });
    let shapes: [&dyn Fn(&LeasedRow) -> RowResult; 3] = [&|row| with_output(row, json_of(MIB)), &|row| bare(row, vec![message(&text)]), &|row| {
        RowResult { log: Some(text.clone()), ..bare(row, Vec::new()) }
    }];
    for shape in shapes {
        let id = kit.submit(12).await;
        let lease = kit.claim_rows(12).await;
        kit.record_each(&lease, shape).await;
        comes_in_short_pages(&kit, id).await;
    }
    let id = kit.submit_rows((1..=12).map(|line| row_with(line, json_of(MIB))).collect()).await;
    comes_in_short_pages(&kit, id).await;
}

pub async fn pieces_come_in_line_order_whatever_the_page(kit: Kit) {
    let (lines, ordered) = shuffled_lines();
    let ascending: Vec<(u32, u32)> = (1..=40).zip(1..).collect();
    for (lines, ordered) in [(lines, ordered), ((1..=40).collect(), ascending)] {
        let id = kit.submit_lines(&lines).await;
        // Every third row has none, and every fifth has three; the empty one is left out.
        kit.run_rows_with(|row| {
            let text = format!("line {} of row {}", row.line, row.row_no);
            match row.row_no {
                n if n % 3 == 0 => success(row),
                n if n % 5 == 0 => {
                    let pieces = [("b", text.as_str()), ("a", "more"), ("b", ""), ("b", "end")];
                    with_pieces(row, &pieces)
                }
                _ => with_pieces(row, &[("a", &text)]),
            }
        })
        .await;
        let names = kit.store.list_file_names(id).await.unwrap();
        let wanted: Vec<(u32, Vec<(String, String)>)> = ordered
            .iter()
            .filter(|(_, row_no)| row_no % 3 != 0)
            .map(|(line, row_no)| {
                let piece = |file: &str, text: &str| (file.to_owned(), text.to_owned());
                let text = format!("line {line} of row {row_no}");
                let two = || vec![piece("b", &text), piece("a", "more"), piece("b", "end")];
                (*row_no, if row_no % 5 == 0 { two() } else { vec![piece("a", &text)] })
            })
            .collect();
        for page_rows in 1..=u32::try_from(wanted.len()).unwrap() + 1 {
            let found: Vec<(u32, Vec<(String, String)>)> = kit
                .pieces_by(id, page_rows)
                .await
                .into_iter()
                .map(|row| (row.at.row_no, row.pieces.into_iter().map(|(file, text)| (names[file].clone(), text)).collect()))
                .collect();
            assert_eq!(found, wanted, "pages of {page_rows}");
        }
    }
}

pub async fn a_page_of_large_pieces_is_shorter(kit: Kit) {
    for lines in [(1..=12).collect::<Vec<u32>>(), (1..=12).rev().collect()] {
        let id = kit.submit_lines(&lines).await;
        let lease = kit.claim_rows(12).await;
        let text = "p".repeat(MIB);
        kit.record_each(&lease, |row| with_pieces(row, &[("large", &text)])).await;
        let page = kit.store.read_pieces(id, None, 100).await.unwrap();
        assert!((1..12).contains(&page.len()), "a page of {} MiB", page.len());
        let found = kit.pieces_by(id, 100).await;
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|row| row.pieces == [(0, text.clone())]));
    }
}

pub async fn a_retry_leaves_no_result_behind(kit: Kit) {
    let id = kit.submit_rows(vec![row(1)]).await;
    let lease = kit.claim_rows(1).await;
    let retried = |row: &LeasedRow| RowResult { log: Some("first try".to_owned()), ..super::build::retry(row, std::time::Duration::ZERO) };
    kit.record_each(&lease, retried).await;
    let found = &kit.results(id).await[0];
    assert_eq!((found.status, &found.log, &found.output), (None, &None, &None));
    kit.run_rows().await;
    let found = &kit.results(id).await[0];
    assert_eq!((found.status, &found.log, found.attempts), (Some(RowStatus::Success), &None, 2));
}
