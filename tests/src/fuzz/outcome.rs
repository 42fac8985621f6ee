//! Outcomes on their way to the database and back: what is recorded is read, or is refused by its name; and all stores say the same.

mod plan;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use arbitrary::Unstructured;
use rowmill::model::{
    Batch, BatchCounts, BatchId, BatchStep, ClaimRequest, ManualClock, OutputFile, Piece, Pooler, RecordedOutcome, RowStatus, Timestamp,
};
use rowmill::store::{PgSettings, PgStore, ResultCursor, SqliteStore, Store, StoreError};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::plan::Plan;
use super::scratch;

/// A PostgreSQL database for this alone; without it, outcomes go to SQLite only.
pub const POSTGRES: &str = "ROWMILL_FUZZ_POSTGRES";
const START: Timestamp = Timestamp(1_750_000_000_000);
const TTL: Duration = Duration::from_secs(30);
/// A file of SQLite's is left for a new one after so many inputs.
const INPUTS_PER_FILE: u32 = 2_000;
const PAGE_ROWS: u32 = 3;

struct Stage {
    runtime: Runtime,
    clock: Arc<ManualClock>,
    postgres: Option<PgStore>,
    sqlite: Mutex<Option<Sqlite>>,
}

struct Sqlite {
    store: SqliteStore,
    inputs: u32,
    _directory: TempDir,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("there are threads");
    let clock = Arc::new(ManualClock::at(START));
    let postgres = std::env::var(POSTGRES).ok().map(|url| {
        let settings = PgSettings { url, connections: 3, pooler: Pooler::None };
        let connected = runtime.block_on(async {
            PgStore::migrate(&settings).await?;
            PgStore::connect(&settings).await
        });
        connected.unwrap_or_else(|error| panic!("{:#}", anyhow::Error::new(error))).with_clock(clock.clone())
    });
    Stage { runtime, clock, postgres, sqlite: Mutex::default() }
});

impl Sqlite {
    async fn open(clock: Arc<ManualClock>) -> Sqlite {
        let directory = scratch();
        let store = SqliteStore::open(&directory.path().join("store.db"), clock).await.expect("a file can be made");
        Sqlite { store, inputs: 0, _directory: directory }
    }
}

/// What can be read of a batch that came to its end.
#[derive(Debug, PartialEq)]
struct Told {
    counts: BatchCounts,
    /// All of it, as text.
    batch: String,
    rows: Vec<RecordedOutcome>,
    pieces: BTreeMap<u32, Vec<Piece>>,
}

/// Makes a batch of these bytes, and lets it come to its end in each store.
pub fn check(input: &[u8]) {
    let Ok(plan) = Unstructured::new(input).arbitrary::<Plan>() else { return };
    let stage = &*STAGE;
    stage.runtime.block_on(async {
        let mut kept = stage.sqlite.lock().unwrap_or_else(PoisonError::into_inner).take();
        if kept.as_ref().is_none_or(|sqlite| sqlite.inputs >= INPUTS_PER_FILE) {
            if let Some(old) = kept.take() {
                old.store.close().await;
            }
            kept = Some(Sqlite::open(Arc::clone(&stage.clock)).await);
        }
        let Some(mut sqlite) = kept else { return };
        sqlite.inputs += 1;
        let id = BatchId::generate();
        let told = tell(&sqlite.store, id, &plan).await;
        if let Ok(told) = &told {
            check_told(&plan, told);
        }
        if let Some(postgres) = &stage.postgres {
            assert_eq!(told, tell(postgres, id, &plan).await, "the stores differ");
        }
        *stage.sqlite.lock().unwrap_or_else(PoisonError::into_inner) = Some(sqlite);
    });
}

/// For a corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..64).map(|seed| super::bytes(seed, 100 + 20 * usize::try_from(seed).unwrap_or(0))).collect()
}

/// Takes a batch through the store. A refusal is a sentence; a store that failed is none.
async fn tell(store: &dyn Store, id: BatchId, plan: &Plan) -> Result<Told, String> {
    let told = go_through(store, id, plan).await;
    told.map_err(|error| match error {
        StoreError::Invalid(reason) => reason,
        // Which of the names are allowed is in no order.
        StoreError::TooManyFiles { .. } => "too many files".to_owned(),
        other => panic!("{:#}", anyhow::Error::new(other)),
    })
}

async fn go_through(store: &dyn Store, id: BatchId, plan: &Plan) -> Result<Told, StoreError> {
    store.submit_batch(plan.batch(id), plan.new_rows()).await?;
    if let Err(error) = run(store, id, plan).await {
        // Nothing of it waits for the next input.
        store.abort_batch(id, None).await?;
        finish(store, id, plan).await?;
        return Err(error);
    }
    if let Some(reason) = plan.abort_reason() {
        store.abort_batch(id, Some(reason)).await?;
    }
    let pieces = read_pieces(store, id).await?;
    finish(store, id, plan).await?;
    let batch: Batch = store.read_batch(id).await?;
    let mut rows: Vec<RecordedOutcome> = Vec::new();
    loop {
        let after = rows.last().map(|last| ResultCursor { line: last.line, row_no: last.row_no });
        match store.read_results(id, after, PAGE_ROWS).await? {
            page if page.is_empty() => break,
            page => rows.extend(page),
        }
    }
    Ok(Told { counts: batch.counts, batch: format!("{batch:?}"), rows, pieces })
}

/// Claims and records until nothing can be claimed.
async fn run(store: &dyn Store, id: BatchId, plan: &Plan) -> Result<(), StoreError> {
    let request = ClaimRequest {
        worker: "fuzz".to_owned(),
        kind: None,
        apps_except: Vec::new(),
        leases_max: 2,
        rows_max: plan.lease_rows(),
        target: Duration::from_millis(250),
        slots: 2,
        ttl: TTL,
    };
    loop {
        let leases = store.claim_leases(&request).await?;
        if leases.is_empty() {
            return Ok(());
        }
        for lease in leases {
            if lease.batch != id {
                // A process that was killed left it behind.
                store.abort_batch(lease.batch, None).await?;
                continue;
            }
            let rows = store.read_leased_rows(lease.key).await?;
            for row in &rows {
                plan.check_leased(row);
            }
            let results: Vec<_> = rows.iter().map(|row| plan.result(row)).collect();
            store.record_results(lease.key, &results, Duration::from_micros(plan.took_micros())).await?;
        }
    }
}

/// Takes all batches that wait for it through their last steps.
async fn finish(store: &dyn Store, id: BatchId, plan: &Plan) -> Result<(), StoreError> {
    while let Some(lease) = store.claim_finish("fuzz", None, TTL).await? {
        if lease.step == BatchStep::Join {
            let names = if lease.batch == id { store.list_file_names(id).await? } else { Vec::new() };
            let file = |name: String| OutputFile { object: format!("{id}/{name}"), size_bytes: name.len() as u64, name };
            store.record_files(&lease, &names.into_iter().map(file).collect::<Vec<_>>()).await?;
        } else {
            store.record_mark_done(&lease, plan.mark_error()).await?;
        }
    }
    Ok(())
}

async fn read_pieces(store: &dyn Store, id: BatchId) -> Result<BTreeMap<u32, Vec<Piece>>, StoreError> {
    let names = store.list_file_names(id).await?;
    let (mut all, mut after) = (BTreeMap::new(), None);
    loop {
        let page = store.read_pieces(id, after, PAGE_ROWS).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.at);
        for row in page {
            let pieces = row.pieces.into_iter().map(|(file, text)| Piece { file: names[file].clone(), text });
            all.insert(row.at.row_no, pieces.collect());
        }
    }
}

/// What was recorded is what is read.
fn check_told(plan: &Plan, told: &Told) {
    assert_eq!(told.rows, plan.expected(), "{plan:?}");
    assert_eq!(told.pieces, plan.pieces(), "{plan:?}");
    let count = |status| told.rows.iter().filter(|row| row.status == Some(status)).count() as u64;
    let [success, failed, aborted] = [RowStatus::Success, RowStatus::Failed, RowStatus::Aborted].map(count);
    assert_eq!(told.counts, BatchCounts { rows: told.rows.len() as u64, success, failed, aborted }, "{plan:?}");
}
