//! The worker on each store: real rows through a real guest, from the submit to the last file.

use std::sync::Arc;
use std::time::Duration;

use rowmill::blobs::Blobs;
use rowmill::model::{BatchId, BatchStatus, BatchStep, JsonText, NewBatch, NewRow, Pooler, ProcessorKind, RecordedOutcome, SystemClock, Terms};
use rowmill::registry::Registry;
use rowmill::sandbox::{Processor, Sandbox};
use rowmill::status::StatusBoard;
use rowmill::store::{PgSettings, PgStore, SqliteStore, Store};
use rowmill::worker::{Worker, WorkerSettings};
use rowmill_tests::servers::Database;
use tempfile::TempDir;

use crate::support::guests;

/// A store, a guest, and what a worker needs beside them.
struct Bench {
    store: Arc<dyn Store>,
    sandbox: Sandbox,
    processor: Processor,
    directory: TempDir,
}

impl Bench {
    fn new(store: Arc<dyn Store>, directory: TempDir) -> Bench {
        let sandbox = Sandbox::new(8, &guests::cache()).unwrap();
        let processor = sandbox.load(&std::fs::read(guests::path("bank-transactions")).unwrap()).unwrap();
        Bench { store, sandbox, processor, directory }
    }

    async fn submit(&self, app: &str, rows: u32) -> BatchId {
        let batch = NewBatch {
            id: BatchId::generate(),
            app: app.to_owned(),
            op: "validate".to_owned(),
            kind: ProcessorKind::Batch,
            processor_version: 1,
            processor_digest: self.processor.digest.clone(),
            context: JsonText::check("{}").unwrap(),
            terms: Terms { attempts_max: 1, ..Terms::default() },
            hold: false,
            after: None,
            group: None,
            request_digest: None,
            as_found: None,
        };
        let id = batch.id;
        self.store.submit_batch(batch, (1..=rows).map(transaction).collect()).await.unwrap();
        id
    }

    fn worker(&self) -> Arc<Worker> {
        let blobs = Blobs::local(self.directory.path()).unwrap();
        let registry = Registry::new(self.sandbox.clone(), blobs.clone());
        registry.add(self.processor.clone());
        Worker::new(Arc::clone(&self.store), blobs, Arc::new(registry), Arc::new(StatusBoard::in_process()), WorkerSettings::local())
    }

    /// Works until the batches are done.
    async fn work(&self, batches: &[BatchId]) {
        let worker = self.worker();
        let watching = async {
            for id in batches {
                while self.store.read_batch(*id).await.unwrap().step != BatchStep::Done {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            worker.drain();
        };
        let (worked, ()) = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(worker.run(), watching) }).await.unwrap();
        worked.unwrap();
    }

    async fn results(&self, id: BatchId) -> Vec<RecordedOutcome> {
        self.store.read_results(id, None, 10_000).await.unwrap()
    }
}

/// Each hundredth has an amount that is none.
fn transaction(line: u32) -> NewRow {
    let amount = if line.is_multiple_of(100) { "much".to_owned() } else { format!("{line}.25") };
    let input = serde_json::json!({
        "id": format!("TX{line:08}"), "account": "DE0123456789", "amount": amount, "currency": "EUR", "date": "2026-01-31", "type": "deposit",
    });
    NewRow::new(line, JsonText::check(input.to_string()).unwrap())
}

async fn sqlite() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db"), Arc::new(SystemClock)).await.unwrap();
    Bench::new(Arc::new(store), directory)
}

/// The database goes when it is dropped.
async fn postgres() -> (Database, Bench) {
    let database = Database::create().unwrap();
    let settings = PgSettings { url: database.url(), connections: 8, pooler: Pooler::None };
    PgStore::migrate(&settings).await.unwrap();
    let store = PgStore::connect(&settings).await.unwrap();
    let bench = Bench::new(Arc::new(store), tempfile::tempdir().unwrap());
    (database, bench)
}

async fn a_batch_goes_its_whole_way(bench: Bench) {
    let id = bench.submit("bank", 3_000).await;
    bench.work(&[id]).await;
    let (batch, results) = (bench.store.read_batch(id).await.unwrap(), bench.results(id).await);
    assert_eq!(batch.mark_error, None);
    assert_eq!(results.iter().map(|row| row.line).collect::<Vec<_>>(), (1..=3_000).collect::<Vec<_>>());
    println!("{:?} {:?} {:?}", batch.counts, batch.files, results[99]);
    assert_eq!((batch.status, batch.counts.failed, batch.counts.success), (BatchStatus::Failed, 30, 2_970));
    assert!(!batch.files.is_empty() && batch.files.iter().all(|file| bench.directory.path().join(&file.object).exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_its_whole_way_on_sqlite() {
    a_batch_goes_its_whole_way(sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_its_whole_way_on_postgresql() {
    let (_database, bench) = postgres().await;
    a_batch_goes_its_whole_way(bench).await;
}
