//! Alya's examples as programs that use the library: `alya-examples batch-append`, which `make example NAME=batch-append` builds and runs. docs/from-alya.md says what
//! each of them shows.

mod batch_abort;
mod batch_append;
mod batch_blobrows;
mod batch_large;
mod batch_mailbatch;
mod journal;
mod slowquery_abort;
mod slowquery_report;
mod stage;

use std::process::ExitCode;

use clap::Parser;

use crate::stage::Place;

#[derive(Parser)]
#[command(about = "Runs one of Alya's examples (banktxns and infiled are scripts: make example NAME=infiled)")]
enum Example {
    /// Rows are appended to a batch while it is held; then it is released
    BatchAppend(Place),
    /// A batch that runs is aborted
    BatchAbort(Place),
    /// Rows write pieces of output files, which are joined in the order of the lines
    BatchBlobrows(Place),
    /// 100,000 transactions in 10 batches, with 10 workers; the balance of the results is that of the file
    BatchLarge(batch_large::Options),
    /// A mail for each row
    BatchMailbatch(batch_mailbatch::Options),
    /// A slow query is polled; its answer and its file are read
    SlowqueryReport(Place),
    /// A slow query that computes without end is aborted
    SlowqueryAbort(Place),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Example::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(example: Example) -> anyhow::Result<()> {
    match example {
        Example::BatchAppend(place) => batch_append::run(&place).await,
        Example::BatchAbort(place) => batch_abort::run(&place).await,
        Example::BatchBlobrows(place) => batch_blobrows::run(&place).await,
        Example::BatchLarge(options) => batch_large::run(&options).await,
        Example::BatchMailbatch(options) => batch_mailbatch::run(&options).await,
        Example::SlowqueryReport(place) => slowquery_report::run(&place).await,
        Example::SlowqueryAbort(place) => slowquery_abort::run(&place).await,
    }
}
