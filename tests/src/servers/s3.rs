//! A server that speaks S3 and keeps objects as files: `s3s-fs`, which `make servers` installs to `target/tools`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use super::port::Port;
use super::process::{Server, find_program};

/// A server with one bucket and one pair of keys.
#[derive(Debug)]
pub struct S3 {
    server: Server,
    port: Port,
}

impl S3 {
    pub const BUCKET: &'static str = "rowmill-tests";
    pub const REGION: &'static str = "us-east-1";
    pub const ACCESS_KEY_ID: &'static str = "tester";
    pub const SECRET_ACCESS_KEY: &'static str = "tester-secret";

    /// Starts a server with an empty bucket and waits until it answers.
    ///
    /// # Errors
    /// When the program is not installed or does not start; the error holds the end of its log.
    pub fn start() -> anyhow::Result<S3> {
        let mut server = Server::new("s3", find_program("s3s-fs", &tools())?, None, Signal::SIGKILL)?;
        let port = Port::take()?;
        let objects = server.directory().join("objects");
        fs::create_dir_all(objects.join(S3::BUCKET)).context("the bucket cannot be made")?;
        let number = port.number.to_string();
        let mut arguments: Vec<_> = ["--host", "127.0.0.1", "--port", &number].map(Into::into).into();
        arguments.extend(["--access-key", S3::ACCESS_KEY_ID, "--secret-key", S3::SECRET_ACCESS_KEY].map(Into::into));
        arguments.push(objects.into_os_string());
        server.start(arguments, answers(port.number))?;
        Ok(S3 { server, port })
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number)
    }

    /// Where the files of the bucket are, what was not finished included.
    pub fn objects(&self) -> PathBuf {
        self.server.directory().join("objects")
    }

    /// # Panics
    /// When the server does not run.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Sends the server a signal, such as one that lets it stand still.
    pub fn signal(&mut self, signal: Signal) {
        self.server.signal(signal);
    }

    /// Starts the server again, with its objects, at the same endpoint; when it still runs it is killed first.
    ///
    /// # Errors
    /// As [`S3::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.server.start_again(answers(self.port.number))
    }
}

fn answers(port: u16) -> impl FnMut() -> bool {
    move || {
        let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
        let asked = connection.set_read_timeout(Some(Duration::from_secs(10))).and_then(|()| connection.write_all(b"GET / HTTP/1.0\r\n\r\n"));
        asked.is_ok() && connection.read(&mut [0; 16]).is_ok_and(|read| read > 0)
    }
}

/// Where this build's tools may be: this program is somewhere under `target`.
fn tools() -> Vec<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().map(|place: &Path| place.join("tools/bin")).collect()
}
