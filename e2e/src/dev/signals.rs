//! Ctrl-C and its relatives: they end a wait, and what was started is then stopped in order.

use std::fmt;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the program to end.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// A signal that came.
#[derive(Debug)]
pub(super) struct Interrupted(&'static str);

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

impl Signals {
    /// From now on the signals end no process by themselves.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Interrupted {
        tokio::select! {
            _ = self.interrupt.recv() => Interrupted("SIGINT"),
            _ = self.terminate.recv() => Interrupted("SIGTERM"),
            _ = self.hang_up.recv() => Interrupted("SIGHUP"),
        }
    }
}
