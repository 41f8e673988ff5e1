//! The drill with a chassis: the machines behind one BMC that hangs hold one slot between them, and nobody else waits for them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, say, wait_for};
use serde_json::json;

use crate::steps::{ask_for_reboots, controller_flags, counted, declared, rebooted};

/// The machine that has a BMC of its own.
const OTHER: &str = "system-0001";

/// More than a worker of this drill has slots: they are rebooted one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_machines_of_a_chassis_that_hangs_hold_one_slot_and_another_machine_is_not_kept_waiting() {
    drill(7).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn forty_machines_of_a_chassis_that_hangs_hold_one_slot_and_another_machine_is_not_kept_waiting() {
    drill(40).await.unwrap();
}

async fn drill(machines: usize) -> Result<()> {
    let layout = Layout::new(49).emulator(&["--initial-power", "on", "--own-ports", "1"]);
    let fleet = Fleet::with(layout).await?;
    let flags = controller_flags(&fleet);
    let _controller = fleet.controller_with("controller", &flags, &[]).await?;
    // The chassis hangs for longer than anything here takes.
    let flags =
        fleet.worker_flags().with(&[("--slots", "4"), ("--urgent-slots", "0"), ("--request-timeout", "20s")]);
    let worker = fleet.worker_with("worker", &flags, &[]).await?;
    let chassis: Vec<String> = (10..).take(machines).map(|number| format!("system-{number:04}")).collect();
    declared(&fleet, &[&chassis[..], &[OTHER.to_owned()]].concat()).await?;

    let mut hung = Vec::new();
    for tens in 1..5 {
        let rule = json!({ "system": format!("system-00{tens}*"), "behaviour": { "kind": "Hang" } });
        hung.push(fleet.bmcs().fault(rule).await?);
    }
    ask_for_reboots(&fleet, &chassis, "one").await?;
    wait_for("one to hold a slot, and the others to wait in the queue", LIMIT, async || {
        let held = fleet.records().number("SELECT COUNT(*) FROM job WHERE owner IS NOT NULL").await?;
        // For a turn, or, where the one that had it was given up, for an answer of the BMC.
        let parked = fleet.records().number("SELECT COUNT(*) FROM job WHERE q_state = 3").await?;
        let is_so = held == 1 && parked == chassis.len() as i64 - 1;
        Ok(if is_so { Look::Holds(()) } else { Look::NotYet(format!("{held} held, {parked} parked")) })
    })
    .await?;

    let before = fleet.bmcs().whole_log().await?.last().map_or(0, |one| one.seq);
    fleet.change(OTHER, json!({ "power": "PoweredOff" })).await?;
    fleet.wait(OTHER, "PoweredOff", power_is_off).await?;
    let log = fleet.bmcs().whole_log().await?;
    // A login names no machine.
    let since = log.iter().filter(|one| one.seq > before && !one.system.is_empty());
    let until_begun: Vec<_> = since.take_while(|one| one.system != OTHER).map(|one| &one.system).collect();
    // The one whose turn it was may have been given up, and the next one have its turn.
    let turns: BTreeSet<_> = until_begun.into_iter().collect();
    ensure!(turns.len() <= 1, "{turns:?} had their turn before {OTHER}, which has a BMC of its own");

    for rule in hung {
        fleet.bmcs().mend(rule).await?;
    }
    rebooted(&fleet, &chassis, "one").await?;
    for name in &chassis {
        ensure!(fleet.bmcs().resets(name).await? == ["off", "on"], "{name}");
    }
    // One at a time, and none is asked again and again whether its turn has come.
    let waits = [("waiting_for", "BMCCapacity")];
    let parks = counted(&worker, "autobuild_jobs_parked_total", &waits).await?;
    say(format!("chassis: {parks} parks for a turn"));
    ensure!(parks <= (chassis.len() * 8) as f64, "{parks} parks for a turn, of {} machines", chassis.len());
    fleet.end().await
}

fn power_is_off(server: &autobuild::api::Server) -> bool {
    let power = server.status.as_ref().and_then(|status| status.power);
    power == Some(autobuild::api::hardware::PowerState::PoweredOff)
}
