//! The `rowmill` program.

use std::process::ExitCode;

use clap::Parser;
use rowmill::cli::{Cli, Command, EXIT_CANNOT_RUN, config, migrate, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    rowmill::cli::start_log();
    let ended = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Migrate(args) => migrate::run(&args),
    };
    ended.unwrap_or_else(|error| {
        rowmill::cli::say_error(&error);
        ExitCode::from(EXIT_CANNOT_RUN)
    })
}
