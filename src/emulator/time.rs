//! The emulator's clock: milliseconds since the fleet was built, so that nothing else here reads a clock.
#![expect(clippy::disallowed_methods, reason = "this is the fleet's clock")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Milliseconds since the fleet was built, on the monotonic clock.
pub type Millis = u64;

/// The monotonic clock of a fleet and the wall time at which it started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), wall: Timestamp::now() }
    }

    pub(super) fn now(&self) -> Millis {
        Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Waits until `at`; for ever without one.
    pub(super) async fn sleep_until(&self, at: Option<Millis>) {
        match at.and_then(|at| self.start.checked_add(Duration::from_millis(at))) {
            Some(moment) => tokio::time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }

    /// The date and time at `at`, as Redfish writes it.
    pub(super) fn date_time(&self, at: Millis) -> String {
        let offset = SignedDuration::from_millis(i64::try_from(at).unwrap_or(i64::MAX));
        let moment = self.wall.checked_add(offset).unwrap_or(self.wall);
        format!("{moment:.3}")
    }
}
