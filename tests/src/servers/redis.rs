//! Redis, as a cache: it keeps nothing when it ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;

use super::port::Port;
use super::process::{Server, find_program};

#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: Port,
}

impl Redis {
    /// Starts an empty server and waits until it answers.
    ///
    /// # Errors
    /// When Redis is not installed or does not start; the error holds the end of its log.
    pub fn start() -> anyhow::Result<Redis> {
        let mut server = Server::new("redis", find_program("redis-server", &[])?, None, Signal::SIGKILL)?;
        let port = Port::take()?;
        let number = port.number;
        let number_text = number.to_string();
        server.start(["--bind", "127.0.0.1", "--port", &number_text, "--save", "", "--appendonly", "no"], move || ask(number, "PING").is_ok())?;
        Ok(Redis { server, port })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number)
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// # Panics
    /// When the server does not run.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Kills the server with SIGKILL, and what it held is gone.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts the server again, empty, at the same URL; when it still runs it is killed first.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let port = self.port.number;
        self.server.start_again(move || ask(port, "PING").is_ok())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn flush(&self) -> anyhow::Result<()> {
        ask(self.port.number, "FLUSHALL")
    }
}

/// Sends one command, whose answer is a word such as `+OK`.
fn ask(port: u16, command: &str) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.write_all(format!("{command}\r\n").as_bytes())?;
    let mut answer = [0; 64];
    let length = connection.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer.starts_with('+'), "Redis answered {command} with {answer:?}");
    Ok(())
}
