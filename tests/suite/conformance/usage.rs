//! What rows used, by hour, operation and version.

use std::collections::BTreeMap;
use std::time::Duration;

use rowmill::model::{BatchId, LeasedRow, Message, Meter, NewBatch, RowResult, RowStatus, Timestamp, UsageRecord, Verdict};

use super::build::{batch, request, result, retry, rows, success, with_pieces};
use super::kit::{Kit, START, is_lost};

const HOUR: Duration = Duration::from_secs(3_600);

async fn usage(kit: &Kit, op: Option<&str>) -> Vec<UsageRecord> {
    kit.store.read_usage("bank", op, Timestamp(0), Timestamp(i64::MAX / 2), 1_000).await.unwrap()
}

async fn sum(kit: &Kit) -> Meter {
    let mut sum = Meter::default();
    usage(kit, None).await.iter().for_each(|record| sum.add(&record.meter));
    sum
}

fn failed_with(row: &LeasedRow, code: &str, fuel: u64) -> RowResult {
    let messages = vec![Message { id: 0, code: code.to_owned(), field: None, values: vec!["1".to_owned(), "2".to_owned()] }];
    RowResult { fuel, ..result(row, Verdict::Final { status: RowStatus::Failed, output: None, messages, pieces: Vec::new() }) }
}

/// What is in the outcomes of batches.
async fn outcomes(kit: &Kit, batches: &[BatchId]) -> Meter {
    let mut sum = Meter::default();
    for id in batches {
        for row in kit.results(*id).await {
            match row.status {
                Some(RowStatus::Success) => sum.success += 1,
                Some(RowStatus::Failed) => sum.failed += 1,
                _ => continue,
            }
            sum.fuel += row.fuel;
            sum.input_bytes += row.input.len() as u64;
            sum.output_bytes += row.output.map_or(0, |output| output.len() as u64);
        }
        for row in kit.pieces_by(*id, 100).await {
            sum.file_bytes += row.pieces.iter().map(|(_, text)| text.len() as u64).sum::<u64>();
        }
    }
    sum
}

/// Attempts that were not recorded are nowhere; those that asked for another are counted apart.
pub async fn usage_is_the_sum_of_the_outcomes_also_after_retries_and_takeovers(kit: Kit) {
    let first = kit.submit(6).await;
    let lost = kit.claim_rows(4).await;
    let leased = kit.read(&lost).await;
    kit.record(&lost, &[RowResult { fuel: 1_000, ..success(&leased[0]) }, RowResult { fuel: 7, ..retry(&leased[1], Duration::ZERO) }]).await;
    // It goes silent with two rows that it has run, and records them too late.
    kit.go_silent();
    is_lost(kit.try_record(&lost, &[RowResult { fuel: 1 << 40, ..success(&leased[2]) }]).await);
    assert_eq!((sum(&kit).await.fuel, sum(&kit).await.retry_fuel), (1_000, 7));
    kit.store.fold_usage().await.unwrap();
    let second = kit.submit(3).await;
    while let [lease] = kit.claim(&request()).await[..] {
        kit.record_each(&lease, |row| match row.row_no {
            1 => RowResult { fuel: 90, ..with_pieces(row, &[("a", "piece"), ("b", "é")]) },
            2 => failed_with(row, "out_of_fuel", 5_000),
            3 => failed_with(row, "trap", 9_000),
            4 => failed_with(row, "the processor's own", 12),
            _ => success(row),
        })
        .await;
    }
    let aborted = kit.submit(2).await;
    kit.abort(aborted).await;
    let wanted = outcomes(&kit, &[first, second, aborted]).await;
    assert_eq!((wanted.success, wanted.failed), (4, 5));
    for _ in 0..2 {
        let found = sum(&kit).await;
        assert_eq!(found.codes, BTreeMap::from([("out_of_fuel".to_owned(), 2), ("trap".to_owned(), 2)]));
        assert_eq!((found.retries, found.retry_fuel), (1, 7));
        // Each result takes a microsecond.
        assert_eq!(found.micros, 10);
        // Rows that were stopped do not say how much they need.
        assert_eq!(found.fuel_max, 1_000);
        let batches = kit.batch(first).await.fuel + kit.batch(second).await.fuel;
        assert_eq!(found.fuel + found.retry_fuel, batches);
        let sums = Meter { codes: BTreeMap::new(), retries: 0, retry_fuel: 0, micros: 0, fuel_max: 0, ..found };
        assert_eq!(sums, wanted);
        let [profile] = &kit.store.read_fuel("bank").await.unwrap()[..] else { panic!() };
        assert_eq!((profile.histogram.rows(), profile.max, profile.percentile(50), profile.percentile(100)), (5, 1_000, Some(12), Some(1_000)));
        // Nothing changes when what was appended is summed up.
        kit.store.fold_usage().await.unwrap();
    }
}

pub async fn usage_is_told_apart_by_hour_operation_and_version(kit: Kit) {
    let submit = async |op: &str, version: u32, count: u32| {
        let new = NewBatch { op: op.to_owned(), processor_version: version, ..batch() };
        kit.store.submit_batch(new, rows(count)).await.unwrap();
        kit.run_rows_with(|row| RowResult { fuel: u64::from(version) * 10, ..success(row) }).await;
    };
    let other = NewBatch { app: "shop".to_owned(), ..batch() };
    kit.store.submit_batch(other, rows(9)).await.unwrap();
    submit("post", 1, 1).await;
    submit("Post", 2, 2).await;
    submit("pay", 1, 3).await;
    kit.store.fold_usage().await.unwrap();
    kit.pass(HOUR);
    submit("post", 2, 4).await;
    submit("post", 2, 5).await;
    let (hour, next) = (START.0 / 3_600_000 * 3_600_000, START.0 / 3_600_000 * 3_600_000 + 3_600_000);
    let found = |records: Vec<UsageRecord>| records.into_iter().map(|r| (r.hour.0, r.op, r.version, r.meter.success)).collect::<Vec<_>>();
    let [pay, one, two, later] = [(hour, "pay", 1, 3), (hour, "post", 1, 1), (hour, "post", 2, 2), (next, "post", 2, 9)]
        .map(|(at, op, version, rows)| (at, op.to_owned(), version, rows));
    assert_eq!(found(usage(&kit, None).await), [pay.clone(), one.clone(), two.clone(), later.clone()]);
    assert_eq!(found(usage(&kit, Some("POST")).await), [one, two.clone(), later.clone()]);
    let between = |since, until, limit| kit.store.read_usage("bank", Some("post"), Timestamp(since), Timestamp(until), limit);
    assert_eq!(found(between(next, next + 1, 9).await.unwrap()), [later]);
    assert_eq!(found(between(hour, next, 9).await.unwrap()).len(), 2);
    assert_eq!(found(between(0, next, 1).await.unwrap()).len(), 1);
    assert_eq!(found(between(hour + 1, next, 9).await.unwrap()), []);
    let profiles = kit.store.read_fuel("bank").await.unwrap();
    let profiles: Vec<_> = profiles.iter().map(|profile| (profile.op.as_str(), profile.version, profile.histogram.rows(), profile.max)).collect();
    assert_eq!(profiles, [("pay", 1, 3, 10), ("post", 1, 1, 10), ("post", 2, 11, 20)]);
    assert_eq!(kit.store.read_fuel("nobody").await.unwrap(), []);
}
