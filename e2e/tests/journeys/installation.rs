//! Installations: an image by name, another one, again by token, and machines that are somebody's.

use anyhow::{Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS, truth};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::steps::{at_rest, ended, fresh_look, system};

fn image_of(server: &Server) -> Option<(&str, bool)> {
    let image = server.status.as_ref()?.image.as_ref()?;
    Some((image.name.as_str(), image.adopted))
}

/// Waits until that image is on a system, and says so.
pub(crate) async fn installed(fleet: &Fleet, name: &str, image: &str) -> Result<Server> {
    let server = fleet
        .wait(name, &format!("{image} installed, Ready"), |server| {
            image_of(server).is_some_and(|(there, _)| there == image) && at_rest(server)
        })
        .await?;
    ensure!(truth(&server, ConditionType::ImageSynced) == Some("True"), "{server:#?}");
    let digest = server.status.as_ref().and_then(|status| status.image.as_ref()).map(|image| &image.digest);
    ensure!(digest == Some(&fleet.disk(name).await?), "status says {digest:?}, the disk is another one");
    Ok(server)
}

/// A blank machine, another image, the same again by token, and nothing by the token before.
async fn from_blank(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "power": "PoweredOn", "image": { "name": "debian-12" } })).await?;
    installed(fleet, name, "debian-12").await?;
    ensure!(fleet.records().finished(name, "Build").await?.len() == 1);
    fleet.change(name, json!({ "image": { "name": "debian-13" } })).await?;
    installed(fleet, name, "debian-13").await?;
    fleet.change(name, json!({ "reimageToken": "one" })).await?;
    fleet
        .wait(name, "reimaged by its token", |server| {
            let tokens = server.status.as_ref().map(|status| status.reimage_tokens.as_slice());
            tokens == Some(&["one".to_owned()]) && at_rest(server)
        })
        .await?;
    installed(fleet, name, "debian-13").await?;
    ensure!(fleet.installs(name).await? == 3, "{} installations", fleet.installs(name).await?);
    // What changes no name and no token installs nothing.
    fleet.change(name, json!({ "image": { "vars": { "hostname": "a" } }, "priority": "Urgent" })).await?;
    fresh_look(fleet, name).await?;
    fleet.change(name, json!({ "image": null })).await?;
    fresh_look(fleet, name).await?;
    fleet.change(name, json!({ "image": { "name": "debian-13" } })).await?;
    installed(fleet, name, "debian-13").await?;
    ensure!(fleet.installs(name).await? == 3, "{} installations", fleet.installs(name).await?);
    Ok(())
}

/// A machine that runs: it is left alone until a person confirms.
async fn somebodys(fleet: &Fleet, name: &str) -> Result<()> {
    let server = fleet.declare(name, json!({ "image": { "name": "debian-12" } })).await?;
    let why = fleet.wait_reason(name, ConditionType::Stalled, Reason::ConfirmBuild).await?;
    let uid = server.metadata.uid.unwrap_or_default();
    let command = format!("autobuild.dev/confirm={uid}");
    ensure!(why.contains(&command), "{why}");
    // Switched off it is no more ours than before.
    fleet.change(name, json!({ "power": "PoweredOff" })).await?;
    ended_off(fleet, name).await?;
    fresh_look_at_stalled(fleet, name).await?;
    ensure!(fleet.installs(name).await? == 0, "installed without a person's word");
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["annotate", "server", name, "autobuild.dev/confirm=another"]).await?;
    fresh_look_at_stalled(fleet, name).await?;
    ensure!(fleet.installs(name).await? == 0, "another object's confirmation counted");
    kubectl.run(&["annotate", "--overwrite", "server", name, &command]).await?;
    installed(fleet, name, "debian-12").await?;
    ensure!(fleet.installs(name).await? == 1);
    Ok(())
}

async fn ended_off(fleet: &Fleet, name: &str) -> Result<()> {
    fleet
        .wait(name, "powered off", |server| {
            let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
            last.is_some_and(|last| last.action == Action::PowerOff && last.result == JobResult::Succeeded)
        })
        .await?;
    Ok(())
}

async fn fresh_look_at_stalled(fleet: &Fleet, name: &str) -> Result<()> {
    fresh_look(fleet, name).await?;
    fleet.wait_reason(name, ConditionType::Stalled, Reason::ConfirmBuild).await?;
    Ok(())
}

/// A machine that has its image already.
async fn adopted(fleet: &Fleet, name: &str) -> Result<()> {
    let wish = json!({ "image": { "name": "debian-12" }, "provisioning": "Adopt", "reimageToken": "first" });
    fleet.declare(name, wish).await?;
    let server = fleet
        .wait(name, "adopted", |server| image_of(server) == Some(("debian-12", true)) && at_rest(server))
        .await?;
    ensure!(truth(&server, ConditionType::ImageSynced) == Some("True"));
    fleet.change(name, json!({ "reimageToken": "second" })).await?;
    fleet.wait_event(name, Reason::NotApplicable).await?;
    fresh_look(fleet, name).await?;
    ensure!(fleet.installs(name).await? == 0, "an adopted machine was touched");
    // From now on it is one of ours.
    fleet.change(name, json!({ "provisioning": "Install", "image": { "name": "debian-13" } })).await?;
    installed(fleet, name, "debian-13").await?;
    ensure!(fleet.installs(name).await? == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_the_image_that_its_spec_names_and_one_that_is_somebodys_is_left_alone() {
    let scenario = e2e::paths::private("installation").unwrap().join("scenario.yaml");
    std::fs::create_dir_all(scenario.parent().unwrap()).unwrap();
    let systems = "systems: [{name: system-0002, power: PoweredOn, disk: Unknown}, {name: system-0003, power: PoweredOn, disk: Unknown}]";
    std::fs::write(&scenario, systems).unwrap();
    let scenario = scenario.display().to_string();
    let args = [QUICK_INSTALLS, &["--scenario", &scenario]].concat();
    let fleet = Fleet::with(Layout::new(3).emulator(&args)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["debian-12", "debian-13"] {
        fleet.image(name, &files, &["console=ttyS0", &format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let (one, two, three) = (system(1), system(2), system(3));
    tokio::try_join!(from_blank(&fleet, &one), somebodys(&fleet, &two), adopted(&fleet, &three)).unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_with_an_installation_ends_stalled_with_the_reason_and_is_not_repeated() {
    let fleet = Fleet::with(Layout::new(3).emulator(QUICK_INSTALLS)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let flags = fleet.worker_flags().set("--boot-deadline", "3s").set("--install-deadline", "5s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let (never, gives_up, hangs) = (system(1), system(2), system(3));
    let mut rules = Vec::new();
    for (system, behaviour) in [
        (&never, json!({ "kind": "StayInPost" })),
        (&gives_up, json!({ "kind": "Fail", "reason": "no disk was found" })),
        (&hangs, json!({ "kind": "Hang", "at_percent": 40 })),
    ] {
        rules
            .push(fleet.bmcs().host_rule(json!({ "system": system, "behaviour": behaviour })).await.unwrap());
    }
    for (name, reason, said) in [
        (&never, Reason::NeverBooted, "did not fetch its boot script"),
        (&gives_up, Reason::InstallFailed, "no disk was found"),
        (&hangs, Reason::InstallTimedOut, "% are done (writing)"),
    ] {
        fleet.declare(name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
        let why = fleet.wait_reason(name, ConditionType::Stalled, reason).await.unwrap();
        assert!(why.contains(said), "{name}: {why}");
        let begun = fleet.installs(name).await.unwrap();
        fresh_look_only(&fleet, name).await.unwrap();
        assert_eq!(fleet.installs(name).await.unwrap(), begun, "{name} was installed again");
        // No boot override and no session is left behind.
        let told = fleet.bmcs().system(name).await.unwrap();
        assert_eq!(told["boot"]["enabled"], "Disabled", "{told}");
    }
    let sessions: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM boot_session")
        .fetch_one(fleet.records().pool())
        .await
        .unwrap();
    assert_eq!(sessions, 0);
    // A person looked, and asks again.
    for rule in rules {
        fleet.bmcs().end_host_rule(rule).await.unwrap();
    }
    for name in [&never, &gives_up, &hangs] {
        fleet.change(name, json!({ "reimageToken": "again" })).await.unwrap();
        installed(&fleet, name, "debian-12").await.unwrap();
    }
    fleet.end().await.unwrap();
}

/// A look that finds the same as before.
async fn fresh_look_only(fleet: &Fleet, name: &str) -> Result<()> {
    let before = crate::steps::last_try(fleet, name).await?;
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl.run(&["label", "--overwrite", "server", name, "looked=again"]).await?;
    crate::steps::looked_at_after(fleet, name, before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_changes_in_mid_install_ends_in_the_last_one_and_progress_is_shown() {
    let slow = ["--install-duration", "4000", "--post-delay", "100", "--progress-interval", "200"];
    let fleet = Fleet::with(Layout::new(1).emulator(&slow)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["debian-12", "debian-13"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    // Long enough for its progress to be shown on a slow machine.
    let long = json!({ "kind": "InstallDuration", "ms": 15_000 });
    fleet.bmcs().host_rule(json!({ "system": name, "count": 1, "behaviour": long })).await.unwrap();
    fleet.declare(&name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    let server = fleet
        .wait(&name, "in mid-install", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.and_then(|job| job.progress.as_ref()).is_some()
        })
        .await
        .unwrap();
    assert_eq!(image_of(&server), None, "nobody knows what is on it");
    // The worker goes and another one comes: the installation does not begin again.
    worker.process().kill().await.unwrap();
    let _worker = fleet.worker("second").await.unwrap();
    installed(&fleet, &name, "debian-12").await.unwrap();
    assert_eq!(fleet.installs(&name).await.unwrap(), 1);
    fleet.change(&name, json!({ "reimageToken": "one" })).await.unwrap();
    wait_for("the second installation to begin", LIMIT, async || {
        let begun = fleet.installs(&name).await?;
        Ok(if begun == 2 { Look::Holds(()) } else { Look::NotYet(format!("{begun} begun")) })
    })
    .await
    .unwrap();
    fleet.change(&name, json!({ "image": { "name": "debian-13" } })).await.unwrap();
    installed(&fleet, &name, "debian-13").await.unwrap();
    ended(&fleet, &name, Action::Reimage, JobResult::Succeeded).await.unwrap();
    assert_eq!(fleet.installs(&name).await.unwrap(), 3);
    // A system is asked to shut down, and an installer is not.
    let changes = fleet.bmcs().changes(&name).await.unwrap();
    let offs: Vec<&str> =
        changes.iter().filter_map(|one| one.reset.as_deref()).filter(|reset| *reset != "On").collect();
    assert!(offs.ends_with(&["GracefulShutdown", "ForceOff"]), "{offs:?}");
    fleet.end().await.unwrap();
}
