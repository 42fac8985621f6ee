//! Makes files of bank transactions of any size, and checks what a run over one of them left, row by row and file by file.
//!
//! The checker knows the rules of the example `bank-transactions` from its documentation only: it shares no code with it and asks nothing but the file.
//! It holds one row at a time, whatever the size of the file.

mod check;
mod generate;
mod ordered;
mod results;
mod rules;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// How many differences are shown.
const SHOWN_MAX: u64 = 10;

#[derive(Parser)]
#[command(about = "Makes files of bank transactions, and checks what a run over one of them left")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a CSV file of transactions, the same for the same numbers. What a right run over it comes to is printed, and written beside it to
    /// FILE.expected.json.
    Generate {
        /// How many
        #[arg(long)]
        rows: u64,
        /// The share of them that is bad: bad ones of every kind take turns
        #[arg(long, default_value_t = 0.01, value_parser = share)]
        bad: f64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        file: PathBuf,
    },
    /// Compares the results in a directory with what the rules say about the rows of FILE. Status 0: all is right; 1: there are differences; 2: it
    /// could not be checked.
    Check { file: PathBuf, directory: PathBuf },
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "a share is between 0 and 1".to_owned())
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Generate { rows, bad, seed, file } => generate(rows, bad, seed, &file),
        Command::Check { file, directory } => check(&file, &directory),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of rows is rounded anyway")]
fn generate(rows: u64, bad: f64, seed: u64, path: &Path) -> anyhow::Result<ExitCode> {
    let bad = ((rows as f64 * bad).round() as u64).min(rows);
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let expected = generate::write_transactions(BufWriter::with_capacity(1 << 20, file), rows, bad, seed)?;
    let json = serde_json::to_string(&expected)?;
    let beside = path.with_added_extension("expected.json");
    std::fs::write(&beside, format!("{json}\n")).with_context(|| format!("cannot write {}", beside.display()))?;
    println!("{json}");
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path, directory: &Path) -> anyhow::Result<ExitCode> {
    let report = check::check(file, directory)?;
    let mut out = std::io::stdout().lock();
    if report.differences.count == 0 {
        let check::Report { rows, success, failed, balance_cents, .. } = report;
        writeln!(out, "ok: {rows} rows, {success} success, {failed} failed, balance {balance_cents} cents")?;
        return Ok(ExitCode::SUCCESS);
    }
    for difference in &report.differences.first {
        writeln!(out, "{difference}")?;
    }
    writeln!(out, "not ok: {} differences in {} rows", report.differences.count, report.rows)?;
    Ok(ExitCode::FAILURE)
}
