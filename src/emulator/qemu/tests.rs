//! Power, boot order and end of virtual machines, with a program that stands in for QEMU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests stand on the other side of the wall")]

use std::time::Duration;

use http::{Request, StatusCode, header};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::super::fleet::{Fleet, HostKind, InitialPower};
use super::super::host::{Booted, Disk};
use super::super::hosts::DiskChange;
use super::super::power::PowerState;
use super::QemuSettings;

const NAME: &str = "system-0001";

struct Site {
    fleet: Fleet,
    folder: TempDir,
    shutdown: CancellationToken,
    kept: JoinHandle<()>,
}

impl Site {
    fn start(program: &str, power: InitialPower) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = std::path::absolute(program).unwrap();
        let settings = QemuSettings::new(&program, folder.path(), 1024 * 1024).unwrap();
        let fleet = Fleet::builder()
            .systems(1)
            .initial_power(power)
            .host_kind(HostKind::Qemu(settings))
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let kept = tokio::spawn(super::keep(fleet.clone(), shutdown.clone()));
        Self { fleet, folder, shutdown, kept }
    }

    fn with_a_stand_in(power: InitialPower) -> Self {
        Self::start("src/emulator/qemu/tests/program.sh", power)
    }

    fn power(&self) -> PowerState {
        self.fleet.system(NAME).unwrap().power
    }

    /// What the program told, one line for each start and each press of the reset button.
    fn told(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("system-0001.qemu.log"));
        log.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), wait).await;
        assert!(waited.is_ok(), "waited for {what}: {:?}, {:?}", self.power(), self.told());
    }

    async fn is(&self, power: PowerState) {
        self.until(power.as_str(), |site| site.power() == power).await;
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> StatusCode {
        let request = Request::builder()
            .method(method)
            .uri(format!("/redfish/v1/Systems/{NAME}{path}"))
            .header(header::AUTHORIZATION, "Basic YWRtaW46cGFzc3dvcmQ=")
            .header(header::CONTENT_TYPE, "application/json")
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        self.fleet.router().oneshot(request).await.unwrap().status()
    }

    async fn reset(&self, kind: &str) {
        let body = format!("{{\"ResetType\": \"{kind}\"}}");
        let status = self.send("POST", "/Actions/ComputerSystem.Reset", &body).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{kind}");
    }

    async fn boot_from_the_network_once(&self) {
        let body = r#"{"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}}"#;
        assert_eq!(self.send("PATCH", "", body).await, StatusCode::NO_CONTENT);
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.kept.await.unwrap();
    }
}

#[tokio::test]
async fn power_is_the_process() {
    let site = Site::with_a_stand_in(InitialPower::Off);
    assert_eq!(site.power(), PowerState::Off);
    site.reset("On").await;
    site.is(PowerState::On).await;
    assert_eq!(std::fs::metadata(site.folder.path().join("system-0001.raw")).unwrap().len(), 1024 * 1024);
    site.reset("ForceOff").await;
    site.is(PowerState::Off).await;
    site.reset("On").await;
    site.is(PowerState::On).await;
    // Off when the guest says so, and not before.
    site.reset("GracefulShutdown").await;
    site.is(PowerState::Off).await;
    assert_eq!(site.told().len(), 2, "{:?}", site.told());
    site.end().await;
}

#[tokio::test]
async fn a_boot_from_the_network_is_for_one_start_and_a_reset_starts_no_process() {
    let site = Site::with_a_stand_in(InitialPower::Off);
    site.boot_from_the_network_once().await;
    site.reset("On").await;
    site.is(PowerState::On).await;
    site.reset("ForceRestart").await;
    site.until("the reset", |site| site.told().len() == 2).await;
    site.boot_from_the_network_once().await;
    site.reset("ForceRestart").await;
    site.until("the second start", |site| site.told().len() == 3).await;
    site.reset("PowerCycle").await;
    site.until("the third start", |site| site.told().len() == 4).await;
    let told = site.told();
    let network: Vec<_> = told.iter().map(|line| line.contains("bootindex=1")).collect();
    assert_eq!(network, [true, false, true, false], "{told:?}");
    assert_eq!(told[1], "reset");
    site.is(PowerState::On).await;
    site.end().await;
}

#[tokio::test]
async fn a_machine_is_on_from_the_start_and_its_disk_is_a_file() {
    let site = Site::with_a_stand_in(InitialPower::On);
    site.is(PowerState::On).await;
    assert_eq!(site.fleet.set_disk(NAME, Disk::Empty), DiskChange::IsAFile);
    // Nobody looks into it.
    let view = site.fleet.system(NAME).unwrap();
    assert_eq!((view.disk, view.booted), (Disk::Unknown, Booted::Nothing));
    site.end().await;
}

#[tokio::test]
async fn a_machine_that_does_not_start_is_off() {
    let site = Site::start("Cargo.toml", InitialPower::Off);
    site.reset("On").await;
    site.until("the end of the attempt", |site| site.power() == PowerState::Off).await;
    site.end().await;
}
