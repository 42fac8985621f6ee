//! Ctrl-C and SIGTERM: the first asks the program to stop in good order, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Whether, and by which signal, the program was asked to stop.
#[derive(Clone, Default)]
pub(super) struct Stop {
    asked: CancellationToken,
    signal: Arc<AtomicU8>,
    /// The words for the state that a second signal leaves behind.
    at_once: &'static str,
}

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

impl Stop {
    /// Listens from now on.
    pub(super) fn listen() -> std::io::Result<Stop> {
        Stop::listen_and_leave("rows that were running will be run again")
    }

    /// Listens from now on. `at_once` is told after a second signal: the state that it leaves behind.
    pub(super) fn listen_and_leave(at_once: &'static str) -> std::io::Result<Stop> {
        let stop = Stop { at_once, ..Stop::default() };
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(stop.clone().follow(interrupt, terminate));
        Ok(stop)
    }

    async fn follow(self, mut interrupt: Signal, mut terminate: Signal) {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => SIGINT,
                _ = terminate.recv() => SIGTERM,
            };
            if self.asked.is_cancelled() {
                say!("rowmill: stopped at once; {}", self.at_once);
                std::process::exit(i32::from(128 + number));
            }
            self.signal.store(number, Ordering::Release);
            self.asked.cancel();
        }
    }

    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// The exit status of a program that a signal stopped, as shells have it.
    pub(super) fn exit_status(&self) -> u8 {
        128 + self.signal.load(Ordering::Acquire)
    }
}
