//! Runs the tests of all attacks and prints what came of each: `with-servers -- attacks`. `make attacks` does.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Parser;
use rowmill_tests::attacks::{ATTACKS, Came, read_report, table};

#[derive(Parser)]
#[command(about = "Runs the tests of all attacks, and prints a table of them on stdout")]
struct Args {
    /// What cargo-nextest is told besides
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// The profile of nextest that leaves a report (.config/nextest.toml).
const PROFILE: &str = "attacks";

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let prefixes: Vec<String> = ATTACKS.iter().map(|attack| format!("test(/(^|::){}/)", attack.prefix())).collect();
    // There nextest keeps its reports, wherever cargo builds.
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/nextest").join(PROFILE).join("junit.xml");
    // What an earlier run left would be taken for this one's.
    match std::fs::remove_file(&report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", report.display()));
        }
        _ => {}
    }
    let mut nextest = Command::new("cargo");
    nextest.args(["nextest", "run", "--workspace", "--cargo-profile", "release", "--profile", PROFILE]);
    nextest.args(["-E", &prefixes.join(" or ")]).args(&args.nextest);
    // stdout is for the table; nextest tells what it does on stderr.
    let status = nextest.status().context("cannot start cargo nextest")?;
    let text = std::fs::read_to_string(&report)
        .with_context(|| format!("cargo nextest ended with {status} and left no {}: what it said above tells why", report.display()))?;
    let ran = read_report(&text);
    print!("{}", table(&ran));
    let survived = status.success() && ATTACKS.iter().all(|attack| Came::of(attack, &ran).is_survived());
    Ok(if survived { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
