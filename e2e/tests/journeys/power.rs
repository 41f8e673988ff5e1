//! The main job: a wish about power is applied, and comes true.

use anyhow::{Result, ensure};
use autobuild::api::hardware::PowerState;
use e2e::fleet::{Fleet, is_ready};
use serde_json::json;

use crate::steps::{asked_for, fresh_look, kubectl_apply, kubectl_wait_ready};

const SYSTEM: &str = "system-0001";

async fn wished(fleet: &Fleet, power: &str, bmc: &str, shown: PowerState) -> Result<()> {
    kubectl_apply(fleet, &fleet.manifest_with(SYSTEM, &json!({ "power": power }))).await?;
    kubectl_wait_ready(fleet, SYSTEM).await?;
    let is = fleet.bmcs().power(SYSTEM).await?;
    ensure!(is == bmc, "{power} was wished, the BMC says {is}");
    let server = fleet.get(SYSTEM).await?;
    let power = server.status.and_then(|status| status.power);
    ensure!(power == Some(shown), "status has {power:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_applies_is_what_the_bmc_does_and_status_follows() {
    let fleet = Fleet::start(1).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    kubectl_apply(&fleet, &fleet.manifest(SYSTEM)).await.unwrap();
    kubectl_wait_ready(&fleet, SYSTEM).await.unwrap();
    asked_for(&fleet, SYSTEM, &[]).await.unwrap();
    let hardware = fleet.get(SYSTEM).await.unwrap().status.unwrap().hardware.unwrap();
    assert!(hardware.serial_number.is_some() && !hardware.nics.is_empty(), "{hardware:?}");

    wished(&fleet, "PoweredOn", "On", PowerState::PoweredOn).await.unwrap();
    wished(&fleet, "PoweredOff", "Off", PowerState::PoweredOff).await.unwrap();
    wished(&fleet, "PoweredOn", "On", PowerState::PoweredOn).await.unwrap();
    asked_for(&fleet, SYSTEM, &["on", "off", "on"]).await.unwrap();

    // Applied again: nothing to do; a fresh look when it is asked for.
    kubectl_apply(&fleet, &fleet.manifest_with(SYSTEM, &json!({ "power": "PoweredOn" }))).await.unwrap();
    fresh_look(&fleet, SYSTEM).await.unwrap();
    assert!(is_ready(&fleet.get(SYSTEM).await.unwrap()));
    asked_for(&fleet, SYSTEM, &["on", "off", "on"]).await.unwrap();
    fleet.end().await.unwrap();
}
