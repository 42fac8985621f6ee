//! Databases of one test each, in a server that tests share.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};

use super::SHARED_POSTGRES;
use super::process::find_program;

/// The URL of the PostgreSQL server that all tests share, as its superuser.
///
/// # Panics
/// When there is none, with what to do.
pub fn shared_postgres() -> String {
    std::env::var(SHARED_POSTGRES).unwrap_or_else(|_| {
        panic!(
            "this test needs the PostgreSQL server that all tests share ({SHARED_POSTGRES} is not set): run `make test`, or `make test-one T=name`"
        )
    })
}

/// A database of its own. It is dropped with all connections to it.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// Makes an empty database in the server that all tests share.
    ///
    /// # Errors
    /// When the server does not make it.
    ///
    /// # Panics
    /// When there is no such server, with what to do.
    pub fn create() -> anyhow::Result<Database> {
        Database::copy_in(&shared_postgres(), "template0")
    }

    /// Makes a copy of a template in the server that all tests share. Whoever comes first makes the template: `fill` gets the URL of an empty database, and leaves
    /// no connection open. Copying takes some 30 ms, whatever it took to fill the template.
    ///
    /// # Errors
    /// When `fill` fails, or the server does not make a database.
    ///
    /// # Panics
    /// When there is no such server, with what to do.
    pub fn from_template(template: &str, fill: impl FnOnce(&str) -> anyhow::Result<()>) -> anyhow::Result<Database> {
        let server = shared_postgres();
        let name = format!("template_{template}");
        // One at a time: each test is a process of its own, and so all of them may come first.
        let lock_path = socket_directory(&server)?.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).with_context(|| format!("{} cannot be made", lock_path.display()))?;
        lock.lock()?;
        if sql(&server, &format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"))?.trim() == "0" {
            // It gets its name when it is complete: a test that is killed here leaves none.
            let unfinished = Database::copy_in(&server, "template0")?;
            fill(&unfinished.url())?;
            sql(&server, &format!("ALTER DATABASE \"{}\" RENAME TO \"{name}\"", unfinished.name))?;
        }
        drop(lock);
        Database::copy_in(&server, &name)
    }

    /// Makes a copy of a database in the server of a URL.
    ///
    /// # Errors
    /// When the server does not make it.
    pub fn copy_in(server_url: &str, original: &str) -> anyhow::Result<Database> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        sql(server_url, &format!("CREATE DATABASE \"{name}\" TEMPLATE \"{original}\""))?;
        Ok(Database { server: server_url.to_owned(), name })
    }

    /// Its URL, as the superuser.
    pub fn url(&self) -> String {
        self.server.replacen("/postgres?", &format!("/{}?", self.name), 1)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements as `psql` does. Returns their values, a row a line.
    ///
    /// # Errors
    /// What the server says of them.
    pub fn sql(&self, statements: &str) -> anyhow::Result<String> {
        sql(&self.url(), statements)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // One that became a template has another name; one of a server that is gone is gone.
        let _ = sql(&self.server, &format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name));
    }
}

/// Runs one statement as `psql` does. Returns its values, a row a line.
pub(super) fn sql(url: &str, statement: &str) -> anyhow::Result<String> {
    let mut psql = Command::new(find_program("psql", &[])?);
    psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--command", statement, url]).stdin(Stdio::null());
    let done = psql.output().context("psql cannot be run")?;
    ensure!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The directory of the socket that a URL of ours names.
fn socket_directory(url: &str) -> anyhow::Result<PathBuf> {
    let host = url.split(['?', '&']).find_map(|part| part.strip_prefix("host="));
    Ok(host.with_context(|| format!("{SHARED_POSTGRES} names no unix socket: {url}"))?.into())
}
