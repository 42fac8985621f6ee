//! `rowmill deploy`: a processor for an app.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::config::ConfigArgs;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};

/// Register a component as an app's processor for an operation.
///
/// It becomes the newest version, which serves what is submitted from then on; batches that were submitted before keep theirs. The same code again is the same
/// version. Prints the version.
#[derive(Debug, Args)]
pub struct DeployCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    pub app: String,
    /// The operation; case does not matter.
    pub op: String,
    /// A component, or a core module that carries its WIT.
    #[arg(value_name = "FILE.wasm")]
    pub file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Checks, compiles, stores and registers it.
///
/// # Errors
/// Why it could not be registered.
pub fn run(args: &DeployCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let wasm = std::fs::read(&args.file).with_context(|| format!("cannot read the processor {}", args.file.display()))?;
    block_on(async {
        let parts = Parts::open(&config).await?;
        let registered = parts.jobs.register_processor(&args.app, &args.op, wasm).await;
        let version = registered.with_context(|| format!("cannot deploy {}", args.file.display()))?;
        if args.json {
            print_data(&serde_json::to_string(&version)?)?;
        } else {
            say!("{} of app {}: version {}, for {}", version.op, version.app, version.version, kind_for_people(version.kind));
            print_data(&version.version.to_string())?;
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

fn kind_for_people(kind: crate::model::ProcessorKind) -> &'static str {
    match kind {
        crate::model::ProcessorKind::Batch => "batches of rows",
        crate::model::ProcessorKind::SlowQuery => "slow queries",
    }
}
