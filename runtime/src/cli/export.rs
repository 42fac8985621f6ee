//! `rowmill export`: a batch goes elsewhere.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::config::ConfigArgs;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::export::Place;
use crate::jobs::ExportOptions;
use crate::model::BatchId;

/// Write all that is known of a batch or a slow query that is done to a place of its own, and remove it when that is wanted.
///
/// The place gets summary.json, rows.ndjson (inputs and what became of them), failed.ndjson, files/ and, last of all, manifest.json with the size and SHA-256 of each file.
/// Of a batch that was retried also what its rows came to in the rounds before (history.ndjson), and the output files of these (rounds/1/ and so on).
/// With --remove the batch is removed once all of that is written. When the command is stopped in the middle, give it again with the same place.
///
/// Another export of the same batch in this place is replaced. A place that holds another result, or files that rowmill did not write or that were changed since, is refused.
#[derive(Debug, Args)]
pub struct ExportCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub batch: BatchId,
    /// A directory, which is made when it is missing; or object:PREFIX, for objects whose names begin with this, in the object store that output files are in.
    #[arg(long, value_name = "DIR|object:PREFIX")]
    pub out: String,
    /// Replace the result of another batch, or of another command, that rowmill wrote there. Other files, and files that were changed since, are refused all the same.
    #[arg(long)]
    pub overwrite: bool,
    /// Remove the batch with all that belongs to it, once it is exported. Nothing else brings it back.
    #[arg(long)]
    pub remove: bool,
}

/// Exports.
///
/// # Errors
/// Why it could not; then nothing was removed.
pub fn run(args: &ExportCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let place = match args.out.strip_prefix("object:") {
            Some(prefix) => Place::Objects(prefix),
            None => Place::Directory(Path::new(&args.out)),
        };
        let options = ExportOptions { remove: args.remove, overwrite: args.overwrite };
        let exported = parts.jobs.export_batch(args.batch, place, options).await?;
        if exported.was_there {
            say!("it had been exported before: that is as it was");
        }
        print_data(&json!({ "exported": exported.manifest, "removed": exported.removed }).to_string())?;
        parts.close().await;
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}
