//! A change of power that is taken back after its BMC has accepted it: a system takes its time to shut down, and what is
//! read meanwhile says nothing of what it will be.

use anyhow::{Result, ensure};
use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use autobuild::job::Step;
use e2e::fleet::{BootFiles, Fleet, LIMIT, Layout, message};
use e2e::wait::{Look, wait_for};
use serde_json::{Value, json};

use crate::steps::{fresh_look, system};

/// Answered at once, done so much later.
async fn slow(fleet: &Fleet, name: &str) -> Result<u64> {
    let rule = json!({
        "system": name, "path": "*ComputerSystem.Reset*", "method": "POST", "count": 1,
        "behaviour": { "kind": "AsyncDelay", "ms": 4_000 },
    });
    fleet.bmcs().fault(rule).await
}

async fn asked(fleet: &Fleet, name: &str, resets: &[&str]) -> Result<()> {
    wait_for(&format!("{name}: {resets:?}"), LIMIT, async || {
        let asked = fleet.bmcs().resets(name).await?;
        Ok(if asked == resets { Look::Holds(()) } else { Look::NotYet(format!("{asked:?}")) })
    })
    .await
}

/// Wished one way, accepted, and wished the other way before it has come true.
async fn back(fleet: &Fleet, name: &str, (wish, then): (Value, Value), resets: [&str; 2]) -> Result<()> {
    slow(fleet, name).await?;
    fleet.change(name, json!({ "power": wish })).await?;
    asked(fleet, name, &resets[..1]).await?;
    fleet.change(name, json!({ "power": then })).await?;
    // Both took effect, in this order, although every look in between may have read what is wished.
    asked(fleet, name, &resets).await?;
    fleet.wait_ready(name).await?;
    let expected = if resets[1] == "on" { "On" } else { "Off" };
    let power = fleet.bmcs().power(name).await?;
    ensure!(power == expected, "{name} is {power} and Ready");
    Ok(())
}

/// Deleted with a power-off, which is given up for letting the machine go as it is.
async fn kept(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.change(name, json!({ "deletionPolicy": "PowerOff" })).await?;
    slow(fleet, name).await?;
    fleet.delete(name).await?;
    asked(fleet, name, &["off"]).await?;
    fleet.change(name, json!({ "deletionPolicy": "Retain" })).await?;
    fleet.wait_gone(name).await?;
    asked(fleet, name, &["off", "on"]).await?;
    ensure!(fleet.bmcs().power(name).await? == "On", "let go, and off");
    Ok(())
}

/// Paused while it goes off as it shall: nothing more is sent.
async fn paused(fleet: &Fleet, name: &str) -> Result<()> {
    slow(fleet, name).await?;
    fleet.change(name, json!({ "power": "PoweredOff" })).await?;
    asked(fleet, name, &["off"]).await?;
    fleet.change(name, json!({ "paused": true })).await?;
    wait_for(&format!("{name}: no job"), LIMIT, async || {
        let server = fleet.get(name).await?;
        let job = server.status.and_then(|status| status.job);
        Ok(if job.is_none() { Look::Holds(()) } else { Look::NotYet(format!("{job:?}")) })
    })
    .await?;
    fleet.change(name, json!({ "paused": false })).await?;
    fleet.wait_ready(name).await?;
    let power = fleet.bmcs().power(name).await?;
    ensure!(power == "Off", "{power}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_power_that_was_accepted_is_waited_for_and_undone_when_it_is_taken_back() {
    let fleet = Fleet::with(Layout::new(5).emulator(&["--initial-power", "on"])).await.unwrap();
    // The look of its period comes to nobody's help.
    let flags = fleet.controller_flags().set("--inspect-period", "1h");
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let flags = fleet.worker_flags().set("--shutdown-deadline", "12s");
    let _worker = fleet.worker_with("worker", &flags, &[]).await.unwrap();
    let names: Vec<String> = (1..=5).map(system).collect();
    for name in &names {
        fleet.declare(name, json!({})).await.unwrap();
        fleet.wait_ready(name).await.unwrap();
    }
    fleet.bmcs().press(&names[2], "Off").await.unwrap();
    fresh_look(&fleet, &names[2]).await.unwrap();
    tokio::try_join!(
        back(&fleet, &names[0], (json!("PoweredOff"), json!("PoweredOn")), ["off", "on"]),
        back(&fleet, &names[1], (json!("PoweredOff"), Value::Null), ["off", "on"]),
        back(&fleet, &names[2], (json!("PoweredOn"), json!("PoweredOff")), ["on", "off"]),
        kept(&fleet, &names[3]),
        paused(&fleet, &names[4]),
    )
    .unwrap();
    fleet.end().await.unwrap();
}

/// Begun, and taken back after the controller ended before it showed anything, and the worker died.
async fn unshown(fleet: &Fleet, name: &str, (wish, back): (Value, Value)) -> Result<()> {
    let flags = fleet.controller_flags();
    let leader = fleet.controller("leader").await?;
    let worker = fleet.worker("worker").await?;
    fleet.declare(name, json!({})).await?;
    fleet.wait_ready(name).await?;
    ensure!(leader.process().stop(LIMIT).await?.success());
    slow(fleet, name).await?;
    fleet.change(name, wish).await?;
    let kubeconfig = fleet.cluster().controller();
    let dies = [("FAILPOINTS", "controller.patch.before=return")];
    let _dying = fleet.launch("dying", &flags, kubeconfig, &dies).await?;
    asked(fleet, name, &["off"]).await?;
    worker.process().kill().await?;
    let job = fleet.get(name).await?.status.and_then(|status| status.job);
    ensure!(job.is_none(), "it was not to be shown: {job:?}");
    fleet.change(name, back).await?;
    let successors = (fleet.controller("next-leader").await?, fleet.worker("next-worker").await?);
    asked(fleet, name, &["off", "on"]).await?;
    fleet.wait_ready(name).await?;
    ensure!(fleet.bmcs().power(name).await? == "On", "{name} was left off");
    successors.0.process().stop(LIMIT).await?;
    successors.1.process().stop(LIMIT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_and_never_shown_is_undone_by_who_comes_after_all_that_knew_of_it() {
    let fleet = Fleet::with(Layout::new(2).emulator(&["--initial-power", "on"])).await.unwrap();
    let off = (json!({ "power": "PoweredOff" }), json!({ "power": null }));
    unshown(&fleet, &system(1), off).await.unwrap();
    let reboot = (json!({ "rebootToken": "one" }), json!({ "rebootToken": null }));
    unshown(&fleet, &system(2), reboot).await.unwrap();
    fleet.end().await.unwrap();
}

/// Runs a statement on the fleet's database, for one server.
async fn sql(fleet: &Fleet, text: &'static str, name: &str) -> Result<u64> {
    Ok(sqlx::query(text).bind(name).execute(fleet.records().pool()).await?.rows_affected())
}

/// Reboots it, and keeps the row that the job had while it waited for the machine to go off.
async fn rebooted_and_kept(fleet: &Fleet, name: &str, token: &str, resets: &[&str]) -> Result<()> {
    slow(fleet, name).await?;
    let kept_already: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM kept").fetch_one(fleet.records().pool()).await?;
    fleet.change(name, json!({ "rebootToken": token })).await?;
    let parked = "INSERT IGNORE INTO kept SELECT * FROM job WHERE name = ? AND request_stored = 1 AND owner IS NULL \
                  AND action = 'Reboot' LIMIT 1";
    wait_for("the job to be parked in mid-reboot", LIMIT, async || {
        sql(fleet, parked, name).await?;
        let kept: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM kept").fetch_one(fleet.records().pool()).await?;
        Ok(if kept > kept_already { Look::Holds(()) } else { Look::NotYet("not yet".to_owned()) })
    })
    .await?;
    asked(fleet, name, resets).await?;
    fleet.wait_ready(name).await?;
    Ok(())
}

/// Puts the row of that one back, with its seal: a worker wrote it. Waits until it is gone.
async fn put_back(fleet: &Fleet, name: &str, first: bool) -> Result<()> {
    let row = if first {
        "INSERT INTO job SELECT * FROM kept WHERE name = ? ORDER BY id LIMIT 1"
    } else {
        "INSERT INTO job SELECT * FROM kept WHERE name = ? ORDER BY id DESC LIMIT 1"
    };
    wait_for("no other job to be live", LIMIT, async || {
        Ok(match sql(fleet, row, name).await {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .await?;
    let place = "INSERT INTO queue (site, shard, state, ord, id, server_uid) SELECT site, shard, q_state, q_ord, id, server_uid FROM job \
                 WHERE name = ? AND action = 'Reboot'";
    ensure!(sql(fleet, place, name).await? == 1);
    wait_for("the row to go", LIMIT, async || {
        let left = fleet.records().number("SELECT COUNT(*) FROM job WHERE action = 'Reboot'").await?;
        Ok(if left == 0 { Look::Holds(()) } else { Look::NotYet(format!("{left} rows")) })
    })
    .await?;
    fresh_look(fleet, name).await?;
    fleet.wait_ready(name).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_backup_whose_jobs_have_ended_are_not_gone_on_with_and_tell_nothing() {
    let fleet = Fleet::with(Layout::new(1).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({})).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    sql(&fleet, "CREATE TABLE kept AS SELECT * FROM job WHERE name = ?", "nobody").await.unwrap();
    let resets = ["off", "on", "off", "on"];
    rebooted_and_kept(&fleet, &name, "one", &resets[..2]).await.unwrap();
    rebooted_and_kept(&fleet, &name, "two", &resets).await.unwrap();
    let last = async || fleet.get(&name).await.unwrap().status.unwrap().last_job.unwrap();
    let before = last().await;

    // The earlier one first: were it to become the last one that ended, nothing would speak against the other.
    for first in [true, false] {
        put_back(&fleet, &name, first).await.unwrap();
        let (now, asked) = (last().await, fleet.bmcs().resets(&name).await.unwrap());
        assert_eq!(asked, resets, "the earlier one: {first}");
        assert_eq!(now, before, "the earlier one: {first}");
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_step_was_put_back_does_not_do_again_what_its_job_has_done() {
    let emulator = ["--initial-power", "on", "--post-delay", "100", "--install-duration", "20000"];
    let fleet = Fleet::with(Layout::new(1).emulator(&emulator)).await.unwrap();
    let files = BootFiles::serve().await.unwrap();
    for name in ["one", "two"] {
        fleet.image(name, &files, &[&format!("release={name}")]).await.unwrap();
    }
    let _boot = fleet.boot("boot", &files).await.unwrap();
    let controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let name = system(1);
    fleet.declare(&name, json!({ "image": { "name": "one" }, "provisioning": "Adopt" })).await.unwrap();
    fleet.wait_ready(&name).await.unwrap();
    fleet.change(&name, json!({ "image": { "name": "two" }, "provisioning": "Install" })).await.unwrap();
    fleet
        .shown()
        .until(&name, "shown as being installed", |server| {
            let job = server.status.as_ref().and_then(|status| status.job.as_ref());
            job.is_some_and(|job| job.step == Step::AwaitInstall && job.progress.is_some())
        })
        .await
        .unwrap();
    let before = fleet.bmcs().resets(&name).await.unwrap();
    // What would stop the job is away.
    controller.process().kill().await.unwrap();
    let back = "UPDATE job SET step = 'PowerOff' WHERE name = ? AND step = 'AwaitInstall' AND owner IS NULL";
    wait_for("the row to be put back", LIMIT, async || {
        let done = sql(&fleet, back, &name).await?;
        Ok(if done == 1 { Look::Holds(()) } else { Look::NotYet("it is in a slot".to_owned()) })
    })
    .await
    .unwrap();
    let waits = "SELECT COUNT(*) FROM job WHERE step = 'PowerOff' AND waiting_for = 'Status' AND attempt > 1";
    let woken = "UPDATE queue JOIN job ON job.server_uid = queue.server_uid SET queue.ord = 1, job.q_ord = 1 WHERE job.name = ? \
                 AND queue.state = 3";
    sql(&fleet, woken, &name).await.unwrap();
    wait_for("the job to wait for status, or to go on", LIMIT, async || {
        let goes_on = fleet.bmcs().resets(&name).await? != before;
        let waits = fleet.records().number(waits).await? == 1;
        Ok(if goes_on || waits { Look::Holds(()) } else { Look::NotYet("neither".to_owned()) })
    })
    .await
    .unwrap();
    let _controller = fleet.controller("next-controller").await.unwrap();
    fleet
        .shown()
        .until(&name, "told to a person", |server| {
            message(server, ConditionType::Stalled, Reason::HistoryLost).is_some()
        })
        .await
        .unwrap();
    assert_eq!(fleet.bmcs().resets(&name).await.unwrap(), before, "its installer was running");
    fleet.end().await.unwrap();
}
