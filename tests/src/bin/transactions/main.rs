//! Makes files of bank transactions, and checks what `rowmill run` made of them with examples-guests/bank-transactions. The checker is written against
//! the file and the rules as they are documented; it shares no code with the processor.

mod check;
mod expect;
mod generate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a CSV file of transactions, and what is known of it on stdout and to FILE.expected.json.
    Generate {
        #[arg(long)]
        rows: u64,
        /// The share of bad rows, 0 to 1.
        #[arg(long, default_value_t = 0.01)]
        bad: f64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        file: PathBuf,
    },
    /// Compare a directory of results with the file of transactions.
    Check { file: PathBuf, directory: PathBuf },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Generate { rows, bad, seed, file } => {
            println!("{}", generate::write_file(&file, rows, bad, seed)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { file, directory } => {
            let found = check::check(&file, &directory)?;
            if found.differences.is_empty() {
                println!("ok: {} rows, {} success, {} failed, balance {} cents", found.rows, found.success, found.failed, found.balance_cents);
                return Ok(ExitCode::SUCCESS);
            }
            for difference in &found.differences {
                println!("{difference}");
            }
            println!("not ok: {} and {} differ", file.display(), directory.display());
            Ok(ExitCode::FAILURE)
        }
    }
}
