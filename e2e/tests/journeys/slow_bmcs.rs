//! The main journeys with BMCs that take as long as real ones: one to five seconds for each request, so that a machine is
//! being looked at most of the time.

use std::time::Duration;

use anyhow::{Result, ensure};
use autobuild::api::hardware::PowerState;
use autobuild::api::{Reason, Server};
use autobuild::job::JobResult;
use e2e::fleet::{BootFiles, Fleet, Layout, QUICK_INSTALLS, describe, is_ready};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::steps::{asked_for, at_rest, system};

/// A look takes a minute, and a deletion that powers off is several.
const PATIENCE: Duration = Duration::from_mins(10);

fn power(server: &Server) -> Option<PowerState> {
    server.status.as_ref().and_then(|status| status.power)
}

async fn ready(fleet: &Fleet, name: &str, power_is: PowerState) -> Result<Server> {
    let holds = |server: &Server| is_ready(server) && at_rest(server) && power(server) == Some(power_is);
    fleet.shown().until(name, &format!("Ready and {power_is:?}"), holds).await
}

async fn off_and_on(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "power": "PoweredOn" })).await?;
    ready(fleet, name, PowerState::PoweredOn).await?;
    fleet.change(name, json!({ "power": "PoweredOff", "priority": "Urgent" })).await?;
    ready(fleet, name, PowerState::PoweredOff).await?;
    fleet.change(name, json!({ "power": "PoweredOn" })).await?;
    ready(fleet, name, PowerState::PoweredOn).await?;
    asked_for(fleet, name, &["off", "on"]).await
}

async fn rebooted(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({})).await?;
    ready(fleet, name, PowerState::PoweredOn).await?;
    fleet.change(name, json!({ "rebootToken": "one" })).await?;
    let holds = |server: &Server| {
        let status = server.status.as_ref();
        is_ready(server) && at_rest(server) && status.is_some_and(|status| status.reboot_tokens == ["one"])
    };
    let server = fleet.shown().until(name, "rebooted", holds).await?;
    let last = server.status.and_then(|status| status.last_job);
    ensure!(last.is_some_and(|last| last.result == JobResult::Succeeded));
    asked_for(fleet, name, &["off", "on"]).await
}

async fn let_go(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "deletionPolicy": "PowerOff" })).await?;
    ready(fleet, name, PowerState::PoweredOn).await?;
    fleet.delete(name).await?;
    wait_for(&format!("{name} to be gone"), PATIENCE, async || {
        Ok(match fleet.servers().get_opt(name).await? {
            None => Look::Holds(()),
            Some(server) => Look::NotYet(describe(&server)),
        })
    })
    .await?;
    asked_for(fleet, name, &["off"]).await
}

async fn installed(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.declare(name, json!({ "power": "PoweredOn", "image": { "name": "debian-12" } })).await?;
    let holds = |server: &Server| {
        let image = server.status.as_ref().and_then(|status| status.image.as_ref());
        is_ready(server) && at_rest(server) && image.is_some_and(|image| image.name == "debian-12")
    };
    fleet.shown().until(name, "installed", holds).await?;
    ensure!(fleet.installs(name).await? == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn power_reboot_deletion_and_installation_come_true_with_bmcs_as_slow_as_real_ones() {
    let scenario = e2e::paths::private("slow-bmcs").unwrap().join("scenario.yaml");
    std::fs::create_dir_all(scenario.parent().unwrap()).unwrap();
    std::fs::write(&scenario, "systems: [{name: system-0004, power: PoweredOff}]").unwrap();
    let scenario = scenario.display().to_string();
    let slow = ["--initial-power", "on", "--pace", "1s..5s", "--scenario", &scenario];
    let fleet = Fleet::with(Layout::new(4).emulator(&[QUICK_INSTALLS, &slow].concat())).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    fleet.image("debian-12", &files, &[]).await.unwrap();
    let _boot = fleet.boot("boot", &files).await.unwrap();
    // A look lasts longer than the time between two of them.
    let flags = fleet.controller_flags().with(&[("--inspect-period", "20s"), ("--power-off-wait", "5m")]);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let flags = fleet.worker_flags().with(&[
        ("--request-timeout", "15s"),
        ("--shutdown-deadline", "60s"),
        ("--power-deadline", "2m"),
        ("--power-poll", "1s"),
    ]);
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let [one, two, three, four] = std::array::from_fn(|number| system(number + 1));
    tokio::try_join!(
        off_and_on(&fleet, &one),
        rebooted(&fleet, &two),
        let_go(&fleet, &three),
        installed(&fleet, &four)
    )
    .unwrap();
    // There were free slots all the time.
    for server in fleet.shown().so_far() {
        let Some(status) = server.status else { continue };
        let blamed = status.conditions.iter().any(|one| one.reason == Reason::Queued.as_str());
        assert!(
            !blamed || status.job.is_some(),
            "workers are blamed for a job that is not there: {status:#?}"
        );
    }
    fleet.end().await.unwrap();
}
