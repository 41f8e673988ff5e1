//! The other ways to boot an installer: virtual media, and UEFI HTTP boot with a boot program that the BMC is told.

use anyhow::{Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Phase, Reason, Server};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, Layout, QUICK_INSTALLS, message, truth};
use serde_json::{Value, json};

use crate::steps::{as_told, at_rest, ended, phase, system};

fn wish(method: &str, image: &str) -> Value {
    json!({ "power": "PoweredOn", "bootMethod": method, "image": { "name": image } })
}

async fn installed(fleet: &Fleet, name: &str, image: &str) -> Result<Server> {
    let server = fleet
        .wait(name, &format!("{image} installed, Ready"), |server| {
            let there = server.status.as_ref().and_then(|status| status.image.as_ref());
            there.is_some_and(|there| there.name == image) && at_rest(server)
        })
        .await?;
    ensure!(truth(&server, ConditionType::ImageSynced) == Some("True"), "{server:#?}");
    let digest = server.status.as_ref().and_then(|status| status.image.as_ref()).map(|image| &image.digest);
    ensure!(digest == Some(&fleet.disk(name).await?), "status says {digest:?}, the disk is another one");
    Ok(server)
}

/// Nothing is left in the drive and of the boot override, and nobody serves a session.
async fn nothing_left(fleet: &Fleet, name: &str) -> Result<()> {
    let told = fleet.bmcs().system(name).await?;
    ensure!(told["media"].is_null(), "{name} has something in its drive: {told}");
    ensure!(told["boot"]["enabled"] == "Disabled", "{name} has a boot override: {told}");
    ensure!(told["boot"]["http_boot_uri"] == "", "{name} has a boot program: {told}");
    let query = "SELECT COUNT(*) FROM boot_session WHERE name = ?";
    let sessions: i64 = sqlx::query_scalar(query).bind(name).fetch_one(fleet.records().pool()).await?;
    ensure!(sessions == 0, "{name} has a boot session");
    Ok(())
}

/// A fleet with an ISO, `rocky-iso`, and a network image, `debian-12`; its worker has these flags besides.
async fn site(
    systems: u32,
    more: &[(&str, &str)],
) -> Result<(Fleet, BootFiles, Vec<e2e::autobuild::Running>)> {
    let fleet = Fleet::with(Layout::new(systems).emulator(QUICK_INSTALLS)).await?;
    let files = BootFiles::serve().await?;
    fleet.image_of("rocky-iso", &files.iso()).await?;
    fleet.image("debian-12", &files, &[]).await?;
    let (boot, url) = fleet.boot_and_url("boot", &files).await?;
    let controller = fleet.controller("controller").await?;
    let flags = fleet.worker_flags().set("--boot-url", url).with(more);
    let worker = fleet.worker_with("worker", &flags, &[]).await?;
    Ok((fleet, files, vec![boot, controller, worker]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_machine_is_built_from_virtual_media_and_nothing_is_left_in_its_drive() {
    let (fleet, _files, _running) = site(3, &[]).await.unwrap();
    let (one, two, three) = (system(1), system(2), system(3));
    fleet.declare(&one, wish("VirtualMedia", "rocky-iso")).await.unwrap();
    installed(&fleet, &one, "rocky-iso").await.unwrap();
    ended(&fleet, &one, Action::Build, JobResult::Succeeded).await.unwrap();
    nothing_left(&fleet, &one).await.unwrap();
    assert_eq!(fleet.installs(&one).await.unwrap(), 1);
    // A method that does not fit the image is refused by both names, and nothing is sent.
    for (name, method, image) in [(&two, "PXE", "rocky-iso"), (&three, "VirtualMedia", "debian-12")] {
        fleet.declare(name, wish(method, image)).await.unwrap();
        let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::BootMethodMismatch).await.unwrap();
        assert!(
            why.contains(&format!("spec.bootMethod is {method}")) && why.contains("spec.source."),
            "{why}"
        );
        assert_eq!(fleet.installs(name).await.unwrap(), 0);
    }
    fleet.change(&three, json!({ "bootMethod": "PXE" })).await.unwrap();
    installed(&fleet, &three, "debian-12").await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_medium_that_leads_to_nothing_is_ejected_whatever_the_way_out() {
    let more = [("--boot-deadline", "6s"), ("--install-deadline", "6s")];
    let (fleet, _files, _running) = site(4, &more).await.unwrap();
    let (silent, never, cancelled, full) = (system(1), system(2), system(3), system(4));
    for (name, behaviour) in [(&silent, "NeverCallHome"), (&never, "StayInPost"), (&cancelled, "StayInPost")]
    {
        fleet.bmcs().host_rule(json!({ "system": name, "behaviour": { "kind": behaviour } })).await.unwrap();
    }
    for name in [&silent, &never, &cancelled] {
        fleet.declare(name, wish("VirtualMedia", "rocky-iso")).await.unwrap();
    }
    // Its owner thinks better of it while it waits for the machine.
    fleet
        .wait(&cancelled, "started from its medium", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.is_some_and(|job| job.step == autobuild::job::Step::AwaitBoot)
        })
        .await
        .unwrap();
    assert!(fleet.bmcs().system(&cancelled).await.unwrap()["media"].is_string());
    fleet.change(&cancelled, json!({ "image": null })).await.unwrap();
    ended(&fleet, &cancelled, Action::Build, JobResult::Cancelled).await.unwrap();
    nothing_left(&fleet, &cancelled).await.unwrap();
    for (name, reason, said) in [
        (&silent, Reason::InstallTimedOut, "100 % are done"),
        (&never, Reason::NeverBooted, "never read the ISO"),
    ] {
        let why = fleet.wait_reason(name, ConditionType::Stalled, reason).await.unwrap();
        assert!(why.contains(said), "{name}: {why}");
        nothing_left(&fleet, name).await.unwrap();
    }
    // What somebody left in the drive goes first.
    let login = (fleet.username(), fleet.password());
    fleet.bmcs().insert(&full, "http://192.0.2.9/rescue.iso", login).await.unwrap();
    fleet.declare(&full, wish("VirtualMedia", "rocky-iso")).await.unwrap();
    installed(&fleet, &full, "rocky-iso").await.unwrap();
    nothing_left(&fleet, &full).await.unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_name_the_boot_service_to_bmcs_leaves_the_machine_to_one_that_can() {
    let fleet = Fleet::with(Layout::new(1).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image_of("rocky-iso", &files.iso()).await.unwrap();
    let (_boot, url) = fleet.boot_and_url("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let without = fleet.worker("worker-without").await.unwrap();
    let name = system(1);
    fleet.declare(&name, wish("VirtualMedia", "rocky-iso")).await.unwrap();
    let told = |server: &Server| {
        let ready = message(server, ConditionType::Ready, Reason::Building);
        ready.is_some_and(|why| why.contains("start the workers of this site with --boot-url"))
    };
    fleet.wait(&name, "told what its workers lack", told).await.unwrap();
    assert!(fleet.bmcs().changes(&name).await.unwrap().is_empty());
    drop(without);
    let _worker =
        fleet.worker_with("worker", &fleet.worker_flags().set("--boot-url", url), &[]).await.unwrap();
    installed(&fleet, &name, "rocky-iso").await.unwrap();
    fleet.end().await.unwrap();
}

/// Installed from a medium.
async fn built(fleet: &Fleet, name: &str) -> Result<Server> {
    fleet.declare(name, wish("VirtualMedia", "rocky-iso")).await?;
    installed(fleet, name, "rocky-iso").await
}

/// With a person's word.
async fn decommission(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.change(name, json!({ "lifecycle": "Decommissioned" })).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::ConfirmDecommission).await?;
    as_told(fleet, &why).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_never_boots_from_the_network_is_erased_from_virtual_media() {
    let (fleet, files, _running) = site(2, &[]).await.unwrap();
    let (one, locked) = (system(1), system(2));
    built(&fleet, &one).await.unwrap();
    decommission(&fleet, &one).await.unwrap();
    // The one that boots from the network is none for it.
    fleet.image("wipe", &files, &[]).await.unwrap();
    let why = fleet.wait_reason(&one, ConditionType::Stalled, Reason::WipeImageNotFound).await.unwrap();
    assert!(why.contains("\"wipe-iso\" with an ISO") && why.contains("--wipe-iso"), "{why}");
    fleet.image_of("wipe-iso", &files.iso()).await.unwrap();
    let server = phase(&fleet, &one, Phase::Decommissioned).await.unwrap();
    assert!(server.status.is_some_and(|status| status.wiped_at.is_some() && status.image.is_none()));
    assert_eq!(fleet.disk(&one).await.unwrap(), "Empty");
    assert_eq!(fleet.bmcs().power(&one).await.unwrap(), "Off");
    nothing_left(&fleet, &one).await.unwrap();
    // What cannot be erased is not shown as erased, and its drive is emptied all the same.
    let failing =
        json!({ "system": locked, "behaviour": { "kind": "Fail", "reason": "the disk is locked" } });
    built(&fleet, &locked).await.unwrap();
    fleet.bmcs().host_rule(failing).await.unwrap();
    decommission(&fleet, &locked).await.unwrap();
    let why = fleet.wait_reason(&locked, ConditionType::Stalled, Reason::InstallFailed).await.unwrap();
    assert!(why.contains("the disk is locked"), "{why}");
    nothing_left(&fleet, &locked).await.unwrap();
    let status = fleet.get(&locked).await.unwrap().status.unwrap();
    assert!(status.wiped_at.is_none() && status.phase == Some(Phase::Stalled), "{status:#?}");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_program_of_http_boot_is_told_to_the_bmc_and_taken_back() {
    let files = BootFiles::serve().await.unwrap();
    // Emulated hosts take what is no script for an iPXE.
    let program = format!("http://{}/iso", files.address());
    let (fleet, _files, _running) = site(1, &[("--http-boot-uri", &program)]).await.unwrap();
    let name = system(1);
    fleet.declare(&name, wish("HTTP", "debian-12")).await.unwrap();
    installed(&fleet, &name, "debian-12").await.unwrap();
    assert!(files.asked() > 0, "nobody fetched the boot program");
    nothing_left(&fleet, &name).await.unwrap();
    fleet.end().await.unwrap();
}
