//! What recorded rows used, as the databases return it.

use crate::model::{FuelHistogram, FuelProfile, Meter, Timestamp, UsageRecord};
use crate::store::columns::{count, small};

/// Milliseconds of an hour.
pub(super) const HOUR_MS: i64 = 3_600_000;

/// Sums of an hour, or rows that ended with a code in it (in `success`).
#[derive(sqlx::FromRow)]
pub(super) struct UsageRow {
    pub hour: i64,
    pub op: String,
    pub version: i64,
    pub code: Option<String>,
    pub success: i64,
    pub failed: i64,
    pub fuel: i64,
    pub retries: i64,
    pub retry_fuel: i64,
    pub micros: i64,
    pub input_bytes: i64,
    pub output_bytes: i64,
    pub file_bytes: i64,
    pub fuel_max: i64,
}

/// Rows in the order of hour, operation and version, the sums of each before its codes.
pub(super) fn usage_of(rows: Vec<UsageRow>) -> Vec<UsageRecord> {
    let mut records: Vec<UsageRecord> = Vec::new();
    for row in rows {
        let (version, hour) = (small(row.version), Timestamp(row.hour * HOUR_MS));
        match row.code {
            Some(code) => {
                if let Some(last) = records.last_mut().filter(|last| (last.version, last.hour, &last.op) == (version, hour, &row.op)) {
                    last.meter.codes.insert(code, count(row.success));
                }
            }
            None => records.push(UsageRecord {
                op: row.op,
                version,
                hour,
                meter: Meter {
                    success: count(row.success),
                    failed: count(row.failed),
                    fuel: count(row.fuel),
                    fuel_max: count(row.fuel_max),
                    retries: count(row.retries),
                    retry_fuel: count(row.retry_fuel),
                    micros: count(row.micros),
                    input_bytes: count(row.input_bytes),
                    output_bytes: count(row.output_bytes),
                    file_bytes: count(row.file_bytes),
                    codes: Default::default(),
                },
            }),
        }
    }
    records
}

/// Rows of a bucket, with the most that a row of the version used: op, version, bucket, rows, max; by operation and version.
pub(super) type FuelRow = (String, i64, i64, i64, i64);

pub(super) fn profiles_of(rows: Vec<FuelRow>) -> Vec<FuelProfile> {
    let mut profiles: Vec<FuelProfile> = Vec::new();
    for (op, version, bucket, rows, max) in rows {
        let version = small(version);
        if profiles.last().is_none_or(|last| (&last.op, last.version) != (&op, version)) {
            profiles.push(FuelProfile { op, version, histogram: FuelHistogram::default(), max: count(max) });
        }
        if let Some(last) = profiles.last_mut() {
            last.histogram.0.insert(u16::try_from(bucket).unwrap_or(u16::MAX), count(rows));
        }
    }
    profiles
}
