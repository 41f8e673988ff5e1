//! A machine that is real but for its hardware: QEMU, in software, behind an emulated BMC. Its firmware boots over the
//! network, its installer writes a disk and calls home, and the disk boots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Phase, Reason, Server};
use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::fleet::{Fleet, Layout, describe, is_ready, message, truth};
use e2e::machine::{self, HOST, MachineFiles, Release, Shelf, Task};
use e2e::paths;
use e2e::wait::{Look, wait_for};
use serde_json::json;

/// The only machine of the fleet.
const NAME: &str = "system-0001";
/// The `OSImage` that erases: what `--wipe-image` is without being set.
const WIPE: &str = "wipe";
/// How long a machine may take for anything. On an idle host it needs a quarter of a minute; it has no core of its own.
const PATIENCE: Duration = Duration::from_mins(5);
/// What the firmware says when the disk does not boot.
const NOTHING_TO_BOOT: &str = "No bootable device";

/// A fleet of one machine, with all that installs it.
struct Site {
    fleet: Fleet,
    folder: PathBuf,
    _shelf: Shelf,
    _processes: [Running; 3],
}

impl Site {
    async fn start() -> Result<Self> {
        let (qemu, files) =
            tokio::task::spawn_blocking(|| anyhow::Ok((machine::qemu()?, MachineFiles::need()?))).await??;
        let folder = paths::private("machine")?;
        let disks = folder.display().to_string();
        let qemu = qemu.display().to_string();
        let emulator = ["--host", "qemu", "--qemu", &qemu, "--disk-folder", &disks, "--disk-size", "64MiB"];
        let fleet = Fleet::with(Layout::new(1).emulator(&emulator)).await?;
        let shelf = Shelf::serve(&files).await?;
        for release in Release::ALL {
            fleet.image_of(release.as_str(), &shelf.source(Task::Install(release))).await?;
        }
        fleet.image_of(WIPE, &shelf.source(Task::Wipe)).await?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let public = format!("http://{HOST}:{}", address.port());
        let flags = fleet.boot_flags("boot", &address.to_string(), &shelf.address())?;
        let boot = fleet.boot_as("boot", &flags.set("--public-url", &public), &[]).await?;
        fleet.bmcs().boot_from(&public).await?;
        let controller = fleet.controller("controller").await?;
        // A guest needs its time to shut down.
        let flags = fleet.worker_flags().set("--shutdown-deadline", "60s").set("--power-deadline", "60s");
        let worker = fleet.worker_with("worker", &flags, &[]).await?;
        Ok(Self { fleet, folder, _shelf: shelf, _processes: [boot, controller, worker] })
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{NAME}.{kind}"))
    }

    fn console(&self) -> Result<String> {
        machine::console(&self.file("serial.log"))
    }

    /// Waits until the console has said this so many times.
    async fn says(&self, text: &str, times: usize) -> Result<()> {
        wait_for(&format!("{text:?} on the console, {times} times"), PATIENCE, async || {
            let seen = self.console()?.matches(text).count();
            Ok(if seen == times { Look::Holds(()) } else { Look::NotYet(format!("{seen} times")) })
        })
        .await
    }

    /// Waits until that image is what the status names, and nothing is left to do.
    async fn installed(&self, image: &str) -> Result<Server> {
        let server = self
            .until(&format!("{image} installed, Ready"), |server| {
                let status = server.status.as_ref();
                let there = status.and_then(|status| status.image.as_ref());
                there.is_some_and(|there| there.name == image)
                    && is_ready(server)
                    && status.is_some_and(|status| status.job.is_none())
            })
            .await?;
        ensure!(truth(&server, ConditionType::ImageSynced) == Some("True"), "{server:#?}");
        Ok(server)
    }

    /// Waits until the Server looks so.
    async fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) -> Result<Server> {
        wait_for(what, PATIENCE, async || {
            let server = self.fleet.get(NAME).await?;
            Ok(if holds(&server) { Look::Holds(server) } else { Look::NotYet(describe(&server)) })
        })
        .await
    }

    async fn is_off(&self) -> Result<()> {
        wait_for("the machine to be off", PATIENCE, async || {
            let power = self.fleet.bmcs().power(NAME).await?;
            Ok(if power == "Off" { Look::Holds(()) } else { Look::NotYet(power) })
        })
        .await
    }

    /// Whether its disk reads zeros from the first byte to the last.
    fn is_blank(&self) -> Result<bool> {
        let disk = self.file("raw");
        let content = std::fs::read(&disk).with_context(|| format!("read {}", disk.display()))?;
        Ok(!content.is_empty() && content.iter().all(|byte| *byte == 0))
    }
}

/// A blank machine gets its first image, by what a person applies.
async fn built(site: &Site) -> Result<()> {
    let release = Release::One;
    let spec = json!({ "power": "PoweredOn", "image": { "name": release.as_str() } });
    let manifest = site.fleet.manifest_with(NAME, &spec).to_string();
    site.fleet.kubectl().run_with_input(&["apply", "-f", "-"], &manifest).await?;
    site.installed(release.as_str()).await?;
    site.says(&release.greeting(), 1).await?;
    ensure!(site.fleet.records().finished(NAME, "Build").await?.len() == 1);
    ensure!(!site.is_blank()?);
    Ok(())
}

/// Another image: what runs is asked to shut down, and the new system is up.
async fn reimaged(site: &Site) -> Result<()> {
    let (old, new) = (Release::One, Release::Two);
    site.fleet.change(NAME, json!({ "image": { "name": new.as_str() } })).await?;
    site.installed(new.as_str()).await?;
    site.says(&new.greeting(), 1).await?;
    site.says(&format!("system {} shuts down", old.as_str()), 1).await?;
    ensure!(site.console()?.matches(&old.greeting()).count() == 1, "the old system came up again");
    Ok(())
}

/// The disk that was installed boots again, without the network and with nobody to tell.
async fn rebooted(site: &Site) -> Result<()> {
    site.fleet.change(NAME, json!({ "rebootToken": "once" })).await?;
    site.says(&Release::Two.greeting(), 2).await?;
    site.until("rebooted", |server| {
        let last = server.status.as_ref().and_then(|status| status.last_job.as_ref());
        last.is_some_and(|last| last.action == Action::Reboot && last.result == JobResult::Succeeded)
    })
    .await?;
    Ok(())
}

/// Its life ends, by a person's word.
async fn decommissioned(site: &Site) -> Result<()> {
    let server = site.fleet.change(NAME, json!({ "lifecycle": "Decommissioned" })).await?;
    site.until("a confirmation is asked for", |server| {
        message(server, ConditionType::Stalled, Reason::ConfirmDecommission).is_some()
    })
    .await?;
    let kubectl = site.fleet.kubectl().in_namespace(site.fleet.namespace());
    let word = format!("autobuild.dev/confirm={}", server.metadata.uid.unwrap_or_default());
    kubectl.run(&["annotate", "server", NAME, &word]).await?;
    let server = site
        .until("decommissioned", |server| {
            let status = server.status.as_ref();
            status.is_some_and(|status| status.phase == Some(Phase::Decommissioned))
        })
        .await?;
    ensure!(server.status.is_some_and(|status| status.wiped_at.is_some() && status.image.is_none()));
    site.says("installer: wiped", 1).await
}

/// The disk is empty, and does not boot.
async fn wiped(site: &Site) -> Result<()> {
    site.is_off().await?;
    ensure!(site.is_blank()?, "{} has something on it", site.file("raw").display());
    site.fleet.bmcs().press(NAME, "On").await?;
    site.says(NOTHING_TO_BOOT, 1).await?;
    Ok(())
}

async fn life(site: &Site) -> Result<()> {
    built(site).await?;
    reimaged(site).await?;
    rebooted(site).await?;
    decommissioned(site).await?;
    wiped(site).await?;
    site.fleet.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_machine_boots_from_the_network_is_installed_boots_from_its_disk_and_is_wiped() {
    let site = Site::start().await.unwrap();
    if let Err(error) = life(&site).await {
        let log = site.file("serial.log");
        panic!("{error:#}\n--- {} ---\n{}", log.display(), machine::console_tail(&log));
    }
}

#[test]
fn what_a_machine_boots_and_installs_is_the_same_bytes_every_time() {
    let there = MachineFiles::need().unwrap();
    let folder = paths::private("machine-files").unwrap().join("again");
    let again = machine::build(&folder).unwrap();
    for (one, other) in there.all().iter().zip(again.all()) {
        let name = other.file_name().unwrap_or_default().display().to_string();
        assert!(std::fs::read(one).unwrap() == std::fs::read(&other).unwrap(), "{name} differs");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
