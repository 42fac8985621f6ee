//! What the batches of an app may hold. How it is counted is said in migrations/postgres/0040_quotas.sql.

use super::refused;
use crate::model::Quota;
use crate::store::columns::{failed, signed};
use crate::store::lines::LinedRow;
use crate::store::{OverQuota, StoreError};

/// What the operator says of inputs, rows of a batch and queued rows.
pub(super) fn quota_columns(quota: &Quota) -> Vec<i64> {
    [quota.input_bytes, quota.batch_rows, quota.queued_rows].map(signed).to_vec()
}

/// Why rows did not come in.
pub(super) fn not_admitted(doing: &'static str, app: &str, longest: Option<&LinedRow>, error: sqlx::Error) -> StoreError {
    let over = refused(&error).filter(|(code, _)| *code == "RM006").and_then(|(_, detail)| {
        let mut words = detail.split(' ');
        let (what, found, limit) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let app = app.to_owned();
        Some(match what {
            "input" => OverQuota::Input { app, line: longest.map_or(0, |row| row.line), bytes: found, limit },
            "rows" => OverQuota::BatchRows { app, rows: found, limit },
            _ => OverQuota::QueuedRows { app, rows: found, limit },
        })
    });
    over.map_or_else(|| failed(doing)(error), StoreError::OverQuota)
}
