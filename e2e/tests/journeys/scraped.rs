//! What Prometheus and the kubelet read of each process, after work was done.

use e2e::autobuild::Running;
use e2e::fleet::{Fleet, Layout, metric};
use serde_json::json;

use crate::steps::{handled, system};

const OF_EVERY_PROCESS: &[&str] = &["autobuild_build_info", "process_resident_memory_bytes"];
const OF_A_CONTROLLER: &[&str] = &[
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_time_seconds_count",
    "controller_runtime_max_concurrent_reconciles",
    "leader_election_master_status",
    "autobuild_status_patches_total",
    "autobuild_commands_total",
    "autobuild_events_total",
    "autobuild_database_transactions_total",
];
const OF_A_WORKER: &[&str] = &[
    "autobuild_database_transactions_total",
    "autobuild_head_queries_total",
    "autobuild_jobs_total",
    "autobuild_job_start_delay_seconds_count",
    "autobuild_job_time_seconds_count",
    "autobuild_worker_slots",
    "autobuild_bmc_requests_total",
    "autobuild_bmc_request_seconds_count",
];

async fn scrape(running: &Running) -> String {
    for path in ["/livez", "/readyz"] {
        let (status, text) = running.get(path).await.unwrap();
        assert_eq!(status, 200, "{path} says {text}");
    }
    let (status, page) = running.get("/metrics").await.unwrap();
    assert_eq!(status, 200, "{page}");
    page
}

fn has(page: &str, families: &[&str]) {
    for family in families {
        assert!(metric(page, family, &[]) > 0.0, "{family} is missing in\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_shows_what_it_did() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let controller = fleet.controller("controller").await.unwrap();
    let standby = fleet.controller("standby").await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    fleet.change(&name, json!({ "rebootToken": "one" })).await.unwrap();
    handled(&fleet, &name, "one").await.unwrap();

    let page = scrape(&controller).await;
    has(&page, OF_EVERY_PROCESS);
    has(&page, OF_A_CONTROLLER);
    for family in ["autobuild_feed_rows", "controller_runtime_active_workers"] {
        assert!(page.lines().any(|line| line.starts_with(family)), "{family} is missing in\n{page}");
    }
    let page = scrape(&worker).await;
    has(&page, OF_EVERY_PROCESS);
    has(&page, OF_A_WORKER);
    let reboots = [("action", "Reboot"), ("result", "Succeeded")];
    assert!((metric(&page, "autobuild_jobs_total", &reboots) - 1.0).abs() < f64::EPSILON, "{page}");
    let page = scrape(&standby).await;
    has(&page, OF_EVERY_PROCESS);
    assert!(metric(&page, "leader_election_master_status", &[]) < 0.5, "{page}");
    assert!(page.contains("leader_election_master_status"), "{page}");
    // No server's name is a label.
    assert!(!page.contains(&name), "{page}");
    fleet.end().await.unwrap();
}
