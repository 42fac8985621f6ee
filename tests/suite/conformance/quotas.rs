//! What the batches of an app may hold.

use std::time::Duration;

use rowmill::model::{App, AppBounds, AppQuota, BatchId, BatchStatus, LeasedRow, Limits, NewBatch, NewRow, Quota, RowResult};
use rowmill::store::{OverQuota, Store, StoreError};

use super::build::{batch, failure, held, json_of, query, row, row_with, rows, rows_with_lines, success, with_pieces};
use super::kit::Kit;

/// The app of all batches here.
const APP: &str = "bank";

async fn give(kit: &Kit, quota: AppQuota) {
    kit.store.put_app(&App { quota, ..App::named(APP) }).await.unwrap();
}

/// Submits, and says what it was over.
async fn try_submit(kit: &Kit, new: NewBatch, rows: Vec<NewRow>) -> Result<BatchId, OverQuota> {
    let id = new.id;
    match kit.store.submit_batch(new, rows).await {
        Ok(()) => Ok(id),
        Err(StoreError::OverQuota(over)) => {
            assert!(matches!(kit.store.read_batch(id).await, Err(StoreError::NotFound(_))), "something of {id} was written");
            Err(over)
        }
        Err(error) => panic!("{error:?}"),
    }
}

async fn try_append(kit: &Kit, id: BatchId, rows: Vec<NewRow>) -> Result<u64, OverQuota> {
    let before = kit.view(id).await;
    match kit.store.append_rows(id, rows).await {
        Ok(total) => Ok(total),
        Err(StoreError::OverQuota(over)) => {
            assert_eq!(kit.view(id).await, before);
            Err(over)
        }
        Err(error) => panic!("{error:?}"),
    }
}

pub async fn a_batch_has_no_more_rows_than_its_app_may_have(kit: Kit) {
    give(&kit, AppQuota { batch_rows: Some(3), ..AppQuota::default() }).await;
    let over = |rows| OverQuota::BatchRows { app: APP.to_owned(), rows, limit: 3 };
    assert_eq!(try_submit(&kit, batch(), rows(4)).await, Err(over(4)));
    assert_eq!(try_submit(&kit, held(), rows(4)).await, Err(over(4)));
    try_submit(&kit, batch(), rows(3)).await.unwrap();
    let id = try_submit(&kit, held(), rows(2)).await.unwrap();
    assert_eq!(try_append(&kit, id, rows_with_lines(&[3, 4])).await, Err(over(4)));
    assert_eq!(try_append(&kit, id, rows_with_lines(&[9])).await, Ok(3));
    assert_eq!(try_append(&kit, id, Vec::new()).await, Ok(3));
    // Others are not meant.
    try_submit(&kit, NewBatch { app: "shop".to_owned(), ..batch() }, rows(4)).await.unwrap();
}

pub async fn an_input_is_no_larger_than_its_app_may_have(kit: Kit) {
    give(&kit, AppQuota { input_bytes: Some(100), ..AppQuota::default() }).await;
    let over = |line| OverQuota::Input { app: APP.to_owned(), line, bytes: 101, limit: 100 };
    assert_eq!(try_submit(&kit, batch(), vec![row(1), row_with(7, json_of(101)), row(9)]).await, Err(over(7)));
    let id = try_submit(&kit, held(), vec![row_with(1, json_of(100))]).await.unwrap();
    assert_eq!(try_append(&kit, id, vec![row_with(2, json_of(101))]).await, Err(over(2)));
    // What is not run is kept as it came.
    let rejected = NewRow { rejected: Some("it is too long".to_owned()), ..row_with(2, json_of(101)) };
    assert_eq!(try_append(&kit, id, vec![rejected]).await, Ok(2));
    assert_eq!(try_submit(&kit, query(), vec![row_with(0, json_of(101))]).await, Err(over(0)));
}

pub async fn an_app_has_no_more_rows_without_an_outcome_than_it_may_have(kit: Kit) {
    give(&kit, AppQuota { queued_rows: Some(6), ..AppQuota::default() }).await;
    let over = |rows| OverQuota::QueuedRows { app: APP.to_owned(), rows, limit: 6 };
    assert_eq!(try_submit(&kit, batch(), rows(7)).await, Err(over(7)));
    let first = try_submit(&kit, batch(), rows(3)).await.unwrap();
    let on_hold = try_submit(&kit, held(), rows(1)).await.unwrap();
    assert_eq!(try_append(&kit, on_hold, rows_with_lines(&[2, 3, 4])).await, Err(over(7)));
    assert_eq!(try_append(&kit, on_hold, rows_with_lines(&[2])).await, Ok(2));
    try_submit(&kit, query(), vec![row(0)]).await.unwrap();
    assert_eq!(try_submit(&kit, batch(), rows(1)).await, Err(over(7)));
    assert_eq!(try_submit(&kit, query(), vec![row(0)]).await, Err(over(7)));
    try_submit(&kit, NewBatch { app: "shop".to_owned(), ..batch() }, rows(7)).await.unwrap();
    // Each outcome makes room for a row, whatever it was.
    let lease = kit.claim(&super::build::request()).await[0];
    assert_eq!(lease.batch, first);
    let leased = kit.read(&lease).await;
    kit.record(&lease, &[success(&leased[0]), failure(&leased[1])]).await;
    let second = try_submit(&kit, batch(), rows(2)).await.unwrap();
    assert_eq!(try_submit(&kit, batch(), rows(1)).await, Err(over(7)));
    // So does what is aborted or discarded, as a whole.
    kit.abort(first).await;
    kit.abort(second).await;
    kit.store.discard_batch(on_hold).await.unwrap();
    assert_eq!(try_submit(&kit, batch(), rows(6)).await, Err(over(7)));
    try_submit(&kit, batch(), rows(5)).await.unwrap();
    assert_eq!(try_submit(&kit, batch(), rows(1)).await, Err(over(7)));
    // What is given later holds at once.
    give(&kit, AppQuota { queued_rows: Some(7), ..AppQuota::default() }).await;
    try_submit(&kit, batch(), rows(1)).await.unwrap();
}

pub async fn what_was_submitted_before_brings_no_more_rows(kit: Kit) {
    give(&kit, AppQuota { queued_rows: Some(2), batch_rows: Some(2), ..AppQuota::default() }).await;
    let new = NewBatch { request_digest: Some("digest".to_owned()), ..batch() };
    try_submit(&kit, new.clone(), rows(2)).await.unwrap();
    for _ in 0..3 {
        kit.store.submit_batch(new.clone(), rows(2)).await.unwrap();
    }
    kit.run_rows().await;
    try_submit(&kit, batch(), rows(2)).await.unwrap();
}

pub async fn rows_that_come_in_at_the_same_moment_are_no_more_than_may_be(kit: Kit) {
    give(&kit, AppQuota { queued_rows: Some(7), ..AppQuota::default() }).await;
    for round in 1..=3 {
        let submissions: Vec<_> = (0..20)
            .map(|_| {
                let store = kit.store.clone();
                tokio::spawn(async move { store.submit_batch(batch(), rows(1)).await })
            })
            .collect();
        let mut taken = 0;
        for submission in submissions {
            match submission.await.unwrap() {
                Ok(()) => taken += 1,
                Err(StoreError::OverQuota(OverQuota::QueuedRows { limit: 7, .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(taken, 7, "round {round}");
        kit.run_rows().await;
    }
}

pub async fn logs_beyond_those_of_a_batch_are_dropped_and_counted(kit: Kit) {
    give(&kit, AppQuota { batch_log_bytes: Some(10), ..AppQuota::default() }).await;
    let id = kit.submit(6).await;
    let with_log = |row: &LeasedRow, log: &str| RowResult { log: Some(log.to_owned()), ..success(row) };
    let lease = kit.claim_rows(6).await;
    let leased = kit.read(&lease).await;
    // One that does not fit is dropped whole, and a smaller one may still fit.
    kit.record(&lease, &[with_log(&leased[0], "12345"), with_log(&leased[1], "123456"), with_log(&leased[2], "1234")]).await;
    kit.record(&lease, &[success(&leased[3]), with_log(&leased[4], "12"), with_log(&leased[5], "é")]).await;
    let logs: Vec<Option<String>> = kit.results(id).await.into_iter().map(|row| row.log).collect();
    assert_eq!(logs, [Some("12345".to_owned()), None, Some("1234".to_owned()), None, None, None]);
    assert_eq!(kit.store.count_dropped_logs(id).await.unwrap(), 3);
    // Another batch has its own.
    let other = kit.submit(1).await;
    kit.run_rows_with(|row| with_log(row, "1234567890")).await;
    assert_eq!((kit.results(other).await[0].log.as_deref(), kit.store.count_dropped_logs(other).await.unwrap()), (Some("1234567890"), 0));
}

pub async fn output_files_become_no_larger_than_those_of_a_batch_may(kit: Kit) {
    give(&kit, AppQuota { batch_file_bytes: Some(10), ..AppQuota::default() }).await;
    let id = kit.submit(4).await;
    let lease = kit.claim_rows(4).await;
    let leased = kit.read(&lease).await;
    kit.record(&lease, &[with_pieces(&leased[0], &[("a", "1234"), ("b", "12")])]).await;
    let before = kit.view(id).await;
    let more = [success(&leased[1]), with_pieces(&leased[2], &[("c", "12345")])];
    match kit.try_record(&lease, &more).await {
        Err(StoreError::FilesTooLarge { left: 4, limit: 10 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(kit.view(id).await, before);
    kit.record(&lease, &[success(&leased[1]), with_pieces(&leased[2], &[("c", "1234")])]).await;
    match kit.try_record(&lease, &[with_pieces(&leased[3], &[("a", "1")])]).await {
        Err(StoreError::FilesTooLarge { left: 0, limit: 10 }) => {}
        other => panic!("{other:?}"),
    }
    assert!(kit.record(&lease, &[with_pieces(&leased[3], &[("a", "")])]).await.last);
}

pub async fn a_batch_that_runs_for_too_long_is_aborted(kit: Kit) {
    give(&kit, AppQuota { batch_time: Some(Duration::from_secs(60)), ..AppQuota::default() }).await;
    let id = kit.submit(2).await;
    // It is the time from the first claim on that counts.
    kit.pass(Duration::from_secs(3_600));
    let lease = kit.claim_rows(1).await;
    kit.record_each(&lease, success).await;
    kit.pass(Duration::from_millis(59_999));
    let lease = kit.claim_rows(1).await;
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, []);
    let other = kit.store.submit_batch(NewBatch { app: "shop".to_owned(), ..batch() }, rows(1)).await;
    other.unwrap();
    kit.pass(Duration::from_millis(1));
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, [id]);
    let found = kit.batch(id).await;
    assert_eq!(found.status, BatchStatus::Aborted);
    assert_eq!(found.abort_reason.as_deref(), Some("it has run for 1m; the limit for a batch of its app is 1m"));
    super::kit::is_lost(kit.try_record(&lease, &[]).await);
    assert_eq!(kit.store.abort_overdue().await.unwrap().aborted, []);
}

/// What [`bounded`] has to hold to.
pub fn bounds() -> AppBounds {
    let quota = Quota { batch_rows: 3, batch_log_bytes: 4, batch_time: Duration::from_secs(60), ..Quota::default() };
    AppBounds { quota_max: Quota { batch_rows: 5, ..quota.clone() }, quota, limits_max: Limits { fuel: 100, ..Limits::most() }, ..AppBounds::open() }
}

/// More than the operator allows.
pub fn given_before() -> App {
    App { quota: AppQuota { batch_rows: Some(9), ..AppQuota::default() }, ..App::named(APP) }
}

/// A store with [`bounds`], in which an app was [given more before](given_before).
pub async fn bounded(store: &dyn Store) {
    let submit = async |app: &str, count: u32| {
        let new = NewBatch { app: app.to_owned(), ..batch() };
        let id = new.id;
        store.submit_batch(new, rows(count)).await.map(|()| id)
    };
    let over = |error: StoreError| match error {
        StoreError::OverQuota(OverQuota::BatchRows { rows, limit, .. }) => (rows, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(over(submit("shop", 4).await.unwrap_err()), (4, 3));
    assert_eq!(over(submit(APP, 6).await.unwrap_err()), (6, 5));
    submit(APP, 5).await.unwrap();
    let id = submit("shop", 2).await.unwrap();
    for (wrong, sentence) in [
        (given_before(), "app \"bank\" was to have batch_rows 9, but the most that an app may have is 5 (maximum.batch_rows)"),
        (
            App { quota: AppQuota { batch_time: Some(Duration::from_secs(61)), ..AppQuota::default() }, ..App::named(APP) },
            "app \"bank\" was to have batch_time 61s, but the most that an app may have is 1m (maximum.batch_time)",
        ),
        (
            App { limits: Some(Limits::default()), ..App::named(APP) },
            "app \"bank\" was to have fuel 1000000000, but the most that an app may have is 100 (maximum.fuel)",
        ),
    ] {
        assert_eq!(store.put_app(&wrong).await.unwrap_err().to_string(), sentence);
    }
    assert_eq!(store.read_app(APP).await.unwrap(), Some(given_before()));
    // What records look up.
    let request = super::build::request();
    let mut logs = Vec::new();
    while let [lease] = store.claim_leases(&request).await.unwrap()[..] {
        let leased = store.read_leased_rows(lease.key).await.unwrap();
        let results: Vec<RowResult> = leased.iter().map(|row| RowResult { log: Some("1234".to_owned()), ..success(row) }).collect();
        store.record_results(lease.key, &results, Duration::ZERO).await.unwrap();
    }
    for row in store.read_results(id, None, 9).await.unwrap() {
        logs.push(row.log);
    }
    assert_eq!((logs, store.count_dropped_logs(id).await.unwrap()), (vec![Some("1234".to_owned()), None], 1));
}
