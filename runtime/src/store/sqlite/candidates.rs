//! What is leased next: fair shares between apps, then what ended, then retries, then fresh rows by priority and age.

use std::sync::{Arc, LazyLock};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::policies::{TOKENS_NOW, rows_allowed};
use crate::model::{ProcessorKind, Timestamp};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::rules::CREDIT;

/// What there is to lease.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// A lease that ended without being recorded.
    Ended,
    /// Retries of a batch that are due.
    Retries,
    /// Rows of a batch that no lease has taken.
    Fresh,
}

/// The app whose turn it is, and its work.
pub(super) struct Candidate {
    pub work: Work,
    /// The lease that ended, or the batch.
    pub work_id: i64,
    app: String,
    op: String,
    weight: i64,
    /// The app's virtual time when this lease begins.
    start: i64,
    /// So many rows may be leased by the rates; none for any number.
    pub rows_allowed: Option<i64>,
}

/// Start-time fair queueing over virtual time (Goyal, Vin and Cheng 1996): the app comes next whose leases, by its weight, began the longest ago in virtual time.
/// Jumps from operation to operation, and from batch to batch with retries: how many batches wait does not matter.
static FIND: LazyLock<Arc<str>> = LazyLock::new(|| {
    let first = |of: &str, order: &str| {
        format!(
            "(SELECT b.batch_key FROM batches b
              WHERE b.step = 'rows' AND b.status IN ('queued', 'inprog') AND b.next_row <= b.row_count AND b.deferred = 0 {of}
              ORDER BY {order}, b.priority DESC, b.batch_key LIMIT 1)"
        )
    };
    // SQLite compares rows of values along the first column of an index only: with (kind, app, op) > (…) each jump went through all operations before it.
    let next = format!(
        "coalesce({}, {}, {})",
        first("AND b.kind = p.kind AND b.app = p.app AND b.op > p.op", "b.op"),
        first("AND b.kind = p.kind AND b.app > p.app", "b.app, b.op"),
        first("AND b.kind > p.kind", "b.kind, b.app, b.op"),
    );
    format!(
        "WITH RECURSIVE
         fresh_ops (batch_key) AS (
            SELECT {least}
            UNION ALL
            SELECT {next}
            FROM fresh_ops f JOIN batches p USING (batch_key)),
         retry_batches (batch_key) AS (
            SELECT min(batch_key) FROM retries WHERE lease_id IS NULL
            UNION ALL
            SELECT (SELECT min(r.batch_key) FROM retries r WHERE r.lease_id IS NULL AND r.batch_key > b.batch_key)
            FROM retry_batches b WHERE b.batch_key IS NOT NULL),
         work (source, work_id, app, op, kind, first, second) AS (
            SELECT 0, l.lease_id, b.app, b.op, b.kind, l.expires_at, l.lease_id FROM leases l JOIN batches b USING (batch_key) WHERE l.expires_at <= ?1
            UNION ALL
            SELECT 1, b.batch_key, b.app, b.op, b.kind,
                (SELECT min(r.due_at) FROM retries r WHERE r.batch_key = b.batch_key AND r.lease_id IS NULL), b.batch_key
            FROM retry_batches JOIN batches b USING (batch_key)
            UNION ALL
            SELECT 2, b.batch_key, b.app, b.op, b.kind, -b.priority, b.batch_key FROM fresh_ops JOIN batches b USING (batch_key)),
         allowed AS MATERIALIZED (SELECT w.*, {allowed} AS rows_allowed FROM work w)
         SELECT w.source, w.work_id, w.app, w.op, coalesce(a.weight, 1), max(coalesce(a.served_micros, 0), s.served_micros - ?3) AS start, w.rows_allowed
         FROM allowed w LEFT JOIN apps a USING (app), schedule s
         WHERE w.kind = coalesce(?2, w.kind) AND w.app NOT IN (SELECT value FROM json_each(?4)) AND (w.source <> 1 OR w.first <= ?1) AND w.rows_allowed IS NOT 0
            AND (a.running_max IS NULL OR a.running_max > (
                SELECT count(*) FROM leases l JOIN batches b USING (batch_key) WHERE b.app = w.app AND l.token <> 0 AND l.expires_at > ?1))
         ORDER BY start, w.source, w.first, w.second LIMIT 1",
        least = first("", "b.kind, b.app, b.op"),
        allowed = rows_allowed().replace("NOW", "?1"),
    )
    .into()
});

/// Source, work_id, app, op, weight, start, rows_allowed.
type CandidateRow = (i64, i64, String, String, i64, i64, Option<i64>);

pub(super) async fn find_candidate(
    db: &mut SqliteConnection,
    kind: Option<ProcessorKind>,
    apps_except: &[String],
    now: Timestamp,
) -> Result<Option<Candidate>, StoreError> {
    // Made of constants and question marks only.
    let found: Option<CandidateRow> = sqlx::query_as(AssertSqlSafe(Arc::clone(&FIND)))
        .bind(now.0)
        .bind(kind.map(ProcessorKind::as_str))
        .bind(i64::try_from(CREDIT.as_micros()).unwrap_or(i64::MAX))
        .bind(serde_json::to_string(apps_except).expect("texts are always JSON"))
        .fetch_optional(db)
        .await
        .map_err(failed("look for rows to lease"))?;
    Ok(found.map(|(source, work_id, app, op, weight, start, rows_allowed)| {
        let work = match source {
            0 => Work::Ended,
            1 => Work::Retries,
            _ => Work::Fresh,
        };
        Candidate { work, work_id, app, op, weight, start, rows_allowed }
    }))
}

impl Candidate {
    /// Moves the virtual time on, and takes the rows of a lease from the rates.
    pub(super) async fn charge(&self, db: &mut SqliteConnection, micros: i64, rows: u32, now: Timestamp) -> Result<(), StoreError> {
        let charging = failed("charge a lease to its app");
        sqlx::query("INSERT INTO apps (app, served_micros) VALUES (?1, ?2) ON CONFLICT (app) DO UPDATE SET served_micros = excluded.served_micros")
            .bind(&self.app)
            .bind(self.start.saturating_add(micros / self.weight))
            .execute(&mut *db)
            .await
            .map_err(charging)?;
        sqlx::query("UPDATE schedule SET served_micros = ?1 WHERE served_micros < ?1").bind(self.start).execute(&mut *db).await.map_err(charging)?;
        if self.rows_allowed.is_some() {
            self.spend(db, rows, now).await?;
        }
        Ok(())
    }

    async fn spend(&self, db: &mut SqliteConnection, rows: u32, now: Timestamp) -> Result<(), StoreError> {
        static SPEND: LazyLock<Arc<str>> = LazyLock::new(|| {
            format!(
                "UPDATE policies AS p SET refilled_at = ?4, tokens = {TOKENS_NOW} - ?3 * 1000000000
                 WHERE p.app = ?1 AND p.op IN ('', ?2) AND p.rate_micros IS NOT NULL"
            )
            .replace("NOW", "?4")
            .into()
        });
        // Made of constants and question marks only.
        sqlx::query(AssertSqlSafe(Arc::clone(&SPEND)))
            .bind(&self.app)
            .bind(&self.op)
            .bind(rows)
            .bind(now.0)
            .execute(db)
            .await
            .map_err(failed("take rows from a rate"))?;
        Ok(())
    }
}
