//! Hosts against a boot service of the tests' own, over real sockets. Delays are short, and nothing asserts them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests stand on the other side of the wall"
)]

mod boot_server;
mod control;
mod install;
mod media;
mod misbehaviour;

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use self::boot_server::{Armed, BootServer};
use super::super::{Fleet, FleetBuilder, PowerState, SystemView};
use super::*;

const ONE: &str = "system-0001";

/// A fleet whose hosts live, and its boot service.
struct Site {
    fleet: Fleet,
    server: BootServer,
    _hosts: DropGuard,
}

fn quick() -> HostSettings {
    HostSettings {
        post_delay: Duration::from_millis(5),
        install_duration: Duration::from_millis(40),
        progress_interval: Duration::from_millis(15),
        retry_pause: Duration::from_millis(5),
        ..HostSettings::default()
    }
}

async fn site_of(systems: usize, settings: HostSettings) -> Site {
    site_with(|builder| builder.systems(systems), settings).await
}

async fn site() -> Site {
    site_of(1, quick()).await
}

async fn site_with(change: impl FnOnce(FleetBuilder) -> FleetBuilder, settings: HostSettings) -> Site {
    let server = BootServer::start().await;
    let settings = HostSettings { boot_url: Some(server.url.parse().unwrap()), ..settings };
    let few = Duration::from_millis(5);
    let fleet = change(Fleet::builder().systems(1).delays(few, few).hosts(settings)).build().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(keep(fleet.clone(), shutdown.clone()));
    Site { fleet, server, _hosts: shutdown.drop_guard() }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), wait).await.is_ok(), "waited in vain: {what}");
}

async fn ask(fleet: &Fleet, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("authorization", format!("Basic {}", STANDARD.encode("admin:password")))
        .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
        .unwrap();
    let response = fleet.router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

impl Site {
    fn view(&self) -> SystemView {
        self.fleet.system(ONE).unwrap()
    }

    fn arm(&self, system: &str, armed: Armed) {
        self.server.arm(&self.fleet.system(system).unwrap().boot_mac, armed);
    }

    async fn boot_next(&self, system: &str, boot: Value) {
        let path = format!("/redfish/v1/Systems/{system}");
        let (status, body) = ask(&self.fleet, "PATCH", &path, json!({ "Boot": boot })).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }

    async fn reset(&self, system: &str, kind: &str) {
        let path = format!("/redfish/v1/Systems/{system}/Actions/ComputerSystem.Reset");
        let (status, body) = ask(&self.fleet, "POST", &path, json!({"ResetType": kind})).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }

    async fn boot_from_network(&self, system: &str) {
        let boot = json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"});
        self.boot_next(system, boot).await;
        self.reset(system, "On").await;
    }

    fn acts(&self, system: &str) -> Vec<HostAct> {
        self.fleet.host_acts(Some(system), 0).into_iter().map(|entry| entry.act).collect()
    }

    /// Waits until the host did that.
    async fn did(&self, act: &HostAct) {
        until(&format!("{act:?}"), || self.acts(ONE).contains(act)).await;
    }

    fn gave_up(&self) -> Vec<(Stage, Why)> {
        let acts = self.acts(ONE).into_iter();
        acts.filter_map(|act| match act {
            HostAct::GaveUp { stage, why } => Some((stage, why)),
            _ => None,
        })
        .collect()
    }

    fn behaves(&self, behaviour: HostBehaviour) {
        self.fleet.add_host_rule(HostRule::on_system("*", behaviour)).unwrap();
    }

    fn destroyed(&self, system: &str) -> usize {
        self.acts(system).iter().filter(|act| act.destroys()).count()
    }
}
