//! Held batches: rows are appended, and the batch is released or discarded.

use rowmill::model::{BatchId, BatchStatus, JsonText, Line, NewRow};

use super::build::{counts, held, query, row, rows, rows_with_lines};
use super::kit::{Kit, is_invalid, is_missing, is_wrong_status};
use super::stages::{Stage, every_stage};

pub async fn rows_are_appended_while_a_batch_is_held(kit: Kit) {
    let id = kit.hold(0).await;
    assert_eq!(kit.store.append_rows(id, rows(3)).await.unwrap(), 3);
    assert_eq!(kit.store.append_rows(id, Vec::new()).await.unwrap(), 3);
    assert_eq!(kit.store.append_rows(id, rows_with_lines(&[4, 5])).await.unwrap(), 5);
    let found = kit.batch(id).await;
    assert_eq!((found.status, found.counts), (BatchStatus::Wait, counts(5, 0, 0, 0)));
    assert_eq!(kit.results(id).await.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

pub async fn rows_of_two_held_batches_do_not_mix(kit: Kit) {
    let (first, second) = (kit.hold(1).await, kit.hold(1).await);
    for line in 2..=5 {
        assert_eq!(kit.store.append_rows(first, vec![row(line)]).await.unwrap(), u64::from(line));
        assert_eq!(kit.store.append_rows(second, vec![row(line * 10)]).await.unwrap(), u64::from(line));
    }
    assert_eq!(kit.results(first).await.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(kit.results(second).await.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 20, 30, 40, 50]);
}

pub async fn only_a_held_batch_takes_rows(kit: Kit) {
    for Stage { name, id, status, .. } in every_stage(&kit).await {
        let before = kit.view(id).await;
        if status == BatchStatus::Wait {
            assert_eq!(kit.store.append_rows(id, rows_with_lines(&[4])).await.unwrap(), 4, "{name}");
        } else {
            is_wrong_status(kit.store.append_rows(id, rows_with_lines(&[4])).await, (id, status));
            is_wrong_status(kit.store.append_rows(id, Vec::new()).await, (id, status));
            assert_eq!(kit.view(id).await, before, "{name}");
        }
    }
}

pub async fn a_batch_past_queued_cannot_be_released(kit: Kit) {
    for Stage { name, id, status, .. } in every_stage(&kit).await {
        let before = kit.view(id).await;
        match status {
            BatchStatus::Wait | BatchStatus::Queued => assert_eq!(kit.store.release_batch(id).await.unwrap(), 3, "{name}"),
            _ => {
                is_wrong_status(kit.store.release_batch(id).await, (id, status));
                assert_eq!(kit.view(id).await, before, "{name}");
            }
        }
    }
}

pub async fn only_a_held_batch_can_be_discarded(kit: Kit) {
    for Stage { name, id, status, .. } in every_stage(&kit).await {
        let before = kit.view(id).await;
        if status == BatchStatus::Wait {
            kit.store.discard_batch(id).await.unwrap();
        } else {
            is_wrong_status(kit.store.discard_batch(id).await, (id, status));
            assert_eq!(kit.view(id).await, before, "{name}");
        }
    }
}

pub async fn a_slow_query_is_never_held(kit: Kit) {
    let new = query();
    kit.store.submit_batch(new.clone(), vec![row(0)]).await.unwrap();
    is_wrong_status(kit.store.append_rows(new.id, rows(1)).await, (new.id, BatchStatus::Queued));
    is_wrong_status(kit.store.discard_batch(new.id).await, (new.id, BatchStatus::Queued));
    assert_eq!(kit.store.release_batch(new.id).await.unwrap(), 1);
}

pub async fn a_released_batch_is_queued_with_all_its_rows(kit: Kit) {
    let id = kit.hold(2).await;
    kit.store.append_rows(id, vec![row(3)]).await.unwrap();
    assert_eq!(kit.store.release_batch(id).await.unwrap(), 3);
    assert_eq!(kit.status(id).await, BatchStatus::Queued);
    let lease = kit.claim_rows(3).await;
    assert_eq!((lease.batch, kit.row_numbers(&lease).await), (id, vec![1, 2, 3]));
}

pub async fn releasing_a_queued_batch_changes_nothing(kit: Kit) {
    let (submitted, released) = (kit.submit(2).await, kit.hold(3).await);
    kit.store.release_batch(released).await.unwrap();
    for (id, rows) in [(submitted, 2), (released, 3)] {
        let before = kit.view(id).await;
        assert_eq!(kit.store.release_batch(id).await.unwrap(), rows);
        assert_eq!(kit.view(id).await, before);
    }
}

pub async fn an_empty_batch_cannot_be_released(kit: Kit) {
    let id = kit.hold(0).await;
    is_invalid(kit.store.release_batch(id).await);
    assert_eq!(kit.status(id).await, BatchStatus::Wait);
    kit.store.append_rows(id, rows(1)).await.unwrap();
    assert_eq!(kit.store.release_batch(id).await.unwrap(), 1);
}

pub async fn a_discarded_batch_is_gone_with_its_rows(kit: Kit) {
    let (kept, gone) = (kit.hold(2).await, held());
    kit.store.submit_batch(gone.clone(), rows_with_lines(&[5, 4, 3])).await.unwrap();
    let before = kit.view(kept).await;
    kit.store.discard_batch(gone.id).await.unwrap();
    is_missing(kit.store.read_batch(gone.id).await, gone.id);
    is_missing(kit.store.read_results(gone.id, None, 10).await, gone.id);
    is_missing(kit.store.discard_batch(gone.id).await, gone.id);
    assert_eq!(kit.view(kept).await, before);

    // Whoever comes next, under the same id too, finds none of its rows.
    kit.store.submit_batch(gone.clone(), rows_with_lines(&[2, 1])).await.unwrap();
    assert_eq!(kit.results(gone.id).await.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(kit.store.release_batch(gone.id).await.unwrap(), 2);
    kit.run_rows().await;
    assert_eq!(kit.counts(gone.id).await, counts(2, 2, 0, 0));
}

async fn lines(kit: &Kit, id: BatchId) -> Vec<(u32, u32)> {
    let mut lines: Vec<(u32, u32)> = kit.results(id).await.iter().map(|row| (row.row_no, row.line)).collect();
    lines.sort_unstable();
    lines
}

fn next() -> NewRow {
    NewRow::next(JsonText::default())
}

pub async fn a_row_without_a_line_gets_one_more_than_the_highest(kit: Kit) {
    let new = held();
    kit.store.submit_batch(new.clone(), vec![next(), next(), row(7), next()]).await.unwrap();
    kit.store.append_rows(new.id, vec![next()]).await.unwrap();
    assert_eq!(lines(&kit, new.id).await, [(1, 1), (2, 2), (3, 7), (4, 8), (5, 9)]);
    // Lines that do not ascend: the highest is not the last.
    kit.store.append_rows(new.id, vec![row(20), row(12)]).await.unwrap();
    kit.store.append_rows(new.id, vec![next(), row(15), next()]).await.unwrap();
    assert_eq!(lines(&kit, new.id).await[5..], [(6, 20), (7, 12), (8, 21), (9, 15), (10, 22)]);
    // A line that was given has to be free.
    is_invalid(kit.store.append_rows(new.id, vec![next(), row(22)]).await);
    is_invalid(kit.store.append_rows(new.id, vec![next(), row(23)]).await);
    is_invalid(kit.store.append_rows(new.id, vec![next(), row(0)]).await);
    assert_eq!(lines(&kit, new.id).await.len(), 10);
    is_invalid(kit.store.submit_batch(query(), vec![next()]).await);
    kit.store.append_rows(new.id, vec![row(u32::MAX)]).await.unwrap();
    is_invalid(kit.store.append_rows(new.id, vec![next()]).await);
}

/// Each of them appends three times, five rows each time.
pub async fn of_appends_at_the_same_moment_each_comes_in_whole_with_lines_of_its_own(kit: Kit) {
    const APPENDS: usize = 24;
    let id = kit.hold(3).await;
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(APPENDS / 3));
    let appenders: Vec<_> = (0..APPENDS / 3)
        .map(|appender| {
            let (store, barrier) = (kit.store.clone(), barrier.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                for turn in 0..3 {
                    let rows = (0..5).map(|at| NewRow::new(Line::Next, JsonText::trusted(format!("[{appender},{turn},{at}]")))).collect();
                    store.append_rows(id, rows).await.unwrap();
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.unwrap();
    }
    let rows = kit.results(id).await;
    assert_eq!(rows.iter().map(|row| (row.row_no, row.line)).collect::<Vec<_>>(), (1..=123).map(|at| (at, at)).collect::<Vec<_>>());
    // The rows of one append are contiguous and in their order, and an appender's appends are in theirs.
    let mut turns = [0; APPENDS / 3];
    for append in rows[3..].chunks(5) {
        let places: Vec<[usize; 3]> = append.iter().map(|row| serde_json::from_str(&row.input).unwrap()).collect();
        let [appender, turn, _] = places[0];
        assert_eq!(places, [0, 1, 2, 3, 4].map(|at| [appender, turn, at]));
        assert_eq!(turn, turns[appender]);
        turns[appender] += 1;
    }
}
