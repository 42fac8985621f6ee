//! Leases are given. How is said in migrations/postgres/0004_claims.sql.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{FromRow, Postgres, Row};
use uuid::Uuid;

use super::apps::decoded;
use super::connect::PgStore;
use super::leases::LeasedColumns;
use super::read::BatchRow;
use super::text::encode;
use super::{micros, millis};
use crate::model::{ClaimRequest, ClaimedWork, Lease, LeaseKey, ProcessorKind};
use crate::store::StoreError;
use crate::store::columns::{AppRow, app_of, failed, small};
use crate::store::rules::CREDIT;

/// Rows of a lease that are handed out with it: a lease of more bytes takes so long that reading them by itself does not matter.
const BYTES_WITH_CLAIM: i64 = 64 << 10;

pub(super) async fn claim_leases(store: &PgStore, request: &ClaimRequest) -> Result<Vec<Lease>, StoreError> {
    let sql = "SELECT lease_id, token, batch_id, row_count AS leased, crashes FROM rowmill.claim_leases($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let claimed: Vec<LeaseRow> = claim(store, request, || bind(sqlx::query(sql), store, request)).await?;
    Ok(claimed.into_iter().map(LeaseRow::lease).collect())
}

pub(super) async fn claim_work(store: &PgStore, request: &ClaimRequest) -> Result<Vec<ClaimedWork>, StoreError> {
    // What is known of a batch whose rows run.
    let sql = "SELECT c.*, NULL AS abort_reason, NULL AS mark_error, 0 AS mark_calls, NULL::bigint AS mark_due_at, NULL::bigint AS finished_at,
            '{}'::text[] AS file_names, '{}'::text[] AS file_objects, '{}'::bigint[] AS file_sizes,
            NULL::bigint AS files_pruned_at, NULL::bigint AS inputs_pruned_at, NULL::bigint AS outcomes_pruned_at
         FROM rowmill.claim_work($1, $2, $3, $4, $5, $6, $7, $8, $9, $11, $10) c";
    let claimed: Vec<WorkRow> = claim(store, request, || bind(sqlx::query(sql), store, request).bind(BYTES_WITH_CLAIM)).await?;
    claimed.into_iter().map(WorkRow::work).collect()
}

/// Claims until there is nothing, or something was leased.
async fn claim<'q, R: for<'r> FromRow<'r, PgRow>>(
    store: &PgStore,
    request: &ClaimRequest,
    statement: impl Fn() -> Query<'q, Postgres, PgArguments>,
) -> Result<Vec<R>, StoreError> {
    let leasing = failed("lease rows");
    loop {
        let mut db = store.unit().await?;
        let rows = statement().fetch_all(&mut *db).await.map_err(leasing)?;
        db.done().await?;
        // All that this claim could take was being recorded. Others who claim come in between.
        let held_up = matches!(&rows[..], [only] if only.try_get::<Option<i64>, _>("lease_id").map_err(leasing)?.is_none());
        if !held_up {
            return rows.iter().map(R::from_row).collect::<Result<_, _>>().map_err(leasing);
        }
        tracing::trace!(worker = request.worker, "claims again: all batches are being recorded");
    }
}

fn bind<'q>(claim: Query<'q, Postgres, PgArguments>, store: &PgStore, request: &'q ClaimRequest) -> Query<'q, Postgres, PgArguments> {
    claim
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
        .bind(request.apps_except.iter().map(|app| encode(app).into_owned()).collect::<Vec<_>>())
}

#[derive(sqlx::FromRow)]
struct LeaseRow {
    lease_id: i64,
    token: i64,
    batch_id: Uuid,
    leased: i32,
    crashes: i32,
}

impl LeaseRow {
    fn lease(self) -> Lease {
        Lease {
            key: LeaseKey { id: self.lease_id, token: self.token },
            batch: self.batch_id.into(),
            rows: small(self.leased),
            crashes: small(self.crashes),
        }
    }
}

#[derive(sqlx::FromRow)]
struct WorkRow {
    #[sqlx(flatten)]
    lease: LeaseRow,
    #[sqlx(flatten)]
    batch: BatchRow,
    #[sqlx(flatten)]
    app: AppRow,
    with_rows: bool,
    #[sqlx(flatten)]
    rows: LeasedColumns,
}

impl WorkRow {
    fn work(self) -> Result<ClaimedWork, StoreError> {
        let lease = self.lease.lease();
        let whole = !self.batch.context.is_empty();
        let batch = whole.then(|| Ok::<_, StoreError>((self.batch.batch(lease.batch)?, Some(decoded(app_of(self.app)?))))).transpose()?;
        Ok(ClaimedWork { lease, batch, rows: self.with_rows.then(|| self.rows.rows()) })
    }
}
