//! The compiler: this program, started by itself for each upload.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::EXIT_SUCCESS;
use crate::sandbox::serve_compiler;

/// Compile one upload from stdin to stdout. The program starts itself so.
#[derive(Debug, Args)]
pub struct CompilerCommand {
    /// What the code is for.
    pub engine_hash: String,
    /// Address space, in bytes.
    pub memory_max_bytes: u64,
    /// Time on processors.
    pub cpu_seconds: u64,
}

/// Compiles.
///
/// # Errors
/// When it cannot bound itself, or nobody takes what it has to say.
pub fn run(args: &CompilerCommand) -> anyhow::Result<ExitCode> {
    serve_compiler(&args.engine_hash, args.memory_max_bytes, args.cpu_seconds).context("the compiler")?;
    Ok(ExitCode::from(EXIT_SUCCESS))
}
