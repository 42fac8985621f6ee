//! Runs a command with the servers that all tests share, and stops them when it has ended, whatever it did: `with-servers -- cargo nextest run`.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowmill_tests::servers::{Postgres, PostgresOptions, SHARED_POSTGRES};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Runs a command with the servers that all tests share")]
struct Args {
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // The command's own status is passed on; 2 says that it could not be run.
    run(&Args::parse().command).await.map_or_else(
        |error| {
            eprintln!("with-servers: {error:#}");
            ExitCode::from(2)
        },
        ExitCode::from,
    )
}

async fn run(command: &[String]) -> anyhow::Result<u8> {
    // Before anything is started: what was started is stopped from here on.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let postgres = Postgres::start(PostgresOptions { fsync: false, ..PostgresOptions::default() })?;
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .env(SHARED_POSTGRES, postgres.url())
        .spawn()
        .with_context(|| format!("{} cannot be started", command[0]))?;
    let pid = Pid::from_raw(child.id().context("the command has no pid")?.try_into()?);
    let status = loop {
        let sent = tokio::select! {
            status = child.wait() => break status?,
            _ = terminated.recv() => Signal::SIGTERM,
            _ = interrupted.recv() => Signal::SIGINT,
        };
        // It may have ended just now.
        let _ = kill(pid, sent);
    };
    drop(postgres);
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(2);
    Ok(u8::try_from(code)?)
}
