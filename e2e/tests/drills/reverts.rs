//! `git revert`: a commit that names a broken image for a whole fleet is taken back while half of it has failed already, and
//! values of tokens go forth and back. No disk is written that nobody asked for, and each value installs once, ever.

use anyhow::{Result, ensure};
use autobuild::api::Server;
use autobuild::api::condition::ConditionType;
use e2e::autobuild::Running;
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS, is_current, is_ready, truth};
use e2e::wait::{Look, wait_for};
use futures::future::try_join_all;
use kube::api::ListParams;
use serde_json::json;

use crate::steps::systems;

struct Site {
    fleet: Fleet,
    names: Vec<String>,
    _running: (BootFiles, Vec<Running>),
}

/// Machines that have `debian-12` on their disks, put there by us.
async fn site(machines: usize) -> Result<Site> {
    let fleet = Fleet::with(Layout::new(u32::try_from(machines)?).emulator(QUICK_INSTALLS)).await?;
    let files = BootFiles::serve().await?;
    fleet.image("debian-12", &files, &[]).await?;
    let mut broken = files.source(&[]);
    broken["initrd"]["sha256"] = json!("0".repeat(64));
    fleet.image_of("broken", &broken).await?;
    let boot = fleet.boot("boot", &files).await?;
    let flags = fleet.controller_flags().set("--destruction-budget", "unlimited");
    let controller = fleet.controller_with("controller", &flags, &[]).await?;
    let flags = fleet.worker_flags().with(&[("--boot-deadline", "6s"), ("--slots", "32")]);
    let worker = fleet.worker_with("worker", &flags, &[]).await?;
    let names = systems(machines);
    try_join_all(names.iter().map(|name| wish(&fleet, name, "debian-12"))).await?;
    for name in &names {
        fleet.wait_ready(name).await?;
    }
    Ok(Site { fleet, names, _running: (files, vec![boot, controller, worker]) })
}

async fn wish(fleet: &Fleet, name: &str, image: &str) -> Result<()> {
    fleet.declare(name, json!({ "image": { "name": image } })).await?;
    Ok(())
}

async fn a_broken_image_is_reverted(machines: usize) -> Result<()> {
    let site = site(machines).await?;
    let Site { fleet, names, .. } = &site;
    let mut before = Vec::new();
    for name in names {
        before.push((fleet.disk(name).await?, fleet.installs(name).await?));
    }
    // Every third one does not even ask for it.
    for name in names.iter().step_by(3) {
        let rule = json!({ "system": name, "behaviour": { "kind": "ForgetOverride" } });
        fleet.bmcs().host_rule(rule).await?;
    }
    try_join_all(names.iter().map(|name| wish(fleet, name, "broken"))).await?;
    wait_for("half of them to have failed", LIMIT, async || {
        let servers = fleet.servers().list(&ListParams::default()).await?.items;
        let stalled = |server: &&Server| truth(server, ConditionType::Stalled) == Some("True");
        let failed = servers.iter().filter(stalled).count();
        Ok(if failed * 2 >= machines { Look::Holds(()) } else { Look::NotYet(format!("{failed} failed")) })
    })
    .await?;
    try_join_all(names.iter().map(|name| wish(fleet, name, "debian-12"))).await?;
    for (name, before) in names.iter().zip(before) {
        let server = fleet.wait(name, "as it was, at rest", at_rest).await?;
        let image = server.status.as_ref().and_then(|status| status.image.as_ref());
        ensure!(image.is_some_and(|image| image.name == "debian-12"), "{server:#?}");
        let now = (fleet.disk(name).await?, fleet.installs(name).await?);
        ensure!(now == before, "{name}: a disk was written: {before:?} became {now:?}");
    }
    fleet.end().await
}

fn at_rest(server: &Server) -> bool {
    is_ready(server) && server.status.as_ref().is_some_and(|status| status.job.is_none())
}

async fn each_value_installs_once(values: usize) -> Result<()> {
    let site = site(2).await?;
    let fleet = &site.fleet;
    try_join_all(site.names.iter().map(|name| forth_and_back(fleet, name, values))).await?;
    fleet.end().await
}

async fn forth_and_back(fleet: &Fleet, name: &str, values: usize) -> Result<()> {
    let installed = fleet.installs(name).await?;
    for value in 1..=values {
        let token = format!("r{value}");
        fleet.change(name, json!({ "reimageToken": token })).await?;
        let done = |server: &Server| {
            let tokens = server.status.as_ref().map(|status| status.reimage_tokens.as_slice());
            tokens.is_some_and(|tokens| tokens.contains(&token)) && at_rest(server)
        };
        fleet.wait(name, &format!("{token} handled"), done).await?;
    }
    ensure!(fleet.installs(name).await? == installed + values as u64, "one installation for each value");
    for value in (1..=values).rev().chain(1..=values) {
        let token = format!("r{value}");
        fleet.change(name, json!({ "reimageToken": token })).await?;
        let noticed = |server: &Server| is_current(server) && at_rest(server);
        let server = fleet.wait(name, &format!("{token} noticed"), noticed).await?;
        let tokens = server.status.map(|status| status.reimage_tokens).unwrap_or_default();
        ensure!(tokens.contains(&token) && tokens.len() <= 8, "{token} is not shown as handled: {tokens:?}");
    }
    ensure!(fleet.installs(name).await? == installed + values as u64, "a value of long ago installed again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_broken_image_is_reverted_and_no_disk_is_written() {
    a_broken_image_is_reverted(12).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_token_forth_and_back_install_once_each() {
    each_value_installs_once(10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn a_commit_with_a_broken_image_for_fifty_machines_is_reverted_and_no_disk_is_written() {
    a_broken_image_is_reverted(50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn forty_values_of_a_token_forth_and_back_install_once_each() {
    each_value_installs_once(40).await.unwrap();
}
