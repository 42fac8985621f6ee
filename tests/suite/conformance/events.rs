//! What happens to batches is written down in order, with all that is needed to go on reading later.

use std::time::{Duration, Instant};

use rowmill::model::{
    BatchEvent, BatchId, BatchStatus, EventKind, EventPosition, EventsOf, LeasedRow, Message, NewBatch, RowResult, RowStatus, Verdict,
};

use super::build::{batch, held, query, request, result, retry, row, rows, success};
use super::kit::{Kit, is_missing};

async fn read(kit: &Kit, of: &EventsOf, after: EventPosition, by: u32) -> Vec<BatchEvent> {
    let mut all: Vec<BatchEvent> = Vec::new();
    let mut after = after;
    loop {
        let page = kit.store.read_events(of, after, by).await.unwrap();
        assert!(page.events.len() <= by as usize);
        if page.next == after {
            assert_eq!(page.events, []);
            return all;
        }
        assert!(page.next > after);
        if let Some(last) = page.events.last() {
            assert!(last.position <= page.next);
        }
        after = page.next;
        all.extend(page.events);
    }
}

/// Those of more than one batch, once so many are there: over PostgreSQL any transaction that runs elsewhere may hold the last ones back.
async fn read_all(kit: &Kit, of: &EventsOf, wanted: usize) -> Vec<BatchEvent> {
    let began = Instant::now();
    loop {
        let all = read(kit, of, EventPosition::default(), 100).await;
        if all.len() >= wanted {
            return all;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "only {} of {wanted} events: {all:?}", all.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn events(kit: &Kit, id: BatchId) -> Vec<BatchEvent> {
    let events = read(kit, &EventsOf::Batch(id), EventPosition::default(), 100).await;
    for (at, event) in events.iter().enumerate() {
        assert_eq!((event.batch, event.seq as usize), (id, at + 1), "numbered without a gap");
    }
    assert!(events.is_sorted_by(|one, next| one.position < next.position), "and in the order of their positions");
    events
}

/// Kinds, but for progress and failed rows, which depend on the time.
fn kinds(events: &[BatchEvent]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).filter(|kind| !matches!(kind, EventKind::Progress | EventKind::RowFailed)).collect()
}

pub async fn the_events_of_a_batch_come_in_order(kit: Kit) {
    let id = kit.hold(4).await;
    kit.store.append_rows(id, vec![row(5)]).await.unwrap();
    assert_eq!(kinds(&events(&kit, id).await), [EventKind::Submitted]);
    kit.store.release_batch(id).await.unwrap();
    kit.store.release_batch(id).await.unwrap();
    kit.run_rows_with(|row| if row.row_no == 2 && row.attempt == 1 { retry(row, Duration::ZERO) } else { success(row) }).await;
    kit.finish_all().await;
    let told = events(&kit, id).await;
    assert_eq!(kinds(&told), [EventKind::Submitted, EventKind::Released, EventKind::Started, EventKind::Finished, EventKind::Summarised]);
    assert_eq!(told.iter().map(|event| event.status).collect::<Vec<_>>()[..3], [BatchStatus::Wait, BatchStatus::Queued, BatchStatus::Inprog]);
    let last = told.last().unwrap();
    assert_eq!((last.status, last.counts, last.app.as_str(), last.op.as_str()), (BatchStatus::Success, kit.counts(id).await, "bank", "post"));
    assert_eq!((told[0].counts.rows, told[1].counts.rows), (4, 5));
}

pub async fn a_slow_query_has_its_events(kit: Kit) {
    let new = query();
    kit.store.submit_batch(new.clone(), vec![row(0)]).await.unwrap();
    kit.run_rows().await;
    kit.finish_all().await;
    let told = events(&kit, new.id).await;
    assert_eq!(kinds(&told), [EventKind::Submitted, EventKind::Started, EventKind::Finished, EventKind::Summarised]);
    assert_eq!(told[0].status, BatchStatus::Queued, "it is not held: there is no release");
}

pub async fn an_abort_is_told_with_its_reason(kit: Kit) {
    let id = kit.submit(3).await;
    kit.claim_rows(1).await;
    let reason = Some("the file was\0 the wrong one".to_owned());
    kit.store.abort_batch(id, reason.clone()).await.unwrap();
    kit.store.abort_batch(id, Some("again".to_owned())).await.unwrap();
    kit.finish_all().await;
    let told = events(&kit, id).await;
    assert_eq!(kinds(&told), [EventKind::Submitted, EventKind::Started, EventKind::Aborted, EventKind::Finished, EventKind::Summarised]);
    assert_eq!((told[2].reason.clone(), told[2].counts.aborted), (reason, 3));
    assert_eq!(told[4].reason, None);
    // What mark-done returned is told, too.
    let failing = kit.submit(1).await;
    kit.run_rows().await;
    kit.store.record_files(&kit.claim_finish().await, &[]).await.unwrap();
    kit.store.record_mark_done(&kit.claim_finish().await, Some("no")).await.unwrap();
    assert_eq!(events(&kit, failing).await.last().unwrap().reason.as_deref(), Some("no"));
}

fn failing(row: &LeasedRow) -> RowResult {
    let message = Message { id: 7, code: "wrong".to_owned(), field: None, values: vec![row.line.to_string()] };
    result(row, Verdict::Final { status: RowStatus::Failed, output: None, messages: vec![message], pieces: Vec::new() })
}

pub async fn failed_rows_are_told_once_a_second_and_the_others_counted(kit: Kit) {
    let id = kit.submit_lines(&[10, 20, 30, 40, 50, 60]).await;
    let began = Instant::now();
    let lease = kit.claim_rows(6).await;
    let all = kit.read(&lease).await;
    kit.record(&lease, &[success(&all[0]), failing(&all[1]), failing(&all[2])]).await;
    kit.record(&lease, &[failing(&all[3])]).await;
    kit.record(&lease, &[success(&all[4]), success(&all[5])]).await;
    kit.finish_all().await;
    let most = 1 + began.elapsed().as_secs();
    let told = events(&kit, id).await;
    let failures: Vec<&BatchEvent> = told.iter().filter(|event| event.kind == EventKind::RowFailed).collect();
    assert!((1..=most).contains(&(failures.len() as u64)), "{failures:?}");
    let first = failures[0];
    assert_eq!((first.line, first.failures, first.counts.failed), (Some(20), Some(2), 2));
    assert_eq!((first.messages[0].code.as_str(), first.messages[0].values.as_slice()), ("wrong", ["20".to_owned()].as_slice()));
    assert_eq!(failures.iter().map(|event| event.failures.unwrap()).sum::<u64>(), failures.last().unwrap().counts.failed);
    assert_eq!(told.last().unwrap().counts.failed, 3);
    let progress = told.iter().filter(|event| event.kind == EventKind::Progress).count() as u64;
    assert!(progress < most, "{told:?}");
}

pub async fn more_failures_than_may_be_are_told_before_the_abort(kit: Kit) {
    use rowmill::model::{FailureLimit, Terms};
    let new = NewBatch { terms: Terms { failures_max: Some(FailureLimit::Rows(0)), ..Terms::default() }, ..batch() };
    kit.store.submit_batch(new.clone(), rows(3)).await.unwrap();
    let lease = kit.claim_rows(3).await;
    kit.record(&lease, &[failing(&kit.read(&lease).await[0])]).await;
    let told = events(&kit, new.id).await;
    let wanted = [EventKind::Submitted, EventKind::Started, EventKind::RowFailed, EventKind::Aborted];
    assert_eq!(told.iter().map(|event| event.kind).collect::<Vec<_>>(), wanted);
    assert!(told[3].reason.as_ref().is_some_and(|reason| reason == "1 row failed; the limit is 0"), "{told:?}");
}

pub async fn a_reader_goes_on_behind_any_position(kit: Kit) {
    let ids = [kit.submit(3).await, kit.hold(1).await, kit.submit(2).await];
    kit.run_rows().await;
    kit.finish_all().await;
    kit.abort(ids[1]).await;
    let mut wanted = 0;
    for id in ids {
        wanted += events(&kit, id).await.len();
    }
    let all = read_all(&kit, &EventsOf::All, wanted).await;
    assert!(all.len() >= 10 && all.is_sorted_by(|one, next| one.position < next.position));
    for id in ids {
        let of_it: Vec<BatchEvent> = all.iter().filter(|event| event.batch == id).cloned().collect();
        assert_eq!(of_it, events(&kit, id).await);
    }
    for by in [1, 2, 7] {
        assert_eq!(read(&kit, &EventsOf::All, EventPosition::default(), by).await, all);
    }
    for (at, event) in all.iter().enumerate() {
        assert_eq!(read(&kit, &EventsOf::All, event.position, 3).await, all[at + 1..]);
    }
    assert_eq!(kit.store.read_events(&EventsOf::All, EventPosition::default(), 0).await.unwrap().events, []);
    let kit = kit.crash_and_reopen().await;
    assert_eq!(read(&kit, &EventsOf::All, EventPosition::default(), 100).await, all);
}

pub async fn the_events_of_an_app_are_its_own(kit: Kit) {
    for app in ["a", "b' \\ ü", "a", "a"] {
        kit.store.submit_batch(NewBatch { app: app.to_owned(), ..batch() }, rows(1)).await.unwrap();
    }
    for (app, wanted) in [("a", 3), ("b' \\ ü", 1), ("c", 0)] {
        let told = read_all(&kit, &EventsOf::App(app.to_owned()), wanted).await;
        assert_eq!(told.len(), wanted, "{app:?}");
        assert_eq!(read(&kit, &EventsOf::App(app.to_owned()), EventPosition::default(), 1).await, told);
        assert!(told.iter().all(|event| event.app == app));
    }
}

pub async fn a_batch_that_is_gone_has_no_events(kit: Kit) {
    let unknown = BatchId::generate();
    is_missing(kit.store.read_events(&EventsOf::Batch(unknown), EventPosition::default(), 1).await, unknown);
    let new = held();
    kit.store.submit_batch(new.clone(), rows(1)).await.unwrap();
    kit.store.discard_batch(new.id).await.unwrap();
    is_missing(kit.store.read_events(&EventsOf::Batch(new.id), EventPosition::default(), 1).await, new.id);
    kit.store.submit_batch(new.clone(), rows(1)).await.unwrap();
    assert_eq!(events(&kit, new.id).await.len(), 1, "of the one that has its id now");
    assert_eq!(read_all(&kit, &EventsOf::All, 1).await.len(), 1);
}

pub async fn what_is_submitted_again_is_told_once(kit: Kit) {
    let new = NewBatch { request_digest: Some("request".to_owned()), ..batch() };
    for _ in 0..3 {
        kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
    }
    assert!(kit.store.submit_batch(NewBatch { request_digest: None, ..new.clone() }, rows(2)).await.is_err());
    let marker = kit.submit(1).await;
    let all = read_all(&kit, &EventsOf::All, 2).await;
    assert_eq!(all.iter().map(|event| event.batch).collect::<Vec<_>>(), [new.id, marker]);
    // A record that is refused leaves no event either.
    let lease = kit.claim(&request()).await[0];
    let before = events(&kit, lease.batch).await;
    let rows = kit.read(&lease).await;
    assert!(kit.try_record(&lease, &[failing(&rows[0]), failing(&rows[0])]).await.is_err());
    assert_eq!(events(&kit, lease.batch).await, before);
}

pub async fn events_are_pruned_by_themselves_and_with_their_batch(kit: Kit) {
    use rowmill::model::{Due, OpKey, Part};
    let (id, other) = (kit.submit(2).await, kit.hold(1).await);
    kit.run_rows().await;
    kit.finish_all().await;
    let due = Due { events: kit.batch(id).await.finished_at, ..Due::default() };
    let op = OpKey { app: "bank".to_owned(), op: "post".to_owned() };
    let pruning = kit.store.begin_prune(&op, &due, Duration::from_secs(9)).await.unwrap().unwrap();
    assert_eq!((pruning.batch, pruning.parts), (id, vec![Part::Events]));
    while kit.store.prune_rows(id, 1, Duration::from_secs(9)).await.unwrap().left {}
    assert_eq!(events(&kit, id).await, []);
    assert_eq!(kit.results(id).await.len(), 2, "and nothing else");
    assert_eq!(events(&kit, other).await.len(), 1);
    assert_eq!(kit.store.begin_prune(&op, &due, Duration::from_secs(9)).await.unwrap(), None);
    kit.store.begin_removal(id, Duration::from_secs(9)).await.unwrap();
    while kit.store.prune_rows(id, 9, Duration::from_secs(9)).await.unwrap().left {}
    assert_eq!(read_all(&kit, &EventsOf::All, 1).await.iter().map(|event| event.batch).collect::<Vec<_>>(), [other]);
}
