//! A schedule of every second on many workers that are killed, for as long as one likes: `with-servers -- ticks --processes 10 --ticks 300`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rowmill_tests::servers::Database;
use rowmill_tests::ticks::{Options, run};

#[derive(Parser)]
#[command(about = "Lets a schedule of every second run on several workers, kills these, and checks that each tick was submitted once")]
struct Args {
    /// Worker processes
    #[arg(long, default_value_t = 10)]
    processes: usize,
    /// Ticks, one a second
    #[arg(long, default_value_t = 300)]
    ticks: u32,
    /// Milliseconds between two workers that are killed
    #[arg(long, default_value_t = 2_000)]
    kill_ms: u64,
    /// Which workers are killed comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let options = Options {
        processes: args.processes.max(1),
        ticks: args.ticks.max(1),
        kill_every: Duration::from_millis(args.kill_ms.max(1)),
        seed: args.seed,
    };
    let database = Database::create()?;
    let report = run(&database.url(), &options).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
