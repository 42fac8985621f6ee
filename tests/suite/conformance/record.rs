//! Results are recorded.

use std::time::Duration;

use rowmill::model::{BatchStatus, BatchStep, LeasedRow, Message, Piece, RowResult, RowStatus, Verdict};

use super::build::{SECOND, counts, failure, outcome, request, result, retry, success};
use super::kit::{Kit, is_invalid, is_lost};

pub async fn results_are_recorded_in_parts(kit: Kit) {
    let id = kit.submit(6).await;
    let lease = kit.claim_rows(6).await;
    let rows = kit.read(&lease).await;
    for (part, wanted, last) in [(0..1, counts(6, 1, 0, 0), false), (1..4, counts(6, 2, 2, 0), false), (4..6, counts(6, 4, 2, 0), true)] {
        let status = |row: &LeasedRow| if matches!(row.row_no, 2 | 4) { failure(row) } else { success(row) };
        let recorded = kit.record(&lease, &rows[part].iter().map(status).collect::<Vec<_>>()).await;
        assert_eq!((recorded.counts, recorded.last), (wanted, last));
        assert_eq!(kit.counts(id).await, wanted);
        assert_eq!(counts_of(&kit.statuses(id).await), wanted);
    }
}

/// The counts that the rows themselves give.
fn counts_of(statuses: &[Option<RowStatus>]) -> rowmill::model::BatchCounts {
    let count = |wanted| statuses.iter().filter(|status| **status == Some(wanted)).count() as u64;
    counts(statuses.len() as u64, count(RowStatus::Success), count(RowStatus::Failed), count(RowStatus::Aborted))
}

pub async fn an_outcome_comes_back_as_it_was_recorded(kit: Kit) {
    let id = kit.submit(3).await;
    let lease = kit.claim_rows(3).await;
    let rows = kit.read(&lease).await;
    let messages = vec![
        Message { id: u32::MAX, code: "too_small".to_owned(), field: Some("amount".to_owned()), values: vec!["1".to_owned(), String::new()] },
        Message { id: 0, code: String::new(), field: None, values: Vec::new() },
    ];
    let pieces = vec![Piece { file: "a.txt".to_owned(), text: "piece".to_owned() }];
    let verdict = Verdict::Final { status: RowStatus::Failed, output: Some("[1]".to_owned()), messages: messages.clone(), pieces };
    let full = RowResult { fuel: 1 << 40, attempt: 2, log: Some("info: one\n".to_owned()), ..result(&rows[0], verdict) };
    let verdict = Verdict::Final { status: RowStatus::Failed, output: None, messages: Vec::new(), pieces: Vec::new() };
    let bare = RowResult { fuel: 0, ..result(&rows[1], verdict) };
    kit.record(&lease, &[full, bare]).await;

    let found = kit.results(id).await;
    assert_eq!((found[0].row_no, found[0].line, found[0].status), (1, 1, Some(RowStatus::Failed)));
    assert_eq!((found[0].output.as_deref(), &found[0].messages), (Some("[1]"), &messages));
    assert_eq!((found[0].attempts, found[0].fuel, found[0].log.as_deref()), (2, 1 << 40, Some("info: one\n")));
    assert_eq!((&found[1].output, &found[1].messages, &found[1].log, found[1].fuel), (&None, &Vec::new(), &None, 0));
    assert_eq!((found[2].status, found[2].attempts, &found[2].output), (None, 0, &None));
    assert_eq!((kit.batch(id).await.fuel, found[2].input.as_str()), (1 << 40, r#"{"line":3}"#));
}

pub async fn a_lease_ends_with_its_last_row(kit: Kit) {
    kit.submit(4).await;
    let (lease, _other) = (kit.claim_rows(2).await, kit.claim_rows(2).await);
    let results: Vec<RowResult> = kit.read(&lease).await.iter().map(success).collect();
    kit.record(&lease, &results).await;
    is_lost(kit.store.read_leased_rows(lease.key).await);
    is_lost(kit.try_record(&lease, &results).await);
    is_lost(kit.try_record(&lease, &[]).await);
    kit.claim_nothing().await;
}

pub async fn a_lease_records_its_next_rows_and_no_others(kit: Kit) {
    let (before, id) = (kit.submit(3).await, kit.submit(9).await);
    let elsewhere = kit.claim_rows(3).await;
    let (_first, lease, _last) = (kit.claim_rows(3).await, kit.claim_rows(3).await, kit.claim_rows(3).await);
    let rows = kit.read(&lease).await;
    kit.record(&lease, &[success(&rows[0])]).await;
    let (view, view_before) = (kit.view(id).await, kit.view(before).await);

    // Row 4 is recorded; 5 and 6 are next; all others are somebody else's, or nobody's.
    for wrong in [&[4][..], &[6], &[6, 5], &[5, 5], &[5, 6, 6], &[4, 5, 6], &[5, 6, 7], &[7], &[3], &[1], &[9], &[10], &[0], &[5, 7], &[u32::MAX]] {
        for make in [success, failure, |row: &LeasedRow| retry(row, SECOND)] {
            let results: Vec<RowResult> = wrong.iter().map(|row_no| RowResult { row_no: *row_no, ..make(&rows[0]) }).collect();
            is_invalid(kit.try_record(&lease, &results).await);
        }
    }
    let mixed = [success(&rows[1]), retry(&rows[1], SECOND)];
    is_invalid(kit.try_record(&lease, &mixed).await);
    assert_eq!((kit.view(id).await, kit.view(before).await), (view, view_before));
    assert_eq!(kit.row_numbers(&lease).await, [5, 6]);
    kit.record_each(&lease, success).await;
    kit.record_each(&elsewhere, success).await;
}

pub async fn a_row_ends_with_success_or_failed_and_nothing_else(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let rows = kit.read(&lease).await;
    let before = kit.view(id).await;
    is_invalid(kit.try_record(&lease, &[success(&rows[0]), outcome(&rows[1], RowStatus::Aborted)]).await);
    assert_eq!(kit.view(id).await, before);
    assert!(kit.record_each(&lease, success).await.last);
}

pub async fn a_record_of_nothing_changes_nothing(kit: Kit) {
    let id = kit.submit(2).await;
    let lease = kit.claim_rows(2).await;
    let before = kit.view(id).await;
    let recorded = kit.record(&lease, &[]).await;
    assert_eq!((recorded.counts, recorded.last), (counts(2, 0, 0, 0), false));
    assert_eq!(kit.view(id).await, before);
    assert!(kit.record_each(&lease, success).await.last);
}

pub async fn only_the_last_record_of_a_batch_is_the_last(kit: Kit) {
    let id = kit.submit(5).await;
    let leases = [kit.claim_rows(2).await, kit.claim_rows(1).await, kit.claim_rows(2).await];
    for (at, last) in [(2, false), (0, false)] {
        assert_eq!(kit.record_each(&leases[at], success).await.last, last);
        assert_eq!((kit.batch(id).await.step, kit.try_claim_finish().await), (BatchStep::Rows, None));
    }
    let recorded = kit.record_each(&leases[1], failure).await;
    assert_eq!((recorded.counts, recorded.last), (counts(5, 4, 1, 0), true));
    let batch = kit.batch(id).await;
    assert_eq!((batch.status, batch.step, batch.finished_at), (BatchStatus::Inprog, BatchStep::Join, None));
}

pub async fn a_batch_is_not_over_while_rows_were_never_claimed(kit: Kit) {
    let id = kit.submit(3).await;
    let lease = kit.claim_rows(2).await;
    assert!(!kit.record_each(&lease, success).await.last);
    assert_eq!(kit.batch(id).await.step, BatchStep::Rows);
    let lease = kit.claim_rows(1).await;
    assert!(kit.record_each(&lease, success).await.last);
}

pub async fn a_record_touches_no_other_batch(kit: Kit) {
    let (first, second) = (kit.submit(2).await, kit.submit(2).await);
    let (of_first, of_second) = (kit.claim_rows(2).await, kit.claim_rows(2).await);
    let before = kit.view(first).await;
    assert!(kit.record_each(&of_second, failure).await.last);
    assert_eq!(kit.view(first).await, before);
    assert!(kit.record_each(&of_first, success).await.last);
    assert_eq!((kit.counts(first).await, kit.counts(second).await), (counts(2, 2, 0, 0), counts(2, 0, 2, 0)));
}

pub async fn fuel_of_all_records_is_summed_up(kit: Kit) {
    let id = kit.submit(4).await;
    let lease = kit.claim_rows(4).await;
    let rows = kit.read(&lease).await;
    let fuel = |row: &LeasedRow, fuel| RowResult { fuel, ..success(row) };
    kit.record(&lease, &[fuel(&rows[0], 5), fuel(&rows[1], 0)]).await;
    assert_eq!(kit.batch(id).await.fuel, 5);
    // A retry used its fuel too.
    kit.record(&lease, &[RowResult { fuel: 1_000, ..retry(&rows[2], Duration::ZERO) }, fuel(&rows[3], 1 << 50)]).await;
    assert_eq!(kit.batch(id).await.fuel, (1 << 50) + 1_005);
    let lease = kit.claim(&request()).await[0];
    kit.record_each(&lease, |row| RowResult { fuel: 7, ..success(row) }).await;
    assert_eq!((kit.batch(id).await.fuel, kit.results(id).await[2].fuel), ((1 << 50) + 1_012, 7));
}

pub async fn large_leases_are_recorded_at_once(kit: Kit) {
    let id = kit.submit(2_345).await;
    let first = kit.claim(&request()).await[0];
    kit.record_each(&first, success).await;
    let lease = kit.claim_rows(2_345 - first.rows).await;
    assert!(kit.record_each(&lease, |row| if row.row_no.is_multiple_of(10) { failure(row) } else { success(row) }).await.last);
    let found = kit.results(id).await;
    assert_eq!(counts_of(&found.iter().map(|row| row.status).collect::<Vec<_>>()), kit.counts(id).await);
    assert!(found.iter().all(|row| row.output.as_ref().is_some_and(|output| *output == format!(r#"{{"row":{}}}"#, row.row_no))));
}
