//! A worker is killed at every step boundary of a reboot; another one finishes it: one off and one on, no more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use futures::{StreamExt as _, stream};
use serde_json::json;

/// Crash points in the order in which a reboot passes them: what the drill is called, and what arms it. The first
/// inspection is a claim and a completion of its own, so those are let pass once. A reboot stores, sends and closes
/// twice: for off and for on.
const BOUNDARIES: &[(&str, &str)] = &[
    ("before the claim", "queue.claim.before=1*off->1*return"),
    ("after the claim", "queue.claim.after=1*off->1*return"),
    ("before the off is stored", "queue.store_request.before=1*return"),
    ("after the off was stored", "queue.store_request.after=1*return"),
    ("before the off is sent", "worker.send.before=1*return"),
    ("after the off was sent", "worker.send.after=1*return"),
    ("before the answer to the off is recorded", "queue.close_request.before=1*return"),
    ("after the answer to the off was recorded", "queue.close_request.after=1*return"),
    ("before it is parked until the machine is off", "queue.park.before=1*return"),
    ("after it was parked until the machine is off", "queue.park.after=1*return"),
    ("before it advances", "queue.advance.before=1*return"),
    ("after it advanced", "queue.advance.after=1*return"),
    ("before the on is stored", "queue.store_request.before=1*off->1*return"),
    ("after the on was stored", "queue.store_request.after=1*off->1*return"),
    ("before the on is sent", "worker.send.before=1*off->1*return"),
    ("after the on was sent", "worker.send.after=1*off->1*return"),
    ("before the answer to the on is recorded", "queue.close_request.before=1*off->1*return"),
    ("after the answer to the on was recorded", "queue.close_request.after=1*off->1*return"),
    ("before it is completed", "queue.complete.before=1*off->1*return"),
    ("after it was completed", "queue.complete.after=1*off->1*return"),
];

/// Drills at the same time: each has a worker or two.
const AT_ONCE: usize = 4;

async fn drill(fleet: &Fleet, number: usize, failpoint: &str) -> Result<()> {
    let system = format!("system-{:04}", number + 1);
    let site = format!("site-{number}");
    let flags = fleet.worker_flags().set("--site", site.as_str());
    let victim = fleet.worker_with(&format!("victim-{number}"), &flags, &[("FAILPOINTS", failpoint)]).await?;
    fleet.declare(&system, json!({ "site": site })).await?;
    fleet.wait_ready(&system).await?;
    fleet.change(&system, json!({ "rebootToken": "one" })).await?;
    let end =
        victim.process().wait(Duration::from_mins(1)).await.context("the crash point was not reached")?;
    ensure!(!end.success(), "the victim ended with {end}");
    let rescuer = fleet.worker_with(&format!("rescuer-{number}"), &flags, &[]).await?;
    fleet
        .wait(&system, "Ready, rebooted once", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && e2e::fleet::is_ready(server)
        })
        .await?;
    let server = fleet.expect_ready(&system).await?;
    let tokens = server.status.map(|status| status.reboot_tokens).unwrap_or_default();
    ensure!(tokens == ["one"], "handled tokens are {tokens:?}");
    let resets = fleet.bmcs().resets(&system).await?;
    ensure!(resets == ["off", "on"], "its BMC was asked for {resets:?}");
    ensure!(fleet.bmcs().power(&system).await? == "On", "it is not on");
    let done = fleet.records().finished(&system, "Reboot").await?;
    ensure!(done.len() == 1, "history has {done:?}");
    rescuer.process().stop(Duration::from_secs(20)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_boundary_of_a_reboot_is_followed_by_one_that_finishes_it() {
    let layout = Layout::new(BOUNDARIES.len() as u32).emulator(&["--initial-power", "on"]);
    let fleet = Fleet::with(layout).await.unwrap();
    // Inspections of their own would pass the crash points first.
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let drills = stream::iter(BOUNDARIES.iter().enumerate()).map(|(number, (what, failpoint))| {
        let fleet = &fleet;
        async move {
            drill(fleet, number, failpoint).await.with_context(|| format!("killed {what} ({failpoint})"))
        }
    });
    let results: Vec<Result<()>> = drills.buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<String> =
        results.into_iter().filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    fleet.end().await.unwrap();
}

/// The BMC takes its time with the off, and the worker that sent it is dead long before: whoever takes the job over waits
/// until the off can take effect no more, and sends nothing that it may meet.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_on_its_way_when_its_worker_dies_is_waited_for() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    // Taken over after a lease of 3 s, and settled after 15 s.
    let flags = fleet.worker_flags().set("--request-timeout", "10s");
    let victim = fleet.worker_with("victim", &flags, &[]).await.unwrap();
    let system = "system-0001";
    fleet.declare(system, json!({})).await.unwrap();
    fleet.wait_ready(system).await.unwrap();
    let late = json!({ "kind": "Late", "effect_ms": 9_000, "then": "Hang" });
    fleet
        .bmcs()
        .fault(json!({ "system": system, "method": "POST", "count": 1, "behaviour": late }))
        .await
        .unwrap();
    fleet.change(system, json!({ "rebootToken": "one" })).await.unwrap();
    wait_for("the off to be on its way", LIMIT, async || {
        let asked = fleet.bmcs().requests(system).await?;
        let sent = asked.iter().any(|one| one.path.contains("ComputerSystem.Reset"));
        Ok(if sent { Look::Holds(()) } else { Look::NotYet(format!("{} requests", asked.len())) })
    })
    .await
    .unwrap();
    victim.process().kill().await.unwrap();
    let _rescuer = fleet.worker_with("rescuer", &flags, &[]).await.unwrap();
    fleet
        .wait(system, "Ready, rebooted", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
                && e2e::fleet::is_ready(server)
        })
        .await
        .unwrap();
    let resets = fleet.bmcs().resets(system).await.unwrap();
    assert_eq!(resets, ["off", "on"]);
    assert_eq!(fleet.bmcs().power(system).await.unwrap(), "On");
    fleet.end().await.unwrap();
}
