//! PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::account::Account;
use super::database::sql;
use super::port::Port;
use super::process::{Server, find_program};

/// How a server is to be.
#[derive(Clone, Copy, Debug)]
pub struct PostgresOptions {
    /// Whether what was committed is safe on the disk. Without it a server is faster, and may lose data in a crash of the machine (not in one of its own).
    pub fsync: bool,
    pub connections_max: u32,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions { fsync: true, connections_max: 300 }
    }
}

/// A server with an empty database `postgres` and a superuser `postgres` who needs no password. It is dropped with all its data.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: Port,
    programs: PathBuf,
}

impl Postgres {
    /// Makes a new server and waits until it takes connections.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start; the error holds the end of its log.
    pub fn start(options: PostgresOptions) -> anyhow::Result<Postgres> {
        let programs = programs()?;
        // SIGQUIT is PostgreSQL's immediate shutdown; it frees the shared memory that SIGKILL would leave.
        let mut server = Server::new("postgres", programs.join("postgres"), Account::instead_of_root()?, Signal::SIGQUIT)?;
        let port = Port::take()?;
        let data = server.directory().join("data");
        let mut initdb = server.command(&programs.join("initdb"), Signal::SIGKILL);
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]).arg(&data);
        let made = initdb.output().context("initdb cannot be run with setpriv")?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        let settings = settings(options, &port, server.directory());
        let arguments: Vec<_> = ["-D".into(), data.into_os_string()]
            .into_iter()
            .chain(settings.iter().flat_map(|(name, value)| ["-c".into(), format!("{name}={value}").into()]))
            .collect();
        let ready = ready(&programs, server.directory(), &port);
        server.start(arguments, ready)?;
        Ok(Postgres { server, port, programs })
    }

    /// The URL of the database `postgres`, through the server's unix socket, as the superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same of another database.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}&port={}", self.socket_directory().display(), self.port.number)
    }

    /// The URL of a database over TCP.
    pub fn tcp_url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number)
    }

    /// Where its unix socket is.
    pub fn socket_directory(&self) -> &Path {
        self.server.directory()
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// The id of the process that all others of the server come from.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Runs statements in the database `postgres`. Returns their values, a row a line.
    ///
    /// # Errors
    /// What the server says of them.
    pub fn sql(&self, statements: &str) -> anyhow::Result<String> {
        sql(&self.url(), statements)
    }

    /// Kills the server with SIGKILL. Returns when all its processes are gone.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Ends the server in good order; open transactions are rolled back.
    pub fn stop(&mut self) {
        self.server.end(Signal::SIGINT);
    }

    /// Starts the server again, with its data, at the same URL; when it still runs it is stopped first.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let ready = ready(&self.programs, self.server.directory(), &self.port);
        self.server.start_again(ready)
    }
}

fn settings(options: PostgresOptions, port: &Port, socket_directory: &Path) -> Vec<(&'static str, String)> {
    let on = |yes: bool| if yes { "on" } else { "off" }.to_owned();
    vec![
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.number.to_string()),
        ("unix_socket_directories", socket_directory.display().to_string()),
        ("max_connections", options.connections_max.to_string()),
        ("fsync", on(options.fsync)),
        ("full_page_writes", on(options.fsync)),
        // Files in the data directory go with it, whatever ends the server.
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("log_min_messages", "warning".to_owned()),
    ]
}

fn ready(programs: &Path, socket_directory: &Path, port: &Port) -> impl FnMut() -> bool + use<> {
    let (program, host, port) = (programs.join("pg_isready"), socket_directory.to_owned(), port.number.to_string());
    move || {
        let mut asked = Command::new(&program);
        asked.arg("--quiet").arg("--host").arg(&host).args(["--port", &port]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    }
}

/// The directory of the programs: Debian keeps one per version (the newest is taken), others have them in `PATH`.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> = versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let places: Vec<_> = versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect();
    let postgres = find_program("postgres", &places)?;
    Ok(postgres.parent().expect("a program has a directory").to_owned())
}
