//! `rowmill work` as a process.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::process::{Server, find_program};

/// One worker. It is killed when it is dropped.
#[derive(Debug)]
pub struct WorkerProcess {
    server: Server,
}

impl WorkerProcess {
    /// Starts the program with these arguments and variables, and does not wait for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, variables: &[(&str, OsString)], arguments: Vec<OsString>) -> anyhow::Result<WorkerProcess> {
        let mut server = Server::new("worker", find_program("env", &[])?, None, Signal::SIGKILL)?;
        let mut all: Vec<OsString> = Vec::new();
        for (name, value) in variables {
            let mut variable = OsString::from(format!("{name}="));
            variable.push(value);
            all.push(variable);
        }
        all.push(program.into());
        all.extend(arguments);
        server.start(all, || true)?;
        Ok(WorkerProcess { server })
    }

    /// # Panics
    /// When it was ended.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Sends it a signal that does not end it at once. Does nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        self.server.signal(signal);
    }

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.server.ended()
    }

    /// Everything that it said.
    pub fn log(&self) -> String {
        self.server.whole_log()
    }
}
