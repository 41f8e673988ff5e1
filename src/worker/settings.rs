//! What an operator decides about a worker.

use std::time::Duration;

/// Settings of one worker process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The BMC network that it serves.
    pub site: String,
    /// The name of its host, for people only.
    pub host: String,
    /// Jobs that run at once.
    pub slots: usize,
    /// Of these, those that only urgent jobs may use.
    pub urgent_slots: usize,
    /// One claim in so many starts from a lower lane; 0: none does.
    pub lower_share: u32,
    /// Installations in flight at once at the site.
    pub installs: u32,
    /// How long a job may hold its slot.
    pub slot_deadline: Duration,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long the same heartbeat may be seen before others take over.
    pub lease: Duration,
    /// How long SIGTERM waits for steps that run.
    pub grace: Duration,
    /// The longest time of one request to a BMC.
    pub request_timeout: Duration,
    /// How long the operating system may take to shut down before the power is cut.
    pub shutdown_deadline: Duration,
    /// How long a power change may take once the BMC accepted it.
    pub power_deadline: Duration,
    /// How soon a power state that was asked for is read again.
    pub power_poll: Duration,
    /// How long a job that was asked to stop tries to undo what it began.
    pub undo_deadline: Duration,
    /// The key of the hashes that tell a changed Secret; the same in every worker.
    pub login_key: Vec<u8>,
}

impl Settings {
    /// How long before the lease is over nothing is touched any more: a fifth of it.
    pub(super) fn margin(&self) -> Duration {
        self.lease / 5
    }

    /// For how long a request may still take effect after it was stored: its time-out, waiting for the BMC's turn
    /// included, and a margin for the way.
    pub(super) fn settle(&self) -> Duration {
        self.request_timeout + (self.request_timeout / 2).max(Duration::from_secs(1))
    }

    /// How many slots jobs of unreachable BMCs may hold: a tenth, so that a dead rack holds up nobody else.
    pub(super) fn unreachable_slots(&self) -> usize {
        (self.slots / 10).max(1)
    }
}
