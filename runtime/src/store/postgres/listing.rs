//! Batches of an app are listed.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe};
use uuid::Uuid;

use super::connect::PgStore;
use super::text::{decode, encode};
use crate::model::{BatchFilter, BatchId, BatchPage, BatchPosition, canonical_op};
use crate::store::StoreError;
use crate::store::columns::failed;
use crate::store::listing::{Along, LOOKS_MAX, ListedFileRow, ListedRow, Look};

#[derive(sqlx::FromRow)]
struct FoundRow {
    batch_id: Uuid,
    #[sqlx(flatten)]
    batch: ListedRow,
    #[sqlx(flatten)]
    file: ListedFileRow,
}

/// The batches that a page may look at, by the index that it looks along.
fn candidates(along: Along) -> &'static str {
    match along {
        Along::App => "SELECT batch_key FROM rowmill.batches WHERE app = $1 AND batch_key < $2",
        Along::Group => {
            "SELECT batch_key FROM rowmill.batches
             WHERE app = $1 AND group_name = $7 AND batch_key < $2"
        }
        Along::FileName => {
            "SELECT DISTINCT batch_key FROM rowmill.batch_files
             WHERE app = $1 AND hashtextextended(name, 0) = hashtextextended($9, 0) AND name = $9 AND batch_key < $2"
        }
        Along::FileDigest => {
            "SELECT DISTINCT batch_key FROM rowmill.batch_files
             WHERE app = $1 AND hashtextextended(sha256, 0) = hashtextextended($10, 0)
                AND sha256 = $10 AND batch_key < $2"
        }
        Along::Id => "SELECT batch_key FROM rowmill.batches WHERE batch_id = $8 AND batch_key < $2",
    }
}

/// Each statement has the arguments 1 to 12; this gives those that it does not use their types.
const TYPES: &str = "num_nulls($1::text, $2::bigint, $3::bigint, $4::text, $5::text[], $6::bigint,
    $7::text, $8::uuid, $9::text, $10::text, $11::bigint, $12::bigint)";

pub(super) async fn list_batches(store: &PgStore, of: &BatchFilter, after: Option<BatchPosition>, limit: u32) -> Result<BatchPage, StoreError> {
    let look = Look::new(of, after, limit);
    // Batches that are removed between the two statements are missing in the page, and none is
    // passed over.
    let floor = find_floor(store, of, &look).await?;
    // Made of constants only.
    let page = AssertSqlSafe(format!(
        "SELECT b.batch_id, b.batch_key, b.op, b.kind, b.processor_version, b.priority::bigint,
            b.group_name, b.round::bigint, b.status, b.step, b.row_count::bigint, b.success::bigint,
            b.failed::bigint, b.fuel, b.abort_reason, b.mark_error, b.submitted_at, b.started_at,
            b.finished_at, f.first_row, f.name, f.form, f.size_bytes, f.sha256,
            CASE WHEN b.inputs_pruned_at IS NULL THEN f.object END AS object, f.source_object
         FROM ({} AND batch_key >= $3 ORDER BY batch_key DESC LIMIT $13) c
         JOIN rowmill.batches b ON b.batch_key = c.batch_key
         LEFT JOIN rowmill.batch_files f ON f.batch_key = b.batch_key AND f.first_row = (
            SELECT min(g.first_row) FROM rowmill.batch_files g WHERE g.batch_key = b.batch_key
                AND ($9::text IS NULL OR g.name = $9) AND ($10::text IS NULL OR g.sha256 = $10))
         WHERE b.app = $1 AND ($4::text IS NULL OR b.op = $4)
            AND (cardinality($5::text[]) = 0 OR b.status = ANY ($5))
            AND ($6::bigint IS NULL OR b.processor_version = $6)
            AND ($7::text IS NULL OR b.group_name = $7)
            AND ($8::uuid IS NULL OR b.batch_id = $8)
            AND (($9::text IS NULL AND $10::text IS NULL) OR f.first_row IS NOT NULL)
            AND ($11::bigint IS NULL OR b.submitted_at >= $11)
            AND ($12::bigint IS NULL OR b.submitted_at < $12)
         ORDER BY c.batch_key DESC LIMIT $14",
        candidates(look.along)
    ));
    let looks = if look.is_narrow { i64::MAX } else { look.limit.into() };
    let mut arguments = filters(of, &look, floor.unwrap_or(0)).map_err(binding)?;
    arguments.add(looks).map_err(binding)?;
    arguments.add(i64::from(look.limit)).map_err(binding)?;
    let mut db = store.unit().await?;
    let found: Vec<FoundRow> =
        sqlx::query_as_with(page, arguments).persistent(store.named()).fetch_all(&mut *db).await.map_err(failed("list batches"))?;
    db.done().await?;
    let batches =
        found.into_iter().map(|FoundRow { batch_id, batch, file }| batch.listed(&of.app, batch_id.into(), file.file(decode), decode)).collect();
    Ok(look.page(batches, floor))
}

/// The last batch that a page looks at, where there may be more behind it.
async fn find_floor(store: &PgStore, of: &BatchFilter, look: &Look) -> Result<Option<i64>, StoreError> {
    if !look.is_narrow {
        return Ok(None);
    }
    let floor = AssertSqlSafe(format!(
        "SELECT batch_key FROM ({} AND batch_key >= $3) c
         WHERE {TYPES} >= 0 ORDER BY batch_key DESC LIMIT 1 OFFSET $13",
        candidates(look.along)
    ));
    let mut arguments = filters(of, look, 0).map_err(binding)?;
    arguments.add(LOOKS_MAX - 1).map_err(binding)?;
    let mut db = store.unit().await?;
    let floor: Option<i64> =
        sqlx::query_scalar_with(floor, arguments).persistent(store.named()).fetch_optional(&mut *db).await.map_err(failed("list batches"))?;
    db.done().await?;
    Ok(floor)
}

/// The arguments 1 to 12, the same for both statements.
fn filters(of: &BatchFilter, look: &Look, floor: i64) -> Result<PgArguments, sqlx::error::BoxDynError> {
    let encoded = |text: &Option<String>| text.as_deref().map(|text| encode(text).into_owned());
    let statuses: Vec<String> = of.statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let mut arguments = PgArguments::default();
    arguments.add(encode(&of.app).into_owned())?;
    arguments.add(look.before)?;
    arguments.add(floor)?;
    arguments.add(encoded(&of.op.as_ref().map(|op| canonical_op(op))))?;
    arguments.add(statuses)?;
    arguments.add(of.version.map(i64::from))?;
    arguments.add(encoded(&of.group))?;
    arguments.add(of.id.map(BatchId::uuid))?;
    arguments.add(encoded(&of.file_name))?;
    arguments.add(encoded(&of.file_sha256.as_ref().map(|digest| digest.to_lowercase())))?;
    arguments.add(of.since.map(|since| since.0))?;
    arguments.add(of.until.map(|until| until.0))?;
    Ok(arguments)
}

fn binding(source: sqlx::error::BoxDynError) -> StoreError {
    failed("list batches")(sqlx::Error::Encode(source))
}
