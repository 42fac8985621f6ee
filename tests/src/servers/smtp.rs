//! An SMTP server that keeps every mail: `aiosmtpd`, which writes them to a Maildir.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use super::port::Port;
use super::process::{Server, find_program};

/// A server with an empty mailbox, which takes all mail for anybody and leaves nothing out.
#[derive(Debug)]
pub struct Smtp {
    server: Server,
    port: Port,
}

impl Smtp {
    /// Starts a server and waits until it greets.
    ///
    /// # Errors
    /// When the program is not installed or does not start; the error holds the end of its log.
    pub fn start() -> anyhow::Result<Smtp> {
        let mut server = Server::new("smtp", find_program("aiosmtpd", &[])?, None, Signal::SIGKILL)?;
        let port = Port::take()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number));
        let mailbox = server.directory().join("mailbox").into_os_string();
        let mut arguments: Vec<_> = ["--nosetuid", "--listen", &address.to_string(), "--class", "aiosmtpd.handlers.Mailbox"].map(Into::into).into();
        arguments.push(mailbox);
        server.start(arguments, || greets(address))?;
        Ok(Smtp { server, port })
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    /// The mails that are there, by their Message-ID: whole, one for each time that it came.
    ///
    /// # Errors
    /// When the mailbox cannot be read, or a mail has no Message-ID.
    pub fn mails(&self) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
        let mut mails: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // A Maildir has a mail in `new` when it is whole.
        for entry in fs::read_dir(self.server.directory().join("mailbox/new")).context("the mailbox cannot be read")? {
            let text = fs::read_to_string(entry?.path())?;
            let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).context("a mail has no Message-ID")?.to_owned();
            mails.entry(id).or_default().push(text);
        }
        Ok(mails)
    }
}

fn greets(address: SocketAddr) -> bool {
    let Ok(connection) = TcpStream::connect(address) else { return false };
    let mut greeting = String::new();
    let read = connection.set_read_timeout(Some(Duration::from_secs(10))).and_then(|()| BufReader::new(connection).read_line(&mut greeting));
    read.is_ok() && greeting.starts_with("220")
}
