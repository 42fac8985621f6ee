//! `rowmill deploy`: a processor for an app.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::config::ConfigArgs;
use super::terms::parse_name;
use super::wiring::{Parts, block_on};
use super::{EXIT_SUCCESS, print_data};
use crate::model::{ProcessorKind, ProcessorVersion};

/// Register a component as a version of an app's processor for an operation.
///
/// The component is inspected, compiled in a process of its own, checked, started on trial and stored. The trial start makes an instance and calls init, and begin with the context {}, without grants: a processor
/// that cannot start is refused unless --force is given; of one that imports something granted the failure is only logged. It serves nothing until it is activated, by --activate or later with rowmill activate. An operation can have a
/// processor of batches and a processor of slow queries: a deployment never replaces the one of the other kind. The same code as that of the newest version of its kind is the same version, and --note
/// replaces the note of that version. Prints the version.
#[derive(Debug, Args)]
pub struct DeployCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// The operation; case does not matter.
    #[arg(value_parser = parse_name)]
    pub op: String,
    /// A component, or a core module that carries its WIT.
    #[arg(value_name = "FILE.wasm")]
    pub file: PathBuf,
    /// Let it serve what is submitted from then on, instead of the version of the same kind; batches that were submitted before keep their version.
    #[arg(long)]
    pub activate: bool,
    /// Register it without the trial start.
    #[arg(long)]
    pub force: bool,
    /// What is to be said about it, for those who look at the list of versions.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
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
        let jobs = if args.force { parts.jobs.clone().without_trial_start() } else { parts.jobs.clone() };
        let note = args.note.as_deref();
        let registered = if args.activate {
            jobs.deploy_and_activate(&args.app, &args.op, wasm, note).await
        } else {
            jobs.deploy(&args.app, &args.op, wasm, note).await
        };
        let version = registered.with_context(|| format!("cannot deploy {}", args.file.display()))?;
        if args.json {
            print_data(&serde_json::to_string(&version)?)?;
        } else {
            let ProcessorVersion { app, op, version: number, kind, .. } = &version;
            say!("{op} of app {app}: version {number}, for {}", kind_for_people(*kind));
            if !args.activate {
                say!("it serves once it is active: rowmill activate {app} {op} {number}");
            }
            print_data(&version.version.to_string())?;
        }
        Ok(ExitCode::from(EXIT_SUCCESS))
    })
}

pub(in crate::cli) fn kind_for_people(kind: ProcessorKind) -> &'static str {
    match kind {
        ProcessorKind::Batch => "batches of rows",
        ProcessorKind::SlowQuery => "slow queries",
    }
}
