//! Compares the counts of running batches with their rows, in one statement and so at one moment, all the time.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::BatchId;
use sqlx::{Connection, PgConnection};

use super::client::World;
use super::plan::index;
use super::violation::{Findings, Rule, Violation};
use crate::random::Random;

const PAUSE: Duration = Duration::from_millis(40);

/// Looks until nothing runs any more. Returns how often it compared, and what it found.
pub async fn compare(world: Arc<World>, url: String) -> (u64, Vec<Violation>) {
    let (mut compared, mut found) = (0, Vec::new());
    let mut dice = Random::new(world.seed);
    let mut connection = None;
    while !world.give_up.is_cancelled() {
        tokio::time::sleep(PAUSE).await;
        let chosen: Option<BatchId> = {
            let active = world.active();
            (!active.is_empty()).then(|| active[index(&mut dice, active.len())])
        };
        let Some(id) = chosen else {
            if world.stop.is_cancelled() {
                break;
            }
            continue;
        };
        if connection.is_none() {
            connection = PgConnection::connect(&url).await.ok();
        }
        let Some(open) = &mut connection else { continue };
        match look(open, id).await {
            Ok(findings) => {
                compared += 1;
                found.extend(findings);
            }
            // The database is down.
            Err(_) => connection = None,
        }
    }
    (compared, found)
}

async fn look(db: &mut PgConnection, id: BatchId) -> Result<Vec<Violation>, sqlx::Error> {
    type Counted = (String, String, i32, i32, i32, i64, i64, i64);
    let counted: Option<Counted> = sqlx::query_as(
        "SELECT b.status, b.step, b.row_count, b.success, b.failed, (SELECT count(*) FROM rowmill.rows r WHERE r.batch_key = b.batch_key),
            o.success, o.failed
         FROM rowmill.batches b CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE NOT o.failed) AS success, count(*) FILTER (WHERE o.failed) AS failed
            FROM rowmill.outcomes o WHERE o.batch_key = b.batch_key) o
         WHERE b.batch_id = $1::uuid",
    )
    .bind(id.to_string())
    .fetch_optional(db)
    .await?;
    let mut findings = Findings::of(id);
    if let Some((status, step, rows, success, failed, rows_there, successes, failures)) = counted {
        let same = (i64::from(rows), i64::from(success), i64::from(failed)) == (rows_there, successes, failures);
        findings.ensure(same, Rule::CountsEqualRows, || {
            format!("{status}/{step}: {rows} rows, {success} success, {failed} failed, where {rows_there}, {successes} and {failures} are")
        });
    }
    Ok(findings.found)
}
