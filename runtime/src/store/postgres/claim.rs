//! Leases are given. How is said in migrations/postgres/0002_functions.sql.

use uuid::Uuid;

use super::connect::PgStore;
use super::{micros, millis};
use crate::model::{ClaimRequest, Lease, LeaseKey, ProcessorKind};
use crate::store::StoreError;
use crate::store::columns::{failed, small};
use crate::store::rules::CREDIT;

pub(super) async fn claim_leases(store: &PgStore, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError> {
    let mut db = store.unit().await?;
    let claimed: Vec<(i64, i64, Uuid, i32, i32)> =
        sqlx::query_as("SELECT lease_id, token, batch_id, row_count, crashes FROM rowmill.claim_leases($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .persistent(store.named())
            .bind(&request.worker)
            .bind(i32::try_from(request.leases_max).unwrap_or(i32::MAX))
            .bind(i32::try_from(request.rows_max).unwrap_or(i32::MAX))
            .bind(i64::from(request.slots))
            .bind(micros(request.target))
            .bind(millis(request.ttl))
            .bind(request.kind.map(ProcessorKind::as_str))
            .bind(micros(CREDIT))
            .bind(store.now())
            .fetch_all(&mut *db)
            .await
            .map_err(failed("lease rows"))?;
    db.done().await?;
    let lease = |(id, token, batch, rows, crashes): (i64, i64, Uuid, i32, i32)| Lease {
        key: LeaseKey { id, token },
        batch: batch.into(),
        rows: small(rows),
        crashes: small(crashes),
    };
    Ok(claimed.into_iter().map(lease).collect())
}
