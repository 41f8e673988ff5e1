//! Every metric family of AutoBuild, in one place. Labels are closed sets; no server's name is one.
//!
//! Reconciles are counted under controller-runtime's names, so that existing dashboards work.

use std::sync::{LazyLock, OnceLock};

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};

/// Counts, by labels.
pub struct Counter(Family<IntCounterVec>);

/// Present values, by labels.
pub struct Gauge(Family<GaugeVec>);

/// Durations in seconds, by labels.
pub struct Seconds(Family<HistogramVec>);

/// Reconciles, by controller and result (`success`, `requeue_after`, `error`).
pub static RECONCILES: Counter =
    Counter::new("controller_runtime_reconcile_total", "Reconciles.", &["controller", "result"]);
/// Reconciles that failed, by controller.
pub static RECONCILE_ERRORS: Counter =
    Counter::new("controller_runtime_reconcile_errors_total", "Reconciles that failed.", &["controller"]);
/// How long reconciles took.
pub static RECONCILE_TIME: Seconds =
    Seconds::new("controller_runtime_reconcile_time_seconds", "Time of a reconcile.", &["controller"]);
/// Reconciles that run now.
pub static ACTIVE_RECONCILES: Gauge =
    Gauge::new("controller_runtime_active_workers", "Reconciles that run now.", &["controller"]);
/// How many may run at once.
pub static MAX_RECONCILES: Gauge = Gauge::new(
    "controller_runtime_max_concurrent_reconciles",
    "Reconciles that may run at once.",
    &["controller"],
);
/// Servers that wait to be reconciled (the name is client-go's).
pub static WORK_QUEUE: Gauge =
    Gauge::new("workqueue_depth", "Servers that wait to be reconciled.", &["name"]);
/// 1 on the replica that leads.
pub static LEADER: Gauge =
    Gauge::new("leader_election_master_status", "1 on the replica that leads.", &["name"]);
/// When each watch of the API server showed an event or a bookmark last, in seconds since the Unix epoch.
pub static WATCH_HEARD: Gauge = Gauge::new(
    "autobuild_watch_last_event_timestamp_seconds",
    "When a watch of the API server showed something last.",
    &["watch"],
);
/// Watches that showed nothing for too long and were opened again.
pub static WATCHES_SILENT: Counter = Counter::new(
    "autobuild_watches_silent_total",
    "Watches that went silent and were opened again.",
    &["watch"],
);
/// Status patches, by result (`written`, `cleared` of what somebody else wrote, `conflict`, `error`).
pub static STATUS_PATCHES: Counter =
    Counter::new("autobuild_status_patches_total", "Status patches sent to the API server.", &["result"]);
/// Decisions that were carried out, by command.
pub static COMMANDS: Counter =
    Counter::new("autobuild_commands_total", "Decisions that changed something.", &["command", "outcome"]);
/// Events published.
pub static EVENTS: Counter = Counter::new("autobuild_events_total", "Events published.", &["reason"]);
/// Servers that wait in the feed, as last read.
pub static FEED_ROWS: Gauge =
    Gauge::new("autobuild_feed_rows", "Servers whose newest state is not shown in status yet.", &[]);
/// Transactions of the database by name and how they ended (`done`, or the class of the error).
pub static TRANSACTIONS: Counter = Counter::new(
    "autobuild_database_transactions_total",
    "Database transactions.",
    &["transaction", "outcome"],
);
/// How long transactions took, their repetitions included.
pub static TRANSACTION_TIME: Seconds = Seconds::new(
    "autobuild_database_transaction_seconds",
    "Time of database transactions.",
    &["transaction"],
);
/// Jobs that wait for a worker, as the leader reads them, whether anybody serves the site or not.
pub static QUEUE_JOBS: Gauge =
    Gauge::new("autobuild_queue_jobs", "Jobs that wait for a worker.", &["site", "priority"]);
/// How long the oldest of them has waited; 0 where none waits.
pub static OLDEST_WAITING: Gauge = Gauge::new(
    "autobuild_queue_oldest_seconds",
    "Age of the oldest job that waits for a worker.",
    &["site", "priority"],
);
/// Workers of a site that are alive, as the leader judges their heartbeats.
pub static SITE_WORKERS: Gauge =
    Gauge::new("autobuild_site_workers", "Workers of a site that are alive.", &["site"]);
/// Servers by phase, as the leader shows them.
pub static SERVERS: Gauge = Gauge::new("autobuild_servers", "Servers by phase.", &["phase"]);
/// Reads of a worker that has nothing to do.
pub static HEAD_QUERIES: Counter =
    Counter::new("autobuild_head_queries_total", "Looks at the front of the queue.", &[]);
/// Jobs that ended in this process, by action, result and reason.
pub static JOBS: Counter =
    Counter::new("autobuild_jobs_total", "Jobs that ended.", &["action", "result", "reason"]);
/// Jobs that were parked, by what they wait for.
pub static PARKED: Counter = Counter::new("autobuild_jobs_parked_total", "Jobs parked.", &["waiting_for"]);
/// From enqueue to the first claim.
pub static START_DELAY: Seconds =
    Seconds::new("autobuild_job_start_delay_seconds", "From enqueue to the first claim.", &["priority"]);
/// From the first claim to the end.
pub static JOB_TIME: Seconds =
    Seconds::new("autobuild_job_time_seconds", "From the first claim to the end.", &["action"]);
/// Slots of this process, by state (`busy`, `free`).
pub static SLOTS: Gauge = Gauge::new("autobuild_worker_slots", "Slots of this process.", &["state"]);
/// Jobs whose last outcome was that the BMC does not answer, or is busy, held by this process now.
pub static UNREACHABLE: Gauge = Gauge::new(
    "autobuild_worker_unreachable",
    "Slots that try a BMC which did not answer before, or was busy.",
    &[],
);
/// Jobs of this process that wait, in the queue, for another one to be done with their BMC.
pub static TURNS: Gauge =
    Gauge::new("autobuild_worker_turns_waited_for", "Jobs that wait for their turn at a BMC.", &[]);
/// Incarnations that ended although nobody asked, by why.
pub static LEASES_LOST: Counter =
    Counter::new("autobuild_leases_lost_total", "Incarnations that ended although nobody asked.", &["why"]);
/// How often everything was derived again because the database told another history.
pub static HISTORIES: Counter = Counter::new(
    "autobuild_other_histories_total",
    "Times that every job was derived again, because the database told another history.",
    &[],
);
/// Writes that were refused because the claim was over.
pub static FENCED: Counter =
    Counter::new("autobuild_fenced_writes_total", "Writes refused by the fence.", &[]);
/// Jobs taken over from dead workers.
pub static RESCUED: Counter =
    Counter::new("autobuild_jobs_rescued_total", "Jobs taken from dead workers.", &["how"]);
/// Requests to BMCs, by operation and class of the outcome.
pub static BMC_REQUESTS: Counter =
    Counter::new("autobuild_bmc_requests_total", "Requests to BMCs.", &["operation", "outcome"]);
/// How long BMCs took.
pub static BMC_TIME: Seconds =
    Seconds::new("autobuild_bmc_request_seconds", "Time of BMC requests.", &["operation"]);
/// Connections to BMCs whose certificate was not verified.
pub static INSECURE_TLS: Counter = Counter::new(
    "autobuild_bmc_unverified_connections_total",
    "Connections to BMCs whose certificate was not verified.",
    &[],
);
/// Requests of machines to the boot service, by what was asked for and how it ended (`served`, `refused`, `later`, `held`).
pub static BOOT_REQUESTS: Counter = Counter::new(
    "autobuild_boot_requests_total",
    "Requests of machines to the boot service.",
    &["request", "outcome"],
);
/// Downloads of kernels and RAM disks, by how they ended.
pub static BOOT_DOWNLOADS: Counter =
    Counter::new("autobuild_boot_downloads_total", "Downloads into the boot service's cache.", &["outcome"]);
/// Bytes in the boot service's cache.
pub static BOOT_CACHE_BYTES: Gauge =
    Gauge::new("autobuild_boot_cache_bytes", "Bytes in the boot service's cache.", &[]);
/// Pool members that were started again.
pub static POOL_RESTARTS: Counter =
    Counter::new("autobuild_pool_restarts_total", "Pool members that were started again.", &[]);
/// Always 1; the label tells the version.
pub static BUILD_INFO: Gauge = Gauge::new("autobuild_build_info", "Always 1.", &["version"]);

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::new();
    // A family that cannot be registered is missing from the page, and nothing else.
    let _ = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
    registry
});

/// From a cached read to a machine that shuts down.
const BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0, 600.0];

struct Family<V> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    vector: OnceLock<Option<V>>,
}

impl<V: Collector + Clone + 'static> Family<V> {
    const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, vector: OnceLock::new() }
    }

    fn get(&self, make: impl FnOnce(&Self) -> prometheus::Result<V>) -> Option<&V> {
        let vector = self.vector.get_or_init(|| {
            let registered = make(self).and_then(|vector| {
                REGISTRY.register(Box::new(vector.clone()))?;
                Ok(vector)
            });
            registered
                .inspect_err(|error| tracing::error!(metric = self.name, %error, "a metric is missing"))
                .ok()
        });
        vector.as_ref()
    }
}

impl Counter {
    const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self(Family::new(name, help, labels))
    }

    /// Counts one.
    pub fn one(&self, labels: &[&str]) {
        self.add(labels, 1);
    }

    /// Counts `n`.
    pub fn add(&self, labels: &[&str], n: u64) {
        let made =
            self.0.get(|family| IntCounterVec::new(Opts::new(family.name, family.help), family.labels));
        if let Some(Ok(counter)) = made.map(|made| made.get_metric_with_label_values(labels)) {
            counter.inc_by(n);
        }
    }
}

impl Gauge {
    const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self(Family::new(name, help, labels))
    }

    fn with(&self, labels: &[&str], change: impl FnOnce(&prometheus::Gauge)) {
        let made = self.0.get(|family| GaugeVec::new(Opts::new(family.name, family.help), family.labels));
        if let Some(Ok(gauge)) = made.map(|made| made.get_metric_with_label_values(labels)) {
            change(&gauge);
        }
    }

    /// Sets the value.
    pub fn set(&self, labels: &[&str], value: f64) {
        self.with(labels, |gauge| gauge.set(value));
    }

    /// Adds to the value.
    pub fn add(&self, labels: &[&str], by: f64) {
        self.with(labels, |gauge| gauge.add(by));
    }

    /// Takes the value off the page: nobody here knows it any more.
    pub fn remove(&self, labels: &[&str]) {
        if let Some(Some(made)) = self.0.vector.get() {
            // One that is not there is what is wanted.
            let _ = made.remove_label_values(labels);
        }
    }

    /// Takes all values off the page.
    pub fn clear(&self) {
        if let Some(Some(made)) = self.0.vector.get() {
            made.reset();
        }
    }
}

impl Seconds {
    const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self(Family::new(name, help, labels))
    }

    /// Takes in one duration.
    pub fn observe(&self, labels: &[&str], seconds: f64) {
        let made = self.0.get(|family| {
            let opts = HistogramOpts::new(family.name, family.help).buckets(BUCKETS.to_vec());
            HistogramVec::new(opts, family.labels)
        });
        if let Some(Ok(histogram)) = made.map(|made| made.get_metric_with_label_values(labels)) {
            histogram.observe(seconds);
        }
    }
}

/// The page that Prometheus scrapes.
pub fn page() -> String {
    BUILD_INFO.set(&[env!("CARGO_PKG_VERSION")], 1.0);
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&REGISTRY.gather(), &mut text) {
        tracing::error!(%error, "the metrics cannot be written");
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_any_more_is_on_the_page_no_more() {
        for site in ["taken-off", "stays"] {
            SITE_WORKERS.set(&[site], 1.0);
        }
        for site in ["taken-off", "was-not-there"] {
            SITE_WORKERS.remove(&[site]);
        }
        assert!(page().contains("stays") && !page().contains("taken-off"));
        SITE_WORKERS.clear();
        assert!(!page().contains("stays"));
    }

    #[test]
    fn what_was_counted_is_on_the_page() {
        // Labels of its own: other tests of this process count as well.
        JOBS.one(&["Counted", "Succeeded", "Succeeded"]);
        SLOTS.set(&["counted"], 3.0);
        BMC_TIME.observe(&["counted"], 0.01);
        let page = page();
        for line in [
            r#"autobuild_jobs_total{action="Counted",reason="Succeeded",result="Succeeded"} 1"#,
            r#"autobuild_worker_slots{state="counted"} 3"#,
            r#"autobuild_bmc_request_seconds_count{operation="counted"} 1"#,
            "autobuild_build_info{version=",
            "process_resident_memory_bytes",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
    }
}
