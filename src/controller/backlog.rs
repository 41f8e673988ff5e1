//! What waits for workers, as metrics: by the leader, so that a queue which nobody serves does not look empty.

use std::collections::BTreeSet;
use std::time::Duration;

use super::context::Context;
use crate::job::Lane;
use crate::metrics::{OLDEST_WAITING, QUEUE_JOBS, SITE_WORKERS};

/// Between two reads.
const EVERY: Duration = Duration::from_secs(10);

/// Reads for ever.
pub(super) async fn watch(context: &Context) {
    let mut shown = BTreeSet::new();
    context.fleet.synced().await;
    loop {
        let sites = context.fleet.sites();
        for gone in shown.difference(&sites) {
            forget(gone);
        }
        for site in &sites {
            if let Some(live) = context.sites.live(site) {
                SITE_WORKERS.set(&[site], live as f64);
            }
            match context.queue.waiting(site).await {
                Ok(waiting) => {
                    for lane in Lane::ALL {
                        let there = waiting.get(&lane).copied().unwrap_or_default();
                        QUEUE_JOBS.set(&[site, lane.as_str()], there.jobs as f64);
                        OLDEST_WAITING.set(&[site, lane.as_str()], there.oldest_ms as f64 / 1000.0);
                    }
                }
                // A number that is not known is not shown. The feed reports a database that is away.
                Err(error) => {
                    tracing::debug!(site, %error, "what waits at the site was not read");
                    forget(site);
                }
            }
        }
        shown = sites;
        tokio::time::sleep(EVERY).await;
    }
}

fn forget(site: &str) {
    SITE_WORKERS.remove(&[site]);
    for lane in Lane::ALL {
        for gauge in [&QUEUE_JOBS, &OLDEST_WAITING] {
            gauge.remove(&[site, lane.as_str()]);
        }
    }
}

/// The term is over: the next leader shows them.
pub(super) fn is_over() {
    for gauge in [&QUEUE_JOBS, &OLDEST_WAITING, &SITE_WORKERS] {
        gauge.clear();
    }
}
