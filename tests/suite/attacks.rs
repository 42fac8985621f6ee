//! The attacks of `rowmill_tests::attacks`: a hostile app and a healthy one on the same worker. Each test has the id of its attack at the beginning of its name; what
//! is tested of an attack without a worker (the sandbox alone, grants, the compiler, versions) stands with its room, under the same id.
//!
//! Nothing here is a matter of seconds: the healthy app's rows come through while the hostile ones run, or beside them until they have ended.

mod comp;
mod cpu;
mod fuzz;
mod life;
mod list;
mod log;
mod mem;
mod net;
mod out;
mod sec;
mod stk;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rowmill::jobs::BatchRequest;
use rowmill::model::{App, Batch, BatchId, BatchStatus, Limits, Message, NewRow, RecordedOutcome, RowStatus};
use rowmill::worker::WorkerSettings;
use rowmill_tests::reaching;
use tokio_util::sync::CancellationToken;

use crate::jobs::{SOON, Site, row, settings, transaction};
use crate::support::guests;

const MIB: u64 = 1 << 20;
/// No attack may cost the process more memory than this, whatever a guest asks for.
const MEMORY_MAX_BYTES: u64 = 512 * MIB;
/// Rows of one batch of the healthy app, one of which fails as it should.
const HEALTHY_ROWS: u32 = 20;

const HOSTILE: &str = "hostile";
const HEALTHY: &str = "healthy";

/// Where both meet: a store, and one worker.
struct Arena {
    site: Site,
    panics: Arc<Mutex<Vec<String>>>,
    memory_bytes: u64,
}

impl Arena {
    async fn open() -> Arena {
        Arena::working_by(settings("arena")).await
    }

    async fn working_by(mut settings: WorkerSettings) -> Arena {
        settings.grants.databases_directory = Some(reaching::databases_directory().to_owned());
        let site = Site::sqlite().await;
        Arena::of(site.working_by(settings)).await
    }

    /// With the healthy app's processor, and working.
    async fn of(mut site: Site) -> Arena {
        site.jobs.register_processor(HEALTHY, "validate", guests::read("bank-transactions")).await.unwrap();
        site.begin_work();
        let arena = Arena { site, panics: count_panics(), memory_bytes: 0 };
        arena.healthy_batch().await;
        // Not before: what a process needs for its first rows is nobody's attack.
        Arena { memory_bytes: resident("VmRSS"), ..arena }
    }

    /// Whoever comes first gives the hostile app its limits.
    async fn limit(&self, limits: Limits) {
        self.site.jobs.register_app(&App { limits: Some(limits), ..App::named(HOSTILE) }).await.unwrap();
    }

    /// Without the trial start: attacks that do not start are tested as well.
    async fn deploy(&self, op: &str, wasm: impl Into<Bytes>) {
        self.site.jobs.clone().without_trial_start().register_processor(HOSTILE, op, wasm).await.unwrap();
    }

    async fn submit(&self, op: &str, inputs: &[&str]) -> BatchId {
        let rows = (1..).zip(inputs).map(|(line, input)| row(line, input)).collect();
        self.site.jobs.batch_submit(BatchRequest::new(HOSTILE, op).with_rows(rows)).await.unwrap()
    }

    /// A batch of the hostile app to its end, with healthy ones beside it.
    async fn attack(&self, op: &str, inputs: &[&str]) -> (Batch, Vec<RecordedOutcome>) {
        let id = self.submit(op, inputs).await;
        let batch = self.beside(self.site.wait(id)).await;
        (batch, self.rows(id).await)
    }

    /// The one message of a row that the runtime failed.
    async fn attack_row(&self, op: &str, input: &str) -> Message {
        let (_, rows) = self.attack(op, &[input]).await;
        failure(&rows[0])
    }

    async fn rows(&self, id: BatchId) -> Vec<RecordedOutcome> {
        self.site.jobs.batch_rows(id, None, 10_000).await.unwrap()
    }

    /// The healthy app submits a batch, and it comes through as it would alone.
    async fn healthy_batch(&self) {
        self.healthy_batch_of(HEALTHY).await;
    }

    async fn healthy_batch_of(&self, app: &str) {
        let mut rows: Vec<NewRow> = (1..HEALTHY_ROWS).map(transaction).collect();
        rows.push(row(HEALTHY_ROWS, r#"{"id":"bad"}"#));
        let id = self.site.jobs.batch_submit(BatchRequest::new(app, "validate").with_rows(rows)).await.unwrap();
        let batch = self.site.wait(id).await;
        assert_eq!((batch.counts.success, batch.counts.failed), (u64::from(HEALTHY_ROWS) - 1, 1), "the healthy app's rows: {batch:?}");
        let rows = self.rows(id).await;
        let as_it_should = |row: &RecordedOutcome| row.attempts == 1 && (row.messages.is_empty() || row.line == HEALTHY_ROWS);
        assert!(rows.iter().all(as_it_should), "{rows:?}");
    }

    /// Whatever this is, healthy batches come through beside it, one after the other, until it has ended.
    async fn beside<T>(&self, attack: impl Future<Output = T>) -> T {
        let over = CancellationToken::new();
        let attacking = async {
            let came = attack.await;
            over.cancel();
            came
        };
        let healthy = async {
            loop {
                self.healthy_batch().await;
                if over.is_cancelled() {
                    return;
                }
            }
        };
        tokio::join!(attacking, healthy).0
    }

    /// Healthy batches come through while rows of this one run that would not end by themselves; then it is aborted.
    async fn beside_endless(&self, id: BatchId) {
        self.until_it_runs(id).await;
        for _ in 0..3 {
            self.healthy_batch().await;
        }
        assert_eq!(self.site.store.read_batch(id).await.unwrap().status, BatchStatus::Inprog, "the hostile rows ended before the healthy ones");
        self.site.jobs.batch_abort(id, None).await.unwrap();
    }

    async fn until_it_runs(&self, id: BatchId) {
        until(async || self.site.store.read_batch(id).await.unwrap().status == BatchStatus::Inprog).await;
    }

    /// Nothing of the host panicked, nothing was kept, and it goes on.
    async fn close(mut self) {
        self.healthy_batch().await;
        self.site.end_work().await;
        let panics = self.panics.lock().unwrap().clone();
        assert!(panics.is_empty(), "the host panicked: {panics:?}");
        let grown = resident("VmHWM").saturating_sub(self.memory_bytes);
        println!("memory of the host grew by {} MiB at most", grown / MIB);
        assert!(grown < MEMORY_MAX_BYTES, "the host took {} MiB more", grown / MIB);
    }
}

/// What the runtime said of a row that it failed.
#[track_caller]
fn failure(row: &RecordedOutcome) -> Message {
    assert_eq!(row.status, Some(RowStatus::Failed), "{row:?}");
    match &row.messages[..] {
        [message] if message.id == 0 => message.clone(),
        _ => panic!("{row:?}"),
    }
}

/// A message's code, and its values as numbers.
#[track_caller]
fn numbers(message: &Message) -> (&str, Vec<u64>) {
    // Functions may stand behind them.
    (&message.code, message.values.iter().map_while(|value| value.parse().ok()).collect())
}

async fn until(so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it did not happen");
}

/// Panics of other threads than the test's own, which nobody would hear of else. The runtime catches them, but none should be there to be caught.
fn count_panics() -> Arc<Mutex<Vec<String>>> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let before = std::panic::take_hook();
    let (seen, own) = (Arc::clone(&panics), std::thread::current().id());
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != own {
            seen.lock().unwrap().push(info.to_string());
        }
        before(info);
    }));
    panics
}

/// Of this process, which is this test's alone: `VmRSS` for what it holds now, `VmHWM` for the most that it ever held.
fn resident(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Far more than any test takes: what is to be shown is another limit.
fn free() -> Limits {
    Limits { timeout: Duration::from_secs(3_600), query_timeout: Duration::from_secs(3_600), ..Limits::default() }
}
