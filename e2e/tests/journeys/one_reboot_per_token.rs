//! Reboot tokens: a new value is one reboot, everything else is none.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::job::{Action, JobResult, Step, WaitingFor};
use e2e::fleet::{Fleet, Layout};
use serde_json::json;

use crate::steps::{
    asked_for, ended, fresh_look, handled, kubectl_apply, kubectl_wait_ready, noticed, on_with_token, system,
};

const ONCE: &[&str] = &["off", "on"];
const TWICE: &[&str] = &["off", "on", "off", "on"];

/// New, again, another, an older one, none.
async fn values(fleet: &Fleet, name: &str) -> Result<()> {
    kubectl_apply(fleet, &fleet.manifest(name)).await?;
    kubectl_wait_ready(fleet, name).await?;
    for (token, resets) in [("one", ONCE), ("one", ONCE), ("two", TWICE)] {
        kubectl_apply(fleet, &fleet.manifest_with(name, &json!({ "rebootToken": token }))).await?;
        handled(fleet, name, token).await?;
        fresh_look(fleet, name).await?;
        asked_for(fleet, name, resets).await?;
    }
    // A `git revert`.
    kubectl_apply(fleet, &fleet.manifest_with(name, &json!({ "rebootToken": "one" }))).await?;
    let note = fleet.wait_event(name, Reason::TokenAlreadyHandled).await?;
    ensure!(note.contains("\"one\"") && note.contains("set a new value"), "{note}");
    fresh_look(fleet, name).await?;
    asked_for(fleet, name, TWICE).await?;
    // Taken away.
    kubectl_apply(fleet, &fleet.manifest(name)).await?;
    noticed(fleet, name).await?;
    fresh_look(fleet, name).await?;
    asked_for(fleet, name, TWICE).await?;
    ensure!(fleet.bmcs().power(name).await? == "On");
    let done = fleet.records().finished(name, "Reboot").await?;
    ensure!(done.len() == 2 && done.iter().all(|past| past.result == "Succeeded"), "{done:?}");
    Ok(())
}

/// A token that comes with a new Server is taken note of only.
async fn first_sight(fleet: &Fleet, name: &str) -> Result<()> {
    kubectl_apply(fleet, &fleet.manifest_with(name, &on_with_token("first"))).await?;
    handled(fleet, name, "first").await?;
    let note = fleet.wait_event(name, Reason::TokenAlreadyHandled).await?;
    ensure!(note.contains("new Server"), "{note}");
    fresh_look(fleet, name).await?;
    asked_for(fleet, name, &[]).await?;
    fleet.change(name, json!({ "rebootToken": "second" })).await?;
    handled(fleet, name, "second").await?;
    asked_for(fleet, name, ONCE).await
}

/// Off, or wished off: a token asks for nothing, and counts as handled.
async fn of_a_machine_that_is_off(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "power": "PoweredOff" })).await?;
    fleet.wait_ready(name).await?;
    asked_for(fleet, name, &["off"]).await?;
    fleet.change(name, json!({ "rebootToken": "shall-be-off" })).await?;
    handled(fleet, name, "shall-be-off").await?;
    let note = fleet.wait_event(name, Reason::NotApplicable).await?;
    ensure!(note.contains("\"shall-be-off\""), "{note}");
    fleet.change(name, json!({ "power": null, "rebootToken": "is-off" })).await?;
    handled(fleet, name, "is-off").await?;
    // Nor does it come back when the machine is wished on later.
    fleet.change(name, json!({ "power": "PoweredOn" })).await?;
    ended(fleet, name, Action::PowerOn, JobResult::Succeeded).await?;
    fresh_look(fleet, name).await?;
    asked_for(fleet, name, &["off", "on"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_one_reboot_and_the_same_an_older_a_first_or_a_pointless_one_is_none() {
    let fleet = Fleet::with(Layout::new(3).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (one, two, three) = (system(1), system(2), system(3));
    tokio::try_join!(
        values(&fleet, &one),
        first_sight(&fleet, &two),
        of_a_machine_that_is_off(&fleet, &three)
    )
    .unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tokens_before_the_start_the_last_one_counts() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let worker = fleet.worker("first").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    worker.process().stop(std::time::Duration::from_secs(20)).await.unwrap();
    for token in ["one", "two", "three"] {
        fleet.change(&name, json!({ "rebootToken": token })).await.unwrap();
        noticed(&fleet, &name).await.unwrap();
    }
    let _worker = fleet.worker("second").await.unwrap();
    let server = handled(&fleet, &name, "three").await.unwrap();
    fresh_look(&fleet, &name).await.unwrap();
    asked_for(&fleet, &name, ONCE).await.unwrap();
    assert_eq!(server.status.unwrap().reboot_tokens, ["three"]);
    fleet.end().await.unwrap();
}

/// A value that comes while a reboot for another one is under way is a reboot of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_while_a_reboot_is_under_way_is_another_reboot() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({ "power": "PoweredOn" })).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    // The on takes several claims.
    let busy = json!({
        "system": name, "path": "*/Actions/*", "method": "POST", "skip": 1, "count": 3,
        "behaviour": { "kind": "Status", "status": 503 },
    });
    fleet.bmcs().fault(busy).await.unwrap();
    fleet.change(&name, json!({ "rebootToken": "one" })).await.unwrap();
    fleet
        .wait(&name, "on its way up, and waits", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.is_some_and(|job| job.step == Step::On && job.waiting_for == Some(WaitingFor::BmcCapacity))
        })
        .await
        .unwrap();
    fleet.change(&name, json!({ "rebootToken": "two" })).await.unwrap();
    handled(&fleet, &name, "two").await.unwrap();
    let done = fleet.records().finished(&name, "Reboot").await.unwrap();
    assert_eq!(done.len(), 2, "{done:?}");
    assert_eq!(fleet.bmcs().power(&name).await.unwrap(), "On");
    fleet.end().await.unwrap();
}
