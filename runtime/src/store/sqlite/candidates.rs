//! What is leased next: fair shares between apps, then what ended, then retries, then fresh rows by priority and age.

use sqlx::SqliteConnection;

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
    weight: i64,
    /// The app's virtual time when this lease begins.
    start: i64,
}

/// Start-time fair queueing over virtual time (Goyal, Vin and Cheng 1996): the app comes next whose leases, by its weight, began the longest ago in virtual time.
/// Jumps from app to app, and from batch to batch with retries: how many batches wait does not matter.
pub(super) async fn find_candidate(db: &mut SqliteConnection, kind: Option<ProcessorKind>, now: Timestamp) -> Result<Option<Candidate>, StoreError> {
    let found: Option<(i64, i64, String, i64, i64)> = sqlx::query_as(
        "WITH RECURSIVE
         fresh_apps (app) AS (
            SELECT min(app) FROM batches WHERE step = 'rows' AND status IN ('queued', 'inprog') AND next_row <= row_count
            UNION ALL
            SELECT (SELECT min(b.app) FROM batches b
                    WHERE b.step = 'rows' AND b.status IN ('queued', 'inprog') AND b.next_row <= b.row_count AND b.app > f.app)
            FROM fresh_apps f WHERE f.app IS NOT NULL),
         retry_batches (batch_key) AS (
            SELECT min(batch_key) FROM retries WHERE lease_id IS NULL
            UNION ALL
            SELECT (SELECT min(r.batch_key) FROM retries r WHERE r.lease_id IS NULL AND r.batch_key > b.batch_key)
            FROM retry_batches b WHERE b.batch_key IS NOT NULL),
         work (source, work_id, app, kind, first, second) AS (
            SELECT 0, l.lease_id, b.app, b.kind, l.expires_at, l.lease_id FROM leases l JOIN batches b USING (batch_key) WHERE l.expires_at <= ?1
            UNION ALL
            SELECT 1, b.batch_key, b.app, b.kind, (SELECT min(r.due_at) FROM retries r WHERE r.batch_key = b.batch_key AND r.lease_id IS NULL), b.batch_key
            FROM retry_batches JOIN batches b USING (batch_key)
            UNION ALL
            SELECT 2, b.batch_key, b.app, b.kind, -b.priority, b.batch_key FROM fresh_apps f JOIN batches b ON b.batch_key = (
                SELECT n.batch_key FROM batches n
                WHERE n.step = 'rows' AND n.status IN ('queued', 'inprog') AND n.next_row <= n.row_count AND n.app = f.app AND n.kind = coalesce(?2, n.kind)
                ORDER BY n.priority DESC, n.batch_key LIMIT 1))
         SELECT w.source, w.work_id, w.app, coalesce(a.weight, 1), max(coalesce(a.served_micros, 0), s.served_micros - ?3) AS start
         FROM work w LEFT JOIN apps a USING (app), schedule s
         WHERE w.kind = coalesce(?2, w.kind) AND (w.source <> 1 OR w.first <= ?1)
            AND (a.running_max IS NULL OR a.running_max > (
                SELECT count(*) FROM leases l JOIN batches b USING (batch_key) WHERE b.app = w.app AND l.token <> 0 AND l.expires_at > ?1))
         ORDER BY start, w.source, w.first, w.second LIMIT 1",
    )
    .bind(now.0)
    .bind(kind.map(ProcessorKind::as_str))
    .bind(i64::try_from(CREDIT.as_micros()).unwrap_or(i64::MAX))
    .fetch_optional(db)
    .await
    .map_err(failed("look for rows to lease"))?;
    Ok(found.map(|(source, work_id, app, weight, start)| {
        let work = match source {
            0 => Work::Ended,
            1 => Work::Retries,
            _ => Work::Fresh,
        };
        Candidate { work, work_id, app, weight, start }
    }))
}

impl Candidate {
    /// Moves the virtual time on.
    pub(super) async fn charge(&self, db: &mut SqliteConnection, micros: i64) -> Result<(), StoreError> {
        let charging = failed("charge a lease to its app");
        sqlx::query("INSERT INTO apps (app, served_micros) VALUES (?1, ?2) ON CONFLICT (app) DO UPDATE SET served_micros = excluded.served_micros")
            .bind(&self.app)
            .bind(self.start.saturating_add(micros / self.weight))
            .execute(&mut *db)
            .await
            .map_err(charging)?;
        sqlx::query("UPDATE schedule SET served_micros = ?1 WHERE served_micros < ?1").bind(self.start).execute(db).await.map_err(charging)?;
        Ok(())
    }
}
