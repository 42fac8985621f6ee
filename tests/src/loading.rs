//! What guests of each language cost before their first row, and what their compilation costs others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rowmill::blobs::Blobs;
use rowmill::jobs::{BatchRequest, JobManager, QueryRequest};
use rowmill::model::{Ending, JsonText, LeasedRow, Limits, NewRow, Pooler};
use rowmill::sandbox::{CompilerSettings, Sandbox, SandboxSettings, Session, SessionSpec};
use rowmill::status::StatusBoard;
use rowmill::store::{PgSettings, PgStore, Store};
use rowmill::worker::WorkerSettings;
use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::built::Built;
use crate::running::batch;
use crate::stopping::Times;

const TRANSACTION: &str = r#"{"id":"TX00000001","account":"DE0123456789","amount":"10.25","currency":"EUR","date":"2026-01-31","type":"deposit"}"#;
const INVOICE: &str = r#"{"invoice":"A-1","lines":[{"quantity":3,"price_cents":1250,"tax":19}]}"#;
/// One of each language, and a row that it does.
const GUESTS: [(&str, &str); 3] = [("bank-transactions", TRANSACTION), ("invoice-totals-javascript", INVOICE), ("invoice-totals-python", INVOICE)];
/// The one that takes longest to compile.
const LARGE: &str = "invoice-totals-python";
const QUESTION: &str =
    r#"{"account":"DE0000000001","from":"2026-01-01","to":"2026-01-31","opening_cents":0,"transactions":[{"date":"2026-01-02","amount_cents":100}]}"#;
/// Instances of each guest.
const STARTS: usize = 101;
/// Queries of one window without a compilation.
const QUERIES: usize = 100;
/// Who asks pauses so long between two queries.
const PAUSE: Duration = Duration::from_millis(5);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Loads of each guest, and compilations beside queries.
    pub tries: u32,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub cores: usize,
    pub guests: BTreeMap<&'static str, Guest>,
    /// A slow query from its submission to its answer, and the status of a batch, of another app in the same process: while nothing is compiled, and while a guest is.
    pub alone: Beside,
    pub while_compiling: Beside,
    pub compile_beside_queries: Times,
}

#[derive(Debug, Serialize)]
pub struct Guest {
    pub upload_bytes: usize,
    pub compile_ms: f64,
    pub code_bytes: usize,
    /// Compiled code from the cache: its seal, its mapping, and all that is checked.
    pub load: Times,
    /// With the start of an instance.
    pub first_row_us: u128,
    pub next_row_us: u128,
}

#[derive(Debug, Serialize)]
pub struct Beside {
    pub queries: usize,
    pub query: Times,
    pub status: Times,
}

/// Measures over an empty database.
///
/// # Errors
/// When something could not be run.
pub async fn run(database_url: &str, options: &Options) -> anyhow::Result<Report> {
    let built = Built::find()?;
    let compiler = CompilerSettings { program: Some((built.program(), vec!["compile-processor".into()])), ..CompilerSettings::default() };
    let mut guests = BTreeMap::new();
    for (name, row) in GUESTS {
        guests.insert(name, load(&built, &compiler, name, row, options).await?);
    }
    let site = Site::open(&built, compiler, database_url).await?;
    let working = tokio::spawn({
        let jobs = site.jobs.clone();
        async move { jobs.run().await }
    });
    let measured = site.measure(&std::fs::read(built.guest(LARGE)?)?, options).await;
    site.jobs.shutdown();
    working.await??;
    let [alone, while_compiling, compile_beside_queries] = measured?;
    Ok(Report {
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        guests,
        alone: alone.report(),
        while_compiling: while_compiling.report(),
        compile_beside_queries: Times::of(compile_beside_queries.queries),
    })
}

async fn load(built: &Built, compiler: &CompilerSettings, name: &str, row: &str, options: &Options) -> anyhow::Result<Guest> {
    let cache = TempDir::new()?;
    let settings =
        SandboxSettings { compiler: compiler.clone(), key: Some(b"a key that is shared".to_vec()), ..SandboxSettings::new(2, cache.path()) };
    let sandbox = Sandbox::open(settings)?;
    let wasm = std::fs::read(built.guest(name)?)?;
    let begun = Instant::now();
    let processor = sandbox.load(&wasm)?;
    let compile_ms = (begun.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
    let mut loads = Vec::new();
    for _ in 0..options.tries {
        let begun = Instant::now();
        sandbox.load_compiled(&processor.digest).context("it is in the cache")??;
        loads.push(begun.elapsed());
    }
    let (mut starts, mut rows) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let spec = SessionSpec {
            batch: batch(processor.kind(), "loading", "op", JsonText::default()),
            limits: Limits::default(),
            cancel: CancellationToken::new(),
            progress: None,
            capabilities: Arc::default(),
        };
        let mut session = Session::new(processor.clone(), spec);
        for times in [&mut starts, &mut rows] {
            let row = LeasedRow { row_no: 1, line: 1, input: row.to_owned(), attempt: 1, rejected: None };
            let begun = Instant::now();
            let run = session.run_row(&row).await;
            times.push(begun.elapsed());
            ensure!(matches!(run.ending, Ending::Succeeded(_)), "{name}: {:?}", run.ending);
        }
        session.close().await;
    }
    let code_bytes = sandbox.sealed(&processor.digest).context("it is in the cache")?.len();
    Ok(Guest {
        upload_bytes: wasm.len(),
        compile_ms,
        code_bytes,
        load: Times::of(loads),
        first_row_us: median_us(starts),
        next_row_us: median_us(rows),
    })
}

fn median_us(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times[times.len() / 2].as_micros()
}

#[derive(Default)]
struct Asked {
    queries: Vec<Duration>,
    statuses: Vec<Duration>,
}

impl Asked {
    fn report(self) -> Beside {
        Beside { queries: self.queries.len(), query: Times::of(self.queries), status: Times::of(self.statuses) }
    }
}

struct Site {
    jobs: JobManager,
    _directories: [TempDir; 2],
}

impl Site {
    async fn open(built: &Built, compiler: CompilerSettings, database_url: &str) -> anyhow::Result<Site> {
        let settings = PgSettings { url: database_url.to_owned(), connections: 8, pooler: Pooler::None };
        PgStore::migrate(&settings).await?;
        let store = Arc::new(PgStore::connect(&settings).await?);
        let (objects, cache) = (TempDir::new()?, TempDir::new()?);
        let work = WorkerSettings { slots: 2, query_slots: 2, ..WorkerSettings::local() };
        let sandbox = Sandbox::open(SandboxSettings { compiler, ..SandboxSettings::new(work.instances_max(), cache.path()) })?;
        let jobs = JobManager::new(store as Arc<dyn Store>, Blobs::local(objects.path())?, Arc::new(StatusBoard::in_process()), sandbox, work);
        jobs.register_processor("asks", "statement", std::fs::read(built.guest("account-statement")?)?).await?;
        jobs.register_processor("asks", "batch", std::fs::read(built.guest("misbehaving")?)?).await?;
        Ok(Site { jobs, _directories: [objects, cache] })
    }

    /// In turn, so that whatever else the machine does slows both down.
    async fn measure(&self, large: &[u8], options: &Options) -> anyhow::Result<[Asked; 3]> {
        let rows = vec![NewRow::new(1, JsonText::check(r#"{"do":"ok"}"#)?)];
        let batch = self.jobs.batch_submit(BatchRequest::new("asks", "batch").with_rows(rows)).await?;
        self.jobs.wait(batch).await?;
        let ask = async |asked: &mut Asked| {
            let begun = Instant::now();
            let (_, result) = self.jobs.slow_query(QueryRequest::new("asks", "statement", JsonText::check(QUESTION)?)).await?;
            asked.queries.push(begun.elapsed());
            let begun = Instant::now();
            self.jobs.batch_status(batch).await?;
            asked.statuses.push(begun.elapsed());
            drop(result);
            tokio::time::sleep(PAUSE).await;
            anyhow::Ok(())
        };
        let (mut alone, mut beside, mut compiled) = (Asked::default(), Asked::default(), Asked::default());
        for _ in 0..QUERIES {
            ask(&mut Asked::default()).await?;
        }
        for number in 0..options.tries {
            for _ in 0..QUERIES {
                ask(&mut alone).await?;
            }
            let begun = Instant::now();
            let uploading = tokio::spawn({
                let (jobs, wasm) = (self.jobs.clone(), with_a_number(large, number));
                async move { jobs.register_processor("uploads", "large", wasm).await }
            });
            while !uploading.is_finished() {
                ask(&mut beside).await?;
            }
            uploading.await??;
            compiled.queries.push(begun.elapsed());
        }
        ensure!(!beside.queries.is_empty(), "nothing was compiled");
        Ok([alone, beside, compiled])
    }
}

/// The same component with another digest, by a section of its own.
fn with_a_number(component: &[u8], number: u32) -> Vec<u8> {
    let mut other = component.to_vec();
    other.extend([0, 6, 1, b'n']);
    other.extend(number.to_le_bytes());
    other
}
