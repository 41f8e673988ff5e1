//! Machines that a job switched off and that do not come on again: they are switched on as soon as that is possible, and
//! until then everybody is told.

use anyhow::{Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Phase, Reason};
use autobuild::job::{Action, JobResult};
use e2e::autobuild::binary;
use e2e::fleet::{Fleet, LIMIT, Layout, Link, Proxy, truth};
use e2e::kubectl::Kubectl;
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::steps::{ended, fresh_look, phase, system};

/// Refuses every request that switches on, after it let one reset pass.
async fn refuse_on(fleet: &Fleet, name: &str, more: Value) -> Result<u64> {
    let mut rule = json!({
        "system": name, "path": "*ComputerSystem.Reset*", "method": "POST", "skip": 1,
        "behaviour": { "kind": "Status", "status": 409 },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        rule[field] = value.clone();
    }
    fleet.bmcs().fault(rule).await
}

async fn is_on(fleet: &Fleet, name: &str) -> Result<()> {
    wait_for(&format!("{name}: on"), LIMIT, async || {
        let power = fleet.bmcs().power(name).await?;
        Ok(if power == "On" { Look::Holds(()) } else { Look::NotYet(power) })
    })
    .await
}

/// Rebooted, and left off by a BMC that refuses to switch on.
async fn left_off(fleet: &Fleet, name: &str, spec: Value) -> Result<(u64, String)> {
    fleet.declare(name, spec).await?;
    fleet.wait_ready(name).await?;
    let rule = refuse_on(fleet, name, json!({})).await?;
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::LeftPoweredOff).await?;
    ensure!(fleet.bmcs().power(name).await? == "Off");
    ensure!(why.contains("(Reboot) switched the machine off") && why.contains("409"), "{why}");
    Ok((rule, why))
}

/// One "not yet" is waited out.
async fn refused_for_a_while(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    refuse_on(fleet, name, json!({ "for_ms": 2_500 })).await?;
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    ended(fleet, name, Action::Reboot, JobResult::Succeeded).await?;
    ensure!(fleet.bmcs().power(name).await? == "On");
    Ok(())
}

/// Nothing but an "on" ends it: not an annotation, and no other wish.
async fn refused_for_long(fleet: &Fleet, name: &str) -> Result<()> {
    let (rule, _) = left_off(fleet, name, json!({})).await?;
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl
        .run(&["annotate", "server", name, "autobuild.dev/reconcile-requested-at=2026-01-01T00:00:00Z"])
        .await?;
    // Asked again, and refused again: what is "not yet" is tried for as long as it lasts.
    fresh_enough(fleet, name).await?;
    fleet.change(name, json!({ "priority": "Urgent" })).await?;
    fleet.wait_reason(name, ConditionType::Stalled, Reason::LeftPoweredOff).await?;
    let plugins = binary()?.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let kubectl = Kubectl::new(fleet.plane().kubeconfig()).with_plugins(&plugins);
    let page = kubectl.run(&["autobuild", "why", name, "-n", fleet.namespace()]).await?;
    ensure!(page.contains("LeftPoweredOff") && page.contains("reconcile-requested-at"), "{page}");
    fleet.bmcs().mend(rule).await?;
    fresh_look(fleet, name).await?;
    is_on(fleet, name).await?;
    fleet.wait_ready(name).await?;
    Ok(())
}

/// A person switches it on.
async fn by_hand(fleet: &Fleet, name: &str) -> Result<()> {
    left_off(fleet, name, json!({ "power": "PoweredOn" })).await?;
    fleet.bmcs().press(name, "On").await?;
    fleet.wait_ready(name).await?;
    // And off: it was on, so nothing is owed any more.
    fleet.change(name, json!({ "power": null })).await?;
    fleet.wait_ready(name).await?;
    fleet.bmcs().press(name, "Off").await?;
    fresh_look(fleet, name).await?;
    fleet.wait_ready(name).await?;
    ensure!(fleet.bmcs().power(name).await? == "Off");
    Ok(())
}

/// A wish for off takes it away, and for good.
async fn wished_off(fleet: &Fleet, name: &str) -> Result<()> {
    let (rule, _) = left_off(fleet, name, json!({})).await?;
    fleet.change(name, json!({ "power": "PoweredOff" })).await?;
    fleet.wait_ready(name).await?;
    fleet.bmcs().mend(rule).await?;
    fleet.change(name, json!({ "power": null })).await?;
    fleet.wait_ready(name).await?;
    fresh_look(fleet, name).await?;
    fleet.wait_ready(name).await?;
    ensure!(fleet.bmcs().power(name).await? == "Off");
    Ok(())
}

/// Paused in the middle, the job ends; nothing more is sent, and status says both.
async fn paused(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    let rule = refuse_on(fleet, name, json!({})).await?;
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    wait_for(&format!("{name}: off"), LIMIT, async || {
        let power = fleet.bmcs().power(name).await?;
        Ok(if power == "Off" { Look::Holds(()) } else { Look::NotYet(power) })
    })
    .await?;
    fleet.change(name, json!({ "paused": true })).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::LeftPoweredOff).await?;
    ensure!(why.contains("set it to false"), "{why}");
    let server = phase(fleet, name, Phase::Paused).await?;
    ensure!(truth(&server, ConditionType::Ready) == Some("False"));
    fleet.bmcs().mend(rule).await?;
    fleet.change(name, json!({ "paused": false })).await?;
    is_on(fleet, name).await?;
    fleet.wait_ready(name).await?;
    Ok(())
}

/// Deleted, it is switched on first, and let go in time with a word.
async fn deleted(fleet: &Fleet, name: &str) -> Result<()> {
    left_off(fleet, name, json!({})).await?;
    fleet.delete(name).await?;
    let note = fleet.wait_event(name, Reason::LeftPoweredOff).await?;
    ensure!(!note.is_empty());
    fleet.wait_gone(name).await?;
    let history = fleet.records().history(name).await?;
    let told = history.iter().any(|past| past.action == "PowerOn" && past.reason == "LeftPoweredOff");
    ensure!(told, "{history:?}");
    Ok(())
}

/// Another machine at the address, for a while.
async fn led_elsewhere(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    let mut rules = vec![refuse_on(fleet, name, json!({})).await?];
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    fleet
        .wait(name, "on its way up", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.is_some_and(|job| job.step == autobuild::job::Step::On)
        })
        .await?;
    let other = json!({ "kind": "OtherIdentity", "serial_number": "OTHER", "uuid": "99999999-0000-0000-0000-000000000000" });
    rules.push(fleet.bmcs().misbehave(name, other).await?);
    fleet
        .wait(name, "where the name led", |server| {
            let said = serde_json::to_string(&server.status).unwrap_or_default();
            said.contains("serial number OTHER") && said.contains("leads to 127.0.0.1")
        })
        .await?;
    let sent = fleet.bmcs().resets(name).await?.len();
    fresh_enough(fleet, name).await?;
    ensure!(fleet.bmcs().resets(name).await?.len() == sent, "something was sent to the other machine");
    for rule in rules {
        fleet.bmcs().mend(rule).await?;
    }
    is_on(fleet, name).await?;
    fleet.wait_ready(name).await?;
    Ok(())
}

/// The same BMC by another name: the first good look through it is one, and what was read before is none.
async fn by_another_name(fleet: &Fleet, name: &str) -> Result<()> {
    let (rule, _) = left_off(fleet, name, json!({})).await?;
    let port = fleet.bmcs().https_of(name);
    let port = port.rsplit(':').next().unwrap_or_default();
    let address = format!("redfish+https://localhost:{port}/redfish/v1/Systems/{name}");
    fleet.change(name, json!({ "bmc": { "address": address } })).await?;
    fleet.bmcs().mend(rule).await?;
    is_on(fleet, name).await?;
    fleet.wait_ready(name).await?;
    let jobs = fleet.records().finished(name, "PowerOn").await?.len();
    fleet.change(name, json!({ "rebootToken": "two" })).await?;
    ended(fleet, name, Action::Reboot, JobResult::Succeeded).await?;
    fleet.wait_ready(name).await?;
    let more = fleet.records().finished(name, "PowerOn").await?.len() - jobs;
    ensure!(more == 0, "{more} jobs switched on what is on");
    Ok(())
}

/// Waits until its BMC was asked once more.
async fn fresh_enough(fleet: &Fleet, name: &str) -> Result<()> {
    let before = fleet.bmcs().requests(name).await?.len();
    wait_for(&format!("{name}: asked again"), LIMIT, async || {
        let asked = fleet.bmcs().requests(name).await?.len();
        Ok(if asked > before { Look::Holds(()) } else { Look::NotYet(format!("{asked} requests")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_a_job_switched_off_is_switched_on_again_or_said_to_be_left_off() {
    let fleet = Fleet::with(Layout::new(8).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--power-on-patience", "6s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let names: Vec<String> = (1..=8).map(system).collect();
    tokio::try_join!(
        refused_for_a_while(&fleet, &names[0]),
        refused_for_long(&fleet, &names[1]),
        by_hand(&fleet, &names[2]),
        wished_off(&fleet, &names[3]),
        paused(&fleet, &names[4]),
        deleted(&fleet, &names[5]),
        led_elsewhere(&fleet, &names[6]),
        by_another_name(&fleet, &names[7]),
    )
    .unwrap();
    fleet.end().await.unwrap();
}

/// The API server may run on the very machine that is rebooted.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_switched_off_is_switched_on_although_the_api_server_is_silent() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let (proxy, kubeconfig) = Proxy::before_api_server(fleet.cluster().worker(), fleet.dir()).await.unwrap();
    let worker = fleet.launch("worker", &fleet.worker_flags(), &kubeconfig, &[]).await.unwrap();
    worker.wait_ready().await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    fleet.change(&name, json!({ "rebootToken": "one" })).await.unwrap();
    wait_for("the off", LIMIT, async || {
        let resets = fleet.bmcs().resets(&name).await?;
        Ok(if resets == ["off"] { Look::Holds(()) } else { Look::NotYet(format!("{resets:?}")) })
    })
    .await
    .unwrap();
    proxy.set(Link::Silent);
    // Status tells it meanwhile.
    fleet
        .wait(&name, "shown as off", |server| {
            let power = server.status.as_ref().and_then(|status| status.power);
            power == Some(autobuild::api::hardware::PowerState::PoweredOff)
        })
        .await
        .unwrap();
    is_on(&fleet, &name).await.unwrap();
    assert_eq!(fleet.bmcs().resets(&name).await.unwrap(), ["off", "on"]);
    proxy.set(Link::Up);
    ended(&fleet, &name, Action::Reboot, JobResult::Succeeded).await.unwrap();
    fleet.end().await.unwrap();
}
