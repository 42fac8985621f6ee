//! A client removes a batch of its own that is done. What is known of it is kept first, to be judged; afterwards nothing of it may be left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rowmill::blobs::Blobs;
use rowmill::model::{Batch, Keep, RecordedOutcome};
use rowmill::prune::{Pace, PruneError, Pruner};
use rowmill::store::{Store, StoreError};
use sqlx::{Connection, PgConnection};

use super::audit::{self, Evidence};
use super::client::{BatchRecord, World};
use super::judgement::{Objects, read_results};
use super::violation::{Findings, Rule};

/// What was known of a batch before it was removed.
#[derive(Debug)]
pub struct Removed {
    pub evidence: Evidence,
    pub batch: Batch,
    pub results: Vec<RecordedOutcome>,
    /// The content of each output file, or why it could not be read.
    pub files: BTreeMap<String, Result<Vec<u8>, String>>,
    /// All objects that it ever named.
    pub objects: BTreeSet<String>,
}

impl World {
    /// Removes a batch that is done.
    pub(super) async fn remove(&self, record: &mut BatchRecord, findings: &mut Findings) -> Option<()> {
        let removed = loop {
            match self.keep(record).await {
                Ok(kept) => break kept,
                // Something is down.
                Err(_) => self.take_breath().await?,
            }
        };
        // From now on its counts may say more than its rows.
        self.active().retain(|id| *id != record.id);
        let pruner =
            Pruner::new(Arc::clone(&self.store) as Arc<dyn Store>, self.blobs.clone(), Arc::clone(&self.board), Keep::default(), Pace::Foreground);
        let mut in_doubt = false;
        loop {
            match pruner.remove(record.id).await {
                Ok(_) => break,
                // A try whose answer was lost had come to the end, or a worker went on with it.
                Err(PruneError::Store(StoreError::NotFound(_))) if in_doubt => break,
                Err(PruneError::Store(StoreError::Failed { .. }) | PruneError::Blobs(_)) => in_doubt = true,
                Err(error) => {
                    findings.add(Rule::AcknowledgedIsKept, format!("its removal was refused: {error}"));
                    return None;
                }
            }
            self.take_breath().await?;
        }
        self.counters.removed.fetch_add(1, Ordering::Relaxed);
        record.removed = Some(removed);
        Some(())
    }

    async fn keep(&self, record: &BatchRecord) -> anyhow::Result<Removed> {
        let mut db = PgConnection::connect(&self.url).await?;
        let evidence = audit::read(&mut db, record.id).await?.ok_or_else(|| anyhow::anyhow!("the database knows nothing of {}", record.id))?;
        db.close().await?;
        let batch = self.store.read_batch(record.id).await?;
        let results = read_results(&self.store, record.id).await?;
        let files = Objects::default().read_files(&self.blobs, &batch).await;
        if let Some(error) = files.values().find_map(|file| file.as_ref().err()) {
            anyhow::bail!("{error}");
        }
        let objects = evidence.files.iter().flat_map(|step| [&step.before, &step.after]).flatten().filter_map(|file| file.object.clone()).collect();
        Ok(Removed { evidence, batch, results, files, objects })
    }
}

impl Removed {
    /// Nothing of it is left in any table, nor in the object store.
    pub async fn judge(&self, db: &mut PgConnection, blobs: &Blobs, findings: &mut Findings) -> anyhow::Result<()> {
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT c.table_name::text FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
             WHERE c.table_schema = 'rowmill' AND c.column_name = 'batch_key' AND t.table_type = 'BASE TABLE' ORDER BY 1",
        )
        .fetch_all(&mut *db)
        .await?;
        for table in tables {
            let count = format!("SELECT count(*) FROM rowmill.{table} WHERE batch_key = $1");
            let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).bind(self.evidence.key).fetch_one(&mut *db).await?;
            findings.ensure(left == 0, Rule::RemovedIsGone, || format!("it was removed, and {left} rows of {table} are left"));
        }
        for object in &self.objects {
            findings.ensure(!blobs.exists(object).await?, Rule::RemovedIsGone, || format!("it was removed, and its object {object} is left"));
        }
        Ok(())
    }
}
