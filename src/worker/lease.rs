//! The lease: heartbeats, and until when this process may touch hardware.
#![expect(clippy::disallowed_methods, reason = "a lease is a matter of time: the monotonic clock decides")]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::Settings;
use crate::http::Readiness;
use crate::queue::{Beat, Heart, Past};

/// Until when the lease is good, by this process's own monotonic clock. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    good_until: Arc<Mutex<Instant>>,
    length: Duration,
}

impl Lease {
    /// The lease of a worker that was registered by a request sent at `sent`.
    pub(super) fn new(settings: &Settings, sent: Instant) -> Self {
        let length = settings.lease.saturating_sub(settings.margin());
        Self { good_until: Arc::new(Mutex::new(sent + length)), length }
    }

    fn until(&self) -> Instant {
        *self.good_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counted from when the heartbeat was sent: nobody can have seen it earlier.
    fn confirmed(&self, sent: Instant) {
        let mut until = self.good_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(sent + self.length);
    }

    /// Whether hardware may be touched now.
    pub(super) fn holds(&self) -> bool {
        Instant::now() < self.until()
    }

    /// Runs `work` while the lease holds. The clock is read before every poll, so a process that was frozen goes not
    /// one step further than where it stood.
    pub(super) async fn during<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut alarm = Box::pin(sleep_until(self.until().into()));
        std::future::poll_fn(|context: &mut Context<'_>| {
            if !self.holds() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            while Pin::new(&mut alarm).poll(context).is_ready() {
                if !self.holds() {
                    return Poll::Ready(None);
                }
                alarm.as_mut().reset(self.until().into());
            }
            Poll::Pending
        })
        .await
    }
}

/// Why an incarnation is over although nobody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Others took it for dead.
    Buried,
    /// Its row is gone, and it had no lease any more: buried and taken away, most likely.
    Gone,
    /// The database is another one than before.
    AnotherHistory,
    /// A part of the worker ended that must not.
    Broken,
}

impl Over {
    /// What the next incarnation has to know of this one.
    pub(super) const fn past(self) -> Past {
        match self {
            Self::Buried | Self::Broken => Past::Continued,
            Self::Gone => Past::Doubtful,
            Self::AnotherHistory => Past::Lost,
        }
    }

    /// The metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Buried | Self::Gone => "buried",
            Self::AnotherHistory => "another_history",
            Self::Broken => "broken",
        }
    }
}

/// In `/readyz`: nobody claims before the controller has derived every job again.
const DERIVATION: &str = "derivation";

/// Tells whether every job was derived: to who claims, and to people.
pub(super) fn tell_derived(derived: bool, claims: &watch::Sender<bool>, readiness: &Readiness) {
    let news = claims.send_if_modified(|before| std::mem::replace(before, derived) != derived);
    if derived {
        readiness.ready(DERIVATION);
        if news {
            tracing::info!("the controller has derived every job again: claims go on");
        }
        return;
    }
    let waits = "after a failover or a restore nothing is claimed until a controller has derived every job again from the \
                 Servers: one that leads has to run, and says in its own /readyz what it waits for";
    readiness.waits(DERIVATION, waits);
    if news {
        tracing::warn!("{waits}");
    }
}

/// What is said of a heartbeat without an answer in time. `sent`: whether the server was asked for more than a connection; then
/// its COMMIT may hang, which the next heartbeat finds out.
const fn silence(sent: bool) -> &'static str {
    if sent {
        "the database was sent a heartbeat and did not answer in time: it hangs, it is cut off, or COMMITs do not come back: has the \
         cluster lost its majority?"
    } else {
        "the database does not answer: a heartbeat was not answered in time"
    }
}

/// Beats until the incarnation is over, or until it is dropped. An error leaves open whether the heartbeat arrived:
/// the lease then simply is not prolonged, and `readiness` says what the worker waits for.
pub(super) async fn beat(
    heart: &mut Heart,
    lease: &Lease,
    every: Duration,
    claims: &watch::Sender<bool>,
    readiness: &Readiness,
) -> Over {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut missed = false;
    // A beat that hangs is given up early enough for another one, with a connection of its own, to prolong the lease.
    let answered_within = every.max(lease.length / 2).max(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        match tokio::time::timeout(answered_within, heart.beat()).await {
            Ok(Ok(Beat::Alive)) => {
                lease.confirmed(sent);
                tell_derived(heart.derived(), claims, readiness);
                if std::mem::take(&mut missed) {
                    readiness.ready("database");
                    tracing::info!("heartbeats are accepted again");
                }
            }
            Ok(Ok(Beat::Over)) => return Over::Buried,
            Ok(Ok(Beat::AnotherHistory)) => return Over::AnotherHistory,
            // Nobody may have buried it before its lease was over.
            Ok(Ok(Beat::Missing)) => return if lease.holds() { Over::AnotherHistory } else { Over::Gone },
            Ok(Err(error)) => {
                // A connection that was cut is followed by what the server behind the address says.
                readiness.waits("database", error.to_string());
                if !std::mem::replace(&mut missed, true) {
                    tracing::warn!(reason = error.class(), "a heartbeat was not confirmed: {error}");
                }
            }
            Err(_) => {
                let silent = silence(heart.is_unanswered());
                readiness.waits("database", silent);
                if !std::mem::replace(&mut missed, true) {
                    tracing::warn!("{silent}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(length: Duration, sent: Instant) -> Lease {
        Lease { good_until: Arc::new(Mutex::new(sent + length)), length }
    }

    #[tokio::test]
    async fn work_ends_with_the_lease_and_a_heartbeat_prolongs_it() {
        let begun = Instant::now();
        let over = lease(Duration::ZERO, begun);
        assert!(!over.holds());
        assert_eq!(over.during(async { 1 }).await, None, "not one step is taken without a lease");
        over.confirmed(begun + Duration::from_hours(1));
        assert_eq!(over.during(async { 1 }).await, Some(1));
    }

    #[tokio::test]
    async fn an_older_heartbeat_never_shortens_a_lease() {
        let begun = Instant::now();
        let lease = lease(Duration::from_hours(1), begun);
        lease.confirmed(begun.checked_sub(Duration::from_mins(1)).unwrap_or(begun));
        assert!(lease.until() >= begun + Duration::from_hours(1));
    }
}
