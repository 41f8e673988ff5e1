//! The reaper: every worker watches the others of its site and takes over what a dead one left.
#![expect(clippy::disallowed_methods, reason = "a worker is dead when its heartbeat stood still for a time")]

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::Surroundings;
use crate::job::{Incarnation, ServerUid};
use crate::metrics;
use crate::queue::{LeaseWatch, QueueError, Reaped};

/// Between two pages of the sweep.
const SWEEP: Duration = Duration::from_secs(15);

/// Watches for ever. An error is told once and tried again.
pub(super) async fn run(around: &Surroundings, me: Incarnation) {
    let begun = Instant::now();
    let mut watch = LeaseWatch::new(around.settings.lease);
    let mut ticks = interval(around.settings.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    let mut page = None;
    let mut failing = false;
    loop {
        ticks.tick().await;
        let mut result = reap(around, me, &mut watch, begun).await;
        if result.is_ok() && swept.elapsed() >= SWEEP {
            swept = Instant::now();
            result = sweep(around, me, &mut page).await;
        }
        match result {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                tracing::warn!(reason = error.class(), "cannot look after the other workers: {error}");
                failing = true;
            }
            Err(_) => {}
        }
    }
}

async fn reap(
    around: &Surroundings,
    me: Incarnation,
    watch: &mut LeaseWatch,
    begun: Instant,
) -> Result<(), QueueError> {
    let registry = around.queue.registry(&around.settings.site).await?;
    for expired in watch.observe(&registry, begun.elapsed()) {
        if expired.worker == me {
            continue;
        }
        if let Reaped::Gone { jobs } = around.queue.reap(expired).await? {
            metrics::RESCUED.add(&["lease"], u64::from(jobs));
            tracing::warn!(worker = %expired.worker, jobs, "a worker is dead; its jobs are ready for others");
        }
    }
    Ok(())
}

async fn sweep(
    around: &Surroundings,
    me: Incarnation,
    page: &mut Option<ServerUid>,
) -> Result<(), QueueError> {
    let swept = around.queue.sweep(page.as_ref()).await?;
    metrics::RESCUED.add(&["sweep"], u64::from(swept.requeued));
    for owner in swept.vanished_owners.into_iter().filter(|owner| *owner != me) {
        let jobs = around.queue.take_over(owner).await?;
        metrics::RESCUED.add(&["vanished"], u64::from(jobs));
    }
    *page = swept.next;
    Ok(())
}
