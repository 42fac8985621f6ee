//! What the tests are written with: a fresh store, a clock that stands still, and short words for what workers do all day.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rowmill::model::{
    Batch, BatchCounts, BatchId, BatchStatus, ClaimRequest, ClaimedWork, Clock, FinishLease, Lease, LeasedRow, ManualClock, OutputFile,
    RecordedOutcome, RowResult, RowStatus, Timestamp,
};
use rowmill::store::{LeaseOwner, Recorded, ResultCursor, RowPieces, Store, StoreError};

use super::build::{TTL, batch, held, request, rows, rows_with_lines, success};

/// What an implementation brings along: a place of its own for each test, which goes when it is dropped.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// How many random schedules are run.
    fn schedules() -> u64
    where
        Self: Sized;

    /// A place without any data.
    async fn fresh() -> Self
    where
        Self: Sized;

    /// Opens the store at this place, as a process does when it starts.
    async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError>;
}

/// A store under test.
pub struct Kit {
    pub store: Arc<dyn Store>,
    pub clock: Arc<ManualClock>,
    place: Arc<dyn Harness>,
    pub schedules: u64,
    another: fn() -> Pin<Box<dyn Future<Output = Kit>>>,
}

/// When the tests take place.
pub const START: Timestamp = Timestamp(1_750_000_000_000);

impl Kit {
    pub async fn fresh<H: Harness>() -> Kit {
        let clock = Arc::new(ManualClock::at(START));
        let place: Arc<dyn Harness> = Arc::new(H::fresh().await);
        let store = place.open(clock.clone()).await.unwrap();
        Kit { store, clock, place, schedules: H::schedules(), another: || Box::pin(Kit::fresh::<H>()) }
    }

    /// A fresh store of the same kind.
    pub async fn another(&self) -> Kit {
        (self.another)().await
    }

    /// Opens the same place once more.
    pub async fn open_again(&self) -> Result<Arc<dyn Store>, StoreError> {
        self.place.open(self.clock.clone()).await
    }

    /// The process dies without giving anything back, and another opens the store.
    pub async fn crash_and_reopen(self) -> Kit {
        let Kit { store, clock, place, schedules, another } = self;
        assert_eq!(Arc::strong_count(&store), 1, "somebody else holds the store");
        drop(store);
        let store = place.open(clock.clone()).await.unwrap();
        Kit { store, clock, place, schedules, another }
    }

    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

/// What submitters do.
impl Kit {
    /// A batch with lines from 1 on, released.
    pub async fn submit(&self, count: u32) -> BatchId {
        self.submit_rows(rows(count)).await
    }

    pub async fn submit_lines(&self, lines: &[u32]) -> BatchId {
        self.submit_rows(rows_with_lines(lines)).await
    }

    pub async fn submit_rows(&self, rows: Vec<rowmill::model::NewRow>) -> BatchId {
        let batch = batch();
        let id = batch.id;
        self.store.submit_batch(batch, rows).await.unwrap();
        id
    }

    /// A batch with lines from 1 on, not released.
    pub async fn hold(&self, count: u32) -> BatchId {
        let batch = held();
        let id = batch.id;
        self.store.submit_batch(batch, rows(count)).await.unwrap();
        id
    }

    /// Aborts a batch that is not final.
    pub async fn abort(&self, id: BatchId) {
        let aborted = self.store.abort_batch(id, None).await.unwrap();
        assert!(aborted.changed, "{aborted:?}");
    }

    pub async fn batch(&self, id: BatchId) -> Batch {
        self.store.read_batch(id).await.unwrap()
    }

    pub async fn status(&self, id: BatchId) -> BatchStatus {
        self.batch(id).await.status
    }

    pub async fn counts(&self, id: BatchId) -> BatchCounts {
        self.batch(id).await.counts
    }

    /// All results, read in pages of this many.
    pub async fn results_by(&self, id: BatchId, page_rows: u32) -> Vec<RecordedOutcome> {
        let mut all: Vec<RecordedOutcome> = Vec::new();
        loop {
            let after = all.last().map(|last| ResultCursor { line: last.line, row_no: last.row_no });
            let page = self.store.read_results(id, after, page_rows).await.unwrap();
            assert!(page.len() <= page_rows as usize, "{} rows in a page of {page_rows}", page.len());
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    pub async fn results(&self, id: BatchId) -> Vec<RecordedOutcome> {
        self.results_by(id, 1_000).await
    }

    /// All pieces, read in pages of this many rows.
    pub async fn pieces_by(&self, id: BatchId, page_rows: u32) -> Vec<RowPieces> {
        let mut all: Vec<RowPieces> = Vec::new();
        loop {
            let page = self.store.read_pieces(id, all.last().map(|last| last.at), page_rows).await.unwrap();
            assert!(page.len() <= page_rows as usize, "{} rows in a page of {page_rows}", page.len());
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// The statuses of all rows, in line order.
    pub async fn statuses(&self, id: BatchId) -> Vec<Option<RowStatus>> {
        self.results(id).await.iter().map(|row| row.status).collect()
    }

    /// All that can be seen of a batch: equal before and after what must not change it.
    pub async fn view(&self, id: BatchId) -> String {
        let (batch, results) = (self.batch(id).await, self.results(id).await);
        let (names, pieces) = (self.store.list_file_names(id).await.unwrap(), self.pieces_by(id, 100).await);
        format!("{batch:#?}\n{results:#?}\n{names:#?}\n{pieces:#?}")
    }
}

/// What workers do.
impl Kit {
    pub async fn claim(&self, request: &ClaimRequest) -> Vec<Lease> {
        let claimed = self.store.claim_work(request).await.unwrap();
        let mut leases = Vec::new();
        for ClaimedWork { lease, batch, rows } in claimed {
            // What comes with a lease is what is there, but for what others have recorded since.
            if let Some((batch, app)) = batch {
                let now = self.batch(lease.batch).await;
                assert!((batch.counts.success, batch.counts.failed, batch.fuel) <= (now.counts.success, now.counts.failed, now.fuel));
                let then = Batch { counts: batch.counts, fuel: batch.fuel, ..now };
                assert_eq!(format!("{batch:#?}"), format!("{then:#?}"));
                assert_eq!(app, self.store.read_app(&batch.app).await.unwrap());
            }
            if let Some(rows) = rows {
                assert_eq!(rows, self.read(&lease).await);
            }
            leases.push(lease);
        }
        leases
    }

    /// Claims one lease of exactly this many rows.
    pub async fn claim_rows(&self, rows: u32) -> Lease {
        let leases = self.claim(&ClaimRequest { rows_max: rows, ..request() }).await;
        assert_eq!(leases.iter().map(|lease| lease.rows).collect::<Vec<_>>(), [rows]);
        leases[0]
    }

    /// There is nothing to claim.
    pub async fn claim_nothing(&self) {
        assert_eq!(self.claim(&request()).await, []);
    }

    /// The rows of a lease, which come in one part.
    pub async fn read(&self, lease: &Lease) -> Vec<LeasedRow> {
        self.store.read_leased_rows(lease.key).await.unwrap()
    }

    pub async fn row_numbers(&self, lease: &Lease) -> Vec<u32> {
        self.read(lease).await.iter().map(|row| row.row_no).collect()
    }

    pub async fn attempts(&self, lease: &Lease) -> Vec<u32> {
        self.read(lease).await.iter().map(|row| row.attempt).collect()
    }

    /// Records results of rows that took a microsecond each.
    pub async fn record(&self, lease: &Lease, results: &[RowResult]) -> Recorded {
        self.try_record(lease, results).await.unwrap()
    }

    pub async fn try_record(&self, lease: &Lease, results: &[RowResult]) -> Result<Recorded, StoreError> {
        self.store.record_results(lease.key, results, Duration::from_micros(results.len() as u64)).await
    }

    /// The same, to finish the batch if these were its last.
    pub async fn record_to_finish(&self, lease: &Lease, results: &[RowResult]) -> Recorded {
        let finisher = LeaseOwner { worker: "finisher", ttl: TTL };
        self.store.record_to_finish(lease.key, results, Duration::from_micros(results.len() as u64), Some(finisher)).await.unwrap()
    }

    /// Records the rest of a lease, each row with the same kind of result.
    pub async fn record_each(&self, lease: &Lease, result: impl Fn(&LeasedRow) -> RowResult) -> Recorded {
        let results: Vec<RowResult> = self.read(lease).await.iter().map(result).collect();
        self.record(lease, &results).await
    }

    /// Runs all rows that can be claimed, with success.
    pub async fn run_rows(&self) {
        self.run_rows_with(success).await;
    }

    pub async fn run_rows_with(&self, result: impl Fn(&LeasedRow) -> RowResult) {
        while let [lease] = self.claim(&request()).await[..] {
            self.record_each(&lease, &result).await;
        }
    }

    /// The worker that holds a lease goes silent until all leases that live now have ended.
    pub fn go_silent(&self) {
        self.pass(TTL);
    }

    pub async fn claim_finish(&self) -> FinishLease {
        self.try_claim_finish().await.expect("no batch waits to be finished")
    }

    pub async fn try_claim_finish(&self) -> Option<FinishLease> {
        self.store.claim_finish("finisher", None, TTL).await.unwrap()
    }

    /// Takes all batches that wait for it through their last steps, without files.
    pub async fn finish_all(&self) {
        while let Some(lease) = self.try_claim_finish().await {
            match lease.step {
                rowmill::model::BatchStep::Join => self.store.record_files(&lease, &[]).await.unwrap(),
                _ => self.store.record_mark_done(&lease, None).await.unwrap(),
            }
        }
    }
}

pub fn file(name: &str, object: &str) -> OutputFile {
    OutputFile { name: name.to_owned(), object: object.to_owned(), size_bytes: 7 }
}

#[track_caller]
pub fn is_lost<T: Debug>(result: Result<T, StoreError>) {
    match result {
        Err(StoreError::LeaseLost) => {}
        other => panic!("not a lost lease: {other:?}"),
    }
}

#[track_caller]
pub fn is_invalid<T: Debug>(result: Result<T, StoreError>) {
    match result {
        Err(StoreError::Invalid(_)) => {}
        other => panic!("not invalid: {other:?}"),
    }
}

#[track_caller]
pub fn is_missing<T: Debug>(result: Result<T, StoreError>, wanted: BatchId) {
    match result {
        Err(StoreError::NotFound(id)) => assert_eq!(id, wanted),
        other => panic!("not missing: {other:?}"),
    }
}

#[track_caller]
pub fn is_wrong_status<T: Debug>(result: Result<T, StoreError>, wanted: (BatchId, BatchStatus)) {
    match result {
        Err(StoreError::WrongStatus { id, status, .. }) => assert_eq!((id, status), wanted),
        other => panic!("not the wrong status: {other:?}"),
    }
}
