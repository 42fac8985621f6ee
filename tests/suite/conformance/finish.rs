//! Batches end.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{BatchStatus, BatchStep, OutputFile, RowResult, RowStatus};
use rowmill::store::{FILES_PER_BATCH_MAX, ResultCursor, StoreError};
use tokio::sync::Barrier;

use super::support::{Fresh, TTL, new_batch, result, rows, with_piece};

pub async fn counts_equal_outcomes_and_the_last_record_says_so(fresh: Fresh) {
    let id = fresh.submit(3).await;
    let lease = fresh.claim_one(3).await;
    for (row_no, status) in [(1, RowStatus::Success), (2, RowStatus::Failed), (3, RowStatus::Success)] {
        let recorded = fresh.store.record_results(lease.key, &[result(row_no, 1, status)], Duration::ZERO).await.unwrap();
        assert_eq!(recorded.last, row_no == 3);
        assert_eq!(recorded.counts.success + recorded.counts.failed, u64::from(row_no));
    }
    let batch = fresh.store.read_batch(id).await.unwrap();
    assert_eq!((batch.counts.success, batch.counts.failed, batch.fuel, batch.step), (2, 1, 21, BatchStep::Join));
    assert_eq!(batch.status, BatchStatus::Inprog);
}

pub async fn two_last_records_at_once_finish_a_batch_once(fresh: Fresh) {
    for _ in 0..50 {
        fresh.submit(2).await;
        let leases = fresh.claim(2, 1).await;
        let barrier = Arc::new(Barrier::new(2));
        let tasks: Vec<_> = (1..)
            .zip(leases)
            .map(|(row_no, lease)| {
                let (store, barrier) = (Arc::clone(&fresh.store), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    store.record_results(lease.key, &[result(row_no, 1, RowStatus::Success)], Duration::ZERO).await.unwrap().last
                })
            })
            .collect();
        let mut last = 0;
        for task in tasks {
            last += u32::from(task.await.unwrap());
        }
        assert_eq!(last, 1);
    }
}

pub async fn an_abort_keeps_what_was_recorded_and_refuses_the_rest(fresh: Fresh) {
    let id = fresh.submit(4).await;
    let lease = fresh.claim_one(3).await;
    fresh.store.record_results(lease.key, &[result(1, 1, RowStatus::Success)], Duration::ZERO).await.unwrap();
    let aborted = fresh.store.abort_batch(id, Some("why".to_owned())).await.unwrap();
    assert!(aborted.changed);
    assert_eq!((aborted.status, aborted.counts.success, aborted.counts.aborted), (BatchStatus::Aborted, 1, 3));
    let late = fresh.store.record_results(lease.key, &[result(2, 1, RowStatus::Success)], Duration::ZERO).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)));
    assert!(fresh.claim(5, 5).await.is_empty());
    let statuses: Vec<_> = fresh.store.read_results(id, None, 10).await.unwrap().into_iter().map(|row| row.status.unwrap()).collect();
    assert_eq!(statuses, [RowStatus::Success, RowStatus::Aborted, RowStatus::Aborted, RowStatus::Aborted]);
}

pub async fn a_final_batch_is_not_aborted(fresh: Fresh) {
    let id = fresh.submit(1).await;
    let lease = fresh.claim_one(1).await;
    fresh.record_all(&lease).await;
    let finish = fresh.store.claim_finish("w", TTL).await.unwrap().unwrap();
    fresh.store.record_files(&finish, &[]).await.unwrap();
    let aborted = fresh.store.abort_batch(id, None).await.unwrap();
    assert_eq!((aborted.changed, aborted.status), (false, BatchStatus::Success));
}

pub async fn each_step_has_one_winner_and_is_taken_over_when_it_ends(fresh: Fresh) {
    let id = fresh.submit(1).await;
    let lease = fresh.claim_one(1).await;
    fresh.store.record_results(lease.key, &[with_piece(1, "a.txt")], Duration::ZERO).await.unwrap();
    let first = fresh.store.claim_finish("w", TTL).await.unwrap().unwrap();
    assert_eq!((first.step, first.attempt), (BatchStep::Join, 1));
    assert!(fresh.store.claim_finish("x", TTL).await.unwrap().is_none());
    fresh.clock.advance(TTL);
    let second = fresh.store.claim_finish("x", TTL).await.unwrap().unwrap();
    assert_eq!(second.attempt, 2);
    assert!(matches!(fresh.store.record_files(&first, &[]).await, Err(StoreError::LeaseLost)));
    assert!(matches!(fresh.store.renew_finish(&first, TTL).await, Err(StoreError::LeaseLost)));
    let file = OutputFile { name: "a.txt".to_owned(), object: "o".to_owned(), size_bytes: 2 };
    fresh.store.record_files(&second, std::slice::from_ref(&file)).await.unwrap();
    let batch = fresh.store.read_batch(id).await.unwrap();
    assert_eq!((batch.status, batch.step, batch.files), (BatchStatus::Success, BatchStep::Mark, vec![file]));
    let mark = fresh.store.claim_finish("w", TTL).await.unwrap().unwrap();
    assert_eq!((mark.step, mark.attempt), (BatchStep::Mark, 1));
    fresh.store.record_mark_done(&mark, Some("no")).await.unwrap();
    assert!(matches!(fresh.store.record_mark_done(&mark, None).await, Err(StoreError::LeaseLost)));
    let batch = fresh.store.read_batch(id).await.unwrap();
    assert_eq!((batch.step, batch.mark_error.as_deref()), (BatchStep::Done, Some("no")));
    assert!(fresh.store.claim_finish("w", TTL).await.unwrap().is_none());
}

pub async fn results_are_in_line_order_whatever_came_first(fresh: Fresh) {
    let batch = new_batch(true);
    let id = batch.id;
    fresh.store.submit_batch(batch, rows([5, 9])).await.unwrap();
    fresh.store.append_rows(id, rows([7, 5, 1])).await.unwrap();
    fresh.store.release_batch(id).await.unwrap();
    let lease = fresh.claim_one(5).await;
    let results: Vec<RowResult> = (1..=5).map(|row_no| with_piece(row_no, "f")).collect();
    fresh.store.record_results(lease.key, &results, Duration::ZERO).await.unwrap();
    for limit in 1..=6 {
        let (mut lines, mut pieces, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = fresh.store.read_results(id, after, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(ResultCursor { line: last.line, row_no: last.row_no });
            lines.extend(page.iter().map(|row| (row.line, row.row_no)));
        }
        after = None;
        loop {
            let page = fresh.store.read_pieces(id, after, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.at);
            pieces.extend(page.into_iter().flat_map(|row| row.pieces).map(|(_, text)| text));
        }
        assert_eq!(lines, [(1, 5), (5, 1), (5, 4), (7, 3), (9, 2)]);
        assert_eq!(pieces, ["5", "1", "4", "3", "2"]);
    }
}

pub async fn a_batch_has_only_so_many_output_files(fresh: Fresh) {
    let count = u32::try_from(FILES_PER_BATCH_MAX).unwrap() + 1;
    let id = fresh.submit(count).await;
    let lease = fresh.claim_one(count).await;
    let results: Vec<RowResult> = (1..=count).map(|row_no| with_piece(row_no, &format!("f{row_no}"))).collect();
    let refused = fresh.store.record_results(lease.key, &results, Duration::ZERO).await;
    let Err(StoreError::TooManyFiles { allowed }) = refused else { panic!("{refused:?}") };
    assert_eq!(allowed.len(), FILES_PER_BATCH_MAX);
    assert!(fresh.store.list_file_names(id).await.unwrap().is_empty());
    assert_eq!(fresh.store.read_batch(id).await.unwrap().counts.success, 0);
}
