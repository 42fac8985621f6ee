//! What the examples share: where they work, a worker beside them, and the processors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use rowmill::blobs::Blobs;
use rowmill::jobs::JobManager;
use rowmill::model::{Batch, BatchCounts, JsonText, NewRow, Pooler, SystemClock};
use rowmill::sandbox::Sandbox;
use rowmill::status::StatusBoard;
use rowmill::store::{PgSettings, PgStore, SqliteStore, Store};
use rowmill::worker::WorkerSettings;

/// Connections of one process. Ten of them, and who submits, find room in a server with the usual hundred.
const CONNECTIONS: u32 = 4;

/// Where an example works.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Where it keeps what it works with: the store, objects, compiled code [default: target/examples/NAME]
    #[arg(long)]
    pub directory: Option<PathBuf>,
    /// Work over this PostgreSQL database instead of the store in the directory
    #[arg(long, value_name = "postgres://…")]
    pub store: Option<String>,
}

/// A place that was opened.
pub struct Stage {
    pub jobs: JobManager,
    pub directory: PathBuf,
}

impl Stage {
    /// Opens the place of an example; what is missing there is made.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn open(place: &Place, example: &str) -> anyhow::Result<Stage> {
        Stage::open_with(place, example, WorkerSettings::local()).await
    }

    /// The same, with a worker of one's own kind.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn open_with(place: &Place, example: &str, settings: WorkerSettings) -> anyhow::Result<Stage> {
        let directory = place.directory.clone().unwrap_or_else(|| root().join("target/examples").join(example));
        let objects = directory.join("objects");
        std::fs::create_dir_all(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
        let store: Arc<dyn Store> = match &place.store {
            Some(url) => {
                let postgres = PgSettings { url: url.clone(), connections: CONNECTIONS, pooler: Pooler::None };
                PgStore::migrate(&postgres).await?;
                Arc::new(PgStore::connect(&postgres).await?)
            }
            None => Arc::new(SqliteStore::open(&directory.join("store.db"), Arc::new(SystemClock)).await?),
        };
        let sandbox = Sandbox::new(settings.instances_max(), &directory.join("compiled"))?;
        let jobs = JobManager::new(store, Blobs::local(&objects)?, Arc::new(StatusBoard::in_process()), sandbox, settings);
        Ok(Stage { jobs, directory })
    }

    /// Does what the example shows, with a worker beside it, which is stopped in good order at the end.
    ///
    /// # Errors
    /// What the example returned, or why the worker ended before it.
    pub async fn run(self, example: impl AsyncFnOnce(&Stage) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut worker = tokio::spawn({
            let jobs = self.jobs.clone();
            async move { jobs.run().await }
        });
        tokio::select! {
            shown = example(&self) => shown?,
            ended = &mut worker => {
                ended??;
                bail!("the worker ended before the example");
            }
        }
        self.jobs.shutdown();
        Ok(worker.await??)
    }

    /// An output file of a batch, as text.
    ///
    /// # Errors
    /// When the batch has no such file, or it cannot be read.
    pub async fn read_file(&self, batch: &Batch, name: &str) -> anyhow::Result<String> {
        let file = batch.files.iter().find(|file| file.name == name).with_context(|| format!("there is no {name}"))?;
        Ok(String::from_utf8(self.jobs.blobs().get(&file.object).await?.to_vec())?)
    }
}

/// A processor, as `make guests` leaves it.
///
/// # Errors
/// When it is not there.
pub fn guest(name: &str) -> anyhow::Result<Vec<u8>> {
    let path = root().join("target/guests").join(name).with_added_extension("wasm");
    std::fs::read(&path).with_context(|| format!("cannot read {}: run `make guests`", path.display()))
}

/// This repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate stands in the repository")
}

/// A row with this line.
///
/// # Errors
/// When the input is nested too deeply.
pub fn row(line: u32, input: &serde_json::Value) -> anyhow::Result<NewRow> {
    Ok(NewRow::new(line, JsonText::check(input.to_string())?))
}

/// A good deposit of so many cents, for the processor `bank-transactions`.
pub fn deposit(line: u32, cents: u32) -> serde_json::Value {
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    serde_json::json!({"id": format!("T{line}"), "date": "2026-01-31", "type": "deposit", "account": "DE9710027535", "amount": amount, "currency": "EUR"})
}

/// A batch in a line.
pub fn in_short(batch: &Batch) -> String {
    let BatchCounts { rows, success, failed, aborted } = batch.counts;
    format!("{}: {rows} rows, {success} success, {failed} failed, {aborted} aborted", batch.status.as_str())
}
