//! Chained batches: their rows are made of the outputs of another (migrations/postgres/0013_chains.sql).

use sqlx::PgConnection;
use uuid::Uuid;

use super::connect::PgStore;
use super::text::encode;
use crate::model::{NewBatch, ProcessorKind};
use crate::store::columns::{failed, kind_of};
use crate::store::rules::{CHAIN_PAGE_BYTES, CHAIN_PAGE_ROWS, check_first};
use crate::store::{ChainEnd, ChainStep, StoreError};

/// What a chained batch comes after.
pub(super) struct First {
    key: i64,
    ended: bool,
}

/// Looks for the batch that a new one is to come after, which does not end from now on without knowing of it.
pub(super) async fn find_first(db: &mut PgConnection, named: bool, new: &NewBatch) -> Result<Option<First>, StoreError> {
    let Some(after) = new.after else { return Ok(None) };
    let found: Option<(i64, String, bool)> = sqlx::query_as("SELECT first_key, kind, ended FROM rowmill.find_first($1, $2)")
        .persistent(named)
        .bind(after.batch.uuid())
        .bind(encode(&new.app))
        .fetch_optional(db)
        .await
        .map_err(failed("look up the batch that another comes after"))?;
    check_first(after.batch, &new.app, found.as_ref().map(|(_, kind, _)| kind_of(kind)))?;
    Ok(found.map(|(key, _, ended)| First { key, ended }))
}

/// The new batch waits for it.
pub(super) async fn chain(db: &mut PgConnection, named: bool, key: i64, first: &First) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO rowmill.chains (batch_key, first_key, ready) VALUES ($1, $2, $3)")
        .persistent(named)
        .bind(key)
        .bind(first.key)
        .bind(first.ended)
        .execute(db)
        .await
        .map_err(failed("chain a batch"))?;
    Ok(())
}

pub(super) async fn advance_chain(store: &PgStore) -> Result<Option<ChainStep>, StoreError> {
    let mut db = store.unit().await?;
    let made: Vec<(Option<Uuid>, String)> = sqlx::query_as("SELECT batch_id, status FROM rowmill.advance_chain($1, $2)")
        .persistent(store.named())
        .bind(CHAIN_PAGE_ROWS)
        .bind(CHAIN_PAGE_BYTES)
        .fetch_all(&mut *db)
        .await
        .map_err(failed("make rows of a chained batch"))?;
    db.done().await?;
    Ok(made.into_iter().next().map(|(batch, status)| ChainStep {
        batch: batch.map(Into::into),
        kind: ProcessorKind::Batch,
        end: match status.as_str() {
            "wait" => ChainEnd::More,
            "queued" => ChainEnd::Queued,
            "aborted" => ChainEnd::Aborted,
            _ => ChainEnd::Gone,
        },
    }))
}
