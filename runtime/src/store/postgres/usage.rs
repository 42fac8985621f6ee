//! What recorded rows used: what was summed up, and what records appended since.

use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{FuelProfile, Timestamp, UsageRecord, canonical_op};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::usage::{FuelRow, HOUR_MS, UsageRow, profiles_of, usage_of};

pub(super) async fn read_usage(
    store: &PgStore,
    app: &str,
    op: Option<&str>,
    since: Timestamp,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<UsageRecord>, StoreError> {
    let mut db = store.unit().await?;
    // One statement, so that nothing is summed up between two.
    let rows: Vec<UsageRow> = sqlx::query_as(
        "WITH entries AS (SELECT e.* FROM rowmill.usage_entries e WHERE e.app = $1 AND ($2 IS NULL OR e.op = $2) AND e.hour >= $3 AND e.hour < $4),
         sums AS (
            SELECT hour, op, version, sum(success)::bigint AS success, sum(failed)::bigint AS failed, sum(fuel)::bigint AS fuel, sum(retries)::bigint AS retries, sum(retry_fuel)::bigint AS retry_fuel, sum(micros)::bigint AS micros, sum(input_bytes)::bigint AS input_bytes, sum(output_bytes)::bigint AS output_bytes, sum(file_bytes)::bigint AS file_bytes, max(fuel_max) AS fuel_max
            FROM (SELECT hour, op, version, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max FROM rowmill.usage
                WHERE app = $1 AND ($2 IS NULL OR op = $2) AND hour >= $3 AND hour < $4
                UNION ALL SELECT hour, op, version, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max FROM entries) u
            GROUP BY hour, op, version ORDER BY hour, op, version LIMIT $5),
         codes AS (
            SELECT c.hour, c.op, c.version, c.code, sum(c.rows)::bigint AS rows
            FROM (SELECT hour, op, version, code, rows FROM rowmill.usage_codes WHERE app = $1 AND ($2 IS NULL OR op = $2) AND hour >= $3 AND hour < $4
                UNION ALL SELECT e.hour, e.op, e.version, j.key, j.value::bigint FROM entries e CROSS JOIN LATERAL json_each_text(e.codes::json) j) c
            JOIN sums USING (hour, op, version) GROUP BY c.hour, c.op, c.version, c.code)
         SELECT hour::bigint, op, version, NULL AS code, success, failed, fuel, retries, retry_fuel, micros, input_bytes, output_bytes, file_bytes, fuel_max FROM sums
         UNION ALL SELECT hour::bigint, op, version, code, rows, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM codes
         ORDER BY hour, op, version, code NULLS FIRST",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(op.map(canonical_op).as_deref().map(encode))
    .bind(first_hour(since))
    .bind(first_hour(until))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read the usage of an app"))?;
    db.done().await?;
    Ok(usage_of(rows.into_iter().map(|row| UsageRow { op: decode(row.op), ..row }).collect()))
}

/// The first hour that begins at a moment or after it.
fn first_hour(at: Timestamp) -> i32 {
    i32::try_from(at.0.saturating_add(HOUR_MS - 1).div_euclid(HOUR_MS)).unwrap_or(i32::MAX)
}

pub(super) async fn read_fuel(store: &PgStore, app: &str) -> Result<Vec<FuelProfile>, StoreError> {
    let mut db = store.unit().await?;
    let rows: Vec<FuelRow> = sqlx::query_as(
        "WITH entries AS (SELECT e.* FROM rowmill.usage_entries e WHERE e.app = $1),
         most AS (SELECT op, version, max(fuel_max) AS most FROM (
            SELECT op, version, fuel_max FROM rowmill.usage WHERE app = $1 UNION ALL SELECT op, version, fuel_max FROM entries) m GROUP BY op, version)
         SELECT f.op, f.version, f.bucket::bigint, sum(f.rows)::bigint, coalesce(max(m.most), 0)
         FROM (SELECT op, version, bucket, rows FROM rowmill.usage_fuel WHERE app = $1
            UNION ALL SELECT e.op, e.version, u.bucket, u.rows FROM entries e CROSS JOIN LATERAL unnest(e.buckets, e.bucket_rows) u (bucket, rows)) f
         LEFT JOIN most m USING (op, version) GROUP BY f.op, f.version, f.bucket ORDER BY f.op, f.version, f.bucket",
    )
    .persistent(store.named())
    .bind(encode(app))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read the fuel of an app"))?;
    db.done().await?;
    Ok(profiles_of(rows.into_iter().map(|(op, version, bucket, rows, max)| (decode(op), version, bucket, rows, max)).collect()))
}

pub(super) async fn fold_usage(store: &PgStore) -> Result<(), StoreError> {
    let mut db = store.unit().await?;
    sqlx::query("SELECT rowmill.fold_usage()").persistent(store.named()).execute(&mut *db).await.map_err(failed("sum up usage"))?;
    db.done().await
}
