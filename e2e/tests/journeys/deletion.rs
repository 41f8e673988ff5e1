//! Every deletion ends, and leaves the machine as its policy says.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::{ConditionType, find};
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::paused::off_was_sent;
use crate::steps::{asked_for, kubectl_apply, kubectl_wait_ready, system};

async fn retained(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "paused": true })).await?;
    fleet.wait_reason(name, ConditionType::Paused, Reason::Paused).await?;
    fleet.delete(name).await?;
    fleet.wait_gone(name).await?;
    asked_for(fleet, name, &[]).await?;
    // The same name and BMC once more: nothing is left in the way.
    kubectl_apply(fleet, &fleet.manifest_with(name, &json!({ "power": "PoweredOn" }))).await?;
    kubectl_wait_ready(fleet, name).await?;
    fleet.kubectl().in_namespace(fleet.namespace()).run(&["delete", "server", name]).await?;
    asked_for(fleet, name, &[]).await
}

async fn powered_off(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "deletionPolicy": "PowerOff" })).await?;
    fleet.wait_ready(name).await?;
    fleet.delete(name).await?;
    fleet.wait_gone(name).await?;
    ensure!(fleet.bmcs().power(name).await? == "Off", "gone, and its machine is on");
    asked_for(fleet, name, &["off"]).await?;
    let done = fleet.records().finished(name, "PowerOff").await?;
    ensure!(done.len() == 1 && done[0].result == "Succeeded", "{done:?}");
    Ok(())
}

async fn paused(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "deletionPolicy": "PowerOff", "paused": true })).await?;
    fleet.wait_reason(name, ConditionType::Paused, Reason::Paused).await?;
    fleet.delete(name).await?;
    fleet
        .wait(name, "Deleting, with the way out", |server| {
            let conditions = server.status.as_ref().map(|status| status.conditions.as_slice());
            let says = |kind| find(conditions?, kind).filter(|one| one.message.contains("Retain"));
            says(ConditionType::Ready).or(says(ConditionType::Stalled)).is_some()
        })
        .await?;
    fleet.change(name, json!({ "deletionPolicy": "Retain" })).await?;
    fleet.wait_gone(name).await?;
    asked_for(fleet, name, &[]).await
}

/// The machine cannot be powered off: let go within a bound, and it is said.
async fn let_go(fleet: &Fleet, name: &str) -> Result<()> {
    let note = fleet.wait_event(name, Reason::ReleasedWithoutPowerOff).await?;
    ensure!(note.contains("could not be powered off"), "{note}");
    fleet.wait_gone(name).await?;
    let past = fleet.records().finished(name, "PowerOff").await?;
    let told = past.iter().filter(|past| past.reason == Reason::ReleasedWithoutPowerOff.as_str()).count();
    ensure!(told == 1, "history has {past:?}");
    ensure!(fleet.records().job(name).await?.is_none(), "its job is still there");
    asked_for(fleet, name, &[]).await
}

async fn without_its_secret(fleet: &Fleet, name: &str) -> Result<()> {
    let secret = "bmc-that-goes";
    fleet.secret(secret, &[("username", fleet.username()), ("password", fleet.password())]).await?;
    let spec = json!({ "deletionPolicy": "PowerOff", "bmc": { "credentialsRef": { "name": secret } } });
    fleet.declare(name, spec).await?;
    fleet.wait_ready(name).await?;
    fleet.delete_secret(secret).await?;
    fleet.wait_reason(name, ConditionType::Stalled, Reason::CredentialsMissing).await?;
    fleet.delete(name).await?;
    let_go(fleet, name).await
}

async fn unreachable(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "deletionPolicy": "PowerOff" })).await?;
    fleet.wait_ready(name).await?;
    fleet.bmcs().misbehave(name, json!({ "kind": "Offline", "by": "Reset" })).await?;
    fleet.delete(name).await?;
    let_go(fleet, name).await
}

async fn in_the_middle_of_a_reboot(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    let slow = json!({ "system": name, "method": "POST", "count": 1, "behaviour": { "kind": "AsyncDelay", "ms": 1500 } });
    fleet.bmcs().fault(slow).await?;
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    off_was_sent(fleet, name).await?;
    fleet.delete(name).await?;
    fleet.wait_gone(name).await?;
    wait_for("the machine to be on", LIMIT, async || {
        let power = fleet.bmcs().power(name).await?;
        Ok(if power == "On" { Look::Holds(()) } else { Look::NotYet(power) })
    })
    .await?;
    asked_for(fleet, name, &["off", "on"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_and_leaves_the_machine_as_its_policy_says() {
    let fleet = Fleet::with(Layout::new(6).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().with(&[("--power-off-wait", "6s"), ("--undo-wait", "6s")]);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let names: Vec<String> = (1..=6).map(system).collect();
    tokio::try_join!(
        retained(&fleet, &names[0]),
        powered_off(&fleet, &names[1]),
        paused(&fleet, &names[2]),
        without_its_secret(&fleet, &names[3]),
        unreachable(&fleet, &names[4]),
    )
    .unwrap();
    let left = fleet.records().number("SELECT COUNT(*) FROM bmc_claim").await.unwrap();
    assert_eq!(left, 0, "claims of Servers that are gone");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_server_is_deleted_in_the_middle_of_a_reboot_is_on_at_the_end() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().set("--undo-wait", "60s");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    in_the_middle_of_a_reboot(&fleet, &system(1)).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_can_be_deleted_once_its_servers_are() {
    let fleet = Fleet::with(Layout::new(3).emulator(&["--initial-power", "on"])).await.unwrap();
    // Its Lease goes with the namespace otherwise.
    let home = fleet.cluster().namespace("home").await.unwrap();
    let flags = fleet.controller_flags().with(&[
        ("--lease-namespace", &home),
        ("--power-off-wait", "6s"),
        ("--undo-wait", "6s"),
    ]);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    fleet.declare(&system(1), json!({})).await.unwrap();
    fleet.declare(&system(2), json!({ "deletionPolicy": "PowerOff" })).await.unwrap();
    fleet.declare(&system(3), json!({ "paused": true })).await.unwrap();
    for number in [1, 2] {
        fleet.wait_ready(&system(number)).await.unwrap();
    }
    fleet.wait_reason(&system(3), ConditionType::Paused, Reason::Paused).await.unwrap();
    // The processes' rights in a namespace go with it, whatever is still in it: Servers first.
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["delete", "servers", "--all", "--timeout=120s"]).await.unwrap();
    fleet.kubectl().run(&["delete", "namespace", fleet.namespace(), "--timeout=120s"]).await.unwrap();
    let left = fleet.records().number("SELECT COUNT(*) FROM server_state").await.unwrap();
    assert_eq!(left, 0);
    assert!(fleet.logged("panicked at").unwrap().is_empty());
}
