//! Writes what fuzzing begins with to a directory, below it a directory for each target.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use rowmill_tests::fuzz::{host, intake, outcome, upload};

#[derive(Parser)]
struct Args {
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Args { directory } = Args::parse();
    let targets = [("upload", upload::seeds()), ("host", host::seeds()), ("outcome", outcome::seeds()), ("intake", intake::seeds())];
    for (target, seeds) in targets {
        let directory = directory.join(target);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        for (at, seed) in seeds.iter().enumerate() {
            fs::write(directory.join(at.to_string()), seed)?;
        }
    }
    Ok(())
}
