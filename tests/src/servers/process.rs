//! One server as a process: started, waited for, ended by its pid.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::account::Account;
use super::spawner::spawn;

/// How long a server may take to answer or to end: far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A server's program, its directory, and its process while it runs.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    account: Option<Account>,
    /// What ends it at once, and lets it clean up what outlives processes.
    ends_by: Signal,
    child: Option<Child>,
    directory: TempDir,
}

impl Server {
    /// A server that does not run yet, with an empty directory that the account owns.
    pub fn new(name: &'static str, program: PathBuf, account: Option<Account>, ends_by: Signal) -> anyhow::Result<Server> {
        let directory = tempfile::Builder::new().prefix(&format!("rowmill-{name}-")).tempdir().context("there is no temporary directory")?;
        if let Some(account) = account {
            account.own(directory.path())?;
        }
        Ok(Server { name, program, arguments: Vec::new(), account, ends_by, child: None, directory })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command that runs as the server's account, and is sent `on_death` when this process dies.
    pub fn command(&self, program: &Path, on_death: Signal) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", on_death.as_str().trim_start_matches("SIG")]);
        if let Some(Account { uid, gid }) = self.account {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.arg("--").arg(program).current_dir(self.directory());
        command
    }

    /// Starts the server and waits until it is ready.
    pub fn start(&mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>, ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self.start_again(ready)
    }

    /// Starts the server as it was started before, and waits until it is ready.
    pub fn start_again(&mut self, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "{} runs already", self.name);
        // Not this process's own stdout and stderr: who waits for their end would wait for the server's.
        let log = File::options().create(true).append(true).open(self.log_path()).context("the server's log cannot be made")?;
        let mut command = self.command(&self.program, self.ends_by);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn(command).with_context(|| format!("{} cannot be started with setpriv", self.program.display()))?;
        let child = self.child.insert(child);
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("{} ended while it started ({status}):\n{}", self.name, self.log());
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > give_up {
                bail!("{} did not answer within {} s:\n{}", self.name, PATIENCE.as_secs(), self.log());
            }
            sleep(LOOK_AGAIN);
        }
    }

    /// The process's id.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Ends the server with SIGKILL, as a crash would. Returns when it and its own processes are gone; does nothing when it does not run.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends the server with a signal that it may answer in its own time, and waits for it.
    pub fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        let own = processes_of(child.id());
        let pid = Pid::from_raw(child.id().try_into().expect("Linux's pids fit into 22 bits"));
        // It is not waited for yet, so this pid is nobody else's.
        kill(pid, signal).expect("a process of ours can be sent signals");
        let gone = wait_until(|| child.try_wait().expect("a child can be waited for").is_some());
        if !gone {
            child.kill().expect("a process of ours can be killed");
            child.wait().expect("a child can be waited for");
        }
        // A PostgreSQL server's own processes see that it is gone and end; until then they hold on to its data.
        assert!(wait_until(|| own.iter().all(|&pid| !runs(pid))), "processes of {} outlive it: {own:?}", self.name);
    }

    /// Sends the process a signal. Does nothing when it does not run.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(child) = &self.child
        {
            // It is not waited for yet, so this pid is nobody else's.
            kill(Pid::from_raw(child.id().try_into().expect("Linux's pids fit into 22 bits")), signal)
                .expect("a process of ours can be sent signals");
        }
    }

    /// How the process ended, if it did so by itself; from then on it does not run.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child can be waited for")?;
        self.child = None;
        Some(status)
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("log")
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        log[log.ceil_char_boundary(log.len().saturating_sub(4_096))..].to_owned()
    }

    pub fn whole_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(self.ends_by);
    }
}

/// Looks again and again, until it is so or patience ends.
pub fn wait_until(mut so: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + PATIENCE;
    while !so() {
        if Instant::now() > give_up {
            return false;
        }
        sleep(LOOK_AGAIN);
    }
    true
}

/// The state and the parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may itself hold brackets and spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process is there and has not ended: one that nobody has waited for yet has.
fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The processes that a process started itself.
fn processes_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|(_, its_parent)| its_parent == parent)).collect()
}

/// A program by its name: in the places given, then in `PATH`.
pub fn find_program(name: &str, places: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are often where only root's shell looks.
    let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let all = places.iter().cloned().chain(std::env::split_paths(&path)).chain(system);
    let found = all.map(|place| place.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("{name} is missing: run `make servers`"))
}
