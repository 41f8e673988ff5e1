//! The end of a machine's life, and of its Server's: nothing is erased without a person's word, and nothing counts as erased
//! without the machine's.

use anyhow::{Context, Result, ensure};
use autobuild::api::condition::{ConditionType, find};
use autobuild::api::{Phase, Reason, Server};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS, truth};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::steps::{as_told, at_rest, fresh_look, kubectl_apply, kubectl_wait_ready, phase, system};

/// A blank machine that gets an operating system.
async fn built(fleet: &Fleet, name: &str, more: Value) -> Result<Server> {
    let mut spec = json!({ "power": "PoweredOn", "image": { "name": "debian-12" } });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    fleet.declare(name, spec).await?;
    fleet
        .wait(name, "installed and Ready", |server| {
            truth(server, ConditionType::ImageSynced) == Some("True") && at_rest(server)
        })
        .await
}

async fn decommissioned(fleet: &Fleet, name: &str) -> Result<()> {
    built(fleet, name, json!({})).await?;
    let manifest =
        fleet.manifest_with(name, &json!({ "power": "PoweredOn", "image": { "name": "debian-12" } }));
    let disk = fleet.disk(name).await?;
    fleet.change(name, json!({ "lifecycle": "Decommissioned" })).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::ConfirmDecommission).await?;
    fresh_look(fleet, name).await?;
    ensure!(fleet.disk(name).await? == disk, "touched without a person's word");
    as_told(fleet, &why).await?;
    let server = phase(fleet, name, Phase::Decommissioned).await?;
    ensure!(truth(&server, ConditionType::Ready) == Some("True"), "{server:#?}");
    let status = server.status.context("no status")?;
    ensure!(status.image.is_none() && status.wiped_at.is_some(), "{status:#?}");
    ensure!(fleet.disk(name).await? == "Empty" && fleet.bmcs().power(name).await? == "Off");
    // It is for ever: an older manifest is refused with the way out, and no wish counts.
    let refused = kubectl_apply(fleet, &manifest).await;
    let told = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    let said = "lifecycle is Decommissioned for ever";
    // Server-side apply and the field's default agree: who leaves it out asks for InService.
    if !told.contains(said) {
        let back = fleet.change(name, json!({ "lifecycle": "InService" })).await;
        let told = back.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(told.contains(said), "{told}");
    }
    let asked = fleet.bmcs().changes(name).await?.len();
    let wishes = json!({ "power": "PoweredOn", "rebootToken": "one", "reimageToken": "one" });
    fleet.change(name, wishes).await?;
    fleet
        .wait(name, "the tokens are noticed", |server| {
            let status = server.status.as_ref();
            status.is_some_and(|status| status.reboot_tokens == ["one"] && status.reimage_tokens == ["one"])
        })
        .await?;
    phase(fleet, name, Phase::Decommissioned).await?;
    ensure!(fleet.bmcs().changes(name).await?.len() == asked, "touched after its end");
    ensure!(fleet.records().finished(name, "Decommission").await?.len() == 1);
    comes_back(fleet, name).await
}

/// Under a new Server, and only with a person's word.
async fn comes_back(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.delete(name).await?;
    fleet.wait_gone(name).await?;
    let installs = fleet.installs(name).await?;
    fleet.declare(name, json!({ "image": { "name": "debian-12" } })).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::MachineDecommissioned).await?;
    ensure!(fleet.installs(name).await? == installs && fleet.bmcs().power(name).await? == "Off");
    as_told(fleet, &why).await?;
    // Its disks are empty and it is off: it is built like a new one.
    kubectl_wait_ready(fleet, name).await?;
    ensure!(fleet.disk(name).await?.starts_with("sha256:"));
    Ok(())
}

async fn wiped_and_gone(fleet: &Fleet, name: &str) -> Result<()> {
    built(fleet, name, json!({ "deletionPolicy": "Wipe" })).await?;
    let disk = fleet.disk(name).await?;
    fleet.delete(name).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::ConfirmWipe).await?;
    ensure!(fleet.disk(name).await? == disk, "touched without a person's word");
    as_told(fleet, &why).await?;
    fleet.wait_gone(name).await?;
    ensure!(fleet.disk(name).await? == "Empty", "gone, and its disk is {}", fleet.disk(name).await?);
    ensure!(fleet.bmcs().power(name).await? == "Off");
    let past = fleet.records().finished(name, "Wipe").await?;
    ensure!(past.len() == 1 && past[0].result == "Succeeded", "{past:?}");
    Ok(())
}

/// What failed is never shown as clean, and the object stays until a person lets it go.
async fn not_wiped(fleet: &Fleet, name: &str) -> Result<()> {
    let server = built(fleet, name, json!({ "deletionPolicy": "Wipe" })).await?;
    let failing = json!({ "system": name, "behaviour": { "kind": "Fail", "reason": "the disk is locked" } });
    fleet.bmcs().host_rule(failing).await?;
    let uid = server.metadata.uid.unwrap_or_default();
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["annotate", "server", name, &format!("autobuild.dev/confirm={uid}")]).await?;
    fleet.delete(name).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::InstallFailed).await?;
    ensure!(why.contains("the disk is locked") && why.contains("deletionPolicy to Retain"), "{why}");
    let status = fleet.get(name).await?.status.context("no status")?;
    ensure!(status.wiped_at.is_none() && status.image.is_none(), "{status:#?}");
    let told = fleet.bmcs().system(name).await?;
    ensure!(told["boot"]["enabled"] == "Disabled", "{told}");
    as_told(fleet, &why).await?;
    let note = fleet.wait_event(name, Reason::ReleasedWithoutWipe).await?;
    ensure!(note.contains("nothing says that its disks were erased"), "{note}");
    fleet.wait_gone(name).await?;
    let past = fleet.records().finished(name, "Wipe").await?;
    ensure!(past.iter().any(|past| past.reason == Reason::ReleasedWithoutWipe.as_str()), "{past:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_ends_and_disks_are_erased_on_a_persons_word_and_on_the_machines() {
    let fleet = Fleet::with(Layout::new(3).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["debian-12", "wipe"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (one, two, three) = (system(1), system(2), system(3));
    tokio::try_join!(decommissioned(&fleet, &one), wiped_and_gone(&fleet, &two), not_wiped(&fleet, &three))
        .unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_over_the_whole_fleet_stops_at_the_budget_of_the_hour_and_can_be_taken_back() {
    const MACHINES: usize = 4;
    let fleet = Fleet::with(Layout::new(4).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["debian-12", "debian-13"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let flags = fleet.controller_flags().set("--destruction-budget", "2");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let names: Vec<String> = (1..=MACHINES).map(system).collect();
    // Machines that are blank have nothing to lose.
    for name in &names {
        fleet.declare(name, json!({ "power": "PoweredOn", "image": { "name": "debian-12" } })).await.unwrap();
    }
    for name in &names {
        fleet.wait(name, "built", at_rest).await.unwrap();
    }
    for name in &names {
        fleet.change(name, json!({ "image": { "name": "debian-13" } })).await.unwrap();
    }
    let waits = |server: &Server| {
        let conditions =
            server.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready = find(conditions, ConditionType::Ready);
        ready.is_some_and(|ready| ready.reason == Reason::DestructionBudget.as_str())
    };
    let waiting = wait_for("two reimaged, two over the budget", LIMIT, async || {
        let (mut done, mut waiting) = (0, Vec::new());
        for name in &names {
            let server = fleet.get(name).await?;
            done += u32::from(at_rest(&server));
            if waits(&server) {
                waiting.push(name.clone());
            }
        }
        Ok(if (done, waiting.len()) == (2, 2) {
            Look::Holds(waiting)
        } else {
            Look::NotYet(format!("{waiting:?}"))
        })
    })
    .await
    .unwrap();
    // Taken back: nothing was done to them. What destroys nothing is not held up meanwhile.
    fleet.change(&waiting[0], json!({ "image": { "name": "debian-12" } })).await.unwrap();
    fleet.wait_ready(&waiting[0]).await.unwrap();
    fleet.change(&waiting[1], json!({ "rebootToken": "one" })).await.unwrap();
    fleet
        .wait(&waiting[1], "rebooted, and over the budget still", |server| {
            let tokens = server.status.as_ref().map(|status| status.reboot_tokens.as_slice());
            tokens == Some(&["one".to_owned()]) && waits(server)
        })
        .await
        .unwrap();
    for name in &waiting {
        assert_eq!(fleet.installs(name).await.unwrap(), 1, "{name}");
    }
    fleet.end().await.unwrap();
}
