//! The primary dies, and the replica that is promoted lacks what was acknowledged last.

use std::time::Instant;

use autobuild::api::hardware::PowerState;
use autobuild::api::{Reason, Server};
use autobuild::job::{Action, JobState, Step};
use e2e::database::Engine;
use e2e::fleet::{LIMIT, is_ready};
use e2e::wait::{Look, say, wait_for};
use rstest::rstest;
use serde_json::json;

use crate::site::{
    Site, controller, expect_quiet, newest_request, offs_and_ons, reboot, rebooted, system, until_metric,
    until_started_over,
};

const SYSTEMS: usize = 6;

#[rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_promoted_replica_lacks_is_derived_again_and_what_was_done_is_not(#[case] engine: Engine) {
    if crate::is_left_out(engine) {
        return;
    }
    let begun = Instant::now();
    let site = Site::start(engine, SYSTEMS as u32).await;
    let fleet = &site.fleet;
    let controller = controller(fleet).await;
    let workers = [fleet.worker("worker-1").await.unwrap(), fleet.worker("worker-2").await.unwrap()];
    let [done, halfway, waiting, off, added, calm] = std::array::from_fn(|number| system(number + 1));
    for name in [&done, &halfway, &off, &calm] {
        fleet.declare(name, json!({})).await.unwrap();
    }
    // Its site gets a worker later.
    let served = fleet.worker_flags().set("--site", "later");
    let first = fleet.worker_with("later-1", &served, &[]).await.unwrap();
    fleet.declare(&waiting, json!({ "site": "later", "power": "PoweredOn" })).await.unwrap();
    for name in [&done, &halfway, &waiting, &off, &calm] {
        fleet.wait_ready(name).await.unwrap();
    }
    for name in [&done, &calm] {
        reboot(fleet, name, "a").await;
    }
    assert!(first.process().stop(LIMIT).await.unwrap().success());
    site.pair.caught_up().await.unwrap();
    site.pair.lag().await.unwrap();

    // From here on everything is acknowledged, shown, and lost.
    reboot(fleet, &done, "b").await;
    let no_on = json!({
        "system": halfway, "method": "POST", "path": "*Reset*", "skip": 1, "behaviour": { "kind": "Status", "status": 503 },
    });
    let no_on = fleet.bmcs().fault(no_on).await.unwrap();
    fleet.change(&halfway, json!({ "rebootToken": "b" })).await.unwrap();
    fleet.change(&waiting, json!({ "rebootToken": "b" })).await.unwrap();
    fleet.change(&off, json!({ "power": "PoweredOff" })).await.unwrap();
    fleet.declare(&added, json!({})).await.unwrap();
    fleet.wait_ready(&added).await.unwrap();
    reboot(fleet, &added, "b").await;
    fleet
        .wait(&off, "off", |server| is_ready(server) && power(server) == Some(PowerState::PoweredOff))
        .await
        .unwrap();
    fleet
        .wait(&halfway, "halfway through a reboot", |server| is_at(server, JobState::Waiting, Step::On))
        .await
        .unwrap();
    fleet
        .wait(&waiting, "a reboot that waits", |server| is_at(server, JobState::Queued, Step::Off))
        .await
        .unwrap();
    let before = fleet.get(&done).await.unwrap().status.unwrap().last_job;

    site.pair.kill_primary().await.unwrap();
    for worker in &workers {
        until_metric(worker, "autobuild_worker_slots", &[("state", "busy")], |busy| busy < 0.5).await;
    }
    site.pair.promote().await.unwrap();
    fleet.bmcs().mend(no_on).await.unwrap();
    let asked = newest_request(fleet, SYSTEMS).await.unwrap();
    let switched = Instant::now();
    site.fail_over();
    // One that starts now knows of no history before.
    let late = fleet.worker_with("later-2", &served, &[]);
    let quiet = expect_quiet(fleet, SYSTEMS, asked, switched);
    let (late, ()) = tokio::join!(late, quiet);
    let _late = late.unwrap();
    for worker in &workers {
        until_started_over(worker).await;
    }
    until_metric(&controller, "autobuild_other_histories_total", &[], |value| value >= 1.0).await;

    // The reboot that never began is derived again.
    rebooted(fleet, &waiting, "b").await;
    // The one that stayed halfway does not leave the machine off, and is not repeated: status has its token as handled.
    fleet
        .wait(&halfway, "Ready and on again", |server| {
            let status = server.status.as_ref();
            let handled = status.is_some_and(|status| status.reboot_tokens.iter().any(|token| token == "b"));
            let rests = status.is_some_and(|status| status.job.is_none());
            is_ready(server) && handled && rests && power(server) == Some(PowerState::PoweredOn)
        })
        .await
        .unwrap();
    fleet.wait_event(&halfway, Reason::HistoryLost).await.unwrap();
    fleet.wait_event(&added, Reason::RecordRebuilt).await.unwrap();
    for name in [&done, &off, &added, &calm] {
        fleet.wait_ready(name).await.unwrap();
    }
    until_records_agree(&site, &[&done, &halfway, &waiting, &off, &added, &calm]).await;
    assert_eq!(offs_and_ons(fleet, &done).await, (2, 2), "both were done");
    assert_eq!(offs_and_ons(fleet, &waiting).await, (1, 1));
    assert_eq!(offs_and_ons(fleet, &added).await, (1, 1));
    assert_eq!(offs_and_ons(fleet, &off).await, (1, 0));
    assert_eq!(offs_and_ons(fleet, &calm).await, (1, 1));
    assert_eq!(offs_and_ons(fleet, &halfway).await.0, 1, "its token was handled");
    assert_eq!(fleet.bmcs().power(&halfway).await.unwrap(), "On");
    let after = fleet.get(&done).await.unwrap().status.unwrap();
    assert_eq!((&after.last_job, after.reboot_tokens.len()), (&before, 2), "status takes nothing back");
    // Nothing stands in the way of what is asked for next.
    for name in [&done, &halfway, &added] {
        reboot(fleet, name, "c").await;
    }
    fleet.end().await.unwrap();
    say(format!("a lagging {} replica: {} s", engine.as_str(), begun.elapsed().as_secs()));
}

/// Whether status shows a reboot so, the first request of one that has begun included.
fn is_at(server: &Server, state: JobState, step: Step) -> bool {
    let Some(status) = &server.status else { return false };
    let handled = status.reboot_tokens.iter().any(|token| token == "b");
    let there = status
        .job
        .as_ref()
        .is_some_and(|job| job.action == Action::Reboot && job.state == state && job.step == step);
    there && handled == (state != JobState::Queued)
}

fn power(server: &Server) -> Option<PowerState> {
    server.status.as_ref().and_then(|status| status.power)
}

/// No job is left, and the feed was shown to its end.
async fn until_records_agree(site: &Site, names: &[&String]) {
    let records = site.fleet.records();
    wait_for("nothing to be left", LIMIT, async || {
        let jobs = records.number("SELECT COUNT(*) FROM job WHERE quiet = 0").await?;
        let feed =
            records.number("SELECT COUNT(*) FROM server_state WHERE changed_at_ms IS NOT NULL").await?;
        let known = records.number("SELECT COUNT(*) FROM server_state").await?;
        let all = jobs == 0 && feed == 0 && known == names.len() as i64;
        Ok(if all {
            Look::Holds(())
        } else {
            Look::NotYet(format!("{jobs} jobs, {feed} to show, {known} known"))
        })
    })
    .await
    .unwrap();
}
