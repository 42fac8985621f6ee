//! The command line. stdout is data, everything else goes to stderr.

mod progress;
pub mod run;
mod signals;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// All rows succeeded.
pub const EXIT_SUCCESS: u8 = 0;
/// Some rows failed, or the batch was aborted.
pub const EXIT_SOME_FAILED: u8 = 1;
/// It could not run; clap uses the same status for a wrong command line.
pub const EXIT_CANNOT_RUN: u8 = 2;

/// Runs other people's code over rows of data, safely.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::RunArgs>),
}

/// Logs go to stderr; `ROWMILL_LOG` chooses which, as in `ROWMILL_LOG=debug` or `ROWMILL_LOG=rowmill::worker=trace`.
pub fn start_log() {
    let filter = EnvFilter::try_from_env("ROWMILL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
