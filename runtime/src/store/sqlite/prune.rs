//! What is not kept any longer is removed, in small steps.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::{SqliteStore, find_batch};
use crate::model::{BatchId, Due, DueCounts, OpKey, Part, Pruning, Timestamp};
use crate::store::columns::{count, failed};
use crate::store::pruned::{DueRow, NOT_DONE, WHOLE, bit, due_of, pruning_of};
use crate::store::{PruneStep, StoreError};

pub(super) async fn list_done_ops(store: &SqliteStore, after: Option<&OpKey>, limit: u32) -> Result<Vec<OpKey>, StoreError> {
    let mut ops: Vec<OpKey> = Vec::new();
    while ops.len() < limit as usize {
        let after = ops.last().or(after);
        let next: Option<(String, String)> = sqlx::query_as(
            "SELECT app, op FROM batches WHERE step = 'done' AND pruning = 0 AND (?1 IS NULL OR (app, op) > (?1, ?2)) ORDER BY app, op LIMIT 1",
        )
        .bind(after.map(|key| &key.app))
        .bind(after.map(|key| &key.op))
        .fetch_optional(&store.readers)
        .await
        .map_err(failed("list operations with batches that are done"))?;
        let Some((app, op)) = next else { break };
        ops.push(OpKey { app, op });
    }
    Ok(ops)
}

pub(super) async fn count_due(store: &SqliteStore, op: &OpKey, due: &Due) -> Result<DueCounts, StoreError> {
    let counted: DueRow = sqlx::query_as(
        "WITH due AS (
            SELECT d.*, (d.whole OR d.finished_at <= ?3) AND d.parts & 1 <> 0 AS files, (d.whole OR d.finished_at <= ?4) AND d.parts & 2 <> 0 AS inputs,
                (d.whole OR d.finished_at <= ?5) AND d.parts & 4 <> 0 AS outcomes
            FROM (SELECT k.batch_key, k.row_count, k.parts, k.kept_from AS finished_at, coalesce(k.kept_from <= ?6, 0) AS whole FROM (
                SELECT b.*, CASE WHEN b.group_name IS NULL THEN b.finished_at ELSE (SELECT max(g.ended_at, b.finished_at) FROM groups g WHERE g.app = b.app AND g.name = b.group_name) END AS kept_from
                FROM batches b WHERE step = 'done' AND pruning = 0 AND app = ?1 AND op = ?2 AND finished_at <= ?7) k
                WHERE k.kept_from <= ?7 AND NOT EXISTS (SELECT 1 FROM chains c WHERE c.first_key = k.batch_key)) d)
         SELECT count(*) FILTER (WHERE whole), coalesce(sum(row_count) FILTER (WHERE whole), 0),
            count(*) FILTER (WHERE NOT whole AND files),
            count(*) FILTER (WHERE NOT whole AND inputs), coalesce(sum(row_count) FILTER (WHERE NOT whole AND inputs), 0),
            count(*) FILTER (WHERE NOT whole AND outcomes), coalesce(sum(row_count) FILTER (WHERE NOT whole AND outcomes), 0),
            coalesce(sum((SELECT count(*) FROM output_files f WHERE f.batch_key = due.batch_key AND due.files AND f.object IS NOT NULL)
                + (SELECT count(*) FROM past_files f WHERE f.batch_key = due.batch_key AND due.files)
                + (SELECT count(*) FROM batch_files f WHERE f.batch_key = due.batch_key AND due.inputs AND f.object IS NOT NULL)), 0),
            coalesce(sum((SELECT coalesce(sum(f.size_bytes), 0) FROM output_files f WHERE f.batch_key = due.batch_key AND due.files AND f.object IS NOT NULL)
                + (SELECT coalesce(sum(f.size_bytes), 0) FROM past_files f WHERE f.batch_key = due.batch_key AND due.files)
                + (SELECT coalesce(sum(f.size_bytes), 0) FROM batch_files f WHERE f.batch_key = due.batch_key AND due.inputs AND f.object IS NOT NULL)), 0)
         FROM due",
    )
    .bind(&op.app)
    .bind(&op.op)
    .bind(due.files.map(|at| at.0))
    .bind(due.inputs.map(|at| at.0))
    .bind(due.outcomes.map(|at| at.0))
    .bind(due.batches.map(|at| at.0))
    .bind(due.last().map(|at| at.0))
    .fetch_one(&store.readers)
    .await
    .map_err(failed("count what is due to be pruned"))?;
    Ok(due_of(counted))
}

pub(super) async fn begin_prune(store: &SqliteStore, op: &OpKey, due: &Due, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
    let beginning = failed("take up a batch to prune");
    let mut db = store.begin().await?;
    // The last of these is from when on the time counts for which it is kept: behind the end of its group, if it is in one.
    let mut oldest: Option<(i64, String, i64, i64)> = None;
    for parts in 0..16_i64 {
        let of = |part: Part, due: Option<Timestamp>| due.filter(|_| parts & bit(part) != 0);
        let before =
            [due.batches, of(Part::Files, due.files), of(Part::Inputs, due.inputs), of(Part::Outcomes, due.outcomes), of(Part::Events, due.events)]
                .into_iter()
                .flatten()
                .max();
        let Some(before) = before else { continue };
        let found: Option<(i64, String, i64, i64)> = sqlx::query_as(
            "SELECT b.batch_key, b.batch_id, b.parts, b.kept_from FROM (
                SELECT batch_key, batch_id, parts, finished_at, CASE WHEN b.group_name IS NULL THEN b.finished_at ELSE (SELECT max(g.ended_at, b.finished_at) FROM groups g WHERE g.app = b.app AND g.name = b.group_name) END AS kept_from
                FROM batches b WHERE step = 'done' AND pruning = 0 AND app = ?1 AND op = ?2 AND parts = ?3 AND finished_at <= ?4) b
             WHERE b.kept_from <= ?4 AND NOT EXISTS (SELECT 1 FROM chains c WHERE c.first_key = b.batch_key) ORDER BY b.finished_at LIMIT 1",
        )
        .bind(&op.app)
        .bind(&op.op)
        .bind(parts)
        .bind(before.0)
        .fetch_optional(&mut *db)
        .await
        .map_err(beginning)?;
        oldest = oldest.into_iter().chain(found).min_by_key(|(_, _, _, kept_from)| *kept_from);
    }
    let Some((key, id, parts, kept_from)) = oldest else { return Ok(None) };
    let is_due = |due: Option<Timestamp>| due.is_some_and(|due| kept_from <= due.0);
    let bits = if is_due(due.batches) {
        WHOLE | parts
    } else {
        let due = [(Part::Files, due.files), (Part::Inputs, due.inputs), (Part::Outcomes, due.outcomes), (Part::Events, due.events)];
        due.into_iter().filter(|(_, due)| is_due(*due)).map(|(part, _)| bit(part)).sum::<i64>() & parts
    };
    let id = id.parse().map_err(failed("read a batch's id"))?;
    let bits = mark_pruned(&mut db, key, bits, store.now(), ttl).await?;
    db.commit().await.map_err(failed("commit the beginning of pruning"))?;
    Ok(Some(pruning_of(id, bits)))
}

/// Lets parts of a batch count as pruned. Returns all that is being pruned of it.
async fn mark_pruned(db: &mut SqliteConnection, key: i64, bits: i64, now: Timestamp, ttl: Duration) -> Result<i64, StoreError> {
    sqlx::query_scalar(
        "UPDATE batches SET pruning = pruning | ?2, parts = parts & ~?2, pruned_rows = 0, pruning_until = ?4,
            files_pruned_at = CASE WHEN ?2 & 1 THEN coalesce(files_pruned_at, ?3) ELSE files_pruned_at END,
            inputs_pruned_at = CASE WHEN ?2 & 2 THEN coalesce(inputs_pruned_at, ?3) ELSE inputs_pruned_at END,
            outcomes_pruned_at = CASE WHEN ?2 & 4 THEN coalesce(outcomes_pruned_at, ?3) ELSE outcomes_pruned_at END
         WHERE batch_key = ?1 RETURNING pruning",
    )
    .bind(key)
    .bind(bits)
    .bind(now.0)
    .bind(now.after(ttl).0)
    .fetch_one(db)
    .await
    .map_err(failed("mark what is pruned"))
}

pub(super) async fn resume_prune(store: &SqliteStore, ttl: Duration) -> Result<Option<Pruning>, StoreError> {
    let resuming = failed("take up a batch that is being pruned");
    let now = store.now();
    let find = "SELECT batch_key FROM batches WHERE pruning <> 0 AND pruning_until <= ? ORDER BY batch_key LIMIT 1";
    // Nearly always there is none, which needs no writer.
    if sqlx::query_scalar::<_, i64>(find).bind(now.0).fetch_optional(&store.readers).await.map_err(resuming)?.is_none() {
        return Ok(None);
    }
    let found: Option<(String, i64)> = sqlx::query_as(
        "UPDATE batches SET pruning_until = ?2
         WHERE batch_key = (SELECT batch_key FROM batches WHERE pruning <> 0 AND pruning_until <= ?1 ORDER BY batch_key LIMIT 1) RETURNING batch_id, pruning",
    )
    .bind(now.0)
    .bind(now.after(ttl).0)
    .fetch_optional(&store.writer)
    .await
    .map_err(resuming)?;
    found.map(|(id, bits)| Ok(pruning_of(id.parse().map_err(failed("read a batch's id"))?, bits))).transpose()
}

pub(super) async fn begin_removal(store: &SqliteStore, id: BatchId, ttl: Duration) -> Result<Pruning, StoreError> {
    let mut db = store.begin().await?;
    let (key, status) = find_batch(&mut db, id).await?;
    let (step, parts): (String, i64) = sqlx::query_as("SELECT step, parts FROM batches WHERE batch_key = ?")
        .bind(key)
        .fetch_one(&mut *db)
        .await
        .map_err(failed("begin to remove a batch"))?;
    if step != "done" {
        return Err(StoreError::WrongStatus { id, status, wanted: NOT_DONE });
    }
    let bits = mark_pruned(&mut db, key, WHOLE | parts, store.now(), ttl).await?;
    db.commit().await.map_err(failed("commit the beginning of a removal"))?;
    Ok(pruning_of(id, bits))
}

async fn find_pruning(db: &mut SqliteConnection, id: BatchId) -> Result<Option<(i64, i64)>, StoreError> {
    sqlx::query_as("SELECT batch_key, pruning FROM batches WHERE batch_id = ? AND pruning <> 0")
        .bind(id.to_string())
        .fetch_optional(db)
        .await
        .map_err(failed("look up a batch that is being pruned"))
}

pub(super) async fn list_pruned_objects(store: &SqliteStore, id: BatchId, limit: u32) -> Result<Vec<String>, StoreError> {
    let listing = failed("list objects to prune");
    let mut db = store.readers.begin().await.map_err(listing)?;
    let Some((key, bits)) = find_pruning(&mut db, id).await? else { return Ok(Vec::new()) };
    sqlx::query_scalar(
        "SELECT object FROM output_files WHERE batch_key = ?1 AND object IS NOT NULL AND ?2 & 1
         UNION ALL
         SELECT object FROM past_files WHERE batch_key = ?1 AND ?2 & 1
         UNION ALL
         SELECT object FROM batch_files WHERE batch_key = ?1 AND object IS NOT NULL AND ?2 & 2
            AND NOT EXISTS (SELECT 1 FROM batch_files g WHERE g.object = batch_files.object AND g.batch_key <> batch_files.batch_key) LIMIT ?3",
    )
    .bind(key)
    .bind(bits)
    .bind(limit)
    .fetch_all(&mut *db)
    .await
    .map_err(listing)
}

pub(super) async fn forget_objects(store: &SqliteStore, id: BatchId, objects: &[String]) -> Result<bool, StoreError> {
    let forgetting = failed("forget objects");
    let mut db = store.begin().await?;
    let Some((key, bits)) = find_pruning(&mut db, id).await? else { return Ok(false) };
    for object in objects {
        for (of, forget) in [
            (Part::Files, "UPDATE output_files SET object = NULL WHERE batch_key = ? AND object = ?"),
            (Part::Files, "DELETE FROM past_files WHERE batch_key = ? AND object = ?"),
            (Part::Inputs, "UPDATE batch_files SET object = NULL WHERE batch_key = ? AND object = ?"),
        ] {
            if bits & bit(of) != 0 {
                sqlx::query(forget).bind(key).bind(object).execute(&mut *db).await.map_err(forgetting)?;
            }
        }
    }
    if bits & bit(Part::Inputs) != 0 {
        sqlx::query(
            "UPDATE batch_files SET object = NULL WHERE batch_key = ? AND object IS NOT NULL
                AND EXISTS (SELECT 1 FROM batch_files g WHERE g.object = batch_files.object AND g.batch_key <> batch_files.batch_key)",
        )
        .bind(key)
        .execute(&mut *db)
        .await
        .map_err(forgetting)?;
    }
    let left = has_objects(&mut db, key, bits).await?;
    db.commit().await.map_err(failed("commit forgotten objects"))?;
    Ok(left)
}

async fn has_objects(db: &mut SqliteConnection, key: i64, bits: i64) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT (?2 & 1 AND EXISTS (SELECT 1 FROM output_files WHERE batch_key = ?1 AND object IS NOT NULL))
            OR (?2 & 1 AND EXISTS (SELECT 1 FROM past_files WHERE batch_key = ?1))
            OR (?2 & 2 AND EXISTS (SELECT 1 FROM batch_files WHERE batch_key = ?1 AND object IS NOT NULL))",
    )
    .bind(key)
    .bind(bits)
    .fetch_one(db)
    .await
    .map_err(failed("look for objects to prune"))
}

pub(super) async fn prune_rows(store: &SqliteStore, id: BatchId, rows: u32, ttl: Duration) -> Result<PruneStep, StoreError> {
    let pruning = failed("prune rows");
    let mut db = store.begin().await?;
    let found: Option<(i64, i64, i64, i64, bool)> =
        sqlx::query_as("SELECT batch_key, pruning, pruned_rows, row_count, lines_ascend FROM batches WHERE batch_id = ? AND pruning <> 0")
            .bind(id.to_string())
            .fetch_optional(&mut *db)
            .await
            .map_err(pruning)?;
    let Some((key, bits, first, row_count, ascend)) = found else { return Ok(PruneStep { rows: 0, left: false }) };
    let whole = bits & WHOLE != 0;
    let in_rows = bits & (WHOLE | bit(Part::Inputs) | bit(Part::Outcomes)) != 0;
    let last = if in_rows { row_count.min(first.saturating_add(rows.into())) } else { row_count };
    let mut steps = Vec::new();
    if bits & bit(Part::Outcomes) != 0 {
        steps.push("DELETE FROM outcomes WHERE batch_key = ? AND row_no > ? AND row_no <= ?");
        steps.push("DELETE FROM past_outcomes WHERE batch_key = ? AND row_no > ? AND row_no <= ?");
    }
    if whole && !ascend {
        steps.push(
            "DELETE FROM line_order WHERE (batch_key, line) IN (SELECT batch_key, line FROM rows WHERE batch_key = ? AND row_no > ? AND row_no <= ?)",
        );
    }
    if whole {
        steps.push("DELETE FROM rows WHERE batch_key = ? AND row_no > ? AND row_no <= ?");
    } else if bits & bit(Part::Inputs) != 0 {
        steps.push("UPDATE rows SET input = '', rejected = NULL WHERE batch_key = ? AND row_no > ? AND row_no <= ? AND input <> ''");
    }
    for step in steps {
        sqlx::query(step).bind(key).bind(first).bind(last).execute(&mut *db).await.map_err(pruning)?;
    }
    let mut events_left = false;
    if bits & (WHOLE | bit(Part::Events)) != 0 {
        sqlx::query("DELETE FROM batch_events WHERE event_no IN (SELECT event_no FROM batch_events WHERE batch_key = ? ORDER BY seq LIMIT ?)")
            .bind(key)
            .bind(rows)
            .execute(&mut *db)
            .await
            .map_err(pruning)?;
        let look = "SELECT EXISTS (SELECT 1 FROM batch_events WHERE batch_key = ?)";
        events_left = sqlx::query_scalar(look).bind(key).fetch_one(&mut *db).await.map_err(pruning)?;
    }
    let left = events_left || last < row_count || has_objects(&mut db, key, bits).await?;
    if left {
        sqlx::query("UPDATE batches SET pruned_rows = ?2, pruning_until = ?3 WHERE batch_key = ?1")
            .bind(key)
            .bind(last)
            .bind(store.now().after(ttl).0)
            .execute(&mut *db)
            .await
            .map_err(pruning)?;
    } else if whole {
        for delete in [
            "DELETE FROM leases WHERE batch_key = ?",
            "DELETE FROM retries WHERE batch_key = ?",
            "DELETE FROM output_files WHERE batch_key = ?",
            "DELETE FROM batch_files WHERE batch_key = ?",
            "DELETE FROM past_rounds WHERE batch_key = ?",
            "DELETE FROM batches WHERE batch_key = ?",
        ] {
            sqlx::query(delete).bind(key).execute(&mut *db).await.map_err(pruning)?;
        }
    } else {
        sqlx::query("UPDATE batches SET pruning = 0, pruned_rows = 0, pruning_until = NULL WHERE batch_key = ?")
            .bind(key)
            .execute(&mut *db)
            .await
            .map_err(pruning)?;
    }
    db.commit().await.map_err(failed("commit pruned rows"))?;
    Ok(PruneStep { rows: if in_rows { count(last - first) } else { 0 }, left })
}
