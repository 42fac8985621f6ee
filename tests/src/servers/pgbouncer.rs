//! PgBouncer in front of a PostgreSQL server.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::account::Account;
use super::port::Port;
use super::postgres::Postgres;
use super::process::{Server, find_program};

/// A PgBouncer in transaction mode: a client's transactions may each have another connection, and a session lasts no longer than a transaction.
#[derive(Debug)]
pub struct PgBouncer {
    server: Server,
    port: Port,
}

impl PgBouncer {
    /// Starts one in front of the server of a URL (as [`Postgres::url`] gives it), and waits until it takes connections.
    ///
    /// # Errors
    /// When PgBouncer is not installed or does not start; the error holds the end of its log.
    pub fn start(postgres_url: &str) -> anyhow::Result<PgBouncer> {
        let mut server = Server::new("pgbouncer", find_program("pgbouncer", &[])?, Account::instead_of_root()?, Signal::SIGKILL)?;
        let port = Port::take()?;
        let parameter = |name: &str| postgres_url.split(['?', '&']).find_map(|part| part.strip_prefix(name));
        let host = parameter("host=").with_context(|| format!("{postgres_url} names no unix socket"))?;
        let postgres_port = parameter("port=").with_context(|| format!("{postgres_url} names no port"))?;
        // Who may connect is not what is tested: anyone may, as the superuser.
        let settings = format!(
            "[databases]\n* = host={host} port={postgres_port} user=postgres\n\
            [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
            default_pool_size = 20\nmax_client_conn = 1000\nignore_startup_parameters = extra_float_digits\n",
            port.number
        );
        let file = server.directory().join("pgbouncer.ini");
        fs::write(&file, settings).context("PgBouncer's settings cannot be written")?;
        server.start([file], connects(port.number))?;
        Ok(PgBouncer { server, port })
    }

    /// Starts one in front of a server.
    ///
    /// # Errors
    /// As [`PgBouncer::start`].
    pub fn before(postgres: &Postgres) -> anyhow::Result<PgBouncer> {
        PgBouncer::start(&postgres.url())
    }

    /// The URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number)
    }

    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again at the same URL; when it still runs it is killed first.
    ///
    /// # Errors
    /// As [`PgBouncer::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.server.start_again(connects(self.port.number))
    }
}

fn connects(port: u16) -> impl FnMut() -> bool {
    move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
