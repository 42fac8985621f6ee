//! Many workers at the same moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use rowmill::model::{BatchId, BatchStatus, BatchStep, ClaimRequest, Lease, LeasedRow, RowResult};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::build::{TTL, by, counts, failure, request, retry, success};
use super::kit::{Kit, is_lost};
use super::random::Random;

/// Records all of these at the same moment. Returns how many were told that they were the last.
async fn record_together(kit: &Arc<Kit>, records: Vec<(Lease, Vec<RowResult>)>) -> usize {
    let barrier = Arc::new(Barrier::new(records.len()));
    let mut tasks = JoinSet::new();
    for (lease, results) in records {
        let (kit, barrier) = (Arc::clone(kit), Arc::clone(&barrier));
        tasks.spawn(async move {
            barrier.wait().await;
            kit.record(&lease, &results).await
        });
    }
    tasks.join_all().await.iter().filter(|recorded| recorded.last).count()
}

pub async fn two_last_records_at_the_same_moment_end_a_batch_once(kit: Kit) {
    let kit = Arc::new(kit);
    for _ in 0..100 {
        let id = kit.submit(2).await;
        let mut records = Vec::new();
        for _ in 0..2 {
            let lease = kit.claim_rows(1).await;
            records.push((lease, kit.read(&lease).await.iter().map(success).collect()));
        }
        assert_eq!(record_together(&kit, records).await, 1);
        assert_eq!((kit.counts(id).await, kit.batch(id).await.step), (counts(2, 2, 0, 0), BatchStep::Join));
        assert_eq!(kit.claim_finish().await.batch, id);
        assert_eq!(kit.try_claim_finish().await, None);
    }
}

pub async fn counts_are_right_after_many_records_at_the_same_moment(kit: Kit) {
    let kit = Arc::new(kit);
    for _ in 0..10 {
        let id = kit.submit(36).await;
        let mut records = Vec::new();
        for _ in 0..12 {
            let lease = kit.claim_rows(3).await;
            let verdict = |row: &LeasedRow| if row.row_no.is_multiple_of(3) { failure(row) } else { success(row) };
            records.push((lease, kit.read(&lease).await.iter().map(verdict).collect()));
        }
        assert_eq!(record_together(&kit, records).await, 1);
        assert_eq!(kit.counts(id).await, counts(36, 24, 12, 0));
        assert!(kit.statuses(id).await.iter().all(Option::is_some));
    }
}

/// Whoever comes second finds the lease gone, and its results nowhere.
pub async fn one_lease_recorded_twice_at_the_same_moment_counts_once(kit: Kit) {
    let kit = Arc::new(kit);
    for _ in 0..50 {
        let id = kit.submit(2).await;
        let lease = kit.claim_rows(2).await;
        let results: Arc<Vec<RowResult>> = Arc::new(kit.read(&lease).await.iter().map(success).collect());
        let barrier = Arc::new(Barrier::new(4));
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (kit, barrier, results) = (Arc::clone(&kit), Arc::clone(&barrier), Arc::clone(&results));
            tasks.spawn(async move {
                barrier.wait().await;
                kit.try_record(&lease, &results).await
            });
        }
        let (recorded, refused): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((recorded.len(), refused.len()), (1, 3));
        refused.into_iter().for_each(is_lost);
        assert_eq!(kit.counts(id).await, counts(2, 2, 0, 0));
    }
}

/// The owner comes back in the moment of the takeover: it records, or it is too late, never both.
pub async fn a_takeover_and_a_late_record_at_the_same_moment_record_once(kit: Kit) {
    let kit = Arc::new(kit);
    for _ in 0..50 {
        let id = kit.submit(1).await;
        let lease = kit.claim_rows(1).await;
        let results = [success(&kit.read(&lease).await[0])];
        kit.go_silent();
        let barrier = Arc::new(Barrier::new(2));
        let late = tokio::spawn({
            let (kit, barrier) = (Arc::clone(&kit), Arc::clone(&barrier));
            async move {
                barrier.wait().await;
                kit.try_record(&lease, &results).await
            }
        });
        barrier.wait().await;
        let new = kit.claim_rows(1).await;
        is_lost(late.await.unwrap());
        assert!(kit.record_each(&new, failure).await.last);
        assert_eq!(kit.counts(id).await, counts(1, 0, 1, 0));
    }
}

pub async fn of_many_claims_at_the_same_moment_one_finishes_each_step(kit: Kit) {
    const TASKS: usize = 8;
    let kit = Arc::new(kit);
    for _ in 0..30 {
        let id = kit.submit(1).await;
        kit.run_rows().await;
        for step in [BatchStep::Join, BatchStep::Mark] {
            let barrier = Arc::new(Barrier::new(TASKS));
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let (kit, barrier) = (Arc::clone(&kit), Arc::clone(&barrier));
                tasks.spawn(async move {
                    barrier.wait().await;
                    kit.store.claim_finish(&format!("worker {task}"), None, TTL).await.unwrap()
                });
            }
            let winners: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
            assert_eq!(winners.len(), 1);
            assert_eq!((winners[0].batch, winners[0].step, winners[0].attempt), (id, step, 1));
            match step {
                BatchStep::Join => kit.store.record_files(&winners[0], &[]).await.unwrap(),
                _ => kit.store.record_mark_done(&winners[0], None).await.unwrap(),
            }
        }
    }
}

/// What one worker did until there was nothing left to do.
#[derive(Default)]
struct Done {
    outcomes: Vec<(BatchId, u32)>,
    last: Vec<BatchId>,
    steps: Vec<(BatchId, BatchStep)>,
}

async fn work(kit: Arc<Kit>, worker: u64, barrier: Arc<Barrier>) -> Done {
    let mut random = Random::new(worker);
    let mut done = Done::default();
    let wanted = ClaimRequest { leases_max: 2, rows_max: 9, slots: 4, ..by(&format!("worker {worker}")) };
    barrier.wait().await;
    loop {
        let leases = kit.claim(&wanted).await;
        let finish = kit.try_claim_finish().await;
        if leases.is_empty() && finish.is_none() {
            return done;
        }
        for lease in leases {
            let rows = kit.read(&lease).await;
            let part = &rows[..random.index(rows.len() + 1)];
            // Retries are due at once, so that no clock has to move.
            let verdict = |row: &LeasedRow, chance| match chance {
                0 if row.attempt < 4 => retry(row, std::time::Duration::ZERO),
                1 => failure(row),
                _ => success(row),
            };
            let results: Vec<RowResult> = part.iter().map(|row| verdict(row, random.below(6))).collect();
            let recorded = kit.record(&lease, &results).await;
            let ended = results.iter().filter(|result| matches!(result.verdict, rowmill::model::Verdict::Final { .. }));
            done.outcomes.extend(ended.map(|result| (lease.batch, result.row_no)));
            done.last.extend(recorded.last.then_some(lease.batch));
            kit.store.give_back_lease(lease.key).await.unwrap();
        }
        if let Some(lease) = finish {
            match lease.step {
                BatchStep::Join => kit.store.record_files(&lease, &[]).await.unwrap(),
                _ => kit.store.record_mark_done(&lease, None).await.unwrap(),
            }
            done.steps.push((lease.batch, lease.step));
        }
    }
}

pub async fn many_workers_record_each_row_once_and_finish_each_batch_once(kit: Kit) {
    const WORKERS: usize = 6;
    let mut ids = BTreeMap::new();
    for rows in [1, 2, 30, 100, 7, 60] {
        ids.insert(kit.submit(rows).await, rows);
    }
    let (kit, barrier) = (Arc::new(kit), Arc::new(Barrier::new(WORKERS)));
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        tasks.spawn(work(Arc::clone(&kit), worker as u64, Arc::clone(&barrier)));
    }
    let mut done: Vec<Done> = tasks.join_all().await;
    // A worker may find nothing to do while another still holds the last lease; what that leaves behind is done here.
    done.push(work(Arc::clone(&kit), 99, Arc::new(Barrier::new(1))).await);
    assert_eq!(kit.claim(&request()).await, []);

    let mut outcomes: Vec<(BatchId, u32)> = done.iter().flat_map(|done| done.outcomes.clone()).collect();
    let mut last: Vec<BatchId> = done.iter().flat_map(|done| done.last.clone()).collect();
    let mut steps: Vec<String> = done.iter().flat_map(|done| &done.steps).map(|(id, step)| format!("{id} {}", step.as_str())).collect();
    outcomes.sort_unstable();
    last.sort_unstable();
    steps.sort_unstable();
    let wanted: Vec<(BatchId, u32)> = ids.iter().flat_map(|(id, rows)| (1..=*rows).map(|row_no| (*id, row_no))).collect();
    assert_eq!(outcomes, wanted);
    assert_eq!(last, ids.keys().copied().collect::<Vec<_>>());
    assert_eq!(steps, ids.keys().flat_map(|id| [format!("{id} join"), format!("{id} mark")]).collect::<Vec<_>>());
    for (id, rows) in ids {
        let batch = kit.batch(id).await;
        assert_eq!((batch.step, batch.counts.success + batch.counts.failed), (BatchStep::Done, u64::from(rows)));
        assert_eq!(batch.status, if batch.counts.failed > 0 { BatchStatus::Failed } else { BatchStatus::Success });
    }
}
