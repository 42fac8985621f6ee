//! Versions of processors: which there are, and which one serves.

use sqlx::{PgConnection, Postgres, Transaction};

use super::connect::{PgStore, refuse};
use super::text::{decode, encode};
use crate::model::{FoundOp, NewVersion, ProcessorKind, ProcessorVersion, RegisteredVersion, canonical_op};
use crate::store::columns::{OpRow, ProcessorRow, failed, op_of, processor_of};
use crate::store::versions::{ACTIVATIONS_MAX, Activation, RegisteredRow, check_quota, check_version, kind_to_roll_back};
use crate::store::{StoreError, VersionError};

pub(super) fn decoded_version(version: ProcessorVersion) -> ProcessorVersion {
    ProcessorVersion { app: decode(version.app), op: decode(version.op), digest: decode(version.digest), ..version }
}

/// A transaction that changes versions: one after the other, so that versions are counted without a gap, and what was looked at stays so.
pub(super) async fn begin(store: &PgStore) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut db = store.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(7881403276)")
        .persistent(store.named())
        .execute(&mut *db)
        .await
        .map_err(failed("wait for its turn to change versions"))?;
    Ok(db)
}

/// Commits what was done, or undoes it.
pub(super) async fn end<T>(db: Transaction<'static, Postgres>, done: Result<T, StoreError>) -> Result<T, StoreError> {
    match done {
        Ok(value) => db.commit().await.map_err(failed("commit a version")).map(|()| value),
        Err(error) => refuse(db, error).await,
    }
}

pub(super) async fn put_processor(store: &PgStore, new: &NewVersion) -> Result<ProcessorVersion, StoreError> {
    check_version(new)?;
    let mut db = begin(store).await?;
    let done = put_in(&mut db, store, new).await;
    end(db, done).await
}

async fn put_in(db: &mut PgConnection, store: &PgStore, new: &NewVersion) -> Result<ProcessorVersion, StoreError> {
    let registering = failed("register a processor");
    let op = canonical_op(&new.op);
    let (app, op, digest) = (encode(&new.app), encode(&op), encode(&new.digest));
    let removal: Vec<(bool,)> = sqlx::query_as("SELECT until_at > coalesce($2, rowmill.now_ms()) FROM rowmill.code_removals WHERE digest = $1")
        .persistent(store.named())
        .bind(&digest)
        .bind(store.now())
        .fetch_all(&mut *db)
        .await
        .map_err(registering)?;
    match removal[..] {
        [(true,)] => return Err(VersionError::CodeBeingRemoved.into()),
        [] => {}
        _ => super::removals::forget_in(db, store, &new.digest).await?,
    }
    let version = match find_same(db, store, new).await? {
        Some(same) => same,
        None => {
            let (versions, bytes): (i64, i64) =
                sqlx::query_as("SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM rowmill.processors WHERE app = $1 AND removed_at IS NULL")
                    .persistent(store.named())
                    .bind(&app)
                    .fetch_one(&mut *db)
                    .await
                    .map_err(registering)?;
            check_quota(new, versions, bytes)?;
            let row: ProcessorRow = sqlx::query_as(
                "INSERT INTO rowmill.processors (app, op, version, kind, digest, created_at, size_bytes, note)
                 SELECT $1, $2, 1 + coalesce(max(p.version), 0), $3, $4, coalesce($5, rowmill.now_ms()), $6, $7 FROM rowmill.processors p
                 WHERE p.app = $1 AND p.op = $2
                 RETURNING app, op, version::bigint, kind, digest, created_at",
            )
            .persistent(store.named())
            .bind(&app)
            .bind(&op)
            .bind(new.kind.as_str())
            .bind(&digest)
            .bind(store.now())
            .bind(i64::try_from(new.size_bytes).unwrap_or(i64::MAX))
            .bind(new.note.as_deref().map(encode))
            .fetch_one(&mut *db)
            .await
            .map_err(registering)?;
            decoded_version(processor_of(row))
        }
    };
    if new.activate {
        activate_in(db, store, &version).await?;
    }
    Ok(version)
}

/// The newest version of its kind, if it has the same code. A note that is given becomes that of the version.
async fn find_same(db: &mut PgConnection, store: &PgStore, new: &NewVersion) -> Result<Option<ProcessorVersion>, StoreError> {
    let registering = failed("register a processor");
    let newest: Vec<ProcessorRow> = sqlx::query_as(
        "SELECT app, op, version::bigint, kind, digest, created_at FROM rowmill.processors WHERE app = $1 AND op = $2 AND kind = $3 AND removed_at IS NULL
         ORDER BY version DESC LIMIT 1",
    )
    .persistent(store.named())
    .bind(encode(&new.app))
    .bind(encode(&canonical_op(&new.op)))
    .bind(new.kind.as_str())
    .fetch_all(&mut *db)
    .await
    .map_err(registering)?;
    let newest = newest.into_iter().next().map(processor_of).map(decoded_version);
    let Some(same) = newest.filter(|newest| newest.digest == new.digest) else { return Ok(None) };
    if let Some(note) = new.note.as_deref() {
        sqlx::query("UPDATE rowmill.processors SET note = $4 WHERE app = $1 AND op = $2 AND version = $3")
            .persistent(store.named())
            .bind(encode(&same.app))
            .bind(encode(&same.op))
            .bind(i64::from(same.version))
            .bind(encode(note))
            .execute(db)
            .await
            .map_err(registering)?;
    }
    Ok(Some(same))
}

pub(super) async fn activate_processor(store: &PgStore, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
    let mut db = begin(store).await?;
    let done = async {
        let found = find_version(&mut db, store, app, op, version).await?;
        activate_in(&mut db, store, &found).await?;
        Ok(found)
    };
    let done = done.await;
    end(db, done).await
}

/// A version that was not removed.
pub(super) async fn find_version(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
    let found: Vec<ProcessorRow> = sqlx::query_as(
        "SELECT app, op, version::bigint, kind, digest, created_at FROM rowmill.processors WHERE app = $1 AND op = $2 AND version = $3 AND removed_at IS NULL",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(&canonical_op(op)))
    .bind(i64::from(version))
    .fetch_all(db)
    .await
    .map_err(failed("look up a version"))?;
    let found = found.into_iter().next().map(processor_of).map(decoded_version);
    found.ok_or_else(|| VersionError::Missing { app: app.to_owned(), op: canonical_op(op), version }.into())
}

/// The activation of a kind that holds.
async fn active(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<Activation>, StoreError> {
    let found: Vec<Activation> = sqlx::query_as(
        "SELECT activation_no, version::bigint FROM rowmill.activations WHERE app = $1 AND op = $2 AND kind = $3 AND undone_at IS NULL
         ORDER BY activation_no DESC LIMIT 1",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(op))
    .bind(kind.as_str())
    .fetch_all(db)
    .await
    .map_err(failed("look up the active version"))?;
    Ok(found.into_iter().next())
}

/// Returns true if the version is the active one of its kind.
pub(super) async fn is_active(db: &mut PgConnection, store: &PgStore, app: &str, op: &str, version: u32) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM rowmill.processors p WHERE p.app = $1 AND p.op = $2 AND p.version = $3
            AND p.version = (SELECT a.version FROM rowmill.activations a WHERE a.app = p.app AND a.op = p.op AND a.kind = p.kind AND a.undone_at IS NULL
                ORDER BY a.activation_no DESC LIMIT 1))",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(op))
    .bind(i64::from(version))
    .fetch_one(db)
    .await
    .map_err(failed("look up the active version"))
}

async fn activate_in(db: &mut PgConnection, store: &PgStore, version: &ProcessorVersion) -> Result<(), StoreError> {
    if is_active(db, store, &version.app, &version.op, version.version).await? {
        return Ok(());
    }
    let activating = failed("activate a version");
    let (app, op) = (encode(&version.app), encode(&version.op));
    sqlx::query(
        "INSERT INTO rowmill.activations (app, op, kind, activation_no, version, activated_at)
         SELECT $1, $2, $3, 1 + coalesce(max(a.activation_no), 0), $4, coalesce($5, rowmill.now_ms()) FROM rowmill.activations a
         WHERE a.app = $1 AND a.op = $2 AND a.kind = $3",
    )
    .persistent(store.named())
    .bind(&app)
    .bind(&op)
    .bind(version.kind.as_str())
    .bind(i64::from(version.version))
    .bind(store.now())
    .execute(&mut *db)
    .await
    .map_err(activating)?;
    sqlx::query(
        "DELETE FROM rowmill.activations WHERE app = $1 AND op = $2 AND kind = $3
         AND activation_no <= (SELECT max(a.activation_no) FROM rowmill.activations a WHERE a.app = $1 AND a.op = $2 AND a.kind = $3) - $4",
    )
    .persistent(store.named())
    .bind(&app)
    .bind(&op)
    .bind(version.kind.as_str())
    .bind(ACTIVATIONS_MAX)
    .execute(db)
    .await
    .map_err(activating)?;
    Ok(())
}

pub(super) async fn deactivate_processor(store: &PgStore, app: &str, op: &str, version: u32) -> Result<ProcessorVersion, StoreError> {
    let mut db = begin(store).await?;
    let done = async {
        let found = find_version(&mut db, store, app, op, version).await?;
        if !is_active(&mut db, store, app, &found.op, version).await? {
            return Err(VersionError::NotActive { version }.into());
        }
        check_schedules(&mut db, store, &found).await?;
        undo_after(&mut db, store, &found, 0).await?;
        Ok(found)
    };
    let done = done.await;
    end(db, done).await
}

/// Marks the activations of a kind that follow one of them as undone.
async fn undo_after(db: &mut PgConnection, store: &PgStore, version: &ProcessorVersion, activation: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rowmill.activations SET undone_at = coalesce($5, rowmill.now_ms())
         WHERE app = $1 AND op = $2 AND kind = $3 AND activation_no > $4 AND undone_at IS NULL",
    )
    .persistent(store.named())
    .bind(encode(&version.app))
    .bind(encode(&version.op))
    .bind(version.kind.as_str())
    .bind(activation)
    .bind(store.now())
    .execute(db)
    .await
    .map_err(failed("undo activations"))?;
    Ok(())
}

/// Refuses if a schedule submits to the kind of a version: its ticks would fail without one that serves.
async fn check_schedules(db: &mut PgConnection, store: &PgStore, version: &ProcessorVersion) -> Result<(), StoreError> {
    let found: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM rowmill.schedules WHERE app = $1 AND op = $2 AND kind = $3 AND NOT paused ORDER BY name LIMIT 1")
            .persistent(store.named())
            .bind(encode(&version.app))
            .bind(encode(&version.op))
            .bind(version.kind.as_str())
            .fetch_all(db)
            .await
            .map_err(failed("look up schedules"))?;
    match found.into_iter().next() {
        None => Ok(()),
        Some((schedule,)) => Err(VersionError::Scheduled { op: version.op.clone(), schedule: decode(schedule), kind: version.kind }.into()),
    }
}

pub(super) async fn rollback_processor(store: &PgStore, app: &str, op: &str, kind: Option<ProcessorKind>) -> Result<ProcessorVersion, StoreError> {
    let op = canonical_op(op);
    let mut db = begin(store).await?;
    let done = rollback_in(&mut db, store, (app, &op), kind).await;
    end(db, done).await
}

async fn rollback_in(
    db: &mut PgConnection,
    store: &PgStore,
    (app, op): (&str, &str),
    kind: Option<ProcessorKind>,
) -> Result<ProcessorVersion, StoreError> {
    let batch = active(db, store, app, op, ProcessorKind::Batch).await?;
    let query = active(db, store, app, op, ProcessorKind::SlowQuery).await?;
    let (kind, (at, version)) = kind_to_roll_back((app, op), kind, batch, query)?;
    let before: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT a.activation_no, a.version::bigint FROM rowmill.activations a
         JOIN rowmill.processors p ON p.app = a.app AND p.op = a.op AND p.version = a.version AND p.removed_at IS NULL
         WHERE a.app = $1 AND a.op = $2 AND a.kind = $3 AND a.undone_at IS NULL AND a.activation_no < $4 AND a.version <> $5
         ORDER BY a.activation_no DESC LIMIT 1",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(op))
    .bind(kind.as_str())
    .bind(at)
    .bind(version)
    .fetch_all(&mut *db)
    .await
    .map_err(failed("roll back to a version"))?;
    let nothing = || VersionError::NothingBefore { app: app.to_owned(), op: op.to_owned(), kind: Some(kind) };
    let (back_to, version) = before.into_iter().next().ok_or_else(nothing)?;
    let found = find_version(db, store, app, op, u32::try_from(version).unwrap_or(u32::MAX)).await?;
    undo_after(db, store, &found, back_to).await?;
    Ok(found)
}

pub(super) async fn find_op(store: &PgStore, app: &str, op: &str, kind: ProcessorKind) -> Result<Option<FoundOp>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<OpRow> = sqlx::query_as(
        "SELECT p.version::bigint, p.kind, p.digest, p.created_at,
            (SELECT o.terms FROM rowmill.policies o WHERE o.app = $1 AND o.op = $2), (SELECT a.terms FROM rowmill.policies a WHERE a.app = $1 AND a.op = '')
         FROM rowmill.processors p WHERE p.app = $1 AND p.op = $2 AND p.version = (SELECT s.version FROM rowmill.activations s
            WHERE s.app = $1 AND s.op = $2 AND s.kind = $3 AND s.undone_at IS NULL ORDER BY s.activation_no DESC LIMIT 1)",
    )
    .persistent(store.named())
    .bind(encode(app))
    .bind(encode(&canonical_op(op)))
    .bind(kind.as_str())
    .fetch_all(&mut *db)
    .await
    .map_err(failed("look up a processor"))?;
    db.done().await?;
    let found = found.into_iter().next().map(|row| op_of(app, op, row)).transpose()?;
    Ok(found.map(|found| FoundOp { version: ProcessorVersion { digest: decode(found.version.digest), ..found.version }, ..found }))
}

pub(super) async fn list_processors(store: &PgStore, app: Option<&str>) -> Result<Vec<RegisteredVersion>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<RegisteredRow> = sqlx::query_as(
        "SELECT p.app, p.op, p.version::bigint, p.kind, p.digest, p.created_at, p.size_bytes, p.note,
            p.version IS NOT DISTINCT FROM (SELECT a.version FROM rowmill.activations a
                WHERE a.app = p.app AND a.op = p.op AND a.kind = p.kind AND a.undone_at IS NULL ORDER BY a.activation_no DESC LIMIT 1) AS active,
            CASE WHEN $1 IS NOT NULL THEN coalesce(u.batches, 0) END AS batches
         FROM rowmill.processors p
         LEFT JOIN (SELECT b.op, b.processor_version, count(*) AS batches FROM rowmill.batches b WHERE b.app = $1 AND b.step <> 'done' GROUP BY 1, 2) u
            ON u.op = p.op AND u.processor_version = p.version
         WHERE p.removed_at IS NULL AND ($1 IS NULL OR p.app = $1) ORDER BY p.app, p.op, p.version",
    )
    .persistent(store.named())
    .bind(app.map(encode))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("list processors"))?;
    db.done().await?;
    let decoded = |found: RegisteredVersion| RegisteredVersion { version: decoded_version(found.version), note: found.note.map(decode), ..found };
    Ok(found.into_iter().map(RegisteredRow::into_version).map(decoded).collect())
}
