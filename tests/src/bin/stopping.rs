//! How long it takes until a guest has stopped whose batch is aborted, or whose time is over: `with-servers -- stopping --tries 200 --beside 50`.

use clap::Parser;
use rowmill_tests::servers::Database;
use rowmill_tests::stopping::{Options, run};

#[derive(Parser)]
#[command(
    about = "Measures how long it takes until guests have stopped that are aborted, or come to their deadline, while others run; prints percentiles as JSON"
)]
struct Args {
    /// Guests that are stopped: so many in a loop, asleep, and in a host call, each by an abort and by a deadline
    #[arg(long, default_value_t = 200)]
    tries: u32,
    /// Guests of others that run all the while, half of them in a loop
    #[arg(long, default_value_t = 50)]
    beside: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = Options { tries: args.tries.max(1), beside: args.beside };
    let database = Database::create()?;
    let report = run(&database.url(), &options).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
