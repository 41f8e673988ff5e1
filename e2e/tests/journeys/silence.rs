//! A fleet that is as declared: it is looked at, and nothing is written.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::autobuild::Running;
use e2e::fleet::{Fleet, Layout, metric};
use e2e::wait::{Look, say, wait_for};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::steps::{at_rest, system};

const SERVERS: usize = 100;
const LOOKS: i64 = 2;

/// What must not change.
#[derive(Debug, PartialEq)]
struct Written {
    versions: BTreeMap<String, Option<String>>,
    patches: u64,
    events: Vec<(String, Option<String>)>,
    history: i64,
    in_feed: i64,
}

async fn written(fleet: &Fleet, controller: &Running) -> Result<Written> {
    let servers = fleet.servers().list(&ListParams::default()).await?;
    let events: Api<Event> = Api::namespaced(fleet.client(), fleet.namespace());
    let (_, page) = controller.get("/metrics").await?;
    Ok(Written {
        versions: servers.iter().map(|server| (server.name_any(), server.resource_version())).collect(),
        patches: metric(&page, "autobuild_status_patches_total", &[]) as u64,
        events: events
            .list(&ListParams::default())
            .await?
            .iter()
            .map(|event| (event.name_any(), event.resource_version()))
            .collect(),
        history: fleet.records().number("SELECT COUNT(*) FROM job_history").await?,
        in_feed: fleet
            .records()
            .number("SELECT COUNT(*) FROM server_state WHERE changed_at_ms IS NOT NULL")
            .await?,
    })
}

async fn tries(fleet: &Fleet) -> Result<BTreeMap<String, i64>> {
    let rows: Vec<(String, Option<i64>)> = sqlx::query_as("SELECT name, last_try_ms FROM server_state")
        .fetch_all(fleet.records().pool())
        .await?;
    Ok(rows.into_iter().map(|(name, at)| (name, at.unwrap_or(0))).collect())
}

/// Waits until every server was looked at so often again.
async fn looked_at_again(fleet: &Fleet) -> Result<()> {
    let seen = tokio::sync::Mutex::new((BTreeMap::<String, i64>::new(), tries(fleet).await?));
    wait_for("every server to be looked at twice more", e2e::fleet::LIMIT, async || {
        let now = tries(fleet).await?;
        let (looks, last) = &mut *seen.lock().await;
        for (name, at) in now {
            if last.insert(name.clone(), at) != Some(at) {
                *looks.entry(name).or_default() += 1;
            }
        }
        let enough = looks.values().filter(|count| **count >= LOOKS).count();
        Ok(if enough == SERVERS { Look::Holds(()) } else { Look::NotYet(format!("{enough} of {SERVERS}")) })
    })
    .await
}

fn rss_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Transactions by name.
fn transactions(page: &str) -> BTreeMap<String, u64> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("autobuild_database_transactions_total{")) {
        let Some((labels, count)) = line.rsplit_once(' ') else { continue };
        let name = labels.split("transaction=\"").nth(1).and_then(|rest| rest.split('"').next());
        *found.entry(name.unwrap_or("?").to_owned()).or_default() +=
            count.parse::<f64>().unwrap_or(0.0) as u64;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_as_declared_is_looked_at_and_nothing_is_written() {
    let fleet = Fleet::with(Layout::new(SERVERS as u32).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "5s");
    let controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    for number in 1..=SERVERS {
        fleet.declare(&system(number), json!({ "power": "PoweredOn" })).await.unwrap();
    }
    for number in 1..=SERVERS {
        fleet.wait(&system(number), "at rest", at_rest).await.unwrap();
    }
    // What was told about the first looks has been told once everything was looked at again.
    looked_at_again(&fleet).await.unwrap();
    let before = written(&fleet, &controller).await.unwrap();
    let (_, page) = worker.get("/metrics").await.unwrap();
    let started = std::time::Instant::now();
    looked_at_again(&fleet).await.unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let (_, later) = worker.get("/metrics").await.unwrap();
    let after = written(&fleet, &controller).await.unwrap();
    assert_eq!(before, after, "a converged fleet wrote something");

    let (was, is) = (transactions(&page), transactions(&later));
    let grown: BTreeMap<&String, u64> = is
        .iter()
        .map(|(name, count)| (name, count - was.get(name).unwrap_or(&0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    // Jobs, not transactions: those that end together share one.
    let ended = |page: &str| metric(page, "autobuild_jobs_total", &[]) as u64;
    let looks = ended(&later) - ended(&page);
    assert!(looks >= SERVERS as u64 * LOOKS as u64, "{grown:?}");
    let heads = metric(&later, "autobuild_head_queries_total", &[])
        - metric(&page, "autobuild_head_queries_total", &[]);
    for (name, count) in &grown {
        let beat = name.contains("heartbeat") || name.contains("beat");
        // A slow machine makes many small claims, and some find that another slot was faster: one for each look
        // and one for each peek is the most that is not a loop.
        let most = if name.as_str() == "claim" { looks + heads as u64 } else { looks * 2 };
        assert!(beat || *count <= most, "{count} {name} for {looks} inspections, {heads} peeks: {grown:?}");
    }
    say(format!(
        "{looks} inspections in {seconds:.1} s; head queries {:.1}/s; transactions {grown:?}",
        heads / seconds
    ));

    // Without anything to look at, a worker only beats and peeks.
    let quiet = fleet.worker_with("idle", &fleet.worker_flags().set("--site", "empty"), &[]).await.unwrap();
    let (_, page) = quiet.get("/metrics").await.unwrap();
    let started = std::time::Instant::now();
    let count = |page: &str| metric(page, "autobuild_head_queries_total", &[]);
    let later = wait_for("some peeks of an idle worker", e2e::fleet::LIMIT, async || {
        let (_, later) = quiet.get("/metrics").await?;
        let more = count(&later) - count(&page);
        Ok(if more >= 20.0 { Look::Holds(later) } else { Look::NotYet(format!("{more} peeks")) })
    })
    .await
    .unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let sum = |page: &str| transactions(page).values().sum::<u64>();
    say(format!(
        "idle worker: {:.1} head queries/s, {:.1} transactions/s {:?}; RSS MiB: controller {}, worker {}, idle worker {}",
        (count(&later) - count(&page)) / seconds,
        (sum(&later) - sum(&page)) as f64 / seconds,
        transactions(&later),
        rss_mib(controller.process().pid()),
        rss_mib(worker.process().pid()),
        rss_mib(quiet.process().pid()),
    ));
    fleet.end().await.unwrap();
}
