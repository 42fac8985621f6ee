//! A fresh store, and short words for what the tests do with it.

use std::sync::Arc;
use std::time::Duration;

use rowmill::model::{
    BatchId, ClaimRequest, JsonText, Lease, ManualClock, NewBatch, NewRow, Piece, ProcessorKind, RowResult, RowStatus, Timestamp, Verdict,
};
use rowmill::store::{SqliteStore, Store};
use tempfile::TempDir;

pub const TTL: Duration = Duration::from_secs(30);

pub struct Fresh {
    pub store: Arc<dyn Store>,
    pub clock: Arc<ManualClock>,
    _directory: TempDir,
}

pub async fn sqlite() -> Fresh {
    let directory = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let store = SqliteStore::open(&directory.path().join("store.sqlite"), Arc::clone(&clock) as _).await.unwrap();
    Fresh { store: Arc::new(store), clock, _directory: directory }
}

pub fn new_batch(hold: bool) -> NewBatch {
    NewBatch {
        id: BatchId::generate(),
        app: "app".to_owned(),
        op: "Op".to_owned(),
        kind: ProcessorKind::Batch,
        processor_version: 1,
        processor_digest: "d".to_owned(),
        context: JsonText::default(),
        attempts_max: 3,
        hold,
    }
}

pub fn rows(lines: impl IntoIterator<Item = u32>) -> Vec<NewRow> {
    lines.into_iter().map(|line| NewRow { line, input: JsonText::trusted(line.to_string()), rejected: None }).collect()
}

pub fn result(row_no: u32, attempt: u32, status: RowStatus) -> RowResult {
    let verdict = Verdict::Final { status, output: Some("{}".to_owned()), messages: vec![], pieces: vec![] };
    RowResult { row_no, attempt, fuel: 7, log: None, verdict }
}

pub fn with_piece(row_no: u32, file: &str) -> RowResult {
    let pieces = vec![Piece { file: file.to_owned(), text: row_no.to_string() }];
    let verdict = Verdict::Final { status: RowStatus::Success, output: None, messages: vec![], pieces };
    RowResult { row_no, attempt: 1, fuel: 0, log: None, verdict }
}

impl Fresh {
    /// A batch of so many rows, released.
    pub async fn submit(&self, count: u32) -> BatchId {
        let batch = new_batch(false);
        let id = batch.id;
        self.store.submit_batch(batch, rows(1..=count)).await.unwrap();
        id
    }

    pub async fn claim(&self, leases_max: u32, rows_max: u32) -> Vec<Lease> {
        let target = Duration::from_millis(250);
        let request = ClaimRequest { worker: "w".to_owned(), leases_max, rows_max, target, slots: 1, ttl: TTL };
        self.store.claim_leases(&request).await.unwrap()
    }

    pub async fn claim_one(&self, rows_max: u32) -> Lease {
        self.claim(1, rows_max).await.pop().expect("a lease")
    }

    /// Records every row of a lease as a success.
    pub async fn record_all(&self, lease: &Lease) -> rowmill::store::Recorded {
        let rows = self.store.read_leased_rows(lease.key).await.unwrap();
        let results: Vec<RowResult> = rows.iter().map(|row| result(row.row_no, row.attempt, RowStatus::Success)).collect();
        self.store.record_results(lease.key, &results, Duration::from_millis(1)).await.unwrap()
    }
}
