//! The files that rows of batches came from.

use sqlx::SqliteConnection;

use super::{SqliteStore, find_batch};
use crate::model::{BatchFile, BatchId, BatchStatus, JsonText};
use crate::store::StoreError;
use crate::store::columns::{BatchFileRow, failed, signed};
use crate::store::rules::check_batch_file;

pub(super) async fn record_batch_file(store: &SqliteStore, id: BatchId, file: &BatchFile, context: Option<&JsonText>) -> Result<(), StoreError> {
    check_batch_file(file)?;
    let mut db = store.begin().await?;
    let (key, status) = find_batch(&mut db, id).await?;
    if status != BatchStatus::Wait {
        return Err(StoreError::WrongStatus { id, status, wanted: "a file can be recorded only while it is held" });
    }
    insert_batch_file(&mut db, key, file).await?;
    if let Some(context) = context {
        sqlx::query("UPDATE batches SET context = ? WHERE batch_key = ?")
            .bind(context.as_str())
            .bind(key)
            .execute(&mut *db)
            .await
            .map_err(failed("record the context of a file"))?;
    }
    db.commit().await.map_err(failed("commit a file"))
}

/// Records a file in the transaction of the caller.
pub(super) async fn insert_batch_file(db: &mut SqliteConnection, key: i64, file: &BatchFile) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO batch_files
            (batch_key, app, first_row, name, form, size_bytes, sha256, object, source_object)
         VALUES (?1, (SELECT app FROM batches WHERE batch_key = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(key)
    .bind(i64::from(file.first_row))
    .bind(&file.name)
    .bind(&file.form)
    .bind(signed(file.size_bytes))
    .bind(&file.sha256)
    .bind(&file.object)
    .bind(&file.source_object)
    .execute(db)
    .await
    .map_err(failed("record a file"))?;
    Ok(())
}

pub(super) async fn list_batch_files(store: &SqliteStore, id: BatchId, after_row: u32, limit: u32) -> Result<Vec<BatchFile>, StoreError> {
    let reading = failed("read the files of a batch");
    let mut db = store.readers.begin().await.map_err(reading)?;
    let (key, _) = find_batch(&mut db, id).await?;
    let files: Vec<BatchFileRow> = sqlx::query_as(
        "SELECT first_row, name, form, size_bytes, sha256, CASE WHEN b.inputs_pruned_at IS NULL THEN object END AS object, source_object
         FROM batch_files JOIN batches b USING (batch_key) WHERE batch_key = ? AND first_row > ? ORDER BY first_row LIMIT ?",
    )
    .bind(key)
    .bind(i64::from(after_row))
    .bind(i64::from(limit))
    .fetch_all(&mut *db)
    .await
    .map_err(reading)?;
    Ok(files.into_iter().map(BatchFileRow::batch_file).collect())
}
