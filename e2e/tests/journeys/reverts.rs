//! Changes that are taken back: what harmed nothing harms nothing when it is reverted, and what a machine has is told by
//! what happened to it, not by what was begun.

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use autobuild::job::{Action, JobResult};
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, QUICK_INSTALLS};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::installation::installed;
use crate::steps::{at_rest, fresh_look, handled, system};

struct Site {
    fleet: Fleet,
    files: BootFiles,
    _running: Vec<e2e::autobuild::Running>,
}

/// Machines that run `debian-12`, installed by us; the way of booting and the rest of the wish may be another.
async fn site(machines: u32, more: &[(u32, Value)]) -> Result<Site> {
    let fleet = Fleet::with(Layout::new(machines).emulator(QUICK_INSTALLS)).await?;
    let files = BootFiles::serve().await?;
    for name in ["debian-12", "debian-13"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await?;
    }
    fleet.image_of("rocky-iso", &files.iso()).await?;
    let (boot, url) = fleet.boot_and_url("boot", &files).await?;
    let controller = fleet.controller("controller").await?;
    let flags = fleet.worker_flags().with(&[("--boot-deadline", "4s"), ("--install-deadline", "6s")]);
    let worker = fleet.worker_with("worker", &flags.set("--boot-url", url), &[]).await?;
    for number in 1..=machines {
        let mut wish = json!({ "image": { "name": "debian-12" } });
        for (_, fields) in more.iter().filter(|(of, _)| *of == number) {
            wish = fields.clone();
        }
        fleet.declare(&system(number as usize), wish).await?;
    }
    Ok(Site { fleet, files, _running: vec![boot, controller, worker] })
}

async fn stalls(fleet: &Fleet, name: &str, reason: Reason) -> Result<String> {
    fleet.wait_reason(name, ConditionType::Stalled, reason).await
}

fn image_of(server: &Server) -> Option<&str> {
    server.status.as_ref()?.image.as_ref().map(|image| image.name.as_str())
}

/// An image that never reached the disk, and the one before it again.
async fn there_and_back(fleet: &Fleet, name: &str, wrong: &str, reason: Reason) -> Result<()> {
    let before = fleet.get(name).await?;
    let image = image_of(&before).unwrap_or_default().to_owned();
    let (disk, installs) = (fleet.disk(name).await?, fleet.installs(name).await?);
    fleet.change(name, json!({ "image": { "name": wrong } })).await?;
    stalls(fleet, name, reason).await?;
    ensure!(image_of(&fleet.get(name).await?) == Some(&image), "status forgot what is on the disk");
    fleet.change(name, json!({ "image": { "name": image } })).await?;
    let after = installed(fleet, name, &image).await?;
    let at = |server: &Server| Some(server.status.as_ref()?.image.as_ref()?.installed_at.clone());
    ensure!(at(&before) == at(&after), "it counts as installed anew");
    fresh_look(fleet, name).await?;
    ensure!(fleet.installs(name).await? == installs, "{name} was installed by a revert");
    ensure!(fleet.disk(name).await? == disk);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_never_reached_the_disk_is_taken_back_without_touching_it() {
    let medium = json!({ "bootMethod": "VirtualMedia", "image": { "name": "rocky-iso" } });
    let site = site(4, &[(3, medium)]).await.unwrap();
    let fleet = &site.fleet;
    let mut broken = site.files.source(&[]);
    broken["initrd"]["sha256"] = json!("0".repeat(64));
    fleet.image_of("broken", &broken).await.unwrap();
    let mut iso = site.files.iso();
    iso["iso"]["url"] = json!(format!("http://{}/iso?again", site.files.address()));
    fleet.image_of("other-iso", &iso).await.unwrap();
    let (forgetful, unusable, medium, refusing) = (system(1), system(2), system(3), system(4));
    for (name, image) in [(&forgetful, "debian-12"), (&unusable, "debian-12"), (&medium, "rocky-iso")] {
        installed(fleet, name, image).await.unwrap();
    }
    for (name, behaviour) in [(&forgetful, "ForgetOverride"), (&medium, "StayInPost")] {
        let rule = json!({ "system": name, "count": 1, "behaviour": { "kind": behaviour } });
        fleet.bmcs().host_rule(rule).await.unwrap();
    }
    let (one, two, three, four) = tokio::join!(
        there_and_back(fleet, &forgetful, "debian-13", Reason::NeverBooted),
        there_and_back(fleet, &unusable, "broken", Reason::ImageUnusable),
        there_and_back(fleet, &medium, "other-iso", Reason::NeverBooted),
        refused(fleet, &refusing),
    );
    for result in [one, two, three, four] {
        result.unwrap();
    }
    fleet.end().await.unwrap();
}

/// A token whose request the BMC refuses asks on, and is carried out once it can be.
async fn refused(fleet: &Fleet, name: &str) -> Result<()> {
    installed(fleet, name, "debian-12").await?;
    let refuses = |path: &str, method: &str| {
        json!({
            "system": name, "path": path, "method": method, "behaviour": { "kind": "Status", "status": 400 },
        })
    };
    let rule = fleet.bmcs().fault(refuses("*Systems/*", "PATCH")).await?;
    fleet.change(name, json!({ "reimageToken": "one", "rebootToken": null })).await?;
    for _ in 0..2 {
        stalls(fleet, name, Reason::RequestRefused).await?;
        let status = fleet.get(name).await?.status.unwrap_or_default();
        ensure!(status.reimage_tokens.is_empty(), "{:?} counts as handled", status.reimage_tokens);
        // Asked for again, it is tried again; it does not become ready by that.
        let jobs = fleet.records().finished(name, "Reimage").await?.len();
        fresh_look(fleet, name).await?;
        e2e::wait::wait_for("another try", e2e::fleet::LIMIT, async || {
            let now = fleet.records().finished(name, "Reimage").await?.len();
            Ok(if now > jobs {
                e2e::wait::Look::Holds(())
            } else {
                e2e::wait::Look::NotYet(format!("{now}"))
            })
        })
        .await?;
    }
    ensure!(fleet.installs(name).await? == 1, "installed although its BMC refused");
    fleet.bmcs().mend(rule).await?;
    fresh_look(fleet, name).await?;
    let done = |server: &Server| {
        let tokens = server.status.as_ref().map(|status| status.reimage_tokens.clone()).unwrap_or_default();
        tokens == ["one"] && at_rest(server)
    };
    fleet.wait(name, "reimaged in the end", done).await?;
    ensure!(fleet.installs(name).await? == 2);
    // The same for a reboot.
    let rule = fleet.bmcs().fault(refuses("*ComputerSystem.Reset*", "POST")).await?;
    fleet.change(name, json!({ "rebootToken": "one", "shutdownMode": "Forced" })).await?;
    stalls(fleet, name, Reason::RequestRefused).await?;
    ensure!(fleet.get(name).await?.status.unwrap_or_default().reboot_tokens.is_empty());
    fleet.bmcs().mend(rule).await?;
    fresh_look(fleet, name).await?;
    handled(fleet, name, "one").await?;
    ensure!(fleet.installs(name).await? == 2);
    Ok(())
}

async fn pool_says(fleet: &Fleet, statement: &'static str, name: &str) -> Result<()> {
    let changed = sqlx::query(statement).bind(name).execute(fleet.records().pool()).await?;
    ensure!(changed.rows_affected() == 1, "{statement}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_database_says_installs_nothing_and_an_adopted_image_ends_a_failure() {
    let site = site(4, &[]).await.unwrap();
    let fleet = &site.fleet;
    let names = [system(1), system(2), system(3), system(4)];
    let (silent, forged, erased, gone) = (&names[0], &names[1], &names[2], &names[3]);
    for name in &names {
        installed(fleet, name, "debian-12").await.unwrap();
    }
    // Installed, and never heard of: it is there, and its owner says so.
    let rule = json!({ "system": silent, "behaviour": { "kind": "NeverCallHome" } });
    fleet.bmcs().host_rule(rule).await.unwrap();
    fleet.change(silent, json!({ "reimageToken": "again" })).await.unwrap();

    // One change of one row, for each of these.
    let unknown =
        "UPDATE server_state SET contents = '{\"Unknown\":{\"since_ms\":9999999999999}}' WHERE name = ?";
    pool_says(fleet, unknown, forged).await.unwrap();
    fresh_look(fleet, forged).await.unwrap();
    let why = stalls(fleet, forged, Reason::ContentsUnknown).await.unwrap();
    assert!(why.contains("spec.provisioning to Adopt") && why.contains("spec.reimageToken"), "{why}");
    pool_says(fleet, "UPDATE server_state SET contents = NULL WHERE name = ?", erased).await.unwrap();
    pool_says(fleet, "DELETE FROM server_state WHERE name = ?", gone).await.unwrap();
    for name in [erased, gone] {
        fleet.change(name, json!({ "priority": "Low" })).await.unwrap();
        installed(fleet, name, "debian-12").await.unwrap();
    }
    for name in [forged, erased, gone] {
        assert_eq!(fleet.installs(name).await.unwrap(), 1, "{name}");
    }
    fleet.change(forged, json!({ "provisioning": "Adopt" })).await.unwrap();
    installed(fleet, forged, "debian-12").await.unwrap();

    let why = stalls(fleet, silent, Reason::InstallTimedOut).await.unwrap();
    assert!(why.contains("spec.provisioning to Adopt"), "{why}");
    for provisioning in ["Adopt", "Install"] {
        fleet.change(silent, json!({ "provisioning": provisioning })).await.unwrap();
        installed(fleet, silent, "debian-12").await.unwrap();
    }
    assert_eq!(fleet.installs(silent).await.unwrap(), 2);
    assert_eq!(fleet.installs(forged).await.unwrap(), 1);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_was_interrupted_for_an_earlier_server_is_told_as_that() {
    let site = site(1, &[]).await.unwrap();
    let (fleet, name) = (&site.fleet, system(1));
    installed(fleet, &name, "debian-12").await.unwrap();
    let rule = json!({ "system": name, "count": 1, "behaviour": { "kind": "Hang", "at_percent": 40 } });
    fleet.bmcs().host_rule(rule).await.unwrap();
    fleet.change(&name, json!({ "reimageToken": "again" })).await.unwrap();
    let writes = |server: &Server| {
        let job = server.status.as_ref().and_then(|status| status.job.as_ref());
        job.is_some_and(|job| job.step == autobuild::job::Step::AwaitInstall)
    };
    fleet.wait(&name, "in mid-install", writes).await.unwrap();
    fleet.delete(&name).await.unwrap();
    fleet.wait_gone(&name).await.unwrap();
    fleet.declare(&name, json!({ "image": { "name": "debian-12" } })).await.unwrap();
    let why = stalls(fleet, &name, Reason::ConfirmBuild).await.unwrap();
    assert!(why.contains("earlier Server of this machine was interrupted"), "{why}");
    fleet.end().await.unwrap();
}

/// A wish that is taken back while the BMC takes its time for a request: what that began is undone, and nothing counts as done.
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_is_taken_back_while_a_request_is_under_way_is_undone_and_does_not_succeed() {
    let site = site(1, &[]).await.unwrap();
    let fleet = &site.fleet;
    let name = system(1);
    installed(fleet, &name, "debian-12").await.unwrap();
    let installs = fleet.installs(&name).await.unwrap();
    for method in ["PATCH", "POST"] {
        let slow = json!({ "system": name, "method": method, "behaviour": { "kind": "Delay", "ms": 1500 } });
        let rule = fleet.bmcs().fault(slow).await.unwrap();
        fleet.change(&name, json!({ "image": { "name": "debian-13" } })).await.unwrap();
        let step = if method == "PATCH" { "SetBootOverride" } else { "PowerOff" };
        let under_way = format!("SELECT COUNT(*) FROM job WHERE request IS NOT NULL AND step = '{step}'");
        wait_for(&format!("a request of {step} to be under way"), LIMIT, async || {
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(under_way.clone()));
            let found: i64 = query.fetch_one(fleet.records().pool()).await?;
            Ok(if found == 1 { Look::Holds(()) } else { Look::NotYet("not yet".to_owned()) })
        })
        .await
        .unwrap();
        cancelled_by_a_revert(fleet, &name).await.with_context(|| method.to_owned()).unwrap();
        fleet.bmcs().mend(rule).await.unwrap();
        let told = fleet.bmcs().system(&name).await.unwrap();
        assert_eq!((&told["power"], &told["boot"]["enabled"]), (&json!("On"), &json!("Disabled")), "{told}");
        assert_eq!(fleet.installs(&name).await.unwrap(), installs, "nothing was installed");
        fresh_look(fleet, &name).await.unwrap();
    }
    fleet.end().await.unwrap();
}

/// The image of before is wished again, and the reimage that is under way ends as cancelled.
async fn cancelled_by_a_revert(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.change(name, json!({ "image": { "name": "debian-12" } })).await?;
    let last = |server: &Server| server.status.as_ref()?.last_job.clone();
    let is_over =
        |server: &Server| last(server).is_some_and(|last| last.action == Action::Reimage) && at_rest(server);
    let last = last(&fleet.wait(name, "the reimage is over", is_over).await?);
    ensure!(last.as_ref().is_some_and(|last| last.result == JobResult::Cancelled), "{last:?}");
    Ok(())
}

/// The BMC accepts the start and does nothing, and then the wish is taken back: the undo asks for the start again.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_a_bmc_accepted_and_forgot_is_asked_for_again_by_the_undo() {
    let site = site(1, &[]).await.unwrap();
    let fleet = &site.fleet;
    let name = system(1);
    installed(fleet, &name, "debian-12").await.unwrap();
    let installs = fleet.installs(&name).await.unwrap();
    // The first reset is the one that switches off.
    let forgets = json!({ "system": name, "path": "*ComputerSystem.Reset*", "method": "POST", "skip": 1, "count": 1,
        "behaviour": { "kind": "Lie" } });
    fleet.bmcs().fault(forgets).await.unwrap();
    fleet.change(&name, json!({ "image": { "name": "debian-13" } })).await.unwrap();
    wait_for("the start to be accepted", LIMIT, async || {
        let accepted =
            "SELECT COUNT(*) FROM job WHERE step = 'PowerOn' AND request IS NULL AND checkpoint LIKE '%\"PowerOn\"%'";
        let found = fleet.records().number(accepted).await?;
        Ok(if found == 1 { Look::Holds(()) } else { Look::NotYet("not yet".to_owned()) })
    })
    .await
    .unwrap();
    cancelled_by_a_revert(fleet, &name).await.unwrap();
    assert_eq!(fleet.bmcs().power(&name).await.unwrap(), "On");
    assert_eq!(fleet.installs(&name).await.unwrap(), installs, "nothing was installed");
    fleet.end().await.unwrap();
}
