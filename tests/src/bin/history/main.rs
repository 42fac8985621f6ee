//! The history checker: random work on several workers, random failures, and afterwards a judgement of everything.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rowmill_tests::history::{self, Options};

#[derive(Parser)]
#[command(about = "Runs random work on several workers while workers and servers fail, and checks every promise afterwards")]
struct Args {
    /// What clients do and what fails, and when, comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long work is submitted and things fail
    #[arg(long, default_value_t = 200)]
    seconds: u64,
    /// Worker processes
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Clients, each with one batch at a time
    #[arg(long, default_value_t = 20)]
    clients: u32,
    /// Milliseconds between two failures, on average; 0 for none
    #[arg(long, default_value_t = 1_500)]
    pause_ms: u64,
    /// Writes the report to this file, too
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Keeps the logs of workers in this directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match check(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("history: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn check(args: Args) -> anyhow::Result<bool> {
    let options = Options {
        workers: args.workers.max(1),
        clients: args.clients.max(1),
        pause: (args.pause_ms > 0).then(|| Duration::from_millis(args.pause_ms)),
        logs: args.logs,
        ..Options::new(args.seed, Duration::from_secs(args.seconds))
    };
    eprintln!("history: seed {}, {} s, {} workers, {} clients", options.seed, args.seconds, options.workers, options.clients);
    let ended = history::run(options).await?;
    eprintln!("history: everything stands still; judging it");
    let report = ended.judge().await?;
    let json = serde_json::to_string_pretty(&report)?;
    println!("{json}");
    if let Some(path) = args.report {
        std::fs::write(&path, format!("{json}\n")).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    match report.violations {
        0 => eprintln!("history: every promise was kept"),
        count => eprintln!("history: {count} violations"),
    }
    Ok(report.violations == 0)
}
