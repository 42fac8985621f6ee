//! What guests of each language cost before their first row, and what compiling one costs others: `with-servers -- loading --tries 5`.

use clap::Parser;
use rowmill_tests::loading::{Options, run};
use rowmill_tests::servers::Database;

#[derive(Parser)]
#[command(
    about = "Measures how long compiled guests of each language take to load, and how much slower others are answered while one is compiled; prints JSON"
)]
struct Args {
    /// Loads of each guest, and compilations beside queries
    #[arg(long, default_value_t = 5)]
    tries: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let database = Database::create()?;
    let report = run(&database.url(), &Options { tries: args.tries.max(1) }).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
