//! The leading controller is killed wherever it stands: another one takes over, nothing is done twice, nothing is
//! missing from status.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{Fleet, Layout};
use serde_json::json;

/// What the leader is about to do, or has just done, when it dies; each after its server is Ready, so that the crash
/// belongs to the reboot that follows.
const MOMENTS: &[(&str, &str)] = &[
    ("after it read the feed", "controller.feed.read"),
    ("before it writes a status", "controller.patch.before"),
    ("after it wrote a status", "controller.patch.after"),
    ("before it commits an enqueue", "queue.enqueue.before"),
    ("after it committed an enqueue", "queue.enqueue.after"),
];

async fn drill(fleet: &Fleet, number: usize, failpoint: &str) -> Result<()> {
    let system = format!("system-{:04}", number + 1);
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    // It starts with a fleet at rest: what it reads, decides and writes from then on is the reboot.
    let armed = format!("{failpoint}=1*return");
    let leader =
        fleet.controller_with(&format!("leader-{number}"), &flags, &[("FAILPOINTS", &armed)]).await?;
    let standby = fleet.controller_with(&format!("standby-{number}"), &flags, &[]).await?;
    fleet.change(&system, json!({ "rebootToken": "one" })).await?;
    leader.process().wait(Duration::from_mins(1)).await.context("the crash point was not reached")?;
    fleet
        .wait(&system, "Ready, rebooted once", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && e2e::fleet::is_ready(server)
        })
        .await?;
    let resets = fleet.bmcs().resets(&system).await?;
    ensure!(resets == ["off", "on"], "its BMC was asked for {resets:?}");
    let done = fleet.records().finished(&system, "Reboot").await?;
    ensure!(done.len() == 1, "history has {done:?}");
    let told = fleet.events(&system).await?;
    let ends =
        told.iter().filter(|(reason, note)| reason == "Succeeded" && note.starts_with("Reboot")).count();
    ensure!(ends <= 1, "its end was told {ends} times: {told:?}");
    standby.process().stop(Duration::from_secs(20)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_at_any_moment_is_followed_by_one_that_misses_and_doubles_nothing() {
    let layout = Layout::new(MOMENTS.len() as u32).emulator(&["--initial-power", "on"]);
    let fleet = Fleet::with(layout).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let first = fleet.controller_with("first", &flags, &[]).await.unwrap();
    for number in 0..MOMENTS.len() {
        fleet.declare(&format!("system-{:04}", number + 1), json!({})).await.unwrap();
    }
    for number in 0..MOMENTS.len() {
        fleet.wait_ready(&format!("system-{:04}", number + 1)).await.unwrap();
    }
    first.process().stop(Duration::from_secs(20)).await.unwrap();
    for (number, (what, failpoint)) in MOMENTS.iter().enumerate() {
        drill(&fleet, number, failpoint)
            .await
            .with_context(|| format!("killed {what} ({failpoint})"))
            .unwrap();
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_leads_at_once_when_the_leader_is_asked_to_end() {
    let fleet = Fleet::start(1).await.unwrap();
    // With a Lease that outlives the test's patience: it is given back, not waited for.
    let flags = fleet.controller_flags().set("--lease-duration", "10m").set("--renew-period", "1s");
    let leader = fleet.controller_with("leader", &flags, &[]).await.unwrap();
    let _standby = fleet.controller_with("standby", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    assert!(leader.process().stop(Duration::from_secs(20)).await.unwrap().success());
    fleet.declare("system-0001", json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.wait_ready("system-0001").await.unwrap();
    fleet.end().await.unwrap();
}
