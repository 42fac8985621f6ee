//! What recorded rows used.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::model::{FuelProfile, Meter, RowResult, Timestamp, UsageRecord, canonical_op};
use crate::store::StoreError;
use crate::store::columns::{failed, signed};
use crate::store::usage::{FuelRow, HOUR_MS, UsageRow, profiles_of, usage_of};

/// Adds what results used, in the transaction that records them.
pub(super) async fn add(db: &mut SqliteConnection, key: i64, results: &[RowResult], took: Duration, now: Timestamp) -> Result<(), StoreError> {
    let adding = failed("add up usage");
    let (meter, histogram) = Meter::of(results, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    let hour = now.0.div_euclid(HOUR_MS);
    sqlx::query(
        "INSERT INTO usage (app, op, version, hour, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max)
         SELECT app, op, processor_version, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM batches WHERE batch_key = ?1
         ON CONFLICT (app, hour, op, version) DO UPDATE SET success = success + excluded.success,
            failed = failed + excluded.failed,
            fuel = fuel + excluded.fuel,
            retries = retries + excluded.retries,
            retry_fuel = retry_fuel + excluded.retry_fuel,
            micros = micros + excluded.micros,
            input_bytes = input_bytes + excluded.input_bytes,
            output_bytes = output_bytes + excluded.output_bytes,
            file_bytes = file_bytes + excluded.file_bytes,
            fuel_max = max(fuel_max, excluded.fuel_max)",
    )
    .bind(key)
    .bind(hour)
    .bind(signed(meter.success))
    .bind(signed(meter.failed))
    .bind(signed(meter.fuel))
    .bind(signed(meter.retries))
    .bind(signed(meter.retry_fuel))
    .bind(signed(meter.micros))
    .bind(signed(meter.input_bytes))
    .bind(signed(meter.output_bytes))
    .bind(signed(meter.file_bytes))
    .bind(signed(meter.fuel_max))
    .execute(&mut *db)
    .await
    .map_err(adding)?;
    if !histogram.0.is_empty() {
        let buckets: Vec<(u16, u64)> = histogram.0.into_iter().collect();
        sqlx::query(
            "INSERT INTO usage_fuel (app, op, version, bucket, rows)
             SELECT b.app, b.op, b.processor_version, u.value ->> 0, u.value ->> 1 FROM batches b, json_each(?2) u WHERE b.batch_key = ?1
             ON CONFLICT (app, op, version, bucket) DO UPDATE SET rows = rows + excluded.rows",
        )
        .bind(key)
        .bind(serde_json::to_string(&buckets).expect("numbers are always JSON"))
        .execute(&mut *db)
        .await
        .map_err(adding)?;
    }
    if !meter.codes.is_empty() {
        sqlx::query(
            "INSERT INTO usage_codes (app, op, version, hour, code, rows)
             SELECT b.app, b.op, b.processor_version, ?3, u.key, u.value FROM batches b, json_each(?2) u WHERE b.batch_key = ?1
             ON CONFLICT (app, hour, op, version, code) DO UPDATE SET rows = rows + excluded.rows",
        )
        .bind(key)
        .bind(serde_json::to_string(&meter.codes).expect("texts and numbers are always JSON"))
        .bind(hour)
        .execute(&mut *db)
        .await
        .map_err(adding)?;
    }
    Ok(())
}

pub(super) async fn read_usage(
    store: &SqliteStore,
    app: &str,
    op: Option<&str>,
    since: Timestamp,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<UsageRecord>, StoreError> {
    let first_hour = |at: Timestamp| at.0.saturating_add(HOUR_MS - 1).div_euclid(HOUR_MS);
    let rows: Vec<UsageRow> = sqlx::query_as(
        "WITH sums AS (SELECT hour, op, version, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max FROM usage
            WHERE app = ?1 AND op = coalesce(?2, op) AND hour >= ?3 AND hour < ?4 ORDER BY hour, op, version LIMIT ?5)
         SELECT hour, op, version, NULL AS code, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max FROM sums
         UNION ALL SELECT c.hour, c.op, c.version, c.code, c.rows, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM usage_codes c JOIN sums s USING (hour, op, version) WHERE c.app = ?1
         ORDER BY hour, op, version, code NULLS FIRST",
    )
    .bind(app)
    .bind(op.map(canonical_op))
    .bind(first_hour(since))
    .bind(first_hour(until))
    .bind(i64::from(limit))
    .fetch_all(&store.readers)
    .await
    .map_err(failed("read the usage of an app"))?;
    Ok(usage_of(rows))
}

pub(super) async fn read_fuel(store: &SqliteStore, app: &str) -> Result<Vec<FuelProfile>, StoreError> {
    let rows: Vec<FuelRow> = sqlx::query_as(
        "SELECT f.op, f.version, f.bucket, f.rows, coalesce((SELECT max(u.fuel_max) FROM usage u WHERE u.app = f.app AND u.op = f.op AND u.version = f.version), 0)
         FROM usage_fuel f WHERE f.app = ? ORDER BY f.op, f.version, f.bucket",
    )
    .bind(app)
    .fetch_all(&store.readers)
    .await
    .map_err(failed("read the fuel of an app"))?;
    Ok(profiles_of(rows))
}
