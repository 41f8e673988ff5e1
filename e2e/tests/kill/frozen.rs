//! Processes that are frozen for longer than their lease, and thaw: they change no row and send nothing new.

use std::time::Duration;

use anyhow::{Result, ensure};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{Fleet, LIMIT, Layout, metric};
use e2e::process::Signal;
use e2e::wait::{Look, wait_for};
use serde_json::json;

const SYSTEM: &str = "system-0001";

/// Freezes the worker while it waits for the answer to an off, lets another one take over and finish, and thaws it.
async fn thawed_worker(fleet: &Fleet) -> Result<()> {
    let frozen = fleet.worker("frozen").await?;
    fleet.declare(SYSTEM, json!({})).await?;
    fleet.wait_ready(SYSTEM).await?;
    // The request arrives and takes effect; its answer takes long enough to freeze whoever waits for it.
    let slow = json!({ "system": SYSTEM, "method": "POST", "count": 1, "behaviour": { "kind": "Delay", "ms": 1500 } });
    fleet.bmcs().fault(slow).await?;
    fleet.change(SYSTEM, json!({ "rebootToken": "one" })).await?;
    wait_for("the off to arrive", LIMIT, async || {
        let asked = fleet.bmcs().resets(SYSTEM).await?;
        Ok(if asked.is_empty() { Look::NotYet(format!("{asked:?}")) } else { Look::Holds(()) })
    })
    .await?;
    frozen.process().signal(Signal::STOP)?;

    let other = fleet.worker("other").await?;
    fleet
        .wait(SYSTEM, "rebooted by the other worker", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && e2e::fleet::is_ready(server)
        })
        .await?;
    let before = (fleet.bmcs().requests(SYSTEM).await?.len(), fleet.records().dump().await?);
    // From here on nothing happens by itself: no inspection is due, and the other worker has nothing to do.
    other.process().stop(Duration::from_secs(20)).await?;
    let settled = fleet.records().dump().await?;

    frozen.process().signal(Signal::CONT)?;
    wait_for("the thawed worker to notice that its life is over", LIMIT, async || {
        let (_, page) = frozen.get("/metrics").await?;
        let lost = metric(&page, "autobuild_leases_lost_total", &[]);
        Ok(if lost >= 1.0 { Look::Holds(()) } else { Look::NotYet(format!("{lost} leases lost")) })
    })
    .await?;
    // It is registered anew by then, and could claim if there were something.
    frozen.wait_ready().await?;
    let asked = fleet.bmcs().requests(SYSTEM).await?;
    ensure!(asked.len() == before.0, "the thawed worker asked the BMC: {:?}", &asked[before.0..]);
    let now = fleet.records().dump().await?;
    for (table, what) in
        [("job.", "jobs"), ("queue.", "queue rows"), ("server_state.", "states"), ("job_history.", "history")]
    {
        let rows = |dump: &str| -> Vec<String> {
            dump.lines().filter(|line| line.starts_with(table)).map(str::to_owned).collect()
        };
        ensure!(rows(&settled) == rows(&now), "the thawed worker changed {what}");
    }
    let resets = fleet.bmcs().resets(SYSTEM).await?;
    ensure!(resets == ["off", "on"], "its BMC was asked for {resets:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_frozen_beyond_its_lease_changes_no_row_and_sends_nothing() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    thawed_worker(&fleet).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_does_no_harm_when_it_thaws() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let first = fleet.controller_with("first", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    fleet.declare(SYSTEM, json!({})).await.unwrap();
    fleet.wait_ready(SYSTEM).await.unwrap();
    let second = fleet.controller_with("second", &flags, &[]).await.unwrap();

    first.process().signal(Signal::STOP).unwrap();
    fleet.change(SYSTEM, json!({ "rebootToken": "one" })).await.unwrap();
    rebooted(&fleet, "one").await;
    // Two leaders by their own belief, for a moment; the next wish comes at once.
    first.process().signal(Signal::CONT).unwrap();
    fleet.change(SYSTEM, json!({ "rebootToken": "two" })).await.unwrap();
    rebooted(&fleet, "two").await;
    wait_for("the thawed controller to stand by", LIMIT, async || {
        let (status, text) = first.get("/readyz").await?;
        Ok(if status == 200 && text.contains("standby") { Look::Holds(()) } else { Look::NotYet(text) })
    })
    .await
    .unwrap();
    assert_eq!(fleet.bmcs().resets(SYSTEM).await.unwrap(), ["off", "on", "off", "on"]);
    assert_eq!(fleet.records().finished(SYSTEM, "Reboot").await.unwrap().len(), 2);
    second.process().stop(Duration::from_secs(20)).await.unwrap();
    fleet.end().await.unwrap();
}

async fn rebooted(fleet: &Fleet, token: &str) {
    fleet
        .wait(SYSTEM, &format!("rebooted for {token:?}"), |server| {
            let status = server.status.as_ref();
            let last = status.and_then(|status| status.last_job.as_ref());
            let handled =
                status.is_some_and(|status| status.reboot_tokens.iter().any(|handled| handled == token));
            handled
                && last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && e2e::fleet::is_ready(server)
        })
        .await
        .unwrap();
}
