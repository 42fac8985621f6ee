//! Files are appended in parts: their rows count with the last part, or are taken back (migrations/postgres/0080_open_appends.sql).

use super::batch_files::insert_batch_file;
use super::connect::{PgStore, refuse};
use super::held::{Added, Place, lock_place};
use super::text::{decode, encode};
use super::{PgConnection, millis};
use crate::model::{AppendKey, AppendPart, AppendState, AppendToken, BatchFile, BatchId, BatchStatus, ProcessorKind};
use crate::store::StoreError;
use crate::store::columns::{count, failed};
use crate::store::lines::check_lines;
use crate::store::rules::{APPENDED_WHILE_HELD, CHAINED, check_batch_file, key_of_append};

pub(super) async fn append_part(store: &PgStore, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError> {
    check_lines(ProcessorKind::Batch, &part.rows)?;
    let mut db = store.begin().await?;
    match write_part(&mut db, store, id, part).await {
        Ok(state) => {
            db.commit().await.map_err(failed("commit a part of a file"))?;
            Ok(state)
        }
        Err(error) => refuse(db, error).await,
    }
}

async fn write_part(db: &mut PgConnection, store: &PgStore, id: BatchId, part: AppendPart) -> Result<AppendState, StoreError> {
    let AppendPart { token, key, begins, ends, rows, file, ttl } = part;
    let named = store.named();
    let (mut place, status) = lock_place(&mut *db, named, id).await?;
    if begins
        && let Some(key) = &key
        && let Some(rows) = find_completed(db, named, id, place.key, key).await?
    {
        return Ok(AppendState { rows, was_there: true });
    }
    if !begins && status != BatchStatus::Wait {
        return Err(StoreError::AppendLost(id));
    }
    if status != BatchStatus::Wait {
        return Err(StoreError::WrongStatus { id, status, wanted: APPENDED_WHILE_HELD });
    }
    if place.chained {
        return Err(StoreError::WrongStatus { id, status, wanted: CHAINED });
    }
    let first_row = u32::try_from(place.row_count + 1).unwrap_or(u32::MAX);
    let mut input_bytes = 0;
    if begins {
        end_for(db, store, place.key, key.as_ref()).await?;
        ensure_no_append(db, store, id, place.key).await?;
    } else {
        let open = find_open(db, named, place.key, token).await?.ok_or(StoreError::AppendLost(id))?;
        (place.row_count, place.line_last, place.lines_ascend, input_bytes) =
            (open.row_count.into(), open.line_last, open.lines_ascend, open.input_bytes_max);
    }
    let added = place.write(db, named, &store.bounds, rows).await?;
    let added = Added { input_bytes_max: added.input_bytes_max.max(input_bytes), ..added };
    if ends {
        place.count(db, named, &added).await?;
        delete_open(db, named, place.key, token).await?;
        if let Some(file) = file {
            let file = BatchFile { first_row, ..file };
            check_batch_file(&file)?;
            insert_batch_file(db, named, place.key, &file).await?;
        }
        if let Some(key) = key {
            record_completed(db, named, place.key, &key, added.row_count).await?;
        }
    } else {
        write_open(db, store, &place, token, key.as_ref(), &added, millis(ttl)).await?;
    }
    Ok(AppendState { rows: count(added.row_count), was_there: false })
}

pub(super) async fn undo_append(store: &PgStore, id: BatchId, token: AppendToken) -> Result<bool, StoreError> {
    let mut db = store.begin().await?;
    // A part that is still being written is waited for.
    let (place, _) = lock_place(&mut db, store.named(), id).await?;
    let undone = delete_open(&mut db, store.named(), place.key, token).await?;
    db.commit().await.map_err(failed("commit that an append was taken back"))?;
    Ok(undone)
}

/// Takes back an append that has expired.
///
/// # Errors
/// `AppendUnderWay` for one that has not.
pub(super) async fn ensure_no_append(db: &mut PgConnection, store: &PgStore, id: BatchId, key: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM rowmill.open_appends WHERE batch_key = $1 AND expires_at <= coalesce($2, rowmill.now_ms())")
        .persistent(store.named())
        .bind(key)
        .bind(store.now())
        .execute(&mut *db)
        .await
        .map_err(failed("take back an append"))?;
    let open: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM rowmill.open_appends WHERE batch_key = $1)")
        .persistent(store.named())
        .bind(key)
        .fetch_one(db)
        .await
        .map_err(failed("look for an append"))?;
    if open { Err(StoreError::AppendUnderWay(id)) } else { Ok(()) }
}

/// Takes back an unfinished append with the same key.
async fn end_for(db: &mut PgConnection, store: &PgStore, batch: i64, key: Option<&AppendKey>) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    sqlx::query("DELETE FROM rowmill.open_appends WHERE batch_key = $1 AND append_key = $2")
        .persistent(store.named())
        .bind(batch)
        .bind(encode(&key.name))
        .execute(db)
        .await
        .map_err(failed("take back an append"))?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Open {
    row_count: i32,
    line_last: i64,
    lines_ascend: bool,
    input_bytes_max: i32,
}

async fn find_open(db: &mut PgConnection, named: bool, batch: i64, token: AppendToken) -> Result<Option<Open>, StoreError> {
    sqlx::query_as("SELECT row_count, line_last, lines_ascend, input_bytes_max FROM rowmill.open_appends WHERE batch_key = $1 AND token = $2")
        .persistent(named)
        .bind(batch)
        .bind(token.0)
        .fetch_optional(db)
        .await
        .map_err(failed("look for an append"))
}

async fn write_open(
    db: &mut PgConnection,
    store: &PgStore,
    place: &Place,
    token: AppendToken,
    key: Option<&AppendKey>,
    added: &Added,
    ttl: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rowmill.open_appends (batch_key, token, append_key, row_count, line_last, lines_ascend, input_bytes_max, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, rowmill.later(coalesce($8, rowmill.now_ms()), $9))
         ON CONFLICT (batch_key) DO UPDATE SET row_count = excluded.row_count, line_last = excluded.line_last, lines_ascend = excluded.lines_ascend,
            input_bytes_max = excluded.input_bytes_max, expires_at = excluded.expires_at",
    )
    .persistent(store.named())
    .bind(place.key)
    .bind(token.0)
    .bind(key.map(|key| encode(&key.name)))
    .bind(i32::try_from(added.row_count).unwrap_or(i32::MAX))
    .bind(added.line_last)
    .bind(added.lines_ascend)
    .bind(added.input_bytes_max)
    .bind(store.now())
    .bind(ttl)
    .execute(db)
    .await
    .map_err(failed("mark an append"))?;
    Ok(())
}

/// Ends an append. Rows that the batch does not count are removed by a trigger.
async fn delete_open(db: &mut PgConnection, named: bool, batch: i64, token: AppendToken) -> Result<bool, StoreError> {
    let deleted = sqlx::query("DELETE FROM rowmill.open_appends WHERE batch_key = $1 AND token = $2")
        .persistent(named)
        .bind(batch)
        .bind(token.0)
        .execute(db)
        .await
        .map_err(failed("end an append"))?;
    Ok(deleted.rows_affected() == 1)
}

/// How many rows the batch had when an append with this key was completed.
async fn find_completed(db: &mut PgConnection, named: bool, id: BatchId, batch: i64, key: &AppendKey) -> Result<Option<u64>, StoreError> {
    let found: Option<(String, i32)> = sqlx::query_as("SELECT digest, row_count FROM rowmill.append_keys WHERE batch_key = $1 AND append_key = $2")
        .persistent(named)
        .bind(batch)
        .bind(encode(&key.name))
        .fetch_optional(db)
        .await
        .map_err(failed("look up the key of an append"))?;
    found.map(|(digest, rows)| key_of_append(id, key, &decode(digest), rows.into())).transpose()
}

async fn record_completed(db: &mut PgConnection, named: bool, batch: i64, key: &AppendKey, rows: i64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO rowmill.append_keys (batch_key, append_key, digest, row_count) VALUES ($1, $2, $3, $4)")
        .persistent(named)
        .bind(batch)
        .bind(encode(&key.name))
        .bind(encode(&key.digest))
        .bind(i32::try_from(rows).unwrap_or(i32::MAX))
        .execute(db)
        .await
        .map_err(failed("record the key of an append"))?;
    Ok(())
}
