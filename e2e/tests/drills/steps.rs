//! The steps that drills have in common.

use anyhow::{Result, ensure};
use autobuild::api::Server;
use autobuild::job::{Action, JobResult};
use e2e::autobuild::Running;
use e2e::fleet::{Asked, Flags, Fleet, LIMIT, is_ready, metric};
use e2e::wait::{Look, wait_for};
use serde_json::json;

use crate::judge::overlaps;

/// `system-0001` and so on, so many.
pub fn systems(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("system-{number:04}")).collect()
}

/// A controller that looks at nothing by itself, and that leads on however busy the machine is.
pub fn controller_flags(fleet: &Fleet) -> Flags {
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    flags.set("--lease-duration", "2m").set("--renew-period", "20s")
}

/// Applies all of them and waits until they are ready.
pub async fn declared(fleet: &Fleet, names: &[String]) -> Result<()> {
    for name in names {
        fleet.declare(name, json!({})).await?;
    }
    for name in names {
        fleet.wait_ready(name).await?;
    }
    Ok(())
}

/// Asks all of them for a reboot.
pub async fn ask_for_reboots(fleet: &Fleet, names: &[String], token: &str) -> Result<()> {
    for name in names {
        fleet.change(name, json!({ "rebootToken": token })).await?;
    }
    Ok(())
}

/// Whether a reboot for that token is over and all is as declared.
pub fn is_rebooted(server: &Server, token: &str) -> bool {
    let Some(status) = &server.status else { return false };
    let last = status.last_job.as_ref();
    status.reboot_tokens.iter().any(|handled| handled == token)
        && last.is_some_and(|job| job.action == Action::Reboot && job.result == JobResult::Succeeded)
        && is_ready(server)
}

/// Waits until all of them were rebooted for that token.
pub async fn rebooted(fleet: &Fleet, names: &[String], token: &str) -> Result<()> {
    for name in names {
        fleet.wait(name, &format!("rebooted for {token:?}"), |server| is_rebooted(server, token)).await?;
    }
    Ok(())
}

/// Waits until each of them was asked for so many resets.
pub async fn asked_for(fleet: &Fleet, names: &[String], count: usize) -> Result<()> {
    for name in names {
        wait_for(&format!("{name}: {count} resets"), LIMIT, async || {
            let resets = fleet.bmcs().resets(name).await?;
            Ok(if resets.len() >= count { Look::Holds(()) } else { Look::NotYet(format!("{resets:?}")) })
        })
        .await?;
    }
    Ok(())
}

/// Every one was asked for off and on, so often and no more, and no two claims interleave.
pub async fn rebooted_so_often(fleet: &Fleet, names: &[String], times: usize) -> Result<()> {
    let log = fleet.bmcs().whole_log().await?;
    for name in names {
        let resets = fleet.bmcs().resets(name).await?;
        ensure!(resets == ["off", "on"].repeat(times), "{name}: its BMC was asked for {resets:?}");
        let ended = fleet.records().finished(name, "Reboot").await?;
        ensure!(ended.len() == times, "{name}: history has {ended:?}");
        let asked: Vec<&Asked> = log.iter().filter(|one| one.system == *name).collect();
        let wrong = overlaps(&asked);
        ensure!(wrong.is_empty(), "{name}: {wrong:?}");
    }
    Ok(())
}

/// A family of the metrics of a process, summed over the samples with these labels.
pub async fn counted(process: &Running, family: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let (_, page) = process.get("/metrics").await?;
    Ok(metric(&page, family, labels))
}
