//! Failed rows, of whatever batch.

use std::time::Duration;

use rowmill::model::{
    BatchId, Due, FailedPage, FailedPosition, FailedRow, FailedRows, LeasedRow, Message, NewBatch, OpKey, RetryRows, RowResult, RowStatus, Timestamp,
    Verdict,
};

use super::build::{MIB, batch, held, json_of, query, request, result, row_with, rows, rows_with_lines, success};
use super::kit::Kit;

const HOUR: Duration = Duration::from_secs(3_600);

fn bank() -> FailedRows {
    FailedRows::of("bank")
}

fn with_code(codes: &[&str]) -> FailedRows {
    FailedRows { codes: codes.iter().map(|code| (*code).to_owned()).collect(), ..bank() }
}

fn failure(row: &LeasedRow, code: &str) -> RowResult {
    let message = Message { id: 7, code: code.to_owned(), field: None, values: vec![format!("row {}", row.row_no)] };
    result(row, Verdict::Final { status: RowStatus::Failed, output: Some("null".to_owned()), messages: vec![message], pieces: Vec::new() })
}

/// All of them, read in pages of so many.
async fn all(kit: &Kit, of: &FailedRows, limit: u32) -> Vec<FailedRow> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let FailedPage { rows, next } = kit.store.list_failed(of, after, limit).await.unwrap();
        assert!(rows.len() <= limit as usize);
        found.extend(rows);
        match next {
            None => return found,
            next => after = next,
        }
    }
}

fn places(found: &[FailedRow]) -> Vec<(BatchId, u32)> {
    found.iter().map(|failed| (failed.batch, failed.row.line)).collect()
}

/// Three rows, of which these fail with a code of their own.
async fn submit(kit: &Kit, new: NewBatch, failing: &[(u32, &str)]) -> BatchId {
    kit.store.submit_batch(new.clone(), rows_with_lines(&[10, 5, 20])).await.unwrap();
    run(kit, failing).await;
    new.id
}

async fn run(kit: &Kit, failing: &[(u32, &str)]) {
    let code = |row: &LeasedRow| failing.iter().find(|(row_no, _)| *row_no == row.row_no).map(|(_, code)| *code);
    kit.run_rows_with(|row| code(row).map_or_else(|| success(row), |code| failure(row, code))).await;
}

pub async fn failed_rows_are_listed_from_the_newest_batch_on(kit: Kit) {
    let first = submit(&kit, batch(), &[(1, "trap"), (2, "memory")]).await;
    submit(&kit, batch(), &[]).await;
    submit(&kit, NewBatch { app: "shop".to_owned(), ..batch() }, &[(1, "trap")]).await;
    let last = submit(&kit, batch(), &[(2, "a \"b\""), (3, "trap")]).await;
    let asked = query();
    kit.store.submit_batch(asked.clone(), rows_with_lines(&[0])).await.unwrap();
    run(&kit, &[(1, "trap")]).await;
    let wanted = [(asked.id, 0), (last, 5), (last, 20), (first, 10), (first, 5)];
    for limit in [1, 2, 3, 5, 100] {
        assert_eq!(places(&all(&kit, &bank(), limit).await), wanted, "in pages of {limit}");
    }
    let found = &all(&kit, &bank(), 10).await[3];
    assert_eq!((found.op.as_str(), found.round, found.row.row_no, found.position.row_no), ("post", 1, 1, 1));
    assert_eq!(found.row, kit.results(first).await.into_iter().find(|row| row.line == 10).unwrap());
    assert_eq!(all(&kit, &FailedRows::of("nobody"), 10).await, []);
    // What came in since does not move the place.
    let page = kit.store.list_failed(&bank(), None, 2).await.unwrap();
    submit(&kit, batch(), &[(1, "trap")]).await;
    assert_eq!(places(&kit.store.list_failed(&bank(), page.next, 2).await.unwrap().rows), wanted[2..4]);
    assert_eq!(page.next, page.next.map(|next| next.to_string().parse::<FailedPosition>().unwrap()));
}

pub async fn failed_rows_are_listed_by_code_operation_and_time(kit: Kit) {
    let first = submit(&kit, batch(), &[(1, "trap"), (2, "memory"), (3, "a \"b\"")]).await;
    let other = submit(&kit, NewBatch { op: "check".to_owned(), ..batch() }, &[(1, "trap"), (3, "trapped")]).await;
    for (codes, wanted) in [
        (["trap"].as_slice(), [(other, 10), (first, 10)].as_slice()),
        (&["trapped", "memory"], &[(other, 20), (first, 5)]),
        (&["a \"b\""], &[(first, 20)]),
        (&["row 1"], &[]),
        (&["tra"], &[]),
    ] {
        assert_eq!(places(&all(&kit, &with_code(codes), 1).await), wanted, "{codes:?}");
    }
    let of_op = FailedRows { op: Some("Check".to_owned()), ..with_code(&["trap"]) };
    assert_eq!(places(&all(&kit, &of_op, 10).await), [(other, 10)]);
    // By the clock of the database or the machine, which nobody moves.
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for (since, wanted) in [(now - 3_600_000, 5), (now + 3_600_000, 0)] {
        assert_eq!(all(&kit, &FailedRows { since: Some(Timestamp(since)), ..bank() }, 10).await.len(), wanted);
    }
}

pub async fn failed_rows_are_those_of_the_round_that_a_batch_is_in(kit: Kit) {
    let id = submit(&kit, batch(), &[(1, "trap"), (2, "memory")]).await;
    kit.finish_all().await;
    kit.store.retry_batch(id, &RetryRows { codes: vec!["trap".to_owned()], ..RetryRows::default() }).await.unwrap();
    assert_eq!(places(&all(&kit, &bank(), 10).await), [(id, 5)], "the other is run again");
    run(&kit, &[(1, "deadline")]).await;
    let found = all(&kit, &bank(), 10).await;
    assert_eq!((places(&found), found[0].round), (vec![(id, 10), (id, 5)], 2));
    kit.finish_all().await;
    kit.store.retry_batch(id, &RetryRows::default()).await.unwrap();
    run(&kit, &[]).await;
    assert_eq!(all(&kit, &bank(), 10).await, []);
    // Those of a batch that runs, and of one that was aborted, are there.
    let runs = held();
    kit.store.submit_batch(runs.clone(), rows(2)).await.unwrap();
    kit.store.release_batch(runs.id).await.unwrap();
    let lease = kit.claim_rows(2).await;
    let first = kit.read(&lease).await.remove(0);
    kit.record(&lease, &[failure(&first, "trap")]).await;
    assert_eq!(places(&all(&kit, &bank(), 10).await), [(runs.id, 1)]);
    kit.abort(runs.id).await;
    assert_eq!(places(&all(&kit, &bank(), 10).await), [(runs.id, 1)]);
}

pub async fn failed_rows_are_listed_as_far_as_they_are_kept(kit: Kit) {
    let id = submit(&kit, batch(), &[(1, "trap"), (2, "memory")]).await;
    kit.finish_all().await;
    let page = kit.store.list_failed(&bank(), None, 1).await.unwrap();
    let op = OpKey { app: "bank".to_owned(), op: "post".to_owned() };
    let now = Some(rowmill::model::Clock::now(&*kit.clock));
    for (due, inputs) in
        [(Due { inputs: now, ..Due::default() }, [String::new(), String::new()].to_vec()), (Due { outcomes: now, ..Due::default() }, Vec::new())]
    {
        assert_eq!(kit.store.begin_prune(&op, &due, HOUR).await.unwrap().unwrap().batch, id);
        let found = all(&kit, &bank(), 10).await;
        assert_eq!(found.into_iter().map(|failed| failed.row.input).collect::<Vec<_>>(), inputs);
        while kit.store.prune_rows(id, 10, HOUR).await.unwrap().left {}
        assert_eq!(all(&kit, &bank(), 10).await.len(), inputs.len());
    }
    assert_eq!(kit.store.list_failed(&bank(), page.next, 10).await.unwrap(), FailedPage { rows: Vec::new(), next: None }, "a place stays good");
}

pub async fn a_page_of_failed_rows_is_bounded_in_bytes_and_in_work(kit: Kit) {
    let large = batch();
    let inputs = (1..=6).map(|line| row_with(line, json_of(MIB))).collect();
    kit.store.submit_batch(large.clone(), inputs).await.unwrap();
    while let [lease] = kit.claim(&rowmill::model::ClaimRequest { rows_max: 2, ..request() }).await[..] {
        kit.record_each(&lease, |row| failure(row, "large")).await;
    }
    let page = kit.store.list_failed(&bank(), None, 100).await.unwrap();
    assert_eq!((page.rows.len(), page.next.is_some()), (4, true));
    assert_eq!(all(&kit, &bank(), 100).await.len(), 6);
    // Of many that are not wanted some are looked at, and the page says where to go on.
    const MANY: u32 = 10_050;
    let many = batch();
    kit.store.submit_batch(many.clone(), rows(MANY)).await.unwrap();
    let request = rowmill::model::ClaimRequest { rows_max: MANY, ..request() };
    while let [lease] = kit.claim(&request).await[..] {
        kit.record_each(&lease, |row| failure(row, if row.row_no == MANY { "rare" } else { "common" })).await;
    }
    let page = kit.store.list_failed(&with_code(&["rare"]), None, 1).await.unwrap();
    assert!(page.rows.is_empty() && page.next.is_some_and(|next| next.row_no > 5_000), "{page:?}");
    assert_eq!(places(&all(&kit, &with_code(&["rare"]), 1).await), [(many.id, MANY)]);
}
