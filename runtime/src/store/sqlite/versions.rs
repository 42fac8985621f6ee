//! Versions of processors: which there are, and which one serves.

use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::model::{FoundOp, NewVersion, ProcessorKind, ProcessorVersion, RegisteredVersion, canonical_op};
use crate::store::columns::{OpRow, ProcessorRow, failed, op_of, processor_of};
use crate::store::versions::{ACTIVATIONS_MAX, Activation, RegisteredRow, check_quota, check_version, kind_to_roll_back};
use crate::store::{StoreError, VersionError};

pub(super) async fn put_processor(store: &SqliteStore, new: &NewVersion) -> Result<ProcessorVersion, StoreError> {
    check_version(new)?;
    let registering = failed("register a processor");
    let op = canonical_op(&new.op);
    let mut db = store.begin().await?;
    let removal: Option<i64> = sqlx::query_scalar("SELECT until_at FROM code_removals WHERE digest = ?")
        .bind(&new.digest)
        .fetch_optional(&mut *db)
        .await
        .map_err(registering)?;
    match removal {
        Some(until_at) if until_at > store.now().0 => return Err(VersionError::CodeBeingRemoved.into()),
        Some(_) => super::removals::forget_in(&mut db, &new.digest).await?,
        None => {}
    }
    let version = match find_same(&mut db, new, &op).await? {
        Some(same) => same,
        None => {
            let (versions, bytes): (i64, i64) =
                sqlx::query_as("SELECT count(*), coalesce(sum(size_bytes), 0) FROM processors WHERE app = ? AND removed_at IS NULL")
                    .bind(&new.app)
                    .fetch_one(&mut *db)
                    .await
                    .map_err(registering)?;
            check_quota(new, versions, bytes)?;
            let row: ProcessorRow = sqlx::query_as(
                "INSERT INTO processors (app, op, version, kind, digest, created_at, size_bytes, note)
                 SELECT ?1, ?2, 1 + coalesce(max(version), 0), ?3, ?4, ?5, ?6, ?7 FROM processors WHERE app = ?1 AND op = ?2
                 RETURNING app, op, version, kind, digest, created_at",
            )
            .bind(&new.app)
            .bind(&op)
            .bind(new.kind.as_str())
            .bind(&new.digest)
            .bind(store.now().0)
            .bind(i64::try_from(new.size_bytes).unwrap_or(i64::MAX))
            .bind(&new.note)
            .fetch_one(&mut *db)
            .await
            .map_err(registering)?;
            processor_of(row)
        }
    };
    if new.activate {
        activate_in(&mut db, store, &version).await?;
    }
    db.commit().await.map_err(failed("commit a version"))?;
    Ok(version)
}

/// The newest version of its kind, if it has the same code. A note that is given becomes that of the version.
async fn find_same(db: &mut SqliteConnection, new: &NewVersion, op: &str) -> Result<Option<ProcessorVersion>, StoreError> {
    let registering = failed("register a processor");
    let newest: Option<ProcessorRow> = sqlx::query_as(
        "SELECT app, op, version, kind, digest, created_at FROM processors WHERE app = ? AND op = ? AND kind = ? AND removed_at IS NULL
         ORDER BY version DESC LIMIT 1",
    )
    .bind(&new.app)
    .bind(op)
    .bind(new.kind.as_str())
    .fetch_optional(&mut *db)
    .await
    .map_err(registering)?;
    let Some(same) = newest.map(processor_of).filter(|newest| newest.digest == new.digest) else { return Ok(None) };
    if let Some(note) = &new.note {
        sqlx::query("UPDATE processors SET note = ? WHERE app = ? AND op = ? AND version = ?")
            .bind(note)
            .bind(&same.app)
            .bind(&same.op)
            .bind(same.version)
            .execute(db)
            .await
            .map_err(registering)?;
    }
    Ok(Some(same))
}

pub(super) async fn activate_processor(store: &SqliteStore, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
    let mut db = store.begin().await?;
    let found = find_version(&mut db, app, op, version).await?;
    activate_in(&mut db, store, &found).await?;
    db.commit().await.map_err(failed("commit a version"))?;
    Ok(found)
}

/// A version that was not removed.
async fn find_version(db: &mut SqliteConnection, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
    let found: Option<ProcessorRow> = sqlx::query_as(
        "SELECT app, op, version, kind, digest, created_at FROM processors WHERE app = ? AND op = ? AND version = ? AND removed_at IS NULL",
    )
    .bind(app)
    .bind(canonical_op(op))
    .bind(version)
    .fetch_optional(db)
    .await
    .map_err(failed("look up a version"))?;
    found.map(processor_of).ok_or_else(|| VersionError::Missing { app: app.to_owned(), op: canonical_op(op), version }.into())
}

/// The activation of a kind that holds.
async fn active(db: &mut SqliteConnection, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<Activation>, StoreError> {
    sqlx::query_as(
        "SELECT activation_no, version FROM activations WHERE app = ? AND op = ? AND kind = ? AND undone_at IS NULL ORDER BY activation_no DESC LIMIT 1",
    )
    .bind(app)
    .bind(op)
    .bind(kind.as_str())
    .fetch_optional(db)
    .await
    .map_err(failed("look up the active version"))
}

/// Returns true if the version is the active one of its kind.
pub(super) async fn is_active(db: &mut SqliteConnection, app: &str, op: &str, version: u32) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM processors p WHERE p.app = ? AND p.op = ? AND p.version = ? AND p.version = (SELECT a.version FROM activations a
            WHERE a.app = p.app AND a.op = p.op AND a.kind = p.kind AND a.undone_at IS NULL ORDER BY a.activation_no DESC LIMIT 1))",
    )
    .bind(app)
    .bind(op)
    .bind(version)
    .fetch_one(db)
    .await
    .map_err(failed("look up the active version"))
}

async fn activate_in(db: &mut SqliteConnection, store: &SqliteStore, version: &ProcessorVersion) -> Result<(), StoreError> {
    let ProcessorVersion { app, op, version: number, kind, .. } = version;
    if is_active(db, app, op, *number).await? {
        return Ok(());
    }
    let activating = failed("activate a version");
    sqlx::query(
        "INSERT INTO activations (app, op, kind, activation_no, version, activated_at)
         SELECT ?1, ?2, ?3, 1 + coalesce(max(activation_no), 0), ?4, ?5 FROM activations WHERE app = ?1 AND op = ?2 AND kind = ?3",
    )
    .bind(app)
    .bind(op)
    .bind(kind.as_str())
    .bind(number)
    .bind(store.now().0)
    .execute(&mut *db)
    .await
    .map_err(activating)?;
    sqlx::query(
        "DELETE FROM activations WHERE app = ?1 AND op = ?2 AND kind = ?3
         AND activation_no <= (SELECT max(activation_no) FROM activations WHERE app = ?1 AND op = ?2 AND kind = ?3) - ?4",
    )
    .bind(app)
    .bind(op)
    .bind(kind.as_str())
    .bind(ACTIVATIONS_MAX)
    .execute(db)
    .await
    .map_err(activating)?;
    Ok(())
}

pub(super) async fn deactivate_processor(store: &SqliteStore, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
    let mut db = store.begin().await?;
    let found = find_version(&mut db, app, op, version).await?;
    if !is_active(&mut db, app, &found.op, version).await? {
        return Err(VersionError::NotActive { version }.into());
    }
    check_schedules(&mut db, &found).await?;
    undo_after(&mut db, store, &found, 0).await?;
    db.commit().await.map_err(failed("commit a version"))?;
    Ok(found)
}

/// Marks the activations of a kind that follow one of them as undone.
async fn undo_after(db: &mut SqliteConnection, store: &SqliteStore, version: &ProcessorVersion, activation: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE activations SET undone_at = ? WHERE app = ? AND op = ? AND kind = ? AND activation_no > ? AND undone_at IS NULL")
        .bind(store.now().0)
        .bind(&version.app)
        .bind(&version.op)
        .bind(version.kind.as_str())
        .bind(activation)
        .execute(db)
        .await
        .map_err(failed("undo activations"))?;
    Ok(())
}

/// Refuses if a schedule submits to the kind of a version: its ticks would fail without one that serves.
async fn check_schedules(db: &mut SqliteConnection, version: &ProcessorVersion) -> Result<(), StoreError> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT name FROM schedules WHERE app = ? AND op = ? AND kind = ? AND NOT paused ORDER BY name LIMIT 1")
            .bind(&version.app)
            .bind(&version.op)
            .bind(version.kind.as_str())
            .fetch_optional(db)
            .await
            .map_err(failed("look up schedules"))?;
    match found {
        None => Ok(()),
        Some(schedule) => Err(VersionError::Scheduled { op: version.op.clone(), schedule, kind: version.kind }.into()),
    }
}

pub(super) async fn rollback_processor(
    store: &SqliteStore,
    app: &str,
    op: &str,
    kind: Option<ProcessorKind>,
) -> Result<ProcessorVersion, StoreError> {
    let op = canonical_op(op);
    let mut db = store.begin().await?;
    let batch = active(&mut db, app, &op, ProcessorKind::Batch).await?;
    let query = active(&mut db, app, &op, ProcessorKind::SlowQuery).await?;
    let (kind, (at, version)) = kind_to_roll_back((app, &op), kind, batch, query)?;
    let before: Option<(i64, u32)> = sqlx::query_as(
        "SELECT a.activation_no, a.version FROM activations a
         JOIN processors p ON p.app = a.app AND p.op = a.op AND p.version = a.version AND p.removed_at IS NULL
         WHERE a.app = ? AND a.op = ? AND a.kind = ? AND a.undone_at IS NULL AND a.activation_no < ? AND a.version <> ? ORDER BY a.activation_no DESC LIMIT 1",
    )
    .bind(app)
    .bind(&op)
    .bind(kind.as_str())
    .bind(at)
    .bind(version)
    .fetch_optional(&mut *db)
    .await
    .map_err(failed("roll back to a version"))?;
    let (back_to, version) = before.ok_or_else(|| VersionError::NothingBefore { app: app.to_owned(), op: op.clone(), kind: Some(kind) })?;
    let found = find_version(&mut db, app, &op, version).await?;
    undo_after(&mut db, store, &found, back_to).await?;
    db.commit().await.map_err(failed("commit a version"))?;
    Ok(found)
}

pub(super) async fn find_op(store: &SqliteStore, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<FoundOp>, StoreError> {
    let found: Option<OpRow> = sqlx::query_as(
        "SELECT p.version, p.kind, p.digest, p.created_at,
            (SELECT o.terms FROM policies o WHERE o.app = ?1 AND o.op = ?2), (SELECT a.terms FROM policies a WHERE a.app = ?1 AND a.op = '')
         FROM processors p WHERE p.app = ?1 AND p.op = ?2 AND p.version = (SELECT s.version FROM activations s
            WHERE s.app = ?1 AND s.op = ?2 AND s.kind = ?3 AND s.undone_at IS NULL ORDER BY s.activation_no DESC LIMIT 1)",
    )
    .bind(app)
    .bind(canonical_op(op))
    .bind(kind.as_str())
    .fetch_optional(&store.readers)
    .await
    .map_err(failed("look up a processor"))?;
    found.map(|row| op_of(app, op, row)).transpose()
}

pub(super) async fn list_processors(store: &SqliteStore, app: Option<&str>) -> Result<Vec<RegisteredVersion>, StoreError> {
    let found: Vec<RegisteredRow> = sqlx::query_as(
        "SELECT p.app, p.op, p.version, p.kind, p.digest, p.created_at, p.size_bytes, p.note,
            p.version IS (SELECT a.version FROM activations a
                WHERE a.app = p.app AND a.op = p.op AND a.kind = p.kind AND a.undone_at IS NULL ORDER BY a.activation_no DESC LIMIT 1) AS active,
            CASE WHEN ?1 IS NOT NULL THEN coalesce(u.batches, 0) END AS batches
         FROM processors p
         LEFT JOIN (SELECT op, processor_version, count(*) AS batches FROM batches WHERE app = ?1 AND step <> 'done' GROUP BY op, processor_version) u
            ON u.op = p.op AND u.processor_version = p.version
         WHERE p.removed_at IS NULL AND p.app = coalesce(?1, p.app) ORDER BY p.app, p.op, p.version",
    )
    .bind(app)
    .fetch_all(&store.readers)
    .await
    .map_err(failed("list processors"))?;
    Ok(found.into_iter().map(RegisteredRow::into_version).collect())
}
