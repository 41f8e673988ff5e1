//! Secrets and Servers that go in the middle of a job: a deletion always comes to its end.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::{Case, all, says};

/// A Server with a Secret of its own whose reboot is under way: the off was asked for.
async fn in_the_middle(fleet: &Fleet, system: &str, policy: &str, mode: &str) -> Result<()> {
    let spec = json!({
        "bmc": { "credentialsRef": { "name": system } }, "deletionPolicy": policy, "shutdownMode": mode,
    });
    fleet.kubectl().in_namespace(fleet.namespace()).run(&["get", "secret", e2e::fleet::SECRET]).await?;
    own_secret(fleet, system).await?;
    fleet.declare(system, spec).await?;
    fleet.wait_ready(system).await?;
    if mode == "Graceful" {
        fleet.bmcs().misbehave(system, json!({ "kind": "IgnoreGraceful" })).await?;
    }
    fleet.change(system, json!({ "rebootToken": "one" })).await?;
    wait_for("the off", LIMIT, async || {
        let resets = fleet.bmcs().resets(system).await?;
        Ok(if resets.is_empty() { Look::NotYet("nothing was asked for".to_owned()) } else { Look::Holds(()) })
    })
    .await
}

async fn own_secret(fleet: &Fleet, name: &str) -> Result<()> {
    use k8s_openapi::api::core::v1::Secret;
    let secrets: kube::Api<Secret> = kube::Api::namespaced(fleet.client(), fleet.namespace());
    let data = secrets.get(e2e::fleet::SECRET).await?.data.unwrap_or_default();
    let user = String::from_utf8(data["username"].0.clone())?;
    fleet.secret(name, &[("username", &user), ("password", fleet.password())]).await
}

/// The Server goes, its Secret stays: what was begun is undone first.
async fn server_deleted(fleet: &Fleet, system: &str) -> Result<()> {
    in_the_middle(fleet, system, "Retain", "Forced").await?;
    fleet.delete(system).await?;
    fleet.wait_gone(system).await?;
    let power = fleet.bmcs().power(system).await?;
    ensure!(power == "On" || power == "PoweringOn", "it was left {power}");
    let resets = fleet.bmcs().resets(system).await?;
    ensure!(resets == ["off", "on"], "it was asked for {resets:?}");
    Ok(())
}

/// With `PowerOff` the reboot gives way and the machine is off at the end.
async fn server_deleted_with_power_off(fleet: &Fleet, system: &str) -> Result<()> {
    in_the_middle(fleet, system, "PowerOff", "Forced").await?;
    fleet.delete(system).await?;
    fleet.wait_gone(system).await?;
    let power = fleet.bmcs().power(system).await?;
    ensure!(power == "Off", "it was left {power}");
    Ok(())
}

/// First the Secret, then the Server: nobody can log in any more, and it is let go nevertheless, with a word about it.
async fn secret_and_server_deleted(fleet: &Fleet, system: &str, policy: &str, told: Reason) -> Result<()> {
    in_the_middle(fleet, system, policy, "Graceful").await?;
    fleet.delete_secret(system).await?;
    let message = fleet.wait_reason(system, ConditionType::Ready, Reason::CredentialsMissing).await?;
    says(&message, &["Secret", system, "create it"])?;
    fleet.delete(system).await?;
    fleet.wait_gone(system).await?;
    let note = fleet.wait_event(system, told).await?;
    ensure!(!note.is_empty());
    Ok(())
}

/// The Secret goes and comes back: the job goes on.
async fn secret_came_back(fleet: &Fleet, system: &str) -> Result<()> {
    in_the_middle(fleet, system, "Retain", "Graceful").await?;
    fleet.delete_secret(system).await?;
    fleet.wait_reason(system, ConditionType::Ready, Reason::CredentialsMissing).await?;
    own_secret(fleet, system).await?;
    fleet.wait_ready(system).await?;
    let server = fleet.get(system).await?;
    ensure!(server.status.is_some_and(|status| status.reboot_tokens == ["one"]));
    let resets = fleet.bmcs().resets(system).await?;
    ensure!(resets == ["off", "off", "on"], "it was asked for {resets:?}");
    Ok(())
}

/// Nothing was ever known of it, and there is nobody to ask.
async fn never_worked(fleet: &Fleet, system: &str, spec: serde_json::Value) -> Result<()> {
    let mut spec = spec;
    spec["deletionPolicy"] = json!("PowerOff");
    fleet.declare(system, spec).await?;
    fleet.wait(system, "seen", |server| server.status.is_some()).await?;
    fleet.delete(system).await?;
    fleet.wait_gone(system).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_whatever_is_missing_by_then() {
    let fleet = Fleet::with(Layout::new(8).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = fleet.controller_flags().with(&[("--undo-wait", "4s"), ("--power-off-wait", "6s")]);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let fleet = &fleet;
    let address = |text: &str| json!({ "bmc": { "address": text } });
    let no_secret = json!({ "bmc": { "credentialsRef": { "name": "nobody" } } });
    let cases: Vec<Case<'_>> = vec![
        ("the Server, Retain", Box::pin(server_deleted(fleet, "system-0001"))),
        ("the Server, PowerOff", Box::pin(server_deleted_with_power_off(fleet, "system-0002"))),
        (
            "both, Retain",
            Box::pin(secret_and_server_deleted(fleet, "system-0003", "Retain", Reason::LeftPoweredOff)),
        ),
        (
            "both, PowerOff",
            Box::pin(secret_and_server_deleted(
                fleet,
                "system-0004",
                "PowerOff",
                Reason::ReleasedWithoutUndo,
            )),
        ),
        ("the Secret comes back", Box::pin(secret_came_back(fleet, "system-0005"))),
        ("no Secret at all", Box::pin(never_worked(fleet, "system-0006", no_secret))),
        (
            "a malformed address",
            Box::pin(never_worked(fleet, "system-0007", address("redfish+https://bad_host"))),
        ),
        (
            "nobody answers",
            Box::pin(never_worked(fleet, "system-0008", address("redfish+https://127.0.0.1:1"))),
        ),
    ];
    all(cases).await;
    fleet.end().await.unwrap();
}
