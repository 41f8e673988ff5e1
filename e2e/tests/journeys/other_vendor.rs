//! The main job against BMCs that somebody else wrote.

use anyhow::{Result, ensure};
use autobuild::api::hardware::PowerState;
use e2e::fleet::{Fleet, SECRET};
use e2e::process::Lifetime;
use e2e::sushy::{Sushy, Transport};
use serde_json::{Value, json};

use crate::steps::{handled, kubectl_apply, kubectl_wait_ready};

const NAME: &str = "of-another-vendor";

fn manifest(fleet: &Fleet, address: &str, spec: &Value) -> Value {
    let mut manifest = fleet.manifest_with("system-0001", spec);
    manifest["metadata"]["name"] = json!(NAME);
    manifest["spec"]["bmc"]["address"] = json!(address);
    manifest["spec"]["bmc"]["tls"]["caRef"]["name"] = json!("sushy-ca");
    manifest
}

async fn shows(fleet: &Fleet, power: PowerState) -> Result<()> {
    let shown = fleet.get(NAME).await?.status.and_then(|status| status.power);
    ensure!(shown == Some(power), "status.power is {shown:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_works_on_a_bmc_that_somebody_else_wrote() {
    let fleet = Fleet::start(1).await.unwrap();
    let login = ("operator", "correct-horse");
    let dir = fleet.dir().join("sushy");
    let sushy = Sushy::start(&dir, 1, login, Transport::Https, Lifetime::WithParent).await.unwrap();
    let authority = sushy.authority().unwrap().display().to_string();
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl
        .run(&["create", "configmap", "sushy-ca", &format!("--from-file=ca.crt={authority}")])
        .await
        .unwrap();
    fleet.secret(SECRET, &[("username", login.0), ("password", login.1)]).await.unwrap();
    // Its fake machines take up to eleven seconds for a change.
    let flags = fleet
        .worker_flags()
        .set("--shutdown-deadline", "30s")
        .set("--power-deadline", "60s")
        .set("--request-timeout", "20s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let address = sushy.bmc_address(&sushy.systems()[0]);

    kubectl_apply(&fleet, &manifest(&fleet, &address, &json!({}))).await.unwrap();
    kubectl_wait_ready(&fleet, NAME).await.unwrap();
    shows(&fleet, PowerState::PoweredOff).await.unwrap();
    kubectl_apply(&fleet, &manifest(&fleet, &address, &json!({ "power": "PoweredOn" }))).await.unwrap();
    kubectl_wait_ready(&fleet, NAME).await.unwrap();
    shows(&fleet, PowerState::PoweredOn).await.unwrap();
    let spec = json!({ "power": "PoweredOn", "rebootToken": "one" });
    kubectl_apply(&fleet, &manifest(&fleet, &address, &spec)).await.unwrap();
    handled(&fleet, NAME, "one").await.unwrap();
    kubectl_apply(&fleet, &manifest(&fleet, &address, &json!({ "power": "PoweredOff" }))).await.unwrap();
    kubectl_wait_ready(&fleet, NAME).await.unwrap();
    shows(&fleet, PowerState::PoweredOff).await.unwrap();
    for (action, times) in [("PowerOn", 1), ("Reboot", 1), ("PowerOff", 1)] {
        let done = fleet.records().finished(NAME, action).await.unwrap();
        assert_eq!(done.len(), times, "{action}: {done:?}");
    }
    // Its own log has one request for every reset: off and on of the reboot, on and off of the wishes.
    let log = std::fs::read_to_string(sushy.process().log()).unwrap();
    let resets = log.lines().filter(|line| line.contains("POST ") && line.contains("ComputerSystem.Reset"));
    assert_eq!(resets.count(), 4, "{log}");
    fleet.end().await.unwrap();
}
