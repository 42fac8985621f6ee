//! Batches of an app are listed.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, SqliteConnection};

use super::SqliteStore;
use crate::model::{BatchFilter, BatchPage, BatchPosition, canonical_op};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::listing::{Along, LOOKS_MAX, ListedFileRow, ListedRow, Look};

#[derive(sqlx::FromRow)]
struct FoundRow {
    batch_id: String,
    #[sqlx(flatten)]
    batch: ListedRow,
    #[sqlx(flatten)]
    file: ListedFileRow,
}

/// The batches that a page may look at, by the index that it looks along.
fn candidates(along: Along) -> &'static str {
    match along {
        Along::App => "SELECT batch_key FROM batches WHERE app = ?1 AND batch_key < ?2",
        Along::Group => {
            "SELECT batch_key FROM batches
             WHERE app = ?1 AND group_name = ?7 AND group_name IS NOT NULL AND batch_key < ?2"
        }
        Along::FileName => "SELECT DISTINCT batch_key FROM batch_files WHERE app = ?1 AND name = ?9 AND batch_key < ?2",
        Along::FileDigest => "SELECT DISTINCT batch_key FROM batch_files WHERE app = ?1 AND sha256 = ?10 AND batch_key < ?2",
        Along::Id => "SELECT batch_key FROM batches WHERE batch_id = ?8 AND batch_key < ?2",
    }
}

pub(super) async fn list_batches(store: &SqliteStore, of: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Result<BatchPage, StoreError> {
    let listing = failed("list batches");
    let look = Look::new(of, after, limit);
    // Both statements see the same batches.
    let mut db = store.readers.begin().await.map_err(listing)?;
    let floor = find_floor(&mut db, of, &look).await?;
    // Made of constants only.
    let page = AssertSqlSafe(format!(
        "SELECT b.batch_id, b.batch_key, b.op, b.kind, b.processor_version, b.priority, b.group_name,
            b.round, b.status, b.step, b.row_count, b.success, b.failed, b.fuel, b.abort_reason,
            b.mark_error, b.submitted_at, b.started_at, b.finished_at, f.first_row, f.name, f.form,
            f.size_bytes, f.sha256,
            CASE WHEN b.inputs_pruned_at IS NULL THEN f.object END AS object, f.source_object
         FROM ({} AND batch_key >= ?3 ORDER BY batch_key DESC LIMIT ?13) c
         CROSS JOIN batches b ON b.batch_key = c.batch_key
         LEFT JOIN batch_files f ON f.batch_key = b.batch_key AND f.first_row = (
            SELECT min(g.first_row) FROM batch_files g WHERE g.batch_key = b.batch_key
                AND (?9 IS NULL OR g.name = ?9) AND (?10 IS NULL OR g.sha256 = ?10))
         WHERE b.app = ?1 AND (?4 IS NULL OR b.op = ?4)
            AND (?5 = '[]' OR b.status IN (SELECT value FROM json_each(?5)))
            AND (?6 IS NULL OR b.processor_version = ?6) AND (?7 IS NULL OR b.group_name = ?7)
            AND (?8 IS NULL OR b.batch_id = ?8)
            AND ((?9 IS NULL AND ?10 IS NULL) OR f.first_row IS NOT NULL)
            AND (?11 IS NULL OR b.submitted_at >= ?11) AND (?12 IS NULL OR b.submitted_at < ?12)
         ORDER BY c.batch_key DESC LIMIT ?14",
        candidates(look.along)
    ));
    let looks = if look.is_narrow { i64::MAX } else { look.limit.into() };
    let mut arguments = filters(of, &look, floor.unwrap_or(0)).map_err(binding)?;
    arguments.add(looks).map_err(binding)?;
    arguments.add(i64::from(look.limit)).map_err(binding)?;
    let found: Vec<FoundRow> = sqlx::query_as_with(page, arguments).fetch_all(&mut *db).await.map_err(listing)?;
    let batches = found
        .into_iter()
        .map(|FoundRow { batch_id, batch, file }| {
            let id = batch_id.parse().map_err(failed("read a batch's id"))?;
            Ok(batch.listed(&of.app, id, file.file(|text| text), |text| text))
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    Ok(look.page(batches, floor))
}

/// The last batch that a page looks at, where there may be more behind it.
async fn find_floor(db: &mut SqliteConnection, of: &BatchFilter, look: &Look) -> Result<Option<i64>, StoreError> {
    if !look.is_narrow {
        return Ok(None);
    }
    let floor =
        AssertSqlSafe(format!("SELECT batch_key FROM ({} AND batch_key >= ?3) ORDER BY batch_key DESC LIMIT 1 OFFSET ?13", candidates(look.along)));
    let mut arguments = filters(of, look, 0).map_err(binding)?;
    arguments.add(LOOKS_MAX - 1).map_err(binding)?;
    sqlx::query_scalar_with(floor, arguments).fetch_optional(db).await.map_err(failed("list batches"))
}

/// The arguments 1 to 12, the same for both statements.
fn filters(of: &BatchFilter, look: &Look, floor: i64) -> Result<SqliteArguments, sqlx::error::BoxDynError> {
    let statuses: Vec<&str> = of.statuses.iter().map(|status| status.as_str()).collect();
    let mut arguments = SqliteArguments::default();
    arguments.add(of.app.clone())?;
    arguments.add(look.before)?;
    arguments.add(floor)?;
    arguments.add(of.op.as_ref().map(|op| canonical_op(op)))?;
    arguments.add(serde_json::to_string(&statuses)?)?;
    arguments.add(of.version.map(i64::from))?;
    arguments.add(of.group.clone())?;
    arguments.add(of.id.map(|id| id.to_string()))?;
    arguments.add(of.file_name.clone())?;
    arguments.add(of.file_sha256.as_ref().map(|digest| digest.to_lowercase()))?;
    arguments.add(of.since.map(|since| since.0))?;
    arguments.add(of.until.map(|until| until.0))?;
    Ok(arguments)
}

fn binding(source: sqlx::error::BoxDynError) -> StoreError {
    failed("list batches")(sqlx::Error::Encode(source))
}
