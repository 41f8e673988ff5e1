//! The client against the emulated fleet, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests stand on the other side of the wall"
)]

mod addresses;
mod boot;
mod classes;
mod drives;
mod hostile;
mod inventory;
mod maker;
mod media;
mod pins;
mod preconditions;
mod sessions;
mod settings;
mod shapes;
mod short_rsa;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::hardware::PowerState;
use crate::bmc::credentials::Credentials;
use crate::bmc::network::BmcNetworks;
use crate::bmc::{
    Bmc, BmcError, BmcErrorKind, Connector, ConnectorSettings, Delivery, PlainHttp, Trust, UnverifiedTls,
};
use crate::emulator::{
    Action, Behaviour, Bound, ButtonPower, Effect, Fleet, FleetBuilder, Listeners, ResetType, Rule, Which,
    serve,
};
use crate::job::RequestKind;

const LONG: Duration = Duration::from_secs(30);

struct Site {
    fleet: Fleet,
    bound: Bound,
    connector: Connector,
}

fn settings() -> ConnectorSettings {
    ConnectorSettings {
        networks: BmcNetworks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        plain_http: PlainHttp::Allowed,
        unverified_tls: UnverifiedTls::Allowed,
        worker: Some("worker-1".to_owned()),
        ..ConnectorSettings::default()
    }
}

fn quick() -> ConnectorSettings {
    ConnectorSettings { request_timeout: Duration::from_millis(300), ..settings() }
}

async fn site(build: impl FnOnce(FleetBuilder) -> FleetBuilder, settings: ConnectorSettings) -> Site {
    let fleet = build(Fleet::builder().systems(3).delays(Duration::ZERO, Duration::ZERO)).build().unwrap();
    let any = Some("127.0.0.1:0".parse().unwrap());
    let listeners =
        Listeners { http: any, https: any, https_self_signed: any, https_wrong_name: any, own_ports: 1 };
    let bound = serve(fleet.clone(), listeners, CancellationToken::new()).await.unwrap();
    Site { fleet, bound, connector: Connector::new(settings).on_behalf_of("default", "job-1".to_owned()) }
}

fn login() -> Credentials {
    Credentials { username: "admin".to_owned(), password: "password".to_owned().into() }
}

async fn open(connector: &Connector, address: &str, trust: Trust) -> Result<Box<dyn Bmc>, BmcError> {
    connector.open(&address.parse().unwrap(), login(), trust).await
}

/// A client of something at a plain port, with or without a system.
async fn at(connector: &Connector, port: SocketAddr, path: &str) -> Box<dyn Bmc> {
    open(connector, &format!("redfish+http://{port}{path}"), Trust::System).await.unwrap()
}

impl Site {
    async fn system(&self, name: &str) -> Box<dyn Bmc> {
        at(&self.connector, self.bound.http.unwrap(), &format!("/redfish/v1/Systems/{name}")).await
    }

    async fn one(&self) -> Box<dyn Bmc> {
        self.system("system-0001").await
    }

    fn behaves(&self, behaviour: Behaviour) {
        self.fleet.clear_faults();
        self.fleet.add_fault(Rule::on_system("system-0001", behaviour)).unwrap();
    }

    fn requests(&self) -> u64 {
        self.fleet.counters().requests
    }
}

#[tokio::test]
async fn a_probe_finds_the_system_and_the_next_one_costs_one_request() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    assert_eq!((bmc.system(), bmc.peer()), (None, site.bound.http.unwrap()));
    let seen = bmc.probe().await.unwrap();
    let view = site.fleet.system("system-0001").unwrap();
    assert_eq!(seen.power, PowerState::PoweredOff);
    assert_eq!(seen.identity.serial_number, Some(view.serial_number));
    assert_eq!(seen.identity.uuid, Some(view.uuid));
    assert_eq!(bmc.system().as_deref(), Some("system-0001"));
    let before = site.requests();
    site.fleet.press("system-0001", ButtonPower::On);
    assert_eq!(bmc.probe().await.unwrap().power, PowerState::PoweredOn);
    assert_eq!(site.requests() - before, 1);
}

#[tokio::test]
async fn an_inspection_tells_all_parts_and_twice_the_same() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.system("system-0003").await;
    let first = bmc.inspect().await.unwrap();
    assert_eq!(first, bmc.inspect().await.unwrap());
    let hardware = first.hardware;
    assert!(hardware.manufacturer.is_some() && hardware.model.is_some() && hardware.bios_version.is_some());
    assert!(hardware.cpus.unwrap() >= 1 && hardware.memory_gib.unwrap() >= 64);
    let nics: Vec<_> = hardware.nics.iter().map(|nic| (nic.name.as_str(), nic.speed_mbps)).collect();
    assert_eq!(nics, [("NIC1", Some(25_000)), ("NIC2", Some(1_000))]);
    assert!(hardware.nics.iter().all(|nic| nic.mac_address.as_ref().unwrap().starts_with("02:")));
    assert!(hardware.disks.len() >= 2 && hardware.disks[0].size_bytes == Some(480_103_981_056));
    assert_eq!(hardware.serial_number, first.identity.serial_number);
}

#[tokio::test]
async fn an_address_without_id_means_the_only_system() {
    let site = site(|fleet| fleet, settings()).await;
    let own = site.bound.own[0].http.unwrap();
    let bmc = at(&site.connector, own, "").await;
    bmc.probe().await.unwrap();
    assert_eq!(bmc.system().as_deref(), Some("system-0001"));
    let error = at(&site.connector, site.bound.http.unwrap(), "").await.probe().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::NotFound);
    assert!(error.message.contains("3 systems (system-0001, system-0002, system-0003)"), "{error}");
    let error = site.system("rack-9").await.probe().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::NotFound);
    assert!(error.message.contains("\"rack-9\"") && error.message.contains("system-0002"), "{error}");
}

#[tokio::test]
async fn each_request_is_sent_once_and_names_the_worker_and_its_claim() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    for (request, expected, power) in [
        (RequestKind::PowerOn, ResetType::On, PowerState::PoweredOn),
        (RequestKind::GracefulShutdown, ResetType::GracefulShutdown, PowerState::PoweredOff),
        (RequestKind::PowerOn, ResetType::On, PowerState::PoweredOn),
        (RequestKind::ForceOff, ResetType::ForceOff, PowerState::PoweredOff),
    ] {
        let since = site.fleet.entries(Which::Mutating, None, 0).last().map_or(0, |entry| entry.seq);
        bmc.probe().await.unwrap();
        bmc.send(request, LONG).await.unwrap();
        let entries = site.fleet.entries(Which::Mutating, None, since);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].action, Some(Action::Reset { reset_type: expected }));
        assert_eq!((entries[0].effect, entries[0].worker.as_deref()), (Effect::Applied, Some("worker-1")));
        assert_eq!(entries[0].request_id.as_deref(), Some("job-1"));
        assert_eq!(bmc.probe().await.unwrap().power, power);
    }
}

#[tokio::test]
async fn a_bmc_does_not_learn_which_worker_asks_and_for_which_claim() {
    let site = site(|fleet| fleet, ConnectorSettings { worker: None, ..settings() }).await;
    site.one().await.probe().await.unwrap();
    for entry in site.fleet.entries(Which::All, None, 0) {
        assert_eq!((entry.worker, entry.request_id), (None, None));
    }
    assert!(site.requests() > 0);
}

#[tokio::test]
async fn a_system_that_changed_since_the_probe_is_left_alone() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    site.fleet.press("system-0001", ButtonPower::On);
    let error = bmc.send(RequestKind::ForceOff, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Busy(None), Delivery::Answered));
    assert_eq!(site.fleet.counters().applied, 0);
    bmc.probe().await.unwrap();
    bmc.send(RequestKind::ForceOff, LONG).await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_to_a_system_that_was_not_read() {
    let site = site(|fleet| fleet, settings()).await;
    let error = site.one().await.send(RequestKind::PowerOn, LONG).await.unwrap_err();
    assert_eq!(error.delivery, Delivery::NotSent);
    assert_eq!(site.requests(), 0);
}

#[tokio::test]
async fn a_bmc_has_one_connection_and_who_waits_too_long_has_sent_nothing() {
    let site = site(|fleet| fleet, settings()).await;
    let (bmc, other) = (site.one().await, site.system("system-0002").await);
    bmc.probe().await.unwrap();
    other.probe().await.unwrap();
    site.behaves(Behaviour::Hang {});
    let before = site.requests();
    let hanging = tokio::spawn(async move { bmc.probe().await });
    while site.requests() == before {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let error = other.send(RequestKind::PowerOn, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Busy(None), Delivery::NotSent));
    assert_eq!(site.requests() - before, 1);
    hanging.abort();
    assert!(hanging.await.is_err());
    other.send(RequestKind::PowerOn, LONG).await.unwrap();
}

#[tokio::test]
async fn what_the_operator_does_not_allow_is_refused_before_anything_is_sent() {
    let site = site(|fleet| fleet, settings()).await;
    let strict = Connector::new(ConnectorSettings::default());
    let (http, https) = (site.bound.http.unwrap(), site.bound.https.unwrap());
    for (address, trust, kind, part) in [
        (format!("redfish+http://{http}"), Trust::System, BmcErrorKind::TlsConfig, "--allow-plain-http"),
        (
            format!("redfish+https://{https}"),
            Trust::Unverified,
            BmcErrorKind::TlsConfig,
            "--allow-unverified-tls",
        ),
        (
            format!("redfish+https://{https}"),
            Trust::Pin([0; 32]),
            BmcErrorKind::AddressNotAllowed,
            "loopback",
        ),
        (
            format!("redfish+https://localhost:{}", https.port()),
            Trust::Pin([0; 32]),
            BmcErrorKind::AddressNotAllowed,
            "loopback",
        ),
        (
            format!("redfish+https://{https}"),
            Trust::Ca(b"x".to_vec()),
            BmcErrorKind::TlsConfig,
            "spec.bmc.tls.caRef",
        ),
        (
            "redfish+https://nobody.invalid".to_owned(),
            Trust::Pin([0; 32]),
            BmcErrorKind::Unreachable,
            "nobody.invalid",
        ),
    ] {
        let error = open(&strict, &address, trust).await.unwrap_err();
        assert_eq!((&error.kind, error.delivery), (&kind, Delivery::NotSent), "{error}");
        assert!(error.message.contains(part), "{error}");
    }
    assert_eq!(site.requests(), 0);
}
