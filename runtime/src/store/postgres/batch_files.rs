//! The files that rows of batches came from.

use super::PgConnection;
use super::connect::{PgStore, refuse};
use super::held::lock_place;
use super::text::{decode, encode};
use crate::model::{BatchFile, BatchId, BatchStatus, JsonText};
use crate::store::StoreError;
use crate::store::columns::{BatchFileRow, failed, signed};
use crate::store::rules::check_batch_file;

pub(super) async fn record_batch_file(store: &PgStore, id: BatchId, file: &BatchFile, context: Option<&JsonText>) -> Result<(), StoreError> {
    check_batch_file(file)?;
    let mut db = store.begin().await?;
    let (place, status) = lock_place(&mut db, store.named(), id).await?;
    if status != BatchStatus::Wait {
        return refuse(db, StoreError::WrongStatus { id, status, wanted: "a file can be recorded only while it is held" }).await;
    }
    insert_batch_file(&mut db, store.named(), place.key, file).await?;
    if let Some(context) = context {
        sqlx::query("UPDATE rowmill.batches SET context = $2 WHERE batch_key = $1")
            .persistent(store.named())
            .bind(place.key)
            .bind(context.as_str())
            .execute(&mut *db)
            .await
            .map_err(failed("record the context of a file"))?;
    }
    db.commit().await.map_err(failed("commit a file"))
}

/// Records a file in the transaction of the caller.
pub(super) async fn insert_batch_file(db: &mut PgConnection, named: bool, key: i64, file: &BatchFile) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rowmill.batch_files
            (batch_key, app, first_row, name, form, size_bytes, sha256, object, source_object)
         VALUES ($1, (SELECT app FROM rowmill.batches WHERE batch_key = $1), $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (batch_key, first_row) DO UPDATE
         SET name = excluded.name, form = excluded.form, size_bytes = excluded.size_bytes,
            sha256 = excluded.sha256, object = excluded.object, source_object = excluded.source_object",
    )
    .persistent(named)
    .bind(key)
    .bind(i64::from(file.first_row))
    .bind(encode(&file.name))
    .bind(encode(&file.form))
    .bind(signed(file.size_bytes))
    .bind(encode(&file.sha256))
    .bind(file.object.as_deref().map(encode))
    .bind(file.source_object.as_deref().map(encode))
    .execute(db)
    .await
    .map_err(failed("record a file"))?;
    Ok(())
}

pub(super) async fn list_batch_files(store: &PgStore, id: BatchId, after_row: u32, limit: u32) -> Result<Vec<BatchFile>, StoreError> {
    let mut db = store.unit().await?;
    let found: Vec<(i64, bool)> = sqlx::query_as("SELECT batch_key, inputs_pruned_at IS NOT NULL FROM rowmill.batches WHERE batch_id = $1")
        .persistent(store.named())
        .bind(id.uuid())
        .fetch_all(&mut *db)
        .await
        .map_err(failed("look up a batch"))?;
    let Some((key, pruned)) = found.into_iter().next() else {
        db.done().await?;
        return Err(StoreError::NotFound(id));
    };
    let files: Vec<BatchFileRow> = sqlx::query_as(
        "SELECT first_row, name, form, size_bytes, sha256, object, source_object
         FROM rowmill.batch_files WHERE batch_key = $1 AND first_row > $2 ORDER BY first_row LIMIT $3",
    )
    .persistent(store.named())
    .bind(key)
    .bind(i64::from(after_row))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(failed("read the files of a batch"))?;
    db.done().await?;
    Ok(files.into_iter().map(|file| batch_file(file, pruned)).collect())
}

/// A file of a batch whose inputs were pruned, or not.
pub(super) fn batch_file(row: BatchFileRow, pruned: bool) -> BatchFile {
    let file = row.batch_file();
    BatchFile {
        name: decode(file.name),
        form: decode(file.form),
        sha256: decode(file.sha256),
        object: file.object.filter(|_| !pruned).map(decode),
        source_object: file.source_object.map(decode),
        ..file
    }
}
