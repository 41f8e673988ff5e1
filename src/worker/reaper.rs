//! The reaper: every worker watches the others of its site and takes over what a dead one left.
#![expect(clippy::disallowed_methods, reason = "a worker is dead when its heartbeat stood still for a time")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Surroundings;
use crate::job::{Incarnation, PermitClass, ServerUid};
use crate::metrics;
use crate::queue::{LeaseWatch, QueueError, Reaped};
use crate::shard::{Shard, served_by};

/// Between two looks at least.
const SHORTEST: Duration = Duration::from_millis(10);

/// Between two pages of the sweep.
const SWEEP: Duration = Duration::from_secs(15);

/// Between two counts of the permits that are really held.
const REPAIR: Duration = Duration::from_mins(10);

/// Watches for ever; says through `serves` which shards are this worker's. An error is told once and tried again.
pub(super) async fn run(around: &Surroundings, me: Incarnation, serves: &watch::Sender<BTreeSet<Shard>>) {
    let begun = Instant::now();
    let mut watch = LeaseWatch::new(around.settings.lease);
    let mut swept = Instant::now();
    let mut page = None;
    let mut repaired = None;
    let mut failing = false;
    loop {
        let mut result = reap(around, me, &mut watch, begun, serves).await;
        if result.is_ok() && swept.elapsed() >= SWEEP {
            swept = Instant::now();
            result = sweep(around, me, &mut page).await;
        }
        if result.is_ok() && repaired.is_none_or(|repaired: Instant| repaired.elapsed() >= REPAIR) {
            repaired = Some(Instant::now());
            result = repair_permits(around).await;
        }
        match result {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                tracing::warn!(reason = error.class(), "cannot look after the other workers: {error}");
                failing = true;
            }
            Err(_) => {}
        }
        // A lease that is over between two looks is seen then: what the dead one left waits no longer than it has to.
        let every = around.settings.heartbeat;
        let next = watch.next_expiry(begun.elapsed()).map_or(every, |left| left.min(every));
        tokio::time::sleep(next.max(SHORTEST)).await;
    }
}

async fn reap(
    around: &Surroundings,
    me: Incarnation,
    watch: &mut LeaseWatch,
    begun: Instant,
    serves: &watch::Sender<BTreeSet<Shard>>,
) -> Result<(), QueueError> {
    let registry = around.queue.registry(&around.settings.site).await?;
    let dead = watch.observe(&registry, begun.elapsed());
    let live: Vec<Incarnation> =
        registry.iter().filter(|row| !dead.contains(row)).map(|row| row.worker).collect();
    let shards = served_by(me, &live, around.queue.shards());
    serves.send_if_modified(|now| {
        let changed = *now != shards;
        *now = shards;
        changed
    });
    for expired in dead {
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

/// A count that went wrong would hold up installations, or let too many run.
async fn repair_permits(around: &Surroundings) -> Result<(), QueueError> {
    for class in PermitClass::ALL {
        let wrong = around.queue.repair_permits(&around.settings.site, class).await?;
        if wrong != 0 {
            tracing::warn!(class = class.as_str(), wrong, "corrected the number of permits in use");
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
