//! Files are appended in parts: their rows count with the last part, or are taken back (migrations/sqlite/0080_open_appends.sql).

use sqlx::SqliteConnection;

use super::batch_files::insert_batch_file;
use super::submit::{Place, count_as_rows, ensure_unchained, read_place, write_rows};
use super::{SqliteStore, find_batch};
use crate::model::{AppendKey, AppendPart, AppendState, AppendToken, BatchFile, BatchId, BatchStatus, ProcessorKind, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{count, failed};
use crate::store::lines::check_lines;
use crate::store::rules::{APPENDED_WHILE_HELD, check_batch_file, key_of_append};

pub(super) async fn append_part(store: &SqliteStore, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError> {
    let AppendPart { token, key, begins, ends, rows, file, ttl } = part;
    check_lines(ProcessorKind::Batch, &rows)?;
    let mut db = store.begin().await?;
    let (batch, status) = find_batch(&mut db, id).await?;
    if begins
        && let Some(key) = &key
        && let Some(rows) = find_completed(&mut db, id, batch, key).await?
    {
        return Ok(AppendState { rows, was_there: true });
    }
    if !begins && status != BatchStatus::Wait {
        return Err(StoreError::AppendLost(id));
    }
    if status != BatchStatus::Wait {
        return Err(StoreError::WrongStatus { id, status, wanted: APPENDED_WHILE_HELD });
    }
    ensure_unchained(&mut db, id, batch).await?;
    let counted = read_place(&mut db, batch).await?;
    let first_row = u32::try_from(counted.row_count + 1).unwrap_or(u32::MAX);
    let place = if begins {
        if let Some(key) = &key {
            sqlx::query("DELETE FROM open_appends WHERE batch_key = ? AND append_key = ?")
                .bind(batch)
                .bind(&key.name)
                .execute(&mut *db)
                .await
                .map_err(failed("take back an append"))?;
        }
        ensure_no_append(&mut db, store.now(), id, batch).await?;
        counted
    } else {
        find_open(&mut db, batch, token).await?.ok_or(StoreError::AppendLost(id))?
    };
    let place = write_rows(&mut db, batch, place, &store.bounds, rows).await?;
    if ends {
        count_as_rows(&mut db, batch, &place).await?;
        delete_open(&mut db, batch, token).await?;
        if let Some(file) = file {
            let file = BatchFile { first_row, ..file };
            check_batch_file(&file)?;
            insert_batch_file(&mut db, batch, &file).await?;
        }
        if let Some(key) = key {
            record_completed(&mut db, batch, &key, place.row_count).await?;
        }
    } else {
        let expires_at = store.now().0.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        write_open(&mut db, batch, token, key.as_ref(), &place, expires_at).await?;
    }
    db.commit().await.map_err(failed("commit a part of a file"))?;
    Ok(AppendState { rows: count(place.row_count), was_there: false })
}

pub(super) async fn undo_append(store: &SqliteStore, id: BatchId, token: AppendToken) -> Result<bool, StoreError> {
    let mut db = store.begin().await?;
    let (batch, _) = find_batch(&mut db, id).await?;
    let undone = delete_open(&mut db, batch, token).await?;
    db.commit().await.map_err(failed("commit that an append was taken back"))?;
    Ok(undone)
}

/// Takes back an append that has expired.
///
/// # Errors
/// `AppendUnderWay` for one that has not.
pub(super) async fn ensure_no_append(db: &mut SqliteConnection, now: Timestamp, id: BatchId, batch: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM open_appends WHERE batch_key = ? AND expires_at <= ?")
        .bind(batch)
        .bind(now.0)
        .execute(&mut *db)
        .await
        .map_err(failed("take back an append"))?;
    let open: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM open_appends WHERE batch_key = ?)")
        .bind(batch)
        .fetch_one(db)
        .await
        .map_err(failed("look for an append"))?;
    if open { Err(StoreError::AppendUnderWay(id)) } else { Ok(()) }
}

async fn find_open(db: &mut SqliteConnection, batch: i64, token: AppendToken) -> Result<Option<Place>, StoreError> {
    sqlx::query_as("SELECT row_count, line_last, lines_ascend FROM open_appends WHERE batch_key = ? AND token = ?")
        .bind(batch)
        .bind(token.0)
        .fetch_optional(db)
        .await
        .map_err(failed("look for an append"))
}

async fn write_open(
    db: &mut SqliteConnection,
    batch: i64,
    token: AppendToken,
    key: Option<&AppendKey>,
    place: &Place,
    expires_at: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO open_appends (batch_key, token, append_key, row_count, line_last, lines_ascend, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (batch_key) DO UPDATE SET row_count = excluded.row_count, line_last = excluded.line_last, lines_ascend = excluded.lines_ascend,
            expires_at = excluded.expires_at",
    )
    .bind(batch)
    .bind(token.0)
    .bind(key.map(|key| key.name.as_str()))
    .bind(place.row_count)
    .bind(place.line_last)
    .bind(place.lines_ascend)
    .bind(expires_at)
    .execute(db)
    .await
    .map_err(failed("mark an append"))?;
    Ok(())
}

/// Ends an append. Rows that the batch does not count are removed by a trigger.
async fn delete_open(db: &mut SqliteConnection, batch: i64, token: AppendToken) -> Result<bool, StoreError> {
    let deleted = sqlx::query("DELETE FROM open_appends WHERE batch_key = ? AND token = ?")
        .bind(batch)
        .bind(token.0)
        .execute(db)
        .await
        .map_err(failed("end an append"))?;
    Ok(deleted.rows_affected() == 1)
}

/// How many rows the batch had when an append with this key was completed.
async fn find_completed(db: &mut SqliteConnection, id: BatchId, batch: i64, key: &AppendKey) -> Result<Option<u64>, StoreError> {
    let found: Option<(String, i64)> = sqlx::query_as("SELECT digest, row_count FROM append_keys WHERE batch_key = ? AND append_key = ?")
        .bind(batch)
        .bind(&key.name)
        .fetch_optional(db)
        .await
        .map_err(failed("look up the key of an append"))?;
    found.map(|(digest, rows)| key_of_append(id, key, &digest, rows)).transpose()
}

async fn record_completed(db: &mut SqliteConnection, batch: i64, key: &AppendKey, rows: i64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO append_keys (batch_key, append_key, digest, row_count) VALUES (?, ?, ?, ?)")
        .bind(batch)
        .bind(&key.name)
        .bind(&key.digest)
        .bind(rows)
        .execute(db)
        .await
        .map_err(failed("record the key of an append"))?;
    Ok(())
}
