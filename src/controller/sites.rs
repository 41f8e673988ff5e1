//! Whether somebody works for each site: the heartbeats of its workers, judged on this process's monotonic clock.
#![expect(clippy::disallowed_methods, reason = "a worker is dead when its heartbeat stood still for a time")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use crate::job::Incarnation;
use crate::plan::SiteWorkers;
use crate::queue::{Heartbeat, LeaseWatch, Queue, QueueError};

/// How often the heartbeats are read.
const EVERY: Duration = Duration::from_secs(2);

/// What is known of the sites that have Servers.
#[derive(Debug, Default)]
pub(super) struct Sites {
    all: Mutex<BTreeMap<String, Site>>,
}

#[derive(Debug, Clone, Default)]
struct Site {
    workers: SiteWorkers,
    live: usize,
    dead: BTreeSet<Incarnation>,
}

impl Sites {
    /// A site that was not looked at yet counts as served: the look that follows at once tells better.
    pub(super) fn workers(&self, site: &str) -> SiteWorkers {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(site).map_or(SiteWorkers::Live, |site| site.workers)
    }

    /// The workers of a site whose lease was seen to expire.
    pub(super) fn dead(&self, site: &str) -> BTreeSet<Incarnation> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(site).map(|site| site.dead.clone()).unwrap_or_default()
    }

    /// How many workers of a site are alive; `None`: it was not looked at yet.
    pub(super) fn live(&self, site: &str) -> Option<usize> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(site).map(|site| site.live)
    }

    /// The workers of all sites whose lease was seen to expire.
    pub(super) fn all_dead(&self) -> BTreeSet<Incarnation> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().flat_map(|site| site.dead.iter().copied()).collect()
    }

    /// Takes in a look; whether the answer to "does somebody work here" changed.
    fn set(&self, name: &str, site: Site) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(name).map_or(SiteWorkers::Live, |site| site.workers);
        let changed = before != site.workers;
        all.insert(name.to_owned(), site);
        changed
    }

    /// Looks at every site with Servers, for ever.
    pub(super) async fn watch(&self, queue: &Queue, fleet: &Fleet, lease: Duration) {
        let begun = Instant::now();
        let mut watches = BTreeMap::new();
        fleet.synced().await;
        loop {
            let names = fleet.sites();
            watches.retain(|name, _| names.contains(name));
            for name in names {
                let watch = watches.entry(name.clone()).or_insert_with(|| LeaseWatch::new(lease));
                match look(queue, &name, watch, begun).await {
                    Ok(site) => {
                        let workers = site.workers;
                        if self.set(&name, site) {
                            tracing::info!(site = name, workers = ?workers, "the site's workers changed");
                            fleet.wake_where(None, |server| server.spec.site == name);
                        }
                    }
                    // The feed reports a database that is away.
                    Err(error) => tracing::debug!(site = name, %error, "the heartbeats were not read"),
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn look(queue: &Queue, name: &str, watch: &mut LeaseWatch, begun: Instant) -> Result<Site, QueueError> {
    Ok(judge(&queue.registry(name).await?, watch, begun.elapsed()))
}

fn judge(registry: &[Heartbeat], watch: &mut LeaseWatch, now: Duration) -> Site {
    let dead: BTreeSet<_> = watch.observe(registry, now).into_iter().map(|beat| beat.worker).collect();
    let live = registry.iter().filter(|beat| !dead.contains(&beat.worker)).count();
    Site { workers: if live > 0 { SiteWorkers::Live } else { SiteWorkers::None }, live, dead }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_served_until_the_last_heartbeat_stood_still_for_a_lease() {
        let mut watch = LeaseWatch::new(Duration::from_secs(10));
        let beat = |worker, sequence| Heartbeat { worker: Incarnation(worker), sequence };
        let mut at = |registry: &[Heartbeat], seconds| {
            judge(registry, &mut watch, Duration::from_secs(seconds)).workers
        };
        assert_eq!(at(&[beat(1, 1), beat(2, 1)], 0), SiteWorkers::Live);
        assert_eq!(at(&[beat(1, 1), beat(2, 5)], 10), SiteWorkers::Live);
        assert_eq!(at(&[beat(1, 1), beat(2, 5)], 20), SiteWorkers::None);
        assert_eq!(at(&[], 21), SiteWorkers::None);
    }

    #[test]
    fn only_a_change_wakes() {
        let sites = Sites::default();
        assert!(!sites.set("a", Site { workers: SiteWorkers::Live, ..Site::default() }));
        assert!(sites.set("a", Site { workers: SiteWorkers::None, ..Site::default() }));
        assert!(!sites.set("a", Site { workers: SiteWorkers::None, ..Site::default() }));
        assert_eq!(sites.workers("b"), SiteWorkers::Live);
    }
}
