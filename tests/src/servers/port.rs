//! Ports that no other test has.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, bail};

/// Below the ports that Linux gives to connections, which could take the port of a server while it is down.
const PORTS: std::ops::Range<u16> = 15_000..30_000;

/// A port of 127.0.0.1 that is this process's until it is dropped, also while nothing listens on it.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    /// Locked as long as the port is held; the kernel unlocks it when the process dies.
    _lock: File,
}

impl Port {
    /// Takes a port that is free.
    pub fn take() -> anyhow::Result<Port> {
        let directory = std::env::temp_dir().join(format!("rowmill-test-ports-{}", fs::metadata("/proc/self")?.uid()));
        fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let span = u32::from(PORTS.end - PORTS.start);
        // Processes begin at different places, so that they seldom ask for the same port.
        let first = std::process::id().wrapping_mul(97) % span;
        for step in 0..span {
            let number = PORTS.start + u16::try_from((first + step) % span).expect("the span is less than 65,536");
            let path = directory.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Port { number, _lock: lock });
            }
        }
        bail!("no port from {} to {} is free", PORTS.start, PORTS.end)
    }
}
